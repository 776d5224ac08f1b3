//! What tokens are signed with, and which are good no more before their time.

use serde::{Deserialize, Serialize};

use super::state::{Refused, State, check_room};
use crate::time::WallTime;

/// A key of tokens that was drawn by a rotation. While there is none, that of the configuration counts; it is among these
/// from the first rotation on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenKey {
    /// Stands in each token.
    pub id: String,
    /// The secret that it is made of, sealed; opaque here.
    pub sealed: Vec<u8>,
    /// When it was drawn.
    pub made_at: WallTime,
    /// Until then what it signed is believed; without an end it is the one that signs.
    pub good_until: Option<WallTime>,
}

/// A key to be: its name and its sealed secret.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "as in the rows")]
pub struct NewTokenKey {
    pub id: String,
    pub sealed: Vec<u8>,
}

/// Something sealed, and the same under another key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resealed {
    /// The client id of the app, or the id of the key of tokens.
    pub id: String,
    /// As it was read.
    pub from: Vec<u8>,
    /// As it is to be.
    pub to: Vec<u8>,
}

/// Bounds of the state.
const TOKEN_KEYS_MAX: usize = 32;
const DENIED_MAX: usize = 10_000;

impl State {
    /// The key that signs; `None` when it is that of the configuration.
    #[must_use]
    pub fn signing_key(&self) -> Option<&TokenKey> {
        self.token_keys.iter().find(|key| key.good_until.is_none())
    }

    pub(super) fn rotate_token_key(
        &mut self,
        configured: &NewTokenKey,
        new: &NewTokenKey,
        old_until: WallTime,
        at: WallTime,
    ) -> Result<(), Refused> {
        let keep = |NewTokenKey { id, sealed }: &NewTokenKey| {
            let (id, sealed) = (id.clone(), sealed.clone());
            TokenKey { id, sealed, made_at: at, good_until: None }
        };
        if self.token_keys.is_empty() {
            self.token_keys.push(keep(configured));
        }
        for key in &mut self.token_keys {
            key.good_until = Some(key.good_until.map_or(old_until, |until| until.min(old_until)));
        }
        self.token_keys.retain(|key| key.good_until.is_some_and(|until| until > at));
        check_room(self.token_keys.len(), TOKEN_KEYS_MAX, "keys of tokens")?;
        self.token_keys.push(keep(new));
        self.token_keys.sort_by(|a, b| (a.made_at, &a.id).cmp(&(b.made_at, &b.id)));
        Ok(())
    }

    pub(super) fn deny_token(&mut self, id: &str, until: WallTime, at: WallTime) -> Result<(), Refused> {
        if id.is_empty() || id.len() > TOKEN_ID_BYTES_MAX || !id.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Refused::TokenId);
        }
        self.prune_denied(at);
        check_room(self.denied.len(), DENIED_MAX, "tokens that are denied")?;
        let denied = self.denied.entry(id.to_owned()).or_insert(until);
        *denied = until.max(*denied);
        Ok(())
    }

    /// What has ended by itself needs no denial.
    pub(super) fn prune_denied(&mut self, at: WallTime) {
        self.denied.retain(|_, until| *until > at);
    }

    /// What was changed meanwhile stays as it is.
    pub(super) fn reseal(&mut self, apps: &[Resealed], token_keys: &[Resealed]) {
        for Resealed { id, from, to } in apps {
            if let Some(app) = self.apps.get_mut(id).filter(|app| app.sealed_secret == *from) {
                app.sealed_secret.clone_from(to);
            }
        }
        for Resealed { id, from, to } in token_keys {
            if let Some(key) = self.token_keys.iter_mut().find(|key| key.id == *id && key.sealed == *from) {
                key.sealed.clone_from(to);
            }
        }
    }
}

