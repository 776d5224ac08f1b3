//! Where the calls go, and as whom: the node's address, and a token that is renewed before it ends.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anvil_proto::v1;
use anyhow::{Context, bail};
use http::HeaderValue;

use super::channel::{Channel, Failure};

/// Shared by all connections.
pub(super) struct Session {
    pub(super) url: String,
    pub(super) authority: String,
    pub(super) address: SocketAddr,
    /// The largest frame that this end takes.
    pub(super) frame_bytes: u32,
    client_id: String,
    client_secret: String,
    token: Mutex<Option<Token>>,
}

struct Token {
    authorization: HeaderValue,
    /// Half of its time is over then.
    renew_at: Instant,
}

impl Session {
    /// # Errors
    /// One sentence, when the address cannot be used.
    pub(super) fn new(url: &str, client_id: String, client_secret: String, frame_bytes: u32) -> anyhow::Result<Self> {
        let Some(authority) = url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/')) else {
            bail!("the endpoint is {url:?}, and must begin with http:// (TLS is not spoken here)");
        };
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let with_port = if has_port { authority.to_owned() } else { format!("{authority}:80") };
        let address = with_port
            .to_socket_addrs()
            .with_context(|| format!("the endpoint {url:?} cannot be found"))?
            .next()
            .with_context(|| format!("the endpoint {url:?} has no address"))?;
        let (url, authority) = (url.to_owned(), authority.to_owned());
        Ok(Self { url, authority, address, frame_bytes, client_id, client_secret, token: Mutex::default() })
    }

    /// What a call says of who it is.
    pub(super) async fn authorization(&self, channel: &Channel<'_>) -> Result<HeaderValue, Failure> {
        {
            let mut token = self.token.lock().expect("nobody panics with it");
            if let Some(Token { authorization, renew_at }) = &mut *token {
                if Instant::now() < *renew_at {
                    return Ok(authorization.clone());
                }
                // One renews it; the others go on with the old one meanwhile.
                *renew_at += RENEWAL_TIME;
            }
        }
        let (client_id, client_secret) = (self.client_id.clone(), self.client_secret.clone());
        let request = v1::GetAccessTokenRequest { client_id, client_secret, scopes: Vec::new() };
        let path = "/anvil.v1.AuthService/GetAccessToken";
        let answer: v1::GetAccessTokenResponse = channel.call(path, None, &request).await?;
        let authorization = HeaderValue::from_str(&format!("Bearer {}", answer.access_token))
            .map_err(|_| Failure::of("a token that is none"))?;
        let renew_at = Instant::now() + Duration::from_secs(u64::from(answer.expires_in)) / 2;
        let token = Token { authorization: authorization.clone(), renew_at };
        *self.token.lock().expect("nobody panics with it") = Some(token);
        Ok(authorization)
    }
}

/// Without the secret and the token.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("url", &self.url).finish_non_exhaustive()
    }
}

const RENEWAL_TIME: Duration = Duration::from_secs(30);
