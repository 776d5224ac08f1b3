//! Who asks for buckets and objects: a bearer of a token that this node, or another one with the same key, gave to an app.
//!
//! The token is a JWT (RFC 7519), only HS256, a quarter of an hour long. It names the app and what it is good for; what
//! the app may do is looked up anew with each call, so that what was revoked counts at once.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use anvil_model::access::{Action, ActionPattern, Grant, Identity, Pattern, Resource, Rights, decide};
use anvil_model::ids::TenantId;
use anvil_model::time::WallTime;
use anvil_node::Caller;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

use super::status::{Code, Status};
use super::token;
use crate::auth::{Directory, Ring, Secret, TOKEN_SKEW_SECONDS, TokenKeys, TokenKind, Unknown};
use crate::data_dir::{DataDir, DataDirError, FILE_VERSION};
use crate::http::Head;

/// Gives tokens and believes them. Shared by all cores.
#[derive(Debug)]
pub struct Tokens {
    directory: Directory,
    ring: Ring,
}

/// Who asks, and what the token is good for.
#[derive(Clone, Debug)]
pub struct Asker {
    /// Its client id.
    app: String,
    token_id: String,
    identity: Identity,
    scopes: Rights,
    /// What it was allowed last: what a call that streams is about. Clones share it.
    about: Rc<RefCell<Option<About>>>,
}

/// Something that was allowed, on an object or whatever else it was about.
#[derive(Clone, Debug)]
struct About {
    action: Action,
    bucket: String,
    key: String,
}

/// How long a token is good.
pub const LIFETIME_SECONDS: u32 = 900;
const ISSUER: &str = "anvil";
const AUDIENCE: &str = "anvil.v1";
const ALGORITHM: &str = "HS256";
const TOKEN_BYTES_MAX: usize = 8192;
const SCOPES_MAX: usize = 32;
const SCOPES_BYTES_MAX: usize = 4096;
/// Where a secret that nobody chose is kept.
const FILE: &str = "access-tokens.json";

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    typ: String,
    kid: String,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    iat: u64,
    exp: u64,
    jti: String,
    #[serde(default)]
    scopes: Vec<String>,
}

/// The file that a secret is kept in.
#[derive(Serialize, Deserialize)]
struct Kept {
    version: u32,
    secret: String,
}

/// The secret that tokens are signed with: the one that the operator chose, or one that is drawn at the first start and
/// kept for its owner's eyes only.
///
/// # Errors
/// When the data directory cannot be read or written.
pub fn secret(data: &DataDir, chosen: Option<Secret>) -> Result<Secret, DataDirError> {
    if let Some(chosen) = chosen {
        return Ok(chosen);
    }
    let damaged = |what: &str| DataDirError::Damaged { path: data.path().join(FILE), what: what.to_owned() };
    if let Some(Kept { secret, .. }) = data.read(FILE)? {
        return Secret::new(&secret).map_err(|error| damaged(&error.to_string()));
    }
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the system has random numbers");
    let secret = URL_SAFE_NO_PAD.encode(bytes);
    data.write(FILE, &Kept { version: FILE_VERSION, secret: secret.clone() })?;
    Ok(Secret::new(&secret).expect("43 visible characters"))
}

impl Tokens {
    /// Tokens for the apps of `directory`, signed with a key of `ring`.
    #[must_use]
    pub fn new(directory: Directory, ring: Ring) -> Self {
        Self { directory, ring }
    }

    /// What they are signed with.
    #[must_use]
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// A token for an app that knows its secret; `random` names it.
    ///
    /// # Errors
    /// When it does not, or a scope cannot be meant.
    pub fn give(
        &self,
        client_id: &str,
        client_secret: &str,
        scopes: Vec<String>,
        now: WallTime,
        random: u128,
    ) -> Result<String, Status> {
        let wrong = || {
            let message = "no app has this client id and this secret";
            Status::new(Code::Unauthenticated, "CREDENTIALS_WRONG", message)
        };
        let credential = self.directory.find(client_id).map_err(|unknown| refused(unknown, wrong()))?;
        if !bool::from(credential.secret.expose().as_bytes().ct_eq(client_secret.as_bytes())) {
            return Err(wrong());
        }
        self.mint(client_id, scopes, LIFETIME_SECONDS, now, random)
    }

