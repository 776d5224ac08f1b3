//! Checksums as S3 writes them: base64 in headers and XML, with the number of parts behind a composite one.

use anvil_digest::{Algorithm, Digest};
use anvil_model::object::{Checksum, ChecksumAlgorithm, ChecksumType};
use anvil_node::body::Trailer;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::error::{Code, S3Error, checksum_mismatch, md5_mismatch};
use super::headers::single;
use crate::http::Head;

/// The header that carries a checksum.
pub(crate) const fn header_name(algorithm: ChecksumAlgorithm) -> &'static str {
    match algorithm {
        ChecksumAlgorithm::Crc32 => "x-amz-checksum-crc32",
        ChecksumAlgorithm::Crc32c => "x-amz-checksum-crc32c",
        ChecksumAlgorithm::Crc64Nvme => "x-amz-checksum-crc64nvme",
        ChecksumAlgorithm::Sha1 => "x-amz-checksum-sha1",
        ChecksumAlgorithm::Sha256 => "x-amz-checksum-sha256",
    }
}

/// The XML element that carries a checksum.
pub(crate) const fn element_name(algorithm: ChecksumAlgorithm) -> &'static str {
    match algorithm {
        ChecksumAlgorithm::Crc32 => "ChecksumCRC32",
        ChecksumAlgorithm::Crc32c => "ChecksumCRC32C",
        ChecksumAlgorithm::Crc64Nvme => "ChecksumCRC64NVME",
        ChecksumAlgorithm::Sha1 => "ChecksumSHA1",
        ChecksumAlgorithm::Sha256 => "ChecksumSHA256",
    }
}

/// The name of a type in `x-amz-checksum-type` and in XML.
pub(crate) const fn type_name(of: ChecksumType) -> &'static str {
    match of {
        ChecksumType::FullObject => "FULL_OBJECT",
        ChecksumType::Composite => "COMPOSITE",
    }
}

/// A checksum's value as text; a composite one needs the number of parts.
pub(crate) fn text(checksum: &Checksum, parts: Option<u16>) -> String {
    let value = STANDARD.encode(&checksum.value);
    match (checksum.of, parts) {
        (ChecksumType::Composite, Some(parts)) => format!("{value}-{parts}"),
        _ => value,
    }
}

/// Reads a checksum of bytes that are all in one piece: an object's, a part's, a document's.
pub(crate) fn parse(algorithm: ChecksumAlgorithm, text: &str) -> Option<Checksum> {
    let value = STANDARD.decode(text.trim()).ok()?;
    let fits = value.len() == algorithm.value_bytes();
    fits.then_some(Checksum { algorithm, of: ChecksumType::FullObject, value })
}

/// Reads a checksum that may be composite (`value-parts`), with the number of parts.
fn parse_composite(algorithm: ChecksumAlgorithm, text: &str) -> Option<(Checksum, Option<u16>)> {
    let Some((value, parts)) = text.split_once('-') else { return Some((parse(algorithm, text)?, None)) };
    let parts = parts.parse().ok().filter(|parts| *parts > 0)?;
    Some((Checksum { of: ChecksumType::Composite, ..parse(algorithm, value)? }, Some(parts)))
}

/// The checksum of the request's bytes that its head carries.
///
/// # Errors
/// `InvalidRequest` when there are two, or one that no value of its algorithm looks like.
pub(crate) fn of_bytes(head: &Head) -> Result<Option<Checksum>, S3Error> {
    carried(head, parse)
}

/// The checksum of the object that a CompleteMultipartUpload makes of `parts` parts, when its head carries one.
///
/// # Errors
/// As [`of_bytes`], and when the number of parts in it is another.
pub(crate) fn of_upload(head: &Head, parts: usize) -> Result<Option<Checksum>, S3Error> {
    let Some((mut checksum, counted)) = carried(head, parse_composite)? else { return Ok(None) };
    if counted.is_some_and(|counted| usize::from(counted) != parts) {
        let message = "The number of parts in the checksum value differs from the number of parts of the request.";
        return Err(S3Error::request(message));
    }
    if declared_type(head)? == Some(ChecksumType::Composite) {
        checksum.of = ChecksumType::Composite;
    }
    Ok(Some(checksum))
}

