//! Messages on the wire (PROTOCOL-HTTP2.md, "Length-Prefixed-Message"), and the status behind them.

use anvil_proto::Message;
use anvil_proto::rpc::{ErrorInfo, Status};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::HeaderMap;

/// A message as it is sent.
pub(super) fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).expect("a message is far below 4 GiB"));
    message.encode(&mut bytes).expect("memory grows");
    bytes.freeze()
}

/// Cuts what comes into messages.
#[derive(Debug, Default)]
pub(super) struct Messages {
    bytes: BytesMut,
}

impl Messages {
    /// Takes what came next.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next message, when all of it is there.
    ///
    /// # Errors
    /// When it is none that this end takes.
    pub(super) fn take(&mut self) -> Result<Option<Bytes>, &'static str> {
        let Some([flag, length @ ..]) = self.bytes.first_chunk::<PREFIX_BYTES>().copied() else { return Ok(None) };
        let length = u32::from_be_bytes(length) as usize;
        if flag != 0 || length > MESSAGE_BYTES_MAX {
            return Err("a message that is compressed or too large");
        }
        if self.bytes.len() < PREFIX_BYTES + length {
            self.bytes.reserve(PREFIX_BYTES + length - self.bytes.len());
            return Ok(None);
        }
        self.bytes.advance(PREFIX_BYTES);
        Ok(Some(self.bytes.split_to(length).freeze()))
    }

    /// Whether all that came was taken.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// The status at the end of a call: `None` when there is none, otherwise how the call failed, if it did.
pub(super) fn status(fields: &HeaderMap) -> Option<Result<(), String>> {
    let text = |name| fields.get(name).and_then(|value| value.to_str().ok());
    let code: usize = text("grpc-status")?.parse().unwrap_or(usize::MAX);
    if code == 0 {
        return Some(Ok(()));
    }
    let name = CODES.get(code).copied().unwrap_or("UNKNOWN");
    let reason = text("grpc-status-details-bin").and_then(reason).unwrap_or_default();
    Some(Err(format!("{name} {reason}").trim_end().to_owned()))
}

/// The reason among the details, which may come with padding or without (PROTOCOL-HTTP2.md, "-bin").
fn reason(details: &str) -> Option<String> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let bytes = GeneralPurpose::new(&alphabet::STANDARD, config).decode(details).ok()?;
    let status = Status::decode(bytes.as_slice()).ok()?;
    let info = status.details.iter().find(|detail| detail.type_url.ends_with("/google.rpc.ErrorInfo"))?;
    ErrorInfo::decode(info.value.as_slice()).ok().map(|info| info.reason)
}

const PREFIX_BYTES: usize = 5;
/// As a node has it.
pub(super) const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// By their numbers (grpc/doc/statuscodes.md).
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

#[cfg(test)]
mod tests {
    use anvil_proto::v1::HeadObjectRequest;

    use super::*;

    #[test]
    fn messages_are_found_however_they_are_cut() {
        let message =
            HeadObjectRequest { bucket_name: "b".to_owned(), object_key: "k".repeat(300), preconditions: None };
        let bytes = [frame(&message), frame(&HeadObjectRequest::default()), frame(&message)].concat();
        for cut in 1..bytes.len() {
            let (mut messages, mut found) = (Messages::default(), Vec::new());
            for piece in bytes.chunks(cut) {
                messages.push(piece);
                while let Some(message) = messages.take().unwrap() {
                    found.push(HeadObjectRequest::decode(message).unwrap());
                }
            }
            assert!(found == [message.clone(), HeadObjectRequest::default(), message.clone()] && messages.is_empty());
        }
    }

    #[test]
    fn a_status_is_a_name_and_a_reason() {
        let mut fields = HeaderMap::new();
        assert_eq!(status(&fields), None);
        fields.insert("grpc-status", "0".parse().unwrap());
        assert_eq!(status(&fields), Some(Ok(())));
        fields.insert("grpc-status", "5".parse().unwrap());
        assert_eq!(status(&fields), Some(Err("NOT_FOUND".to_owned())));
        let info = ErrorInfo { reason: "NO_SUCH_KEY".to_owned(), ..ErrorInfo::default() };
        let type_url = "type.googleapis.com/google.rpc.ErrorInfo".to_owned();
        let details = vec![anvil_proto::Any { type_url, value: info.encode_to_vec() }];
        let wire = Status { code: 5, message: String::new(), details }.encode_to_vec();
        let text = base64::engine::general_purpose::STANDARD_NO_PAD.encode(wire);
        fields.insert("grpc-status-details-bin", text.parse().unwrap());
        assert_eq!(status(&fields), Some(Err("NOT_FOUND NO_SUCH_KEY".to_owned())));
        fields.insert("grpc-status", "99".parse().unwrap());
        assert_eq!(status(&fields), Some(Err("UNKNOWN NO_SUCH_KEY".to_owned())));
    }
}
