//! The part of `anvil.v1.AdminService` that is about keys and tokens: other keys while the node serves, tokens for apps, and
//! tokens that are good no more.

use anvil_model::access::{Command, NewTokenKey, Resealed};
use anvil_model::io::World as _;
use anvil_model::time::WallTime;
use anvil_proto::v1;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::status::{Code, Status};
use super::tenants::{TenantsOf, named};
use crate::access::{KeepError, token_key_name};
use crate::auth::{TOKEN_SECONDS_MAX, TOKEN_SKEW_SECONDS, TokenKeys};
use crate::credentials::new_secret;

impl TenantsOf<'_> {
    pub(super) async fn rotate_encryption_key(
        &self,
        v1::RotateEncryptionKeyRequest {}: v1::RotateEncryptionKeyRequest,
    ) -> Result<v1::RotateEncryptionKeyResponse, Status> {
        let (known, sealer) = (self.known()?, self.services.keeper.sealer());
        let key_name = sealer.name().map_err(KeepError::from)?.to_owned();
        let mut unreadable = 0;
        let mut again = |id: &str, name: &str, from: &[u8]| {
            if sealer.is_current(from) {
                return None;
            }
            let to = sealer.open(name, from).and_then(|secret| sealer.seal(name, &secret).ok());
            unreadable += u32::from(to.is_none());
            Some(Resealed { id: id.to_owned(), from: from.to_vec(), to: to? })
        };
        let apps: Vec<Resealed> =
            known.state.apps.iter().filter_map(|(id, app)| again(id, id, &app.sealed_secret)).collect();
        let token_keys = known.state.token_keys.iter();
        let token_keys: Vec<Resealed> =
            token_keys.filter_map(|key| again(&key.id, &token_key_name(&key.id), &key.sealed)).collect();
        let resealed = u32::try_from(apps.len() + token_keys.len()).unwrap_or(u32::MAX);
        for apps in apps.chunks(RESEALED_AT_ONCE) {
            self.change(Command::Reseal { apps: apps.to_vec(), token_keys: Vec::new() }).await?;
        }
        if !token_keys.is_empty() {
            self.change(Command::Reseal { apps: Vec::new(), token_keys }).await?;
        }
        Ok(v1::RotateEncryptionKeyResponse { key_name, resealed, unreadable })
    }

    pub(super) async fn rotate_token_key(
        &self,
        v1::RotateTokenKeyRequest { at_once }: v1::RotateTokenKeyRequest,
    ) -> Result<v1::RotateTokenKeyResponse, Status> {
        let keeper = &self.services.keeper;
        let sealed = |id: &str, secret: &crate::auth::Secret| {
            let sealed = keeper.sealer().seal(&token_key_name(id), secret).map_err(KeepError::from)?;
            Ok::<_, KeepError>(NewTokenKey { id: id.to_owned(), sealed })
        };
        let (configured_id, configured) = self.services.gate.tokens.ring().configured();
        let configured = sealed(configured_id, configured)?;
        let secret = new_secret();
        let new = sealed(TokenKeys::of(&secret).id(), &secret)?;
        let now = self.now();
        let old_until = if at_once { now } else { after(now, TOKENS_END_WITHIN_SECONDS) };
        let key_id = new.id.clone();
        self.change(Command::RotateTokenKey { configured, new, old_until }).await?;
        let old_good_for = if at_once { 0 } else { u32::try_from(TOKENS_END_WITHIN_SECONDS).unwrap_or(u32::MAX) };
        Ok(v1::RotateTokenKeyResponse { key_id, old_good_for })
    }

    pub(super) async fn mint_token(&self, request: v1::MintTokenRequest) -> Result<v1::MintTokenResponse, Status> {
        let v1::MintTokenRequest { tenant_name, app_name, scopes, lifetime_seconds } = request;
        let lifetime = if lifetime_seconds == 0 { super::access::LIFETIME_SECONDS } else { lifetime_seconds };
        if lifetime > TOKEN_SECONDS_MAX {
            let message = format!("a token is good for {TOKEN_SECONDS_MAX} seconds at most");
            return Err(Status::new(Code::InvalidArgument, "INVALID_LIFETIME", message));
        }
        let name = named(tenant_name, app_name);
        let client_id = self.known()?.state.find_app(&name)?.to_owned();
        let world = self.services.node.world();
        let random = u128::from(world.random()) << 64 | u128::from(world.random());
        let tokens = &self.services.gate.tokens;
        let access_token = tokens.mint(&client_id, scopes, lifetime, self.now(), random)?;
        let token_id = format!("{random:032x}");
        self.note("token mint", format!("{name} {token_id}")).await;
        Ok(v1::MintTokenResponse { access_token, expires_in: lifetime, token_id })
    }

    pub(super) async fn revoke_token(
        &self,
        v1::RevokeTokenRequest { token, token_id }: v1::RevokeTokenRequest,
    ) -> Result<v1::RevokeTokenResponse, Status> {
        let now = self.now();
        let longest = after(now, TOKENS_END_WITHIN_SECONDS);
        let (id, until) = match (token.is_empty(), token_id.is_empty()) {
            (false, true) => {
                let Claims { jti, exp } = claims(&token)?;
                let ends = WallTime { unix_ms: exp.saturating_add(TOKEN_SKEW_SECONDS).saturating_mul(1000) };
                (jti, ends.min(longest))
            }
            (true, false) => (token_id, longest),
            _ => {
                let message = "name a token, or the id of one";
                return Err(Status::new(Code::InvalidArgument, "INVALID_TOKEN", message));
            }
        };
        self.change(Command::DenyToken { id: id.clone(), until }).await?;
        Ok(v1::RevokeTokenResponse { token_id: id })
    }

    pub(super) fn list_revoked_tokens(
        &self,
        _: v1::ListRevokedTokensRequest,
    ) -> Result<v1::ListRevokedTokensResponse, Status> {
        let known = self.known()?;
        let token =
            |(id, until): (&String, &WallTime)| v1::RevokedToken { token_id: id.clone(), until_ms: until.unix_ms };
        Ok(v1::ListRevokedTokensResponse { tokens: known.state.denied.iter().map(token).collect() })
    }

    pub(super) async fn prune_denylist(
        &self,
        v1::PruneDenylistRequest {}: v1::PruneDenylistRequest,
    ) -> Result<v1::PruneDenylistResponse, Status> {
        let before = self.known()?.state.denied.len();
        let left = self.change(Command::PruneDenylist).await?.state.denied.len();
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Ok(v1::PruneDenylistResponse { pruned: count(before.saturating_sub(left)), left: count(left) })
    }

    pub(super) fn cache_stats(&self, _: v1::CacheStatsRequest) -> Result<v1::CacheStatsResponse, Status> {
        let figures = self.services.keeper.figures();
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let mut answer = v1::CacheStatsResponse {
            published: figures.published,
            forgotten: figures.forgotten,
            notified: figures.notified,
            confirmed_at_ms: figures.confirmed_at_ms,
            ttl_seconds: self.services.keeper.ttl().map_or(0, |ttl| ttl.as_secs()),
            ..v1::CacheStatsResponse::default()
        };
        // What is not known now is no failure of who asks for that.
        if let Ok(known) = self.known() {
            let state = &known.state;
            answer.known = true;
            answer.revision = state.revision;
            answer.tenants = count(state.tenants.len());
            answer.apps = count(state.apps.len());
            answer.grants = count(state.grants.len());
            answer.public_buckets = count(state.public.len());
            answer.users = count(state.users.len());
            answer.roles = count(state.roles.len());
            answer.token_keys = count(state.token_keys.len());
            answer.revoked_tokens = count(state.denied.len());
        }
        Ok(answer)
    }

    fn now(&self) -> WallTime {
        self.services.node.world().wall_clock()
    }

    async fn note(&self, action: &str, about: String) {
        self.services.keeper.note(&self.services.node, &self.by, action, about, "ok").await;
    }
}