/// Ours have 32.
const TOKEN_ID_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::super::state::Command;
    use super::*;
    use crate::ids::TenantId;

    const OWN: TenantId = TenantId(1);

    fn at(ms: u64) -> WallTime {
        WallTime { unix_ms: ms }
    }

    fn key(id: &str) -> NewTokenKey {
        NewTokenKey { id: id.to_owned(), sealed: id.as_bytes().to_vec() }
    }

    fn rotated(state: &State, id: &str, old_until: u64, now: u64) -> State {
        let command = Command::RotateTokenKey { configured: key("first"), new: key(id), old_until: at(old_until) };
        state.apply(&command, OWN, at(now)).unwrap()
    }

    fn good(state: &State, now: u64) -> Vec<&str> {
        let keys = state.token_keys.iter().filter(|key| key.good_until.is_none_or(|until| until > at(now)));
        keys.map(|key| key.id.as_str()).collect()
    }

    #[test]
    fn an_old_key_is_good_until_its_tokens_have_ended() {
        let state = State::new(OWN, at(0));
        assert_eq!(state.signing_key(), None);
        let state = rotated(&state, "second", 100, 10);
        assert_eq!((state.signing_key().unwrap().id.as_str(), good(&state, 99)), ("second", vec!["first", "second"]));
        assert_eq!(good(&state, 100), ["second"]);
        let state = rotated(&state, "third", 150, 50);
        assert_eq!((good(&state, 60), good(&state, 120)), (vec!["first", "second", "third"], vec!["second", "third"]));
        // At once: what was signed before is good no more.
        let state = rotated(&state, "fourth", 60, 60);
        assert_eq!((good(&state, 60), state.token_keys.len()), (vec!["fourth"], 1));
        let mut state = state;
        for round in 0..31 {
            state = rotated(&state, &format!("x{round}"), 1000, 60);
        }
        let one_more = Command::RotateTokenKey { configured: key("first"), new: key("y"), old_until: at(1000) };
        assert!(matches!(state.apply(&one_more, OWN, at(60)), Err(Refused::TooMany { .. })));
        assert_eq!(good(&rotated(&state, "later", 3000, 2000), 2000), ["x30", "later"], "those that have ended go");
    }

    #[test]
    fn a_denied_token_is_denied_until_it_ends() {
        let deny = |state: &State, id: &str, until: u64, now: u64| {
            state.apply(&Command::DenyToken { id: id.to_owned(), until: at(until) }, OWN, at(now))
        };
        let state = deny(&State::new(OWN, at(0)), "a", 100, 10).unwrap();
        let state = deny(&state, "a", 50, 10).unwrap();
        assert_eq!(state.denied["a"], at(100), "a denial is not shortened");
        let state = deny(&state, "b", 200, 10).unwrap();
        let pruned = state.apply(&Command::PruneDenylist, OWN, at(100)).unwrap();
        assert_eq!(pruned.denied.keys().collect::<Vec<_>>(), ["b"]);
        assert_eq!(deny(&state, "c", 300, 100).unwrap().denied.len(), 2, "a denial takes along what has ended");
        for wrong in ["", "a b", "\u{e4}", &"x".repeat(65)] {
            assert_eq!(deny(&state, wrong, 300, 100), Err(Refused::TokenId), "{wrong}");
        }
    }

    #[test]
    fn what_was_changed_meanwhile_is_not_resealed() {
        let create = |name: &str| Command::CreateApp {
            tenant: "default".to_owned(),
            name: name.to_owned(),
            client_id: name.to_owned(),
            sealed_secret: vec![1],
        };
        let state =
            State::new(OWN, at(0)).apply(&create("a"), OWN, at(0)).unwrap().apply(&create("b"), OWN, at(0)).unwrap();
        let state = rotated(&state, "second", 100, 10);
        let reset = Command::ResetSecret { client_id: "b".to_owned(), sealed_secret: vec![7] };
        let state = state.apply(&reset, OWN, at(20)).unwrap();
        let to = |id: &str, from: Vec<u8>| Resealed { id: id.to_owned(), from, to: vec![9] };
        let apps = vec![to("a", vec![1]), to("b", vec![1]), to("gone", vec![1])];
        let token_keys = vec![to("second", b"second".to_vec()), to("first", b"other".to_vec())];
        let state = state.apply(&Command::Reseal { apps, token_keys }, OWN, at(30)).unwrap();
        assert_eq!((&state.apps["a"].sealed_secret, &state.apps["b"].sealed_secret), (&vec![9], &vec![7]));
        let sealed: Vec<&[u8]> = state.token_keys.iter().map(|key| key.sealed.as_slice()).collect();
        assert_eq!(sealed, [b"first".as_slice(), &[9]]);
    }
}
