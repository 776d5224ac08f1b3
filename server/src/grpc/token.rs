//! Who may administrate: a bearer of a token that is signed with a key made from the node's secret, or a user who logged in
//! (`session`).
//!
//! The first is a JWT (RFC 7519) that the administrator's program makes for itself, a minute long: so the secret
//! travels nowhere, and a token that was overheard is soon of no use. Only HS256 is taken, whatever a header says.
//! `docs/adr/0006-administrators.md` and `docs/adr/0011-users-and-roles.md` say why so.

use std::net::IpAddr;
use std::time::Duration;

use anvil_digest::hmac_sha256;
use anvil_model::access::{AdminAction, AdminRights};
use anvil_model::time::WallTime;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

use super::session::Sessions;
use super::status::{Code, Status};
use crate::auth::{Directory, Secret};
use crate::http::Head;

/// From where administrators may come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AdminFrom {
    /// From the node's own host.
    #[default]
    Loopback,
    /// From there, and from anywhere with TLS.
    Tls,
    /// From anywhere.
    Anywhere,
}

/// Who administrates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Administrator {
    /// The tenant of the node's own app.
    pub caller: anvil_node::Caller,
    /// For the audit: an access key, or `user:` and a name, which no access key begins with.
    pub who: String,
    /// His name, when it is a user; the node's own app is none.
    pub user: Option<String>,
    /// What he may do.
    pub rights: AdminRights,
}

impl Administrator {
    /// The decision about a call.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`.
    pub fn check(&self, action: AdminAction) -> Result<(), Status> {
        if self.rights.allow(action) {
            return Ok(());
        }
        let message = format!("the role of {} does not allow {action}", self.who);
        Err(Status::new(Code::PermissionDenied, "ROLE_DENIED", message))
    }
}

/// Decides who administrates. Shared by all cores, never changed.
#[derive(Debug)]
pub struct Authority {
    directory: Directory,
    sessions: Sessions,
    from: AdminFrom,
}

/// For whom a token is: other services of this node do not take it.
pub const AUDIENCE: &str = "anvil.v1.AdminService";
/// How long a token may be of use.
pub const LIFETIME_SECONDS_MAX: u64 = 300;
/// How long our own are.
const LIFETIME_SECONDS: u64 = 60;
/// How far two clocks may differ.
const SKEW_SECONDS: u64 = 60;
const TOKEN_BYTES_MAX: usize = 2048;
/// The key is not the secret: what signs S3 requests signs no token, and the other way round.
const KEY_LABEL: &[u8] = b"anvil admin token v1";
pub(super) const ALGORITHM: &str = "HS256";

#[derive(Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) alg: String,
    pub(super) typ: String,
    pub(super) kid: String,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    iat: u64,
    exp: u64,
    jti: String,
}

/// A token for one call, or several within a minute. `random` names it.
#[must_use]
pub fn make(access_key: &str, secret: &Secret, now: WallTime, random: u128) -> String {
    let header = Header { alg: ALGORITHM.to_owned(), typ: "JWT".to_owned(), kid: access_key.to_owned() };
    let iat = now.unix_ms / 1000;
    let claims = Claims {
        iss: access_key.to_owned(),
        aud: AUDIENCE.to_owned(),
        iat,
        exp: iat + LIFETIME_SECONDS,
        jti: format!("{random:032x}"),
    };
    let part = |json: Vec<u8>| URL_SAFE_NO_PAD.encode(json);
    let encode = "plain structs become JSON";
    let signed = format!(
        "{}.{}",
        part(serde_json::to_vec(&header).expect(encode)),
        part(serde_json::to_vec(&claims).expect(encode))
    );
    let signature = URL_SAFE_NO_PAD.encode(sign(secret, signed.as_bytes()));
    format!("{signed}.{signature}")
}

fn sign(secret: &Secret, text: &[u8]) -> [u8; 32] {
    hmac_sha256(&hmac_sha256(secret.expose().as_bytes(), KEY_LABEL), text)
}

impl Authority {
    /// Takes tokens that the node's own app in `directory` signed, those of `sessions`, and who comes from there.
    #[must_use]
    pub fn new(directory: Directory, sessions: Sessions, from: AdminFrom) -> Self {
        Self { directory, sessions, from }
    }

