//! `anvil admin rotate-key`, `mint-token`, `revoke-token`, `denylist`, `prune-denylist` and `cache-stats`.

use std::io::{self, Read as _};

use anvil_proto::v1;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::Failure;
use super::admin::{Common, Node, tell};
use super::tenants::{table, time};

#[derive(Debug, Args)]
pub(super) struct RotateKeyArgs {
    /// Which key
    #[arg(long, value_name = "KIND", value_enum)]
    kind: KeyKind,
    /// Of jwt: nothing that was signed before is believed any more. Otherwise it is until it has ended
    #[arg(long)]
    at_once: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum KeyKind {
    /// What secrets of apps are sealed with: seals them anew with the first key of ANVIL_SECRET_ENCRYPTION_KEY
    Encryption,
    /// What tokens are signed with: draws another one
    Jwt,
}

#[derive(Debug, Args)]
pub(super) struct MintTokenArgs {
    /// For this app
    #[arg(long, value_name = "APP")]
    app_name: String,
    /// Its tenant; may be left out where only one tenant has an app of that name
    #[arg(long, value_name = "NAME")]
    tenant_name: Option<String>,
    /// What it is to be good for: `object:read|bucket/prefix/*`; all that the app may do when none is given
    #[arg(long = "scope", value_name = "ACTION|RESOURCE")]
    scopes: Vec<String>,
    /// For how many seconds it is good, 3600 at most
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    lifetime: u32,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct RevokeTokenArgs {
    /// The id of a token, its `jti`; other users of the host can see arguments, and it is no secret
    #[arg(value_name = "ID", required_unless_present = "token_stdin")]
    id: Option<String>,
    /// Reads the token itself from stdin
    #[arg(long, conflicts_with = "id")]
    token_stdin: bool,
    #[command(flatten)]
    common: Common,
}

pub(super) fn rotate(arguments: &RotateKeyArgs) -> Result<(), Failure> {
    let RotateKeyArgs { kind, at_once, common } = arguments;
    match kind {
        KeyKind::Encryption if *at_once => Err(Failure::usage("--at-once is of --kind jwt")),
        KeyKind::Encryption => {
            let v1::RotateEncryptionKeyResponse { key_name, resealed, unreadable } =
                Node::open(common)?.ask("RotateEncryptionKey", &v1::RotateEncryptionKeyRequest {})?;
            tell(
                common,
                || json!({ "key_name": key_name, "resealed": resealed, "unreadable": unreadable }),
                || {
                    format!(
                        "{resealed} secrets are sealed anew with the key {key_name:?}, and {unreadable} cannot be opened\n"
                    )
                },
            )?;
            if unreadable > 0 {
                return Err(Failure::run("not all secrets can be opened: keep the key that they were sealed with"));
            }
            Ok(())
        }
        KeyKind::Jwt => {
            let request = v1::RotateTokenKeyRequest { at_once: *at_once };
            let v1::RotateTokenKeyResponse { key_id, old_good_for } =
                Node::open(common)?.ask("RotateTokenKey", &request)?;
            tell(
                common,
                || json!({ "key_id": key_id, "old_good_for": old_good_for }),
                || {
                    format!(
                        "tokens are signed with the key {key_id}; those of before are good for {old_good_for} s at most\n"
                    )
                },
            )
        }
    }
}

pub(super) fn mint(arguments: MintTokenArgs) -> Result<(), Failure> {
    let MintTokenArgs { app_name, tenant_name, scopes, lifetime, common } = arguments;
    let tenant_name = tenant_name.unwrap_or_default();
    let request = v1::MintTokenRequest { tenant_name, app_name, scopes, lifetime_seconds: lifetime };
    let v1::MintTokenResponse { access_token, expires_in, token_id } =
        Node::open(&common)?.ask("MintToken", &request)?;
    tell(
        &common,
        || json!({ "access_token": access_token, "expires_in": expires_in, "token_id": token_id }),
        || format!("{access_token}\n"),
    )
}

pub(super) fn revoke(arguments: RevokeTokenArgs) -> Result<(), Failure> {
    let RevokeTokenArgs { id, token_stdin, common } = arguments;
    let mut token = String::new();
    if token_stdin {
        let read = io::stdin().take(TOKEN_READ_MAX).read_to_string(&mut token);
        read.map_err(|error| Failure::usage(format!("stdin: {error}")))?;
    }
    let request = v1::RevokeTokenRequest { token, token_id: id.unwrap_or_default() };
    let v1::RevokeTokenResponse { token_id } = Node::open(&common)?.ask("RevokeToken", &request)?;
    tell(&common, || json!({ "revoked": token_id }), || format!("token {token_id} is good no more\n"))
}

/// More than a token has.
const TOKEN_READ_MAX: u64 = 1 << 16;

pub(super) fn denylist(common: &Common) -> Result<(), Failure> {
    let response: v1::ListRevokedTokensResponse =
        Node::open(common)?.ask("ListRevokedTokens", &v1::ListRevokedTokensRequest {})?;
    let tokens = response.tokens;
    let in_json = |token: &v1::RevokedToken| json!({ "token_id": token.token_id, "until": time(token.until_ms) });
    let row = |token: &v1::RevokedToken| vec![token.token_id.clone(), time(token.until_ms)];
    tell(
        common,
        || tokens.iter().map(in_json).collect::<Value>(),
        || table(&["TOKEN", "UNTIL"], tokens.iter().map(row).collect()),
    )
}

pub(super) fn prune(common: &Common) -> Result<(), Failure> {
    let v1::PruneDenylistResponse { pruned, left } =
        Node::open(common)?.ask("PruneDenylist", &v1::PruneDenylistRequest {})?;
    tell(
        common,
        || json!({ "pruned": pruned, "left": left }),
        || format!("{pruned} tokens have ended, {left} are denied still\n"),
    )
}

pub(super) fn cache_stats(common: &Common) -> Result<(), Failure> {
    let stats: v1::CacheStatsResponse = Node::open(common)?.ask("CacheStats", &v1::CacheStatsRequest {})?;
    let confirmed = if stats.confirmed_at_ms == 0 { Value::Null } else { json!(time(stats.confirmed_at_ms)) };
    let ttl = if stats.ttl_seconds == 0 { Value::Null } else { json!(stats.ttl_seconds) };
    let figures = [
        ("known", json!(stats.known)),
        ("revision", json!(stats.revision)),
        ("tenants", json!(stats.tenants)),
        ("apps", json!(stats.apps)),
        ("grants", json!(stats.grants)),
        ("public_buckets", json!(stats.public_buckets)),
        ("users", json!(stats.users)),
        ("roles", json!(stats.roles)),
        ("token_keys", json!(stats.token_keys)),
        ("revoked_tokens", json!(stats.revoked_tokens)),
        ("published", json!(stats.published)),
        ("forgotten", json!(stats.forgotten)),
        ("notified", json!(stats.notified)),
        ("confirmed_at", confirmed),
        ("ttl_seconds", ttl),
    ];
    let rows = || {
        let row = |(name, value): &(&str, Value)| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            vec![(*name).to_owned(), if value.is_null() { "-".to_owned() } else { text }]
        };
        table(&["FIGURE", "VALUE"], figures.iter().map(row).collect())
    };
    tell(common, || figures.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(), rows)
}
