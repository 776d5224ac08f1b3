//! What a fuzzer asks of the readers of this protocol: no panic, no endless loop, no more memory than a message may have, and
//! the same outcome however a stream is cut into pieces.

use std::sync::LazyLock;

use anvil_model::time::WallTime;
use anvil_proto::{Message, v1};
use bytes::{Buf as _, Bytes};

use super::access::Tokens;
use super::frame::{Encoding, MESSAGE_BYTES_MAX, Messages};
use super::incoming::{Part, Streamed, part_of};
use super::request::read;
use super::rope::Rope;
use crate::auth::{Directory, Ring, Secret};
use crate::http::Head;

/// The messages of a call, whole and in pieces. The first byte says how they are written and cut.
pub(crate) fn messages(input: &[u8]) {
    let Some((&how, stream)) = input.split_first() else { return };
    let encoding = if how & 1 == 0 { Encoding::Identity } else { Encoding::Gzip };
    let whole = cut(encoding, [stream]);
    assert_eq!(whole, cut(encoding, stream.chunks(usize::from(how >> 1) + 1)));
    for message in whole.0 {
        assert!(message.len() <= MESSAGE_BYTES_MAX);
        by_hand(&message);
        again::<v1::WriteObjectRequest>(&message);
        again::<v1::BidiWriteRequest>(&message);
        again::<v1::BidiReadRequest>(&message);
        again::<v1::DeleteObjectsRequest>(&message);
        again::<v1::CompleteMultipartUploadRequest>(&message);
        again::<v1::GetAccessTokenRequest>(&message);
    }
}

/// The messages, and why there are no more or how much is left.
fn cut<'a>(encoding: Encoding, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Bytes>, Result<bool, &'static str>) {
    let (mut messages, mut found) = (Messages::of(encoding), Vec::new());
    for piece in pieces {
        messages.push(Bytes::copy_from_slice(piece));
        loop {
            match messages.take() {
                Ok(None) => break,
                Ok(Some(mut message)) => {
                    let length = message.remaining();
                    found.push(message.copy_to_bytes(length));
                }
                Err(status) => return (found, Err(status.reason)),
            }
        }
    }
    (found, Ok(messages.is_empty()))
}

/// What is a message is the same one when it is written and read again.
fn again<M: Message + Default + PartialEq + std::fmt::Debug>(bytes: &Bytes) {
    if let Ok(message) = M::decode(bytes.clone()) {
        let written = message.encode_to_vec();
        assert_eq!(M::decode(&written[..]).as_ref(), Ok(&message));
    }
}

/// What is read by hand is what it would be otherwise.
fn by_hand(bytes: &Bytes) {
    let mut message = Rope::default();
    message.push(bytes.clone());
    let read = part_of::<v1::WriteObjectRequest>(message);
    let expected = v1::WriteObjectRequest::decode(bytes.clone()).map(Streamed::part);
    match (read, expected) {
        (Ok(Part::Chunk(mut read)), Ok(Part::Chunk(mut expected))) => {
            assert_eq!(read.crc32c, expected.crc32c);
            let [read, expected] = [&mut read, &mut expected].map(|chunk| {
                let length = chunk.content.remaining();
                chunk.content.copy_to_bytes(length)
            });
            assert_eq!(read, expected);
        }
        (Ok(Part::Chunk(_)), _) | (_, Ok(Part::Chunk(_))) => panic!("it is a chunk for one of the two"),
        (read, expected) => assert_eq!(read.is_ok(), expected.is_ok()),
    }
}

/// The head of a call: its terms, and its token, which nobody signed.
pub(crate) fn call(head: &Head) {
    static TOKENS: LazyLock<Tokens> = LazyLock::new(|| {
        let (directory, secret) = (Directory::new([]), Secret::new("of-a-node-that-gave-none"));
        Tokens::new(directory.clone(), Ring::new(directory, secret.expect("it is long enough")))
    });
    // Either is fine: what counts is that there is an outcome.
    let _ = read(head);
    assert!(TOKENS.check(head, WallTime { unix_ms: 1_700_000_000_000 }).is_err());
}