fn carried<T>(head: &Head, read: impl Fn(ChecksumAlgorithm, &str) -> Option<T>) -> Result<Option<T>, S3Error> {
    let mut found = None;
    for algorithm in ChecksumAlgorithm::ALL {
        let name = header_name(algorithm);
        let Some(text) = single(head, name)? else { continue };
        if found.is_some() {
            let message = "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.";
            return Err(S3Error::request(message));
        }
        let invalid = || S3Error::request(format!("Value for {name} header is invalid."));
        found = Some(read(algorithm, text).ok_or_else(invalid)?);
    }
    Ok(found)
}

/// Checks `x-amz-sdk-checksum-algorithm` against what is there: clients announce by it what they send.
///
/// # Errors
/// `InvalidRequest` when the algorithm is unknown, or the checksum that comes is of another.
pub(crate) fn check_announcement(head: &Head, comes: Option<ChecksumAlgorithm>) -> Result<(), S3Error> {
    let Some(text) = single(head, "x-amz-sdk-checksum-algorithm")? else { return Ok(()) };
    let announced = algorithm(text)?;
    match comes {
        Some(algorithm) if algorithm == announced => Ok(()),
        Some(_) => Err(S3Error::request("Value for x-amz-sdk-checksum-algorithm header is invalid.")),
        None => Err(S3Error::request(
            "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers \
             were found.",
        )),
    }
}

/// What a CreateMultipartUpload wants of the object to be.
///
/// # Errors
/// `InvalidRequest` for an algorithm or type that is unknown, or two that do not go together.
pub(crate) fn of_upload_to_be(head: &Head) -> Result<Option<(ChecksumAlgorithm, ChecksumType)>, S3Error> {
    let declared_type = declared_type(head)?;
    let Some(text) = single(head, "x-amz-checksum-algorithm")? else {
        return match declared_type {
            None => Ok(None),
            Some(_) => Err(S3Error::request(
                "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.",
            )),
        };
    };
    let algorithm = algorithm(text)?;
    let of = declared_type.unwrap_or(match algorithm {
        ChecksumAlgorithm::Crc64Nvme => ChecksumType::FullObject,
        _ => ChecksumType::Composite,
    });
    let contradicts = matches!(
        (algorithm, of),
        (ChecksumAlgorithm::Crc64Nvme, ChecksumType::Composite)
            | (ChecksumAlgorithm::Sha1 | ChecksumAlgorithm::Sha256, ChecksumType::FullObject)
    );
    if contradicts {
        let (of, name) = (type_name(of), algorithm.name().to_ascii_lowercase());
        return Err(S3Error::request(format!(
            "The {of} checksum type cannot be used with the {name} checksum algorithm."
        )));
    }
    Ok(Some((algorithm, of)))
}

/// The algorithm that a copy is to be summed with, when the client says so.
///
/// # Errors
/// `InvalidRequest` for an algorithm that is unknown.
pub(crate) fn of_copy(head: &Head) -> Result<Option<ChecksumAlgorithm>, S3Error> {
    single(head, "x-amz-checksum-algorithm")?.map(algorithm).transpose()
}

/// `x-amz-checksum-type`.
pub(crate) fn declared_type(head: &Head) -> Result<Option<ChecksumType>, S3Error> {
    match single(head, "x-amz-checksum-type")? {
        None => Ok(None),
        Some("FULL_OBJECT") => Ok(Some(ChecksumType::FullObject)),
        Some("COMPOSITE") => Ok(Some(ChecksumType::Composite)),
        Some(_) => Err(S3Error::request("Value for x-amz-checksum-type header is invalid.")),
    }
}

fn algorithm(text: &str) -> Result<ChecksumAlgorithm, S3Error> {
    let found = ChecksumAlgorithm::ALL.into_iter().find(|algorithm| text.eq_ignore_ascii_case(algorithm.name()));
    found.ok_or_else(|| {
        S3Error::request(
            "Checksum algorithm provided is unsupported. Please try again with any of the valid types: \
             [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]",
        )
    })
}

