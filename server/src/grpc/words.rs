//! The words of the messages and those of the stories, one made from the other; strictly, where a client wrote them.

use anvil_model::ids::Generation;
use anvil_model::limits::{KEY_BYTES_MAX, USER_METADATA_BYTES_MAX};
use anvil_model::object::{BucketName, Checksum, ChecksumAlgorithm, ChecksumType, Etag, Headers, Key, WriteConditions};
use anvil_model::time::WallTime;
use anvil_node::classes::Classes;
use anvil_node::get::Found;
use anvil_node::metadata::Refusal;
use anvil_node::metadata::rows::StorageClass;
use anvil_proto::{Timestamp, v1};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::status::{Code, Status};

/// What is said of an object beside its user metadata, at most, as HTTP can carry it.
const HEADER_BYTES_MAX: usize = 4096;

fn invalid(reason: &'static str, message: impl Into<String>) -> Status {
    Status::new(Code::InvalidArgument, reason, message)
}

pub(super) fn bucket_name(text: &str) -> Result<BucketName, Status> {
    BucketName::new(text).map_err(|error| invalid("INVALID_BUCKET_NAME", error.to_string()).about("bucket_name", text))
}

pub(super) fn object_key(text: String) -> Result<Key, Status> {
    Key::new(text.into_bytes()).map_err(|error| invalid("INVALID_OBJECT_KEY", error.to_string()))
}

pub(super) fn storage_class(text: &str, classes: &Classes) -> Result<Option<StorageClass>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let class: Option<StorageClass> = text.parse().ok().filter(|class| classes.find(class).is_some());
    class.map(Some).ok_or_else(|| {
        let known: Vec<&str> = classes.iter().map(|(name, _)| name).collect();
        let message = format!("this node has no storage class {text}; it has {}", known.join(", "));
        invalid("NO_SUCH_STORAGE_CLASS", message).about("storage_class", text)
    })
}

/// What is said of an object, such that HTTP can say it too.
pub(super) fn headers(metadata: Option<v1::ObjectMetadata>) -> Result<Headers, Status> {
    let metadata = metadata.unwrap_or_default();
    let mut bytes = 0;
    let mut text = |text: String| {
        bytes += text.len();
        match text.is_empty() {
            true => Ok(None),
            false if is_field_value(&text) => Ok(Some(text)),
            false => Err(invalid("INVALID_METADATA", "what is said of an object has no control characters")),
        }
    };
    let headers = Headers {
        content_type: text(metadata.content_type)?,
        cache_control: text(metadata.cache_control)?,
        content_disposition: text(metadata.content_disposition)?,
        content_encoding: text(metadata.content_encoding)?,
        content_language: text(metadata.content_language)?,
        expires: text(metadata.expires)?,
        website_redirect_location: text(metadata.website_redirect_location)?,
        user: metadata.user.into_iter().collect(),
    };
    if let Some((name, _)) = headers.user.iter().find(|(name, value)| !is_name(name) || !is_field_value(value)) {
        let message = "names of user metadata have lower-case letters, digits and -_., values no control characters";
        return Err(invalid("INVALID_METADATA", message).about("name", name));
    }
    let user_bytes: usize = headers.user.iter().map(|(name, value)| name.len() + value.len()).sum();
    if user_bytes > USER_METADATA_BYTES_MAX || bytes > HEADER_BYTES_MAX {
        let message = format!(
            "user metadata has at most {USER_METADATA_BYTES_MAX} bytes, all else that is said at most {HEADER_BYTES_MAX}"
        );
        return Err(invalid("METADATA_TOO_LARGE", message));
    }
    Ok(headers)
}

fn is_name(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(fits)
}

fn is_field_value(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() && c != '\t')
}

pub(super) fn metadata(headers: &Headers) -> v1::ObjectMetadata {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    v1::ObjectMetadata {
        content_type: text(&headers.content_type),
        cache_control: text(&headers.cache_control),
        content_disposition: text(&headers.content_disposition),
        content_encoding: text(&headers.content_encoding),
        content_language: text(&headers.content_language),
        expires: text(&headers.expires),
        website_redirect_location: text(&headers.website_redirect_location),
        user: headers.user.iter().cloned().collect(),
    }
}

