//! The payload of a record of the metadata log: a batch of changes as bytes. Described in `docs/FORMAT.md`.

use anvil_model::ids::Generation;
use anvil_model::time::WallTime;
use serde::{Deserialize, Serialize};

use super::mutation::Mutation;

pub(crate) mod chain;

/// A batch of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Where it belongs.
    pub header: Header,
    /// Changes only, in the order in which they were decided: what was refused is not logged.
    pub mutations: Vec<Mutation>,
}

/// Where a batch belongs, and what it was given when it was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The history that it belongs to.
    pub lineage: u128,
    /// Its number; numbers grow, and have gaps where a batch was void.
    pub number: u64,
    /// The batch that this one follows: durable with all its data, and so was everything before it. Batches between
    /// that one and this one are void: they failed, or their data was not there after a crash.
    pub durable_through: u64,
    /// The time that its changes were given.
    pub at: WallTime,
    /// The generation that its first change was given.
    pub first: Generation,
}

/// The first byte of a payload.
pub const FORMAT_VERSION: u8 = 1;
/// Bytes of a payload before its mutations, at most: the version, the header (postcard varints of a `u128` and four
/// `u64`) and the count.
pub const HEADER_BYTES_MAX: usize = 1 + 19 + 4 * 10 + 5;

/// Why bytes are not a batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Written by a newer program.
    #[error("the metadata log has format {0}, this program reads up to {FORMAT_VERSION}")]
    Newer(u8),
    /// Not a batch. The record's checksum held, so it was written so: a bug.
    #[error("a record of the metadata log is malformed: {0}")]
    Malformed(String),
}

/// A mutation in its wire form.
#[must_use]
pub fn encode_mutation(mutation: &Mutation) -> Vec<u8> {
    postcard::to_stdvec(mutation).expect("a mutation has a wire form and memory grows")
}

/// Bytes of a part of a mutation in its wire form.
pub(super) fn encoded_bytes(part: &impl Serialize) -> usize {
    postcard::to_stdvec(part).expect("what a mutation has has a wire form and memory grows").len()
}

/// A payload of mutations that are encoded already.
#[must_use]
pub fn encode<'m>(header: &Header, mutations: impl ExactSizeIterator<Item = &'m [u8]>) -> Vec<u8> {
    let count = u32::try_from(mutations.len()).expect("a batch is bounded");
    let mut bytes = vec![FORMAT_VERSION];
    bytes = postcard::to_extend(&(header, count), bytes).expect("a header has a wire form and memory grows");
    assert!(bytes.len() <= HEADER_BYTES_MAX, "the bound of a header holds");
    mutations.for_each(|mutation| bytes.extend_from_slice(mutation));
    bytes
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// When the bytes are of a newer format, or not a batch.
pub fn decode(payload: &[u8]) -> Result<Batch, DecodeError> {
    let malformed = |error: postcard::Error| DecodeError::Malformed(error.to_string());
    match payload.split_first() {
        None => Err(DecodeError::Malformed("it is empty".to_owned())),
        Some((&version, _)) if version > FORMAT_VERSION => Err(DecodeError::Newer(version)),
        Some((&FORMAT_VERSION, rest)) => {
            let ((header, count), mut rest): ((Header, u32), _) = postcard::take_from_bytes(rest).map_err(malformed)?;
            let mut mutations = Vec::new();
            for _ in 0..count {
                let (mutation, behind) = postcard::take_from_bytes(rest).map_err(malformed)?;
                mutations.push(mutation);
                rest = behind;
            }
            if rest.is_empty() {
                Ok(Batch { header, mutations })
            } else {
                Err(DecodeError::Malformed(format!("{} bytes follow the last change", rest.len())))
            }
        }
        Some((&version, _)) => Err(DecodeError::Malformed(format!("format {version} was never written"))),
    }
}

#[cfg(test)]
mod tests;
