//! Messages on the wire: a flag, four bytes of length, the message ("Length-Prefixed-Message").

use anvil_proto::Message;
use bytes::{Buf, Bytes, BytesMut};

use super::status::{Code, Status};

/// A message, at most, in either direction.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;
const PREFIX_BYTES: usize = 5;

/// Cuts what comes into messages. Holds at most one message and what came behind it.
#[derive(Debug, Default)]
pub struct Messages {
    buffer: BytesMut,
}

impl Messages {
    /// Takes what came next.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next message, when all of it is there.
    ///
    /// # Errors
    /// When it is compressed, which nobody agreed to, or larger than a message may be.
    pub fn take(&mut self) -> Result<Option<Bytes>, Status> {
        let Some((prefix, _)) = self.buffer.split_first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
        let [flag, length @ ..] = *prefix;
        match flag {
            0 => {}
            // PROTOCOL-HTTP2.md, "Compressed-Flag": set without a `grpc-encoding` is an error of the sender.
            1 => return Err(malformed("a message is compressed, and the call named no grpc-encoding")),
            _ => return Err(malformed("a message begins with a flag that is neither 0 nor 1")),
        }
        let length = u32::from_be_bytes(length) as usize;
        if length > MESSAGE_BYTES_MAX {
            let message =
                format!("a message of {length} bytes is larger than the {MESSAGE_BYTES_MAX} that it may have");
            return Err(Status::new(Code::ResourceExhausted, "MESSAGE_TOO_LARGE", message));
        }
        if self.buffer.len() < PREFIX_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(PREFIX_BYTES);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    /// Whether all that came was taken as whole messages.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
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
                messages.push(some);
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
            messages.push(&bytes);
            while let Ok(Some(message)) = messages.take() {
                prop_assert!(message.len() <= bytes.len());
            }
        }
    }

    #[test]
    fn a_message_is_refused_by_its_first_bytes() {
        let refused = |bytes: &[u8]| {
            let mut messages = Messages::default();
            messages.push(bytes);
            messages.take().unwrap_err().code
        };
        assert_eq!(refused(&[0, 0, 0x40, 0, 1]), Code::ResourceExhausted);
        assert_eq!(refused(&[0, 0xff, 0xff, 0xff, 0xff]), Code::ResourceExhausted);
        assert_eq!((refused(&[1, 0, 0, 0, 1]), refused(&[2, 0, 0, 0, 0])), (Code::Internal, Code::Internal));
        let mut largest = Messages::default();
        largest.push(&[0, 0, 0x40, 0, 0]);
        assert_eq!(largest.take(), Ok(None));
    }
}
