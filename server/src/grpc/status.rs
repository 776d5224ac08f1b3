//! How calls end.

use std::collections::BTreeMap;
use std::time::Duration;

use anvil_proto::rpc::{ErrorInfo, RetryInfo, Status as WireStatus};
use anvil_proto::{Any, Message};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use crate::admission::TooOften;

/// The codes of gRPC (grpc/grpc/doc/statuscodes.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as gRPC names them")]
pub enum Code {
    Ok = 0,
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

const CODES: [(Code, &str, u16); 17] = [
    (Code::Ok, "OK", 200),
    (Code::Cancelled, "CANCELLED", 499),
    (Code::Unknown, "UNKNOWN", 500),
    (Code::InvalidArgument, "INVALID_ARGUMENT", 400),
    (Code::DeadlineExceeded, "DEADLINE_EXCEEDED", 504),
    (Code::NotFound, "NOT_FOUND", 404),
    (Code::AlreadyExists, "ALREADY_EXISTS", 409),
    (Code::PermissionDenied, "PERMISSION_DENIED", 403),
    (Code::ResourceExhausted, "RESOURCE_EXHAUSTED", 429),
    (Code::FailedPrecondition, "FAILED_PRECONDITION", 400),
    (Code::Aborted, "ABORTED", 409),
    (Code::OutOfRange, "OUT_OF_RANGE", 400),
    (Code::Unimplemented, "UNIMPLEMENTED", 501),
    (Code::Internal, "INTERNAL", 500),
    (Code::Unavailable, "UNAVAILABLE", 503),
    (Code::DataLoss, "DATA_LOSS", 500),
    (Code::Unauthenticated, "UNAUTHENTICATED", 401),
];

impl Code {
    /// The code of a number; unknown numbers count as unknown (statuscodes.md).
    #[must_use]
    pub fn of(number: u32) -> Self {
        let found = CODES.get(number as usize).map(|(code, ..)| *code);
        found.unwrap_or(Self::Unknown)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        CODES[self as usize].1
    }

    /// The HTTP status that says the same, for logs and metrics (google/rpc/code.proto).
    #[must_use]
    pub fn http_status(self) -> u16 {
        CODES[self as usize].2
    }
}

/// How a call ended, when it did not end well.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// For everybody.
    pub code: Code,
    /// For programs: in capitals, listed in docs/GRPC.md.
    pub reason: &'static str,
    /// For people: one sentence.
    pub message: String,
    /// What it is about.
    pub about: Vec<(&'static str, String)>,
    /// When another attempt may succeed.
    pub retry_after: Option<Duration>,
}

/// A message may repeat what a client sent; it is cut here.
const MESSAGE_BYTES_MAX: usize = 1024;
/// `Percent-Encoded` of the protocol: all but visible ASCII and the space, and `%` itself.
const KEPT: &AsciiSet = &CONTROLS.add(b'%');
/// Whose reasons these are.
const DOMAIN: &str = "anvil";

impl Status {
    /// A status of this code and reason.
    #[must_use]
    pub fn new(code: Code, reason: &'static str, message: impl Into<String>) -> Self {
        let mut message = message.into();
        message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
        Self { code, reason, message, about: Vec::new(), retry_after: None }
    }

    /// With something that it is about.
    #[must_use]
    pub fn about(mut self, name: &'static str, value: impl ToString) -> Self {
        let mut value = value.to_string();
        value.truncate(value.floor_char_boundary(MESSAGE_BYTES_MAX));
        self.about.push((name, value));
        self
    }