    /// Gives users their tokens.
    #[must_use]
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Decides over the head of a call; `is_tls` says how it came.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` by where it comes from, `UNAUTHENTICATED` by its token.
    pub fn check(&self, head: &Head, is_tls: bool, now: WallTime) -> Result<Administrator, Status> {
        self.check_origin(head, is_tls)?;
        let token = bearer(head).ok_or_else(missing)?;
        if token.len() > TOKEN_BYTES_MAX {
            return Err(wrong());
        }
        let kid = json::<Header>(token.split('.').next().unwrap_or_default())?.kid;
        let (who, user, rights) = if self.sessions.signed(&kid, now) {
            let (name, rights) = self.sessions.check(token, now)?;
            (format!("user:{name}"), Some(name), rights)
        } else {
            (self.verify(token, now)?, None, AdminRights::all())
        };
        let tenant = self.directory.own_tenant().ok_or_else(wrong)?;
        Ok(Administrator { caller: anvil_node::Caller { tenant }, who, user, rights })
    }

    /// Decides from where somebody comes who has no token yet.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`.
    pub fn check_origin(&self, head: &Head, is_tls: bool) -> Result<(), Status> {
        // A proxy on this host speaks for others.
        let is_forwarded = head.headers.iter().any(|(name, _)| FORWARDED.contains(&name.as_str()));
        let is_local = is_loopback(head.peer.ip()) && !is_forwarded;
        let may_come = match self.from {
            AdminFrom::Loopback => is_local,
            AdminFrom::Tls => is_local || is_tls,
            AdminFrom::Anywhere => true,
        };
        let refused = match self.from {
            AdminFrom::Loopback => "administrators come from the node's own host; --admin-from says otherwise",
            _ => "administrators come from the node's own host, or with TLS; --admin-from says otherwise",
        };
        if may_come { Ok(()) } else { Err(Status::new(Code::PermissionDenied, "ADMIN_FROM_ELSEWHERE", refused)) }
    }

    fn verify(&self, token: &str, now: WallTime) -> Result<String, Status> {
        let (signed, signature) = token.rsplit_once('.').ok_or_else(wrong)?;
        let (header, claims) = signed.split_once('.').ok_or_else(wrong)?;
        let header: Header = json(header)?;
        if header.alg != ALGORITHM {
            return Err(wrong());
        }
        let credential = self.directory.find_own(&header.kid).ok_or_else(wrong)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| wrong())?;
        if !bool::from(sign(&credential.secret, signed.as_bytes()).ct_eq(signature.as_slice())) {
            return Err(wrong());
        }
        let Claims { iss, aud, iat, exp, jti } = json(claims)?;
        if iss != header.kid || aud != AUDIENCE || jti.is_empty() {
            return Err(wrong());
        }
        let now = now.unix_ms / 1000;
        let is_current = iat <= now.saturating_add(SKEW_SECONDS) && now < exp.saturating_add(SKEW_SECONDS);
        if !is_current || exp < iat || exp - iat > LIFETIME_SECONDS_MAX {
            let message = "the token is not valid now: compare the clocks of client and node";
            return Err(Status::new(Code::Unauthenticated, "TOKEN_EXPIRED", message));
        }
        Ok(header.kid)
    }
}

/// The token that a call bears.
pub(super) fn bearer(head: &Head) -> Option<&str> {
    let (scheme, token) = head.header("authorization")?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

pub(super) fn json<T: for<'a> Deserialize<'a>>(part: &str) -> Result<T, Status> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| wrong())?;
    serde_json::from_slice(&bytes).map_err(|_| wrong())
}

fn missing() -> Status {
    let message = "this call takes an administrator's token in `authorization: Bearer`";
    Status::new(Code::Unauthenticated, "TOKEN_MISSING", message)
}

/// Which part is wrong is nobody's business.
pub(super) fn wrong() -> Status {
    Status::new(Code::Unauthenticated, "TOKEN_WRONG", "the token is not one of this node's administrators")
}

/// A token of a user that is not good any more.
pub(super) fn expired() -> Status {
    let message = "the token is not valid any more: log in again with `anvil admin login`";
    Status::new(Code::Unauthenticated, "TOKEN_EXPIRED", message)
}

