//! Messages on the wire: a flag, four bytes of length, the message ("Length-Prefixed-Message").

use std::io::Read as _;

use anvil_proto::Message;
use bytes::{Buf as _, Bytes};
use flate2::read::GzDecoder;

use super::rope::Rope;
use super::status::{Code, Status};

/// A message, at most, in either direction.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;
const PREFIX_BYTES: usize = 5;

/// How the messages of a call are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// As they are.
    #[default]
    Identity,
    /// Those that say so are compressed (RFC 1952).
    Gzip,
}

/// Cuts what comes into messages. Holds at most one message and what came behind it.
#[derive(Debug, Default)]
pub struct Messages {
    encoding: Encoding,
    rope: Rope,
}

impl Messages {
    /// Messages that are written so.
    #[must_use]
    pub fn of(encoding: Encoding) -> Self {
        Self { encoding, rope: Rope::default() }
    }

    /// Takes what came next.
    pub fn push(&mut self, bytes: Bytes) {
        self.rope.push(bytes);
    }

    /// The next message, when all of it is there.
    ///
    /// # Errors
    /// When it is compressed, which nobody agreed to, or larger than a message may be.
    pub fn take(&mut self) -> Result<Option<Rope>, Status> {
        let Some([flag, length @ ..]) = self.rope.first::<PREFIX_BYTES>() else { return Ok(None) };
        match (flag, self.encoding) {
            (0, _) | (1, Encoding::Gzip) => {}
            // PROTOCOL-HTTP2.md, "Compressed-Flag": set without a `grpc-encoding` is an error of the sender.
            (1, Encoding::Identity) => {
                return Err(malformed("a message is compressed, and the call named no grpc-encoding"));
            }
            _ => return Err(malformed("a message begins with a flag that is neither 0 nor 1")),
        }
        let length = u32::from_be_bytes(length) as usize;
        if length > MESSAGE_BYTES_MAX {
            return Err(too_large(length));
        }
        if self.rope.remaining() < PREFIX_BYTES + length {
            return Ok(None);
        }
        self.rope.advance(PREFIX_BYTES);
        let message = self.rope.split_to(length);
        if flag == 0 { Ok(Some(message)) } else { inflate(message).map(Some) }
    }

    /// Whether all that came was taken as whole messages.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rope.remaining() == 0
    }
}

/// Undoes gzip, as far as a message may go.
fn inflate(message: Rope) -> Result<Rope, Status> {
    let mut bytes = Vec::new();
    let most = MESSAGE_BYTES_MAX as u64 + 1;
    let read = GzDecoder::new(message.reader()).take(most).read_to_end(&mut bytes);
    read.map_err(|_| malformed("a message is not what gzip writes"))?;
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(too_large(bytes.len()));
    }
    let mut inflated = Rope::default();
    inflated.push(bytes.into());
    Ok(inflated)
}

fn too_large(length: usize) -> Status {
    let message = format!("a message of {length} bytes is larger than the {MESSAGE_BYTES_MAX} that it may have");
    Status::new(Code::ResourceExhausted, "MESSAGE_TOO_LARGE", message)
}

/// A message as it is sent.
///
/// # Errors
/// When it is larger than a message may be.
pub fn encode(message: &impl Message) -> Result<Vec<u8>, Status> {
    let length = message.encoded_len();
    if length > MESSAGE_BYTES_MAX {
        let sentence = format!("the answer has {length} bytes, more than a message may have: ask for less");
        return Err(Status::new(Code::ResourceExhausted, "MESSAGE_TOO_LARGE", sentence));
    }
    let mut bytes = Vec::with_capacity(PREFIX_BYTES + length);
    bytes.push(0);
    bytes.extend_from_slice(&u32::try_from(length).expect("at most 4 MiB").to_be_bytes());
    message.encode(&mut bytes).expect("memory grows");
    Ok(bytes)
}

/// What came cannot be read as messages.
#[must_use]
pub fn malformed(sentence: &str) -> Status {
    Status::new(Code::Internal, "MALFORMED_MESSAGE", sentence)
}

#[cfg(test)]
mod tests {
    use anvil_proto::v1::OfflineDiskRequest;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn messages_are_found_however_they_are_cut(
            texts in proptest::collection::vec(".{0,40}", 0..5), cuts in proptest::collection::vec(1..50_usize, 1..50)
        ) {
            let sent: Vec<_> = texts.into_iter().map(|disk| OfflineDiskRequest { disk }).collect();
            let bytes: Vec<u8> = sent.iter().flat_map(|message| encode(message).unwrap()).collect();
            let (mut messages, mut found, mut rest) = (Messages::default(), Vec::new(), bytes.as_slice());
            for cut in cuts.into_iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (some, more) = rest.split_at(cut.min(rest.len()));
                messages.push(Bytes::copy_from_slice(some));
                rest = more;
                while let Some(message) = messages.take().unwrap() {
                    found.push(OfflineDiskRequest::decode(message).unwrap());
                }
            }
            prop_assert_eq!(found, sent);
            prop_assert!(messages.is_empty());
        }

        #[test]
        fn any_bytes_are_messages_or_one_status(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut messages = Messages::default();
            messages.push(bytes.clone().into());
            while let Ok(Some(message)) = messages.take() {
                prop_assert!(message.remaining() <= bytes.len());
            }
        }
    }

    #[test]
    fn a_message_is_refused_by_its_first_bytes() {
        let refused = |bytes: &[u8]| {
            let mut messages = Messages::default();
            messages.push(Bytes::copy_from_slice(bytes));
            messages.take().unwrap_err().code
        };
        assert_eq!(refused(&[0, 0, 0x40, 0, 1]), Code::ResourceExhausted);
        assert_eq!(refused(&[0, 0xff, 0xff, 0xff, 0xff]), Code::ResourceExhausted);
        assert_eq!((refused(&[1, 0, 0, 0, 1]), refused(&[2, 0, 0, 0, 0])), (Code::Internal, Code::Internal));
        let mut largest = Messages::default();
        largest.push(Bytes::from_static(&[0, 0, 0x40, 0, 0]));
        assert!(largest.take().unwrap().is_none());
    }

    #[test]
    fn gzip_is_undone_and_no_bomb() {
        let zipped = |bytes: &[u8]| {
            let mut zipped = Vec::new();
            flate2::read::GzEncoder::new(bytes, flate2::Compression::fast()).read_to_end(&mut zipped).unwrap();
            let mut messages = Messages::of(Encoding::Gzip);
            messages.push([&[1], &u32::try_from(zipped.len()).unwrap().to_be_bytes()[..], &zipped].concat().into());
            messages.take()
        };
        let message = OfflineDiskRequest { disk: "x".repeat(10_000) };
        let read = OfflineDiskRequest::decode(zipped(&message.encode_to_vec()).unwrap().unwrap()).unwrap();
        assert_eq!(read, message);
        assert_eq!(zipped(&vec![0; MESSAGE_BYTES_MAX + 1]).unwrap_err().code, Code::ResourceExhausted);
        let mut wrong = Messages::of(Encoding::Gzip);
        wrong.push(Bytes::from_static(&[1, 0, 0, 0, 3, b'a', b'b', b'c']));
        assert_eq!(wrong.take().unwrap_err().code, Code::Internal);
        let mut plain = Messages::of(Encoding::Gzip);
        plain.push(Bytes::from_static(&[0, 0, 0, 0, 0]));
        assert!(plain.take().unwrap().is_some());
    }
}