    /// Says when another attempt may succeed.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// A request that cannot be meant.
    #[must_use]
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, "INVALID_REQUEST", message)
    }

    /// A bug of ours.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(Code::Internal, "INTERNAL", "The node met an error of its own: its log says which.")
    }

    /// The fields that end a call with this status.
    #[must_use]
    pub fn fields(&self, request_id: &str) -> Vec<(&'static str, String)> {
        let mut fields = vec![
            (STATUS, (self.code as u32).to_string()),
            (MESSAGE, utf8_percent_encode(&self.message, KEPT).to_string()),
        ];
        fields.push((DETAILS, STANDARD_NO_PAD.encode(self.to_wire(request_id).encode_to_vec())));
        fields
    }

    /// As a message, for outcomes that are told one by one.
    #[must_use]
    pub fn to_wire(&self, request_id: &str) -> WireStatus {
        let mut metadata: BTreeMap<String, String> =
            self.about.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        metadata.insert("request_id".to_owned(), request_id.to_owned());
        let info = ErrorInfo { reason: self.reason.to_owned(), domain: DOMAIN.to_owned(), metadata };
        let mut details = vec![any("google.rpc.ErrorInfo", &info)];
        if let Some(delay) = self.retry_after {
            let retry_delay = anvil_proto::Duration::try_from(delay).ok();
            details.push(any("google.rpc.RetryInfo", &RetryInfo { retry_delay }));
        }
        WireStatus { code: self.code as i32, message: self.message.clone(), details }
    }
}

impl From<TooOften> for Status {
    fn from(error: TooOften) -> Self {
        let status = Self::new(Code::ResourceExhausted, "TOO_OFTEN", error.to_string());
        status.about("limit", error.limit.name()).retry_after(error.wait)
    }
}

/// The fields that end a call.
pub const STATUS: &str = "grpc-status";
/// See [`STATUS`].
pub const MESSAGE: &str = "grpc-message";
/// See [`STATUS`].
pub const DETAILS: &str = "grpc-status-details-bin";

/// The text of a `grpc-message`; what is wrongly encoded is shown as it came.
#[must_use]
pub fn decode_message(field: &str) -> String {
    percent_decode_str(field).decode_utf8_lossy().into_owned()
}

fn any(name: &str, message: &impl Message) -> Any {
    Any { type_url: format!("type.googleapis.com/{name}"), value: message.encode_to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_three_fields() {
        let status = Status::new(Code::NotFound, "NO_SUCH_DISK", "100 % of \u{fc}\n")
            .about("disk", "/a")
            .retry_after(Duration::from_millis(1500));
        let fields = status.fields("R1");
        assert_eq!(fields[0], (STATUS, "5".to_owned()));
        assert_eq!(fields[1], (MESSAGE, "100 %25 of %C3%BC%0A".to_owned()));
        assert_eq!(decode_message(&fields[1].1), status.message);
        let bytes = STANDARD_NO_PAD.decode(&fields[2].1).unwrap();
        let wire = WireStatus::decode(bytes.as_slice()).unwrap();
        assert_eq!((wire.code, wire.message.as_str()), (5, status.message.as_str()));
        let info = ErrorInfo::decode(wire.details[0].value.as_slice()).unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("NO_SUCH_DISK", "anvil"));
        assert_eq!((info.metadata["disk"].as_str(), info.metadata["request_id"].as_str()), ("/a", "R1"));
        let retry = RetryInfo::decode(wire.details[1].value.as_slice()).unwrap().retry_delay.unwrap();
        assert_eq!((retry.seconds, retry.nanos), (1, 500_000_000));
    }

    #[test]
    fn what_a_client_sent_makes_no_long_status() {
        let status = Status::invalid("\u{20ac}".repeat(5000)).about("x", "y".repeat(5000));
        assert!(status.message.len() <= MESSAGE_BYTES_MAX && status.about[0].1.len() <= MESSAGE_BYTES_MAX);
    }

    #[test]
    fn codes_are_their_numbers() {
        for (number, (code, ..)) in CODES.iter().enumerate() {
            assert_eq!((*code as usize, Code::of(u32::try_from(number).unwrap())), (number, *code));
        }
        assert_eq!(Code::of(17), Code::Unknown);
    }
}
