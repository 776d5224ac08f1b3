//! The tokens of people who logged in with a password. They administrate, as their roles allow at the time of each call.
//!
//! A JWT (RFC 7519), only HS256, an hour long. It names the user and the password that it was got with; a user who is
//! gone, or has another password since, does not come in with it.

use anvil_model::access::{AdminRights, User};
use anvil_model::time::WallTime;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::status::Status;
use super::token::{ALGORITHM, AUDIENCE, Header, away, expired, json, wrong};
use crate::auth::{Directory, Ring, TOKEN_SECONDS_MAX, TOKEN_SKEW_SECONDS, TokenKind, Unknown};

/// Gives such tokens and believes them.
#[derive(Debug)]
pub struct Sessions {
    directory: Directory,
    ring: Ring,
}

/// How long a token is good.
pub const LIFETIME_SECONDS: u32 = TOKEN_SECONDS_MAX;
const ISSUER: &str = "anvil";

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    iat: u64,
    exp: u64,
    jti: String,
    /// [`User::credential`].
    credential: u64,
}

impl Sessions {
    /// Tokens for the users of `directory`, signed with a key of `ring`.
    #[must_use]
    pub fn new(directory: Directory, ring: Ring) -> Self {
        Self { directory, ring }
    }

    /// A token for a user who gave his password; `random` names it.
    ///
    /// # Errors
    /// When it is not known now what signs.
    pub fn give(&self, username: &str, user: &User, now: WallTime, random: u128) -> Result<String, Status> {
        let keys = self.ring.signer().map_err(|_| away())?;
        let header = Header { alg: ALGORITHM.to_owned(), typ: "JWT".to_owned(), kid: keys.id().to_owned() };
        let iat = now.unix_ms / 1000;
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: username.to_owned(),
            iat,
            exp: iat + u64::from(LIFETIME_SECONDS),
            jti: format!("{random:032x}"),
            credential: user.credential,
        };
        let encode = "plain structs become JSON";
        let header = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&header).expect(encode));
        let claims = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&claims).expect(encode));
        let signed = format!("{header}.{claims}");
        let signature = URL_SAFE_NO_PAD.encode(keys.sign(TokenKind::User, signed.as_bytes()));
        Ok(format!("{signed}.{signature}"))
    }

    /// Whether a token with this key id is one of these, as far as that is known now.
    pub(super) fn signed(&self, kid: &str, now: WallTime) -> bool {
        match self.ring.find(kid, now) {
            Ok(_) => true,
            Err(Unknown::Nobody) => false,
            Err(Unknown::NotNow) => self.directory.find_own(kid).is_none(),
        }
    }

    /// Who bears a token, and what he may do now.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`, and why; `UNAVAILABLE` when the users are not known now.
    pub(super) fn check(&self, token: &str, now: WallTime) -> Result<(String, AdminRights), Status> {
        let (signed, signature) = token.rsplit_once('.').ok_or_else(wrong)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| wrong())?;
        let (header, claims) = signed.split_once('.').ok_or_else(wrong)?;
        let header: Header = json(header)?;
        let keys = self.ring.find(&header.kid, now).map_err(|unknown| match unknown {
            Unknown::Nobody => wrong(),
            Unknown::NotNow => away(),
        })?;
        if !keys.signed(TokenKind::User, signed.as_bytes(), &signature) {
            return Err(wrong());
        }
        let claims: Claims = json(claims)?;
        if header.alg != ALGORITHM || claims.iss != ISSUER || claims.aud != AUDIENCE || claims.jti.is_empty() {
            return Err(wrong());
        }
        let now = now.unix_ms / 1000;
        let is_over = now >= claims.exp.saturating_add(TOKEN_SKEW_SECONDS);
        if is_over || claims.iat > now.saturating_add(TOKEN_SKEW_SECONDS) || self.ring.denies(&claims.jti) {
            return Err(expired());
        }
        let known = self.directory.known().ok_or_else(away)?;
        let (user, rights) = known.state.user(&claims.sub).ok_or_else(wrong)?;
        if user.credential != claims.credential {
            return Err(expired());
        }
        Ok((claims.sub, rights))
    }
}

#[cfg(test)]
mod tests {
    use anvil_model::access::{AdminArea, Command, PasswordHash, State, UserChange};
    use anvil_model::ids::TenantId;