/// `Content-MD5`.
///
/// # Errors
/// `InvalidDigest` when it is not base64 of 16 bytes.
pub(crate) fn content_md5(head: &Head) -> Result<Option<[u8; 16]>, S3Error> {
    let Some(text) = single(head, "content-md5")? else { return Ok(None) };
    let value = STANDARD.decode(text).ok().and_then(|value| value.try_into().ok());
    value.map(Some).ok_or_else(|| S3Error::new(Code::INVALID_DIGEST))
}

/// Compares a document with the MD5 that its head promises.
pub(crate) fn verify_md5(head: &Head, document: &[u8]) -> Result<(), S3Error> {
    match content_md5(head)? {
        Some(promised) if anvil_digest::md5(document) != promised => Err(md5_mismatch()),
        _ => Ok(()),
    }
}

/// Compares a document with the checksums that its head and trailer promise.
pub(crate) fn verify_checksums(head: &Head, trailer: &Trailer, document: &[u8]) -> Result<(), S3Error> {
    let in_head = of_bytes(head)?;
    check_announcement(head, in_head.as_ref().or(trailer.checksum.as_ref()).map(|checksum| checksum.algorithm))?;
    for promised in in_head.iter().chain(&trailer.checksum) {
        let mut digest = Digest::new(digest_algorithm(promised.algorithm));
        digest.update(document);
        if *digest.finish() != *promised.value {
            return Err(checksum_mismatch(promised.algorithm));
        }
    }
    Ok(())
}