/// Users cannot be looked up.
pub(super) fn away() -> Status {
    let message = "the users are not known at the moment";
    Status::new(Code::Unavailable, "ACCESS_AWAY", message).retry_after(Duration::from_secs(1))
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

/// What proxies add.
const FORWARDED: [&str; 4] = ["forwarded", "via", "x-forwarded-for", "x-real-ip"];

#[cfg(test)]
mod tests {
    use anvil_model::ids::TenantId;

    use super::*;
    use crate::auth::{Credential, Ring};

    const NOW: WallTime = WallTime { unix_ms: 1_700_000_000_000 };

    fn secret(text: &str) -> Secret {
        Secret::new(text).unwrap()
    }

    fn authority(from: AdminFrom) -> Authority {
        let credential = Credential::own(secret("the-secret-of-the-node"), TenantId(7));
        let directory = Directory::new([("KEY".to_owned(), credential)]);
        let ring = Ring::new(directory.clone(), secret("the-secret-of-the-tokens"));
        let sessions = Sessions::new(directory.clone(), ring);
        Authority::new(directory, sessions, from)
    }

    fn head(peer: &str, headers: &[(&str, &str)]) -> Head {
        Head {
            method: "POST".to_owned(),
            path: "/anvil.v1.AdminService/ListDisks".to_owned(),
            query: None,
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect(),
            peer: peer.parse().unwrap(),
            request_id: "R".to_owned(),
        }
    }

    fn reason(token: &str, now: WallTime) -> &'static str {
        let bearer = format!("Bearer {token}");
        let checked =
            authority(AdminFrom::Loopback).check(&head("127.0.0.1:1", &[("authorization", &bearer)]), false, now);
        checked.map_or_else(|status| status.reason, |who| if who.caller.tenant == TenantId(7) { "OK" } else { "?" })
    }

    fn token() -> String {
        make("KEY", &secret("the-secret-of-the-node"), NOW, 5)
    }

    /// The parts of a token, changed and signed anew.
    fn forged(change: impl Fn(&str, &str) -> (String, String)) -> String {
        let token = token();
        let parts: Vec<String> = token
            .split('.')
            .take(2)
            .map(|part| String::from_utf8(URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap())
            .collect();
        let (header, claims) = change(&parts[0], &parts[1]);
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = sign(&secret("the-secret-of-the-node"), signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    #[test]
    fn a_token_is_good_for_a_minute() {
        let at = |seconds: i64| WallTime { unix_ms: NOW.unix_ms.checked_add_signed(seconds * 1000).unwrap() };
        assert_eq!(reason(&token(), NOW), "OK");
        assert_eq!((reason(&token(), at(119)), reason(&token(), at(-60))), ("OK", "OK"));
        assert_eq!((reason(&token(), at(120)), reason(&token(), at(-61))), ("TOKEN_EXPIRED", "TOKEN_EXPIRED"));
    }

    #[test]
    fn only_what_the_secret_signed_is_believed() {
        let other = make("KEY", &secret("another-secret"), NOW, 5);
        let unknown = make("OTHER", &secret("the-secret-of-the-node"), NOW, 5);
        let token = token();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let cut = format!("{signed}.{}", &signature[..signature.len() - 2]);
        let raw_secret = "the-secret-of-the-node";
        for wrong in [&other, &unknown, &cut, signed, raw_secret, "", "a.b", "a.b.c", &"x.".repeat(2000)] {
            assert_eq!(reason(wrong, NOW), "TOKEN_WRONG", "{wrong}");
        }
        let changed: &[(&str, &str)] = &[
            ("HS256", "none"),
            ("HS256", "HS512"),
            (AUDIENCE, "anvil.v1.ObjectService"),
            ("\"iss\":\"KEY\"", "\"iss\":\"YOU\""),
            ("00000000000000000000000000000005", ""),
            ("jti", "jit"),
            ("\"exp\":", "\"ex\":"),
        ];
        for (from, to) in changed {
            let token = forged(|header, claims| (header.replace(from, to), claims.replace(from, to)));
            assert_eq!(reason(&token, NOW), "TOKEN_WRONG", "{from} as {to}");
        }
        let long = forged(|header, claims| (header.to_owned(), claims.replace("1700000060", "1700000301")));
        assert_eq!(reason(&long, NOW), "TOKEN_EXPIRED", "nobody makes tokens for hours");
        let good = forged(|header, claims| (header.to_owned(), claims.to_owned()));
        assert_eq!(reason(&good, NOW), "OK");
    }

    #[test]
    fn a_token_comes_once_and_as_a_bearers() {
        let (bearer, basic) = (format!("Bearer {}", token()), format!("Basic {}", token()));
        let check = |headers: &[(&str, &str)]| {
            let checked = authority(AdminFrom::Loopback).check(&head("[::1]:1", headers), false, NOW);
            checked.map_err(|status| status.reason).map(drop)
        };
        assert_eq!(check(&[("authorization", &bearer)]), Ok(()));
        assert_eq!(check(&[("authorization", &bearer.replace("Bearer", "bearer"))]), Ok(()));
        for headers in
            [&[][..], &[("authorization", basic.as_str())], &[("authorization", &bearer), ("authorization", &bearer)]]
        {
            assert_eq!(check(headers), Err("TOKEN_MISSING"));
        }
    }

    #[test]
    fn administrators_come_from_where_they_may() {
        let bearer = format!("Bearer {}", token());
        let check = |from, peer: &str, is_tls, forwarded: &[(&str, &str)]| {
            let headers = [&[("authorization", bearer.as_str())], forwarded].concat();
            authority(from).check(&head(peer, &headers), is_tls, NOW).is_ok()
        };
        use AdminFrom::{Anywhere, Loopback, Tls};
        let (here, there) = ("127.0.0.9:1", "10.0.0.1:1");
        let through_proxy = &[("x-forwarded-for", "10.0.0.1")];
        assert!(check(Loopback, here, false, &[]) && check(Loopback, "[::ffff:127.0.0.1]:1", false, &[]));
        assert!(!check(Loopback, there, true, &[]) && !check(Loopback, here, false, through_proxy));
        assert!(check(Tls, there, true, &[]) && check(Tls, here, false, &[]) && !check(Tls, there, false, &[]));
        assert!(check(Anywhere, there, false, through_proxy));
    }
}