    use super::*;
    use crate::auth::{Known, Secret};

    const OWN: TenantId = TenantId(1);
    const NOW: WallTime = WallTime { unix_ms: 1_700_000_000_000 };

    fn sessions(directory: &Directory, secret: &str) -> Sessions {
        Sessions::new(directory.clone(), Ring::new(directory.clone(), Secret::new(secret).unwrap()))
    }

    struct World {
        directory: Directory,
        sessions: Sessions,
        state: State,
    }

    impl World {
        fn new() -> Self {
            let directory = Directory::new([]);
            let sessions = sessions(&directory, "a-secret-of-32-characters-or-more");
            let mut world = Self { directory, sessions, state: State::new(OWN, NOW) };
            world.change(Command::CreateUser {
                username: "ann".to_owned(),
                email: "ann@example.com".to_owned(),
                role: "ReadOnlyViewer".to_owned(),
                password: PasswordHash("x".to_owned()),
                by: None,
            });
            world
        }

        fn change(&mut self, command: Command) {
            self.state = self.state.apply(&command, OWN, NOW).unwrap();
            self.directory.publish(Known::of(self.state.clone(), |_, _| None));
        }

        fn update(&mut self, change: UserChange) {
            self.change(Command::UpdateUser { username: "ann".to_owned(), change, by: None });
        }

        fn token(&self) -> String {
            self.sessions.give("ann", &self.state.users["ann"], NOW, 5).unwrap()
        }

        fn reason(&self, token: &str, seconds: i64) -> &'static str {
            let now = WallTime { unix_ms: NOW.unix_ms.checked_add_signed(seconds * 1000).unwrap() };
            self.sessions
                .check(token, now)
                .map_or_else(|status| status.reason, |(who, _)| if who == "ann" { "OK" } else { "?" })
        }
    }

    #[test]
    fn a_token_is_good_for_an_hour_and_for_nobody_else() {
        let world = World::new();
        let token = world.token();
        assert_eq!([world.reason(&token, 0), world.reason(&token, 3659), world.reason(&token, -60)], ["OK"; 3]);
        assert_eq!([world.reason(&token, 3660), world.reason(&token, -61)], ["TOKEN_EXPIRED"; 2]);
        let (signed, _) = token.rsplit_once('.').unwrap();
        let other = sessions(&world.directory, "another-secret-of-this-length-or-so");
        let other = other.give("ann", &world.state.users["ann"], NOW, 5).unwrap();
        for wrong in [&other, signed, "", "a.b.c", &token[1..], &token[..token.len() - 2]] {
            assert_eq!(world.reason(wrong, 0), "TOKEN_WRONG", "{wrong}");
        }
    }

    #[test]
    fn a_denied_token_and_no_other_is_good_no_more() {
        let mut world = World::new();
        let (token, user) = (world.token(), &world.state.users["ann"]);
        let other = world.sessions.give("ann", user, NOW, 6).unwrap();
        world.change(Command::DenyToken { id: format!("{:032x}", 5), until: WallTime { unix_ms: u64::MAX } });
        assert_eq!((world.reason(&token, 0), world.reason(&other, 0)), ("TOKEN_EXPIRED", "OK"));
    }

    #[test]
    fn what_a_user_may_do_is_asked_at_each_call() {
        let mut world = World::new();
        let token = world.token();
        let may_write = |world: &World| world.sessions.check(&token, NOW).unwrap().1.allow(AdminArea::Disk.write());
        assert!(!may_write(&world));
        world.update(UserChange { role: Some("SuperAdmin".to_owned()), ..UserChange::default() });
        assert!(may_write(&world), "the token stays good");
        world.update(UserChange { password: Some(PasswordHash("y".to_owned())), ..UserChange::default() });
        assert_eq!(world.reason(&token, 0), "TOKEN_EXPIRED", "it was got with another password");
        let token = world.token();
        assert_eq!(world.reason(&token, 0), "OK");
        world.change(Command::DeleteUser { username: "ann".to_owned(), by: None });
        assert_eq!(world.reason(&token, 0), "TOKEN_WRONG", "the user is gone");
        world.directory.forget();
        assert_eq!(world.reason(&token, 0), "ACCESS_AWAY");
        assert!(!format!("{:?}", world.sessions).contains("a-secret-of"));
    }
}