/// One change is one transaction, which others wait for.
const RESEALED_AT_ONCE: usize = 500;
/// What was signed before has ended by then, whatever the clocks say.
const TOKENS_END_WITHIN_SECONDS: u64 = TOKEN_SECONDS_MAX as u64 + TOKEN_SKEW_SECONDS;
/// More than any of ours.
const TOKEN_BYTES_MAX: usize = 8192;

fn after(at: WallTime, seconds: u64) -> WallTime {
    WallTime { unix_ms: at.unix_ms.saturating_add(seconds.saturating_mul(1000)) }
}

/// What is looked at of a token that is to be denied; who signed it is all the same.
#[derive(Deserialize)]
struct Claims {
    jti: String,
    exp: u64,
}

fn claims(token: &str) -> Result<Claims, Status> {
    let read = || {
        let token = token.trim();
        let part = (token.len() <= TOKEN_BYTES_MAX).then(|| token.split('.').nth(1)).flatten()?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
    };
    read().ok_or_else(|| Status::new(Code::InvalidArgument, "INVALID_TOKEN", "that is no token"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_denied_is_read_of_a_token() {
        let token = |claims: &str| format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
        let read = claims(&format!(" {}\n", token(r#"{"jti":"ab","exp":9,"sub":"x"}"#))).ok().unwrap();
        assert_eq!((read.jti.as_str(), read.exp), ("ab", 9));
        for wrong in ["", "a", "a.b", &token("{}"), &token(r#"{"jti":1,"exp":9}"#), &"x.".repeat(5000)] {
            assert_eq!(claims(wrong).err().unwrap().reason, "INVALID_TOKEN", "{wrong}");
        }
    }
}