const fn digest_algorithm(algorithm: ChecksumAlgorithm) -> Algorithm {
    match algorithm {
        ChecksumAlgorithm::Crc32 => Algorithm::Crc32,
        ChecksumAlgorithm::Crc32c => Algorithm::Crc32c,
        ChecksumAlgorithm::Crc64Nvme => Algorithm::Crc64Nvme,
        ChecksumAlgorithm::Sha1 => Algorithm::Sha1,
        ChecksumAlgorithm::Sha256 => Algorithm::Sha256,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::tests::head;
    use proptest::prelude::*;

    const CRC32: &str = "x-amz-checksum-crc32";

    #[test]
    fn a_checksum_reads_back_as_it_is_written() {
        let checksum = parse(ChecksumAlgorithm::Crc32, "AAECAw==").unwrap();
        assert_eq!(checksum.value, [0, 1, 2, 3]);
        assert_eq!(text(&checksum, None), "AAECAw==");
        assert_eq!(text(&checksum, Some(3)), "AAECAw==");
        let composite = Checksum { of: ChecksumType::Composite, ..checksum };
        assert_eq!(text(&composite, Some(3)), "AAECAw==-3");
        assert_eq!(parse_composite(ChecksumAlgorithm::Crc32, "AAECAw==-3"), Some((composite, Some(3))));
        for bad in ["", "AAEC", "AAECAwQ=", "AAECAw", "!!", "AAECAw==-0", "AAECAw==-", "AAECAw==-x"] {
            assert_eq!(parse_composite(ChecksumAlgorithm::Crc32, bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_a_checksum(text in "\\PC*|[A-Za-z0-9+/=-]{0,50}") {
            for algorithm in ChecksumAlgorithm::ALL {
                if let Some((checksum, _)) = parse_composite(algorithm, &text) {
                    prop_assert_eq!(checksum.value.len(), algorithm.value_bytes());
                }
            }
        }
    }

    #[test]
    fn a_request_carries_one_checksum_that_can_be_one() {
        let read = |headers: &[(&str, &str)]| of_bytes(&head("PUT", "/abc/k", headers)).map_err(|e| e.code());
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[(CRC32, "AAECAw==")]).unwrap().unwrap().value, [0, 1, 2, 3]);
        assert_eq!(read(&[(CRC32, "AAEC")]), Err("InvalidRequest"));
        assert_eq!(read(&[(CRC32, "AAECAw==-1")]), Err("InvalidRequest"));
        assert_eq!(read(&[(CRC32, "AAECAw=="), ("x-amz-checksum-crc32c", "AAECAw==")]), Err("InvalidRequest"));
    }

    #[test]
    fn an_announced_algorithm_must_come() {
        let check = |name: &str, comes| {
            check_announcement(&head("PUT", "/abc/k", &[("x-amz-sdk-checksum-algorithm", name)]), comes).is_ok()
        };
        assert!(check("CRC32", Some(ChecksumAlgorithm::Crc32)));
        assert!(!check("CRC32", Some(ChecksumAlgorithm::Sha1)));
        assert!(!check("CRC32", None));
        assert!(!check("MD5", None));
    }

    #[test]
    fn algorithm_and_type_of_an_upload_go_together() {
        let read = |algorithm: Option<&str>, of: Option<&str>| {
            let names = ["x-amz-checksum-algorithm", "x-amz-checksum-type"];
            let headers: Vec<(&str, &str)> =
                names.into_iter().zip([algorithm, of]).filter_map(|(name, value)| Some((name, value?))).collect();
            of_upload_to_be(&head("POST", "/abc/k?uploads", &headers)).map_err(|error| error.code())
        };
        use {ChecksumAlgorithm as A, ChecksumType as T};
        assert_eq!(read(None, None), Ok(None));
        assert_eq!(read(Some("CRC32"), None), Ok(Some((A::Crc32, T::Composite))));
        assert_eq!(read(Some("CRC32"), Some("FULL_OBJECT")), Ok(Some((A::Crc32, T::FullObject))));
        assert_eq!(read(Some("CRC64NVME"), None), Ok(Some((A::Crc64Nvme, T::FullObject))));
        assert_eq!(read(Some("SHA256"), Some("COMPOSITE")), Ok(Some((A::Sha256, T::Composite))));
        for (algorithm, of) in [
            (Some("CRC64NVME"), Some("COMPOSITE")),
            (Some("SHA1"), Some("FULL_OBJECT")),
            (Some("MD5"), None),
            (None, Some("COMPOSITE")),
            (Some("CRC32"), Some("HALF_OBJECT")),
        ] {
            assert_eq!(read(algorithm, of), Err("InvalidRequest"), "{algorithm:?} {of:?}");
        }
    }

    #[test]
    fn the_checksum_of_an_upload_counts_its_parts() {
        let read = |value: &str, of: &str, parts| {
            let headers = [(CRC32, value), ("x-amz-checksum-type", of)];
            of_upload(&head("POST", "/abc/k?uploadId=u", &headers), parts).map(|checksum| checksum.unwrap().of).ok()
        };
        assert_eq!(read("AAECAw==-2", "COMPOSITE", 2), Some(ChecksumType::Composite));
        assert_eq!(read("AAECAw==", "COMPOSITE", 2), Some(ChecksumType::Composite));
        assert_eq!(read("AAECAw==", "FULL_OBJECT", 2), Some(ChecksumType::FullObject));
        assert_eq!(read("AAECAw==-3", "COMPOSITE", 2), None);
    }

    #[test]
    fn a_document_is_held_to_its_promises() {
        let document = b"123456789";
        let verify = |headers: &[(&str, &str)]| {
            let head = head("POST", "/abc?delete", headers);
            verify_md5(&head, document)
                .and_then(|()| verify_checksums(&head, &Trailer::default(), document))
                .map_err(|error| error.code())
        };
        assert_eq!(verify(&[]), Ok(()));
        assert_eq!(verify(&[("content-md5", "JfnnlDI7RTiF9RgfG2JNCw==")]), Ok(()));
        assert_eq!(verify(&[("content-md5", "JfnnlDI7RTiF9RgfG2JNCg==")]), Err("BadDigest"));
        assert_eq!(verify(&[("content-md5", "short")]), Err("InvalidDigest"));
        // The check value of CRC-32/ISO-HDLC is cbf43926.
        assert_eq!(verify(&[(CRC32, "y/Q5Jg==")]), Ok(()));
        assert_eq!(verify(&[(CRC32, "y/Q5Jw==")]), Err("BadDigest"));
    }
}