    /// A token for an app, good for so many seconds; `random` names it.
    ///
    /// # Errors
    /// When a scope cannot be meant, or it is not known now what signs.
    pub fn mint(
        &self,
        client_id: &str,
        scopes: Vec<String>,
        lifetime_seconds: u32,
        now: WallTime,
        random: u128,
    ) -> Result<String, Status> {
        let bytes: usize = scopes.iter().map(String::len).sum();
        if scopes.len() > SCOPES_MAX || bytes > SCOPES_BYTES_MAX {
            let message = format!("a token has at most {SCOPES_MAX} scopes, of {SCOPES_BYTES_MAX} bytes together");
            return Err(Status::new(Code::InvalidArgument, "INVALID_SCOPE", message));
        }
        read_scopes(&scopes)?;
        let iat = now.unix_ms / 1000;
        let keys = self.ring.signer().map_err(|unknown| refused(unknown, wrong()))?;
        let header = Header { alg: ALGORITHM.to_owned(), typ: "JWT".to_owned(), kid: keys.id().to_owned() };
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: client_id.to_owned(),
            iat,
            exp: iat + u64::from(lifetime_seconds),
            jti: format!("{random:032x}"),
            scopes,
        };
        Ok(sign(&keys, &header, &claims))
    }

    /// Finds out from the head of a call who asks.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`, and why.
    pub fn check(&self, head: &Head, now: WallTime) -> Result<Asker, Status> {
        let missing = || {
            let message = "this call takes a token of AuthService in `authorization: Bearer`";
            Status::new(Code::Unauthenticated, "TOKEN_MISSING", message)
        };
        let claims = self.verify(token::bearer(head).ok_or_else(missing)?, now)?;
        let now = now.unix_ms / 1000;
        let is_over = now >= claims.exp.saturating_add(TOKEN_SKEW_SECONDS);
        if is_over || claims.iat > now.saturating_add(TOKEN_SKEW_SECONDS) || self.ring.denies(&claims.jti) {
            return Err(expired());
        }
        let credential = self.directory.find(&claims.sub).map_err(|unknown| refused(unknown, wrong()))?;
        let scopes = read_scopes(&claims.scopes)?;
        Ok(Asker {
            app: claims.sub,
            token_id: claims.jti,
            identity: credential.identity.clone(),
            scopes,
            about: Rc::default(),
        })
    }

    /// Finds out whether a call that goes on may still do what it was allowed, by what is known of its app now.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` when there is no such app any more or its token was denied, `PERMISSION_DENIED` when it lost the
    /// right.
    pub fn still(&self, asker: &Asker) -> Result<(), Status> {
        if self.ring.denies(&asker.token_id) {
            return Err(expired());
        }
        let credential = self.directory.find(&asker.app).map_err(|unknown| refused(unknown, wrong()))?;
        let about = asker.about.borrow();
        let Some(About { action, bucket, key }) = &*about else { return Ok(()) };
        let permit = decide(Some(&credential.identity), *action, Resource::Object { bucket, key }, None);
        permit.map(drop).ok_or_else(denied)
    }

    /// Whether it is the node's own app that asks.
    #[must_use]
    pub fn is_own(&self, asker: &Asker) -> bool {
        self.directory.find_own(&asker.app).is_some()
    }

    fn verify(&self, token: &str, now: WallTime) -> Result<Claims, Status> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(wrong());
        }
        let (signed, signature) = token.rsplit_once('.').ok_or_else(wrong)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| wrong())?;
        let (header, claims) = signed.split_once('.').ok_or_else(wrong)?;
        let header: Header = json(header)?;
        let keys = self.ring.find(&header.kid, now).map_err(|unknown| refused(unknown, wrong()))?;
        if !keys.signed(TokenKind::App, signed.as_bytes(), &signature) {
            return Err(wrong());
        }
        let claims: Claims = json(claims)?;
        if header.alg != ALGORITHM || claims.iss != ISSUER || claims.aud != AUDIENCE || claims.jti.is_empty() {
            return Err(wrong());
        }
        Ok(claims)
    }
}

