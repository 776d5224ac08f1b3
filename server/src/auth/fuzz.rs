//! What a fuzzer asks of the readers of signatures and of signed bodies.

use anvil_model::ids::TenantId;
use anvil_model::object::ChecksumAlgorithm;
use anvil_model::time::WallTime;

use super::chunked::{ChunkError, Chunked, Next};
use super::credential::Secret;
use super::sigv4::{ChunkSigner, SigningKey};
use super::{Authenticator, Credential, Directory, Streaming};
use crate::http::Head;

/// Asks who sent a head, with the header and with the query.
pub(crate) fn authenticate(head: &Head) {
    let secret = Secret::new(SECRET).expect("long enough");
    let directory = Directory::new([(ACCESS_KEY.to_owned(), Credential::own(secret, TenantId(1)))]);
    let authenticator = Authenticator::new("us-east-1".to_owned(), directory);
    // The time of the examples in the corpus.
    let now = WallTime { unix_ms: 1_369_353_600_000 };
    let outcome = authenticator.authenticate(head, now);
    assert!(outcome.is_err() || Authenticator::has_credentials(head), "nobody is believed without credentials");
}

/// An `aws-chunked` body, whole and byte by byte. The first byte chooses its form, the second how much is promised.
pub(crate) fn aws_chunked(input: &[u8]) {
    let &[form, promised, ref stream @ ..] = input else { return };
    let whole = decode(form, promised, [stream]);
    assert_eq!(whole, decode(form, promised, stream.chunks(1)));
    if let Ok(Some(payload)) = whole {
        assert_eq!(payload.len(), usize::from(promised), "as much as was promised, or an error");
        assert!(form & SIGNED == 0, "nobody who has no key signs a body");
    }
}

/// `None` when the stream ends before the body does.
fn decode<'a>(
    form: u8,
    promised: u8,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Option<Vec<u8>>, ChunkError> {
    let signer = (form & SIGNED != 0).then(|| {
        let key = SigningKey::derive(&Secret::new(SECRET).expect("long enough"), "20130524", "us-east-1");
        ChunkSigner::new(key, "20130524T000000Z".to_owned(), "20130524/us-east-1/s3/aws4_request".to_owned(), [7; 32])
    });
    let announced = (form & ANNOUNCED != 0).then_some(ChecksumAlgorithm::Crc32);
    let trailer = (form & TRAILERS != 0).then_some(announced);
    let mut chunked = Chunked::new(Streaming { signer, decoded_bytes: promised.into(), trailer });
    let (mut payload, mut pending) = (Vec::new(), Vec::new());
    for piece in pieces {
        pending.extend_from_slice(piece);
        loop {
            let (taken, next) = chunked.framing(&pending)?;
            pending.drain(..taken);
            match next {
                Next::End => return Ok(Some(payload)),
                Next::Framing => break,
                Next::Payload(_) if pending.is_empty() => break,
                Next::Payload(left) => {
                    let count = pending.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    chunked.payload(&pending[..count])?;
                    payload.extend(pending.drain(..count));
                }
            }
        }
    }
    Ok(None)
}

const ACCESS_KEY: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const SIGNED: u8 = 1;
const TRAILERS: u8 = 2;
const ANNOUNCED: u8 = 4;