const ALGORITHMS: [(v1::ChecksumAlgorithm, ChecksumAlgorithm); 5] = [
    (v1::ChecksumAlgorithm::Crc32, ChecksumAlgorithm::Crc32),
    (v1::ChecksumAlgorithm::Crc32c, ChecksumAlgorithm::Crc32c),
    (v1::ChecksumAlgorithm::Crc64nvme, ChecksumAlgorithm::Crc64Nvme),
    (v1::ChecksumAlgorithm::Sha1, ChecksumAlgorithm::Sha1),
    (v1::ChecksumAlgorithm::Sha256, ChecksumAlgorithm::Sha256),
];

pub(super) fn algorithm(number: i32) -> Result<Option<ChecksumAlgorithm>, Status> {
    if number == 0 {
        return Ok(None);
    }
    let found = ALGORITHMS.iter().find(|(wire, _)| *wire as i32 == number).map(|(_, algorithm)| *algorithm);
    found.map(Some).ok_or_else(|| invalid("INVALID_CHECKSUM", "this node does not know the checksum's algorithm"))
}

pub(super) fn checksum_type(number: i32) -> Result<Option<ChecksumType>, Status> {
    match v1::ChecksumType::try_from(number) {
        Ok(v1::ChecksumType::Unspecified) => Ok(None),
        Ok(v1::ChecksumType::FullObject) => Ok(Some(ChecksumType::FullObject)),
        Ok(v1::ChecksumType::Composite) => Ok(Some(ChecksumType::Composite)),
        Err(_) => Err(invalid("INVALID_CHECKSUM", "this node does not know the checksum's type")),
    }
}