impl Asker {
    /// The client id of the app that asks.
    #[must_use]
    pub fn app(&self) -> &str {
        &self.app
    }

    /// Whose app it is.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.identity.tenant
    }

    /// Decides whether rights on a resource may be shared: by `how`, and of `what`, where that counts.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`.
    pub fn may_share(&self, how: Action, what: Option<ActionPattern>, on: &Pattern) -> Result<(), Status> {
        let mut wanted = what.into_iter().chain([ActionPattern::One(how)]);
        let covered = |action| self.identity.rights.cover(action, on) && self.scopes.cover(action, on);
        if wanted.all(covered) { Ok(()) } else { Err(denied()) }
    }

    /// Decides whether this may be done, in whose name.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`.
    pub fn may(&self, action: Action, resource: Resource<'_>) -> Result<Caller, Status> {
        let permit = decide(Some(&self.identity), action, resource, None);
        if let Resource::Object { bucket, key } = resource {
            self.about.replace(Some(About { action, bucket: bucket.to_owned(), key: key.to_owned() }));
        }
        match permit.filter(|_| self.scopes.allow(action, resource)) {
            Some(permit) => Ok(Caller { tenant: permit.tenant() }),
            None => Err(denied()),
        }
    }

    /// That an object is not there is told only to those who may list: others could find out what there is.
    #[must_use]
    pub fn told(&self, status: Status, bucket: &str, key: &str) -> Status {
        let is_missing = status.reason == "NO_SUCH_OBJECT";
        if is_missing && self.may(Action::ObjectList, Resource::Keys { bucket, prefix: key }).is_err() {
            return denied();
        }
        status
    }
}

fn sign(keys: &TokenKeys, header: &Header, claims: &Claims) -> String {
    let encode = "plain structs become JSON";
    let header = URL_SAFE_NO_PAD.encode(serde_json::to_vec(header).expect(encode));
    let claims = URL_SAFE_NO_PAD.encode(serde_json::to_vec(claims).expect(encode));
    let signed = format!("{header}.{claims}");
    let signature = URL_SAFE_NO_PAD.encode(keys.sign(TokenKind::App, signed.as_bytes()));
    format!("{signed}.{signature}")
}

/// Why nobody comes in as this app.
fn refused(unknown: Unknown, nobody: Status) -> Status {
    match unknown {
        Unknown::Nobody => nobody,
        Unknown::NotNow => {
            let message = "the apps are not known at the moment";
            Status::new(Code::Unavailable, "ACCESS_AWAY", message).retry_after(Duration::from_secs(1))
        }
    }
}

fn denied() -> Status {
    Status::new(Code::PermissionDenied, "ACCESS_DENIED", "the app, or its token, may not do this here")
}

/// What a token is good for.
fn read_scopes(scopes: &[String]) -> Result<Rights, Status> {
    if scopes.is_empty() {
        return Ok(Rights::All);
    }
    let grants = scopes.iter().map(|scope| {
        let wrong = |why: &dyn std::fmt::Display| {
            let message = format!("a scope is action|resource, and this one is not: {why}");
            Status::new(Code::InvalidArgument, "INVALID_SCOPE", message).about("scope", scope)
        };
        let (action, resource) = scope.split_once('|').ok_or_else(|| wrong(&"it has no |"))?;
        let action = action.parse().map_err(|error| wrong(&error))?;
        let resource = resource.parse().map_err(|error| wrong(&error))?;
        Ok(Grant { action, resource })
    });
    Ok(Rights::Granted(grants.collect::<Result<Vec<_>, Status>>()?.into()))
}

