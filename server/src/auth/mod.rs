//! Who sent a request, and are these the bytes that they signed: AWS Signature Version 4 as S3 speaks it, in the
//! header and in the query (presigned).
//!
//! [`Authenticator::authenticate`] decides over a head before a byte of body is read; [`body::VerifiedBody`] holds the
//! body to what the head promised. Neither asks what the caller may do. Called by the S3 handlers.
//!
//! **Invariants**
//! - Nothing is normalised: what is verified is the path, the query and the host as received, decoded once.
//! - Every `x-amz-*` header that is present is signed, and so are the host and the date; a proxy's
//!   `X-Forwarded-*` never enters a signature.
//! - Signatures are compared in constant time.

pub mod body;
mod chunked;
mod credential;
mod directory;
mod error;
pub(crate) mod fuzz;
mod hash;
mod request;
mod sigv4;
mod time;
mod token_keys;
pub mod uri;

use std::cell::RefCell;
use std::collections::BTreeMap;

use anvil_model::access::Identity;
use anvil_model::object::ChecksumAlgorithm;
use anvil_model::time::WallTime;

use crate::http::Head;
pub use chunked::ChunkError;
pub use credential::{Credential, InvalidSecret, Secret};
pub use directory::{Directory, DirectoryFigures, Known, Unknown};
pub use error::{AuthError, Malformed};
use request::Claim;
use sigv4::{ChunkSigner, SigningKey};
pub use token_keys::{Ring, TOKEN_SECONDS_MAX, TOKEN_SKEW_SECONDS, TokenKeys, TokenKind};

/// Verifies requests. Shared by all cores; what it remembers of derived keys, every core remembers by itself.
#[derive(Debug)]
pub struct Authenticator {
    region: String,
    directory: Directory,
}

/// A request whose signature holds.
#[derive(Debug)]
pub struct Authenticated {
    /// Who asks, and what it may do.
    pub identity: Identity,
    /// What was promised of the body.
    pub payload: Payload,
    /// Under which access key, for logs.
    pub access_key: String,
}

/// What a request's head says of its body.
#[derive(Debug)]
pub enum Payload {
    /// `UNSIGNED-PAYLOAD`: nothing.
    Unsigned,
    /// Its SHA-256.
    Signed([u8; 32]),
    /// It comes in `aws-chunked` framing.
    Streaming(Streaming),
}

/// How an `aws-chunked` body is framed.
#[derive(Debug)]
pub struct Streaming {
    /// Checks the chunks' signatures; `None` for `STREAMING-UNSIGNED-PAYLOAD-TRAILER`.
    signer: Option<ChunkSigner>,
    /// `x-amz-decoded-content-length`: payload bytes in all.
    decoded_bytes: u64,
    /// Whether the form ends with trailers, and which checksum they bring.
    trailer: Option<Option<ChecksumAlgorithm>>,
}

impl Streaming {
    /// The checksum that `x-amz-trailer` announces.
    #[must_use]
    pub fn trailing_checksum(&self) -> Option<ChecksumAlgorithm> {
        self.trailer.flatten()
    }
}

impl Authenticator {
    /// Takes requests that are signed for `region` by somebody in `directory`.
    #[must_use]
    pub fn new(region: String, directory: Directory) -> Self {
        Self { region, directory }
    }

    /// Whether a request claims to be from somebody. One that does not is anonymous, and [`Self::authenticate`]
    /// refuses it.
    #[must_use]
    pub fn has_credentials(head: &Head) -> bool {
        head.headers.iter().any(|(name, _)| name == "authorization") || request::is_presigned(head)
    }

    /// Whom it knows.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Decides who sent this head. Costs a few hashes; reads no body.
    ///
    /// # Errors
    /// With AWS's own code for each way in which a request can be wrong; see [`AuthError`].
    pub fn authenticate(&self, head: &Head, now: WallTime) -> Result<Authenticated, AuthError> {
        let claim = Claim::read(head)?;
        claim.check_scope(&self.region)?;
        claim.check_time(now)?;
        let credential = self.directory.find(&claim.scope.access_key)?;
        claim.check_signed_headers(head)?;
        let key = self.signing_key(&claim.scope.access_key, &claim.scope.date, &credential);
        let hash = claim.canonical_request_hash(head);
        key.verify(&sigv4::string_to_sign(&claim.timestamp, &claim.scope.text(), &hash), &claim.signature)
            .map_err(|_| AuthError::SignatureDoesNotMatch)?;
        let access_key = claim.scope.access_key.clone();
        Ok(Authenticated {
            identity: credential.identity.clone(),
            payload: request::payload(head, claim, key)?,
            access_key,
        })
    }

    fn signing_key(&self, access_key: &str, date: &str, credential: &Credential) -> SigningKey {
        let entry = (access_key.to_owned(), date.to_owned(), self.region.clone());
        KEYS.with_borrow_mut(|keys| {
            if let Some((secret, key)) = keys.get(&entry)
                && *secret == credential.secret
            {
                return key.clone();
            }
            if keys.len() >= KEYS_REMEMBERED_MAX {
                keys.clear();
            }
            let key = SigningKey::derive(&credential.secret, date, &self.region);
            keys.insert(entry, (credential.secret.clone(), key.clone()));
            key
        })
    }
}

/// By access key, day and region: from which secret, and what was derived.
type Keys = BTreeMap<(String, String, String), (Secret, SigningKey)>;

thread_local! {
    /// The keys that this core has derived. A core is a thread, so nobody waits for a lock.
    static KEYS: RefCell<Keys> = const { RefCell::new(Keys::new()) };
}

/// Derived keys that one core keeps. They are worth four HMACs each, so forgetting all of them now and then is cheap.
const KEYS_REMEMBERED_MAX: usize = 4096;

#[cfg(test)]
mod tests;