pub(super) fn checksum(checksum: Option<v1::Checksum>) -> Result<Option<Checksum>, Status> {
    let Some(v1::Checksum { algorithm: number, value, r#type }) = checksum else { return Ok(None) };
    let algorithm = algorithm(number)?.ok_or_else(|| invalid("INVALID_CHECKSUM", "a checksum has an algorithm"))?;
    if value.len() != algorithm.value_bytes() {
        let message = format!("a {} has {} bytes", algorithm.name(), algorithm.value_bytes());
        return Err(invalid("INVALID_CHECKSUM", message));
    }
    let of = checksum_type(r#type)?.unwrap_or(ChecksumType::FullObject);
    Ok(Some(Checksum { algorithm, of, value: value.to_vec() }))
}

pub(super) fn told_checksum(checksum: &Checksum) -> v1::Checksum {
    let (algorithm, _) = ALGORITHMS.iter().find(|(_, own)| *own == checksum.algorithm).expect("all are listed");
    let of = match checksum.of {
        ChecksumType::FullObject => v1::ChecksumType::FullObject,
        ChecksumType::Composite => v1::ChecksumType::Composite,
    };
    v1::Checksum { algorithm: (*algorithm).into(), value: checksum.value.clone().into(), r#type: of.into() }
}

/// A tag with or without its quotes.
pub(super) fn etag(text: &str) -> Etag {
    Etag(text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text).to_owned())
}

/// What a write demands of the version that it replaces.
pub(super) fn write_conditions(preconditions: Option<v1::Preconditions>) -> Result<WriteConditions, Status> {
    let wanted = preconditions.unwrap_or_default();
    if wanted.if_none_match.as_deref().is_some_and(|text| text != "*") || wanted.if_generation_not_match.is_some() {
        let message = "a write takes if_match, if_none_match `*` and if_generation_match";
        return Err(invalid("INVALID_PRECONDITION", message));
    }
    let absent = wanted.if_none_match.is_some() || wanted.if_generation_match == Some(0);
    Ok(WriteConditions {
        absent,
        etag: wanted.if_match.as_deref().map(etag),
        generation: wanted.if_generation_match.filter(|generation| *generation != 0).map(Generation),
    })
}

/// Judges a version that is there.
///
/// # Errors
/// When a condition does not hold.
pub(super) fn judge(preconditions: Option<&v1::Preconditions>, found: &Found) -> Result<(), Status> {
    match holds(preconditions, &found.etag, found.version()) {
        Verdict::Holds => Ok(()),
        Verdict::Failed => Err(Refusal::PreconditionFailed.into()),
        Verdict::NotModified => {
            let message = "the object is still what the caller has";
            Err(Status::new(Code::FailedPrecondition, "NOT_MODIFIED", message))
        }
    }
}

/// Judges the source of a copy.
pub(super) fn judge_source(preconditions: Option<&v1::Preconditions>, found: &Found) -> Result<(), Refusal> {
    match holds(preconditions, &found.etag, found.version()) {
        Verdict::Holds => Ok(()),
        Verdict::Failed | Verdict::NotModified => Err(Refusal::PreconditionFailed),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Holds,
    Failed,
    NotModified,
}

fn holds(preconditions: Option<&v1::Preconditions>, own: &Etag, generation: Generation) -> Verdict {
    let Some(wanted) = preconditions else { return Verdict::Holds };
    let matches = |text: &String| text == "*" || etag(text) == *own;
    let as_it_was = wanted.if_match.as_ref().is_none_or(matches)
        && wanted.if_generation_match.is_none_or(|wanted| wanted == generation.0);
    let changed = !wanted.if_none_match.as_ref().is_some_and(matches)
        && wanted.if_generation_not_match.is_none_or(|unwanted| unwanted != generation.0);
    match (as_it_was, changed) {
        (false, _) => Verdict::Failed,
        (true, false) => Verdict::NotModified,
        (true, true) => Verdict::Holds,
    }
}

pub(super) fn timestamp(at: WallTime) -> Option<Timestamp> {
    let seconds = i64::try_from(at.unix_ms / 1000).ok()?;
    let nanos = i32::try_from(at.unix_ms % 1000).expect("below a thousand") * 1_000_000;
    Some(Timestamp { seconds, nanos })
}

/// What an object is.
pub(super) fn info(bucket: &str, key: &str, found: &Found) -> v1::ObjectInfo {
    v1::ObjectInfo {
        bucket_name: bucket.to_owned(),
        object_key: key.to_owned(),
        size: found.size,
        etag: found.etag.0.clone(),
        generation: found.version().0,
        last_modified: timestamp(found.last_modified),
        checksum: Some(told_checksum(&found.checksum)),
        metadata: Some(metadata(&found.headers)),
        storage_class: found.storage_class.to_string(),
        parts_count: found.parts.unwrap_or(0).into(),
    }
}

/// The bytes that `offset` and `length` mean in an object of `size` bytes.
pub(super) fn range(offset: i64, length: u64, size: u64) -> Result<std::ops::Range<u64>, Status> {
    let start = if offset < 0 { size.saturating_sub(offset.unsigned_abs()) } else { offset.unsigned_abs() };
    if start > size {
        let message = format!("the range begins at {start}, behind the {size} bytes of the object");
        return Err(Status::new(Code::OutOfRange, "OUT_OF_RANGE", message).about("size", size));
    }
    let length = if length == 0 { size - start } else { length.min(size - start) };
    Ok(start..start + length)
}

/// A token for the next page: its form, then the position. Only a node reads it.
pub(super) fn page_token(position: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode([&[TOKEN_FORM], position].concat())
}

/// Reads [`page_token`]; `None` for the first page.
pub(super) fn read_page_token(text: &str) -> Result<Option<Vec<u8>>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let bytes = URL_SAFE_NO_PAD.decode(text).ok().filter(|bytes| bytes.len() <= TOKEN_BYTES_MAX);
    match bytes.as_deref() {
        Some([TOKEN_FORM, position @ ..]) if !position.is_empty() => Ok(Some(position.to_vec())),
        _ => Err(invalid("INVALID_PAGE_TOKEN", "a page_token is the next_page_token of a page before")),
    }
}

/// Entries of a page: what was asked for, or as many as there may be.
pub(super) fn page_size(wanted: u32, most: usize) -> usize {
    match usize::try_from(wanted) {
        Ok(wanted @ 1..) => wanted.min(most),
        _ => most,
    }
}

/// Lets the tokens of a later release differ from these.
const TOKEN_FORM: u8 = 1;
/// Form, key, a zero byte and an upload's id.
const TOKEN_BYTES_MAX: usize = 1 + KEY_BYTES_MAX + 1 + 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_lies_in_its_object() {
        for (offset, length, size, expected) in [
            (0, 0, 10, Some(0..10)),
            (3, 4, 10, Some(3..7)),
            (3, u64::MAX, 10, Some(3..10)),
            (-4, 0, 10, Some(6..10)),
            (-4, 2, 10, Some(6..8)),
            (i64::MIN, 0, 10, Some(0..10)),
            (10, 0, 10, Some(10..10)),
            (11, 0, 10, None),
            (0, 0, 0, Some(0..0)),
            (-1, 1, 0, Some(0..0)),
        ] {
            assert_eq!(range(offset, length, size).ok(), expected, "{offset} {length} {size}");
        }
    }

    #[test]
    fn conditions_are_those_of_the_version() {
        let (own, generation) = (Etag("e".to_owned()), Generation(7));
        let check = |change: &dyn Fn(&mut v1::Preconditions)| {
            let mut wanted = v1::Preconditions::default();
            change(&mut wanted);
            holds(Some(&wanted), &own, generation)
        };
        assert_eq!(check(&|_| {}), Verdict::Holds);
        assert_eq!(check(&|p| p.if_match = Some("\"e\"".to_owned())), Verdict::Holds);
        assert_eq!(check(&|p| p.if_match = Some("f".to_owned())), Verdict::Failed);
        assert_eq!(check(&|p| p.if_match = Some("*".to_owned())), Verdict::Holds);
        assert_eq!(check(&|p| p.if_none_match = Some("e".to_owned())), Verdict::NotModified);
        assert_eq!(check(&|p| p.if_none_match = Some("f".to_owned())), Verdict::Holds);
        assert_eq!(check(&|p| p.if_generation_match = Some(7)), Verdict::Holds);
        assert_eq!(check(&|p| p.if_generation_match = Some(0)), Verdict::Failed);
        assert_eq!(check(&|p| p.if_generation_not_match = Some(7)), Verdict::NotModified);
        assert_eq!(check(&|p| p.if_generation_not_match = Some(0)), Verdict::Holds);
    }

    #[test]
    fn a_write_takes_the_conditions_that_it_can_hold() {
        let read = |wanted| write_conditions(Some(wanted)).map_err(|status| status.reason);
        let wanted = v1::Preconditions { if_generation_match: Some(0), ..Default::default() };
        assert_eq!(read(wanted), Ok(WriteConditions { absent: true, ..Default::default() }));
        let wanted = v1::Preconditions { if_generation_match: Some(3), ..Default::default() };
        assert_eq!(read(wanted), Ok(WriteConditions { generation: Some(Generation(3)), ..Default::default() }));
        let wanted = v1::Preconditions { if_none_match: Some("e".to_owned()), ..Default::default() };
        assert_eq!(read(wanted), Err("INVALID_PRECONDITION"));
        let wanted = v1::Preconditions { if_generation_not_match: Some(3), ..Default::default() };
        assert_eq!(read(wanted), Err("INVALID_PRECONDITION"));
    }

    #[test]
    fn what_is_said_of_an_object_can_be_a_header() {
        let said = |name: &str, value: &str| {
            let user = [(name.to_owned(), value.to_owned())].into();
            headers(Some(v1::ObjectMetadata { user, ..Default::default() })).map_err(|status| status.reason)
        };
        assert_eq!(said("a-b", "ü").unwrap().user, [("a-b".to_owned(), "ü".to_owned())]);
        for (name, value) in [("", "x"), ("A", "x"), ("a b", "x"), ("a:", "x"), ("a", "x\r\ny")] {
            assert_eq!(said(name, value), Err("INVALID_METADATA"), "{name:?}");
        }
        assert_eq!(said("a", &"x".repeat(USER_METADATA_BYTES_MAX)), Err("METADATA_TOO_LARGE"));
        let typed = |content_type: String| headers(Some(v1::ObjectMetadata { content_type, ..Default::default() }));
        assert_eq!(typed(String::new()).unwrap(), Headers::default());
        assert!(typed("a\nb".to_owned()).is_err() && typed("x".repeat(5000)).is_err());
    }

    #[test]
    fn a_page_token_is_read_back() {
        assert_eq!(read_page_token(&page_token(b"a/b")).unwrap().as_deref(), Some(&b"a/b"[..]));
        assert_eq!(read_page_token("").unwrap(), None);
        for wrong in ["a/b", "AQ", "!", &page_token(&[b'x'; 2000])] {
            assert_eq!(read_page_token(wrong).unwrap_err().reason, "INVALID_PAGE_TOKEN", "{wrong}");
        }
    }
}