fn json<T: for<'a> Deserialize<'a>>(part: &str) -> Result<T, Status> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| wrong())?;
    serde_json::from_slice(&bytes).map_err(|_| wrong())
}

fn expired() -> Status {
    let message = "the token is not valid any more: ask for another one";
    Status::new(Code::Unauthenticated, "TOKEN_EXPIRED", message)
}

/// Which part is wrong is nobody's business.
fn wrong() -> Status {
    Status::new(Code::Unauthenticated, "TOKEN_WRONG", "the token is none that this node gave")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Credential;

    const NOW: WallTime = WallTime { unix_ms: 1_700_000_000_000 };
    const OBJECT: Resource<'_> = Resource::Object { bucket: "docs", key: "a/b" };

    fn tokens(secret: &str) -> Tokens {
        let credential = Credential::own(Secret::new("the-secret-of-the-app").unwrap(), TenantId(7));
        let directory = Directory::new([("APP".to_owned(), credential)]);
        Tokens::new(directory.clone(), Ring::new(directory, Secret::new(secret).unwrap()))
    }

    fn given(scopes: &[&str]) -> Result<String, Status> {
        let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        tokens("the-secret-of-the-node").give("APP", "the-secret-of-the-app", scopes, NOW, 5)
    }

    fn check(token: &str, at_seconds: u64) -> Result<Asker, &'static str> {
        let now = WallTime { unix_ms: NOW.unix_ms + at_seconds * 1000 };
        tokens("the-secret-of-the-node").check(&head(token), now).map_err(|status| status.reason)
    }

    #[test]
    fn a_token_is_good_for_a_quarter_of_an_hour() {
        let token = given(&[]).unwrap();
        assert_eq!(check(&token, 0).unwrap().may(Action::ObjectRead, OBJECT).unwrap().tenant, TenantId(7));
        assert!(check(&token, 959).is_ok());
        assert_eq!(check(&token, 960).unwrap_err(), "TOKEN_EXPIRED");
    }

    fn head(token: &str) -> Head {
        Head {
            method: "POST".to_owned(),
            path: "/anvil.v1.ObjectService/HeadObject".to_owned(),
            query: None,
            headers: vec![("authorization".to_owned(), format!("Bearer {token}").into_bytes())],
            peer: "127.0.0.1:1".parse().unwrap(),
            request_id: "R".to_owned(),
        }
    }

    /// Goal: a token is of no use without its app, or when it was denied, and other tokens are. Method: an app that comes and
    /// goes, two tokens of it.
    #[test]
    fn a_token_ends_with_its_app_and_when_it_is_denied() {
        use anvil_model::access::{AppName, Command, State};
        let tokens = tokens("the-secret-of-the-node");
        let publish = |state: &State| {
            tokens
                .directory
                .publish(crate::auth::Known::of(state.clone(), |_, _| Secret::new("the-secret-of-web").ok()));
        };
        let reason = |token: &str| tokens.check(&head(token), NOW).map_or_else(|status| status.reason, |_| "OK");
        let create = |client_id: &str| Command::CreateApp {
            tenant: "default".to_owned(),
            name: "web".to_owned(),
            client_id: client_id.to_owned(),
            sealed_secret: Vec::new(),
        };
        let change = |state: &State, command| {
            let state = state.apply(&command, TenantId(7), NOW).unwrap();
            publish(&state);
            state
        };
        let state = change(&State::new(TenantId(7), NOW), create("id"));
        let first = tokens.give("id", "the-secret-of-web", Vec::new(), NOW, 1).unwrap();
        let minted = tokens.mint("id", vec!["object:read|*".to_owned()], 60, NOW, 2).unwrap();
        assert_eq!((reason(&first), reason(&minted)), ("OK", "OK"));
        let running = tokens.check(&head(&minted), NOW).unwrap();
        assert!(tokens.still(&running).is_ok());
        let until = WallTime { unix_ms: u64::MAX };
        let state = change(&state, Command::DenyToken { id: format!("{:032x}", 2), until });
        assert_eq!((reason(&first), reason(&minted)), ("OK", "TOKEN_EXPIRED"));
        assert_eq!(tokens.still(&running).unwrap_err().reason, "TOKEN_EXPIRED", "a call that goes on ends");
        let state = change(&state, Command::DeleteApp { app: AppName { tenant: None, name: "web".to_owned() } });
        assert_eq!(reason(&first), "TOKEN_WRONG", "its app is gone");
        change(&state, create("another id"));
        assert_eq!(reason(&first), "TOKEN_WRONG", "another app of its name is another one");
        tokens.directory.forget();
        assert_eq!(reason(&first), "ACCESS_AWAY");
    }

    #[test]
    fn what_others_signed_is_nothing() {
        let token = given(&[]).unwrap();
        let foreign = tokens("another-secret-of-a-node").give("APP", "the-secret-of-the-app", vec![], NOW, 5).unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let unsigned = format!("{signed}.");
        let cut = format!("{signed}.{}", &signature[1..]);
        for wrong in [foreign.as_str(), &unsigned, &cut, "", ".", "..", "a.b.c", &"x".repeat(9000)] {
            assert_eq!(check(wrong, 0).unwrap_err(), "TOKEN_WRONG", "{wrong}");
        }
        // An administrator's own token says nothing here.
        let secret = Secret::new("the-secret-of-the-app").unwrap();
        assert_eq!(check(&token::make("APP", &secret, NOW, 1), 0).unwrap_err(), "TOKEN_WRONG");
    }

    #[test]
    fn only_who_knows_the_secret_gets_a_token() {
        let tokens = tokens("the-secret-of-the-node");
        for (id, secret) in [("APP", "wrong"), ("APP", ""), ("NOBODY", "the-secret-of-the-app")] {
            let refused = tokens.give(id, secret, Vec::new(), NOW, 1).unwrap_err();
            assert_eq!((refused.code, refused.reason), (Code::Unauthenticated, "CREDENTIALS_WRONG"));
        }
    }

    #[test]
    fn a_scope_narrows_a_token() {
        let asker = check(&given(&["object:read|docs/a/*", "bucket:*|*"]).unwrap(), 0).unwrap();
        assert!(asker.may(Action::ObjectRead, OBJECT).is_ok());
        assert!(asker.may(Action::BucketCreate, Resource::Bucket("x")).is_ok());
        assert_eq!(asker.may(Action::ObjectWrite, OBJECT).unwrap_err().code, Code::PermissionDenied);
        let other = Resource::Object { bucket: "docs", key: "b" };
        assert_eq!(asker.may(Action::ObjectRead, other).unwrap_err().code, Code::PermissionDenied);
        let missing = || Status::new(Code::NotFound, "NO_SUCH_OBJECT", "x");
        assert_eq!(asker.told(missing(), "docs", "a/b").reason, "ACCESS_DENIED");
        let lister = check(&given(&["object:*|*"]).unwrap(), 0).unwrap();
        assert_eq!(lister.told(missing(), "docs", "a/b").reason, "NO_SUCH_OBJECT");
        for wrong in ["", "object:read", "object:none|*", "object:read|"] {
            assert_eq!(given(&[wrong]).unwrap_err().reason, "INVALID_SCOPE", "{wrong}");
        }
        assert_eq!(given(&["*|*"; 33]).unwrap_err().reason, "INVALID_SCOPE");
    }

    #[test]
    fn a_secret_is_drawn_once_and_shown_to_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let data = DataDir::open(directory.path()).unwrap();
        let drawn = secret(&data, None).unwrap();
        assert_eq!(secret(&data, None).unwrap(), drawn);
        let chosen = Secret::new("chosen-by-the-operator-long-enough").unwrap();
        assert_eq!(secret(&data, Some(chosen.clone())).unwrap(), chosen);
        assert!(!format!("{:?}", tokens("do-not-print-me")).contains("do-not-print-me"));
    }
}
