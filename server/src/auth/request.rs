//! What a head claims: read strictly, before anything is believed.

use anvil_digest::sha256;
use anvil_model::object::ChecksumAlgorithm;
use anvil_model::time::WallTime;

use super::error::{AuthError, Malformed};

use super::sigv4::{ALGORITHM, ChunkSigner, SERVICE, SigningKey, TERMINATOR, parse_hex32};
use super::{Payload, Streaming, time, uri};
use crate::http::Head;

/// A signature with all that it was made over, as the client says.
#[derive(Debug)]
pub(super) struct Claim {
    place: Malformed,
    pub(super) scope: Scope,
    /// As the client wrote them: names in lower case, joined by `;`.
    signed_headers: String,
    pub(super) signature: [u8; 32],
    /// `x-amz-date`, or `Date` in the form of `x-amz-date`.
    pub(super) timestamp: String,
    time: WallTime,
    /// Which header gave the time, if one did; it must be signed.
    time_header: Option<&'static str>,
    /// How long a presigned URL is good for, in seconds.
    expires_seconds: Option<u64>,
    /// `x-amz-content-sha256`.
    payload_hash: String,
    path: Vec<u8>,
    query: uri::Parameters,
}

/// Whom, when and where a signature is for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scope {
    pub(super) access_key: String,
    /// `YYYYMMDD`.
    pub(super) date: String,
    region: String,
}

impl Scope {
    /// The scope as it is signed: without the access key.
    pub(super) fn text(&self) -> String {
        format!("{}/{}/{SERVICE}/{TERMINATOR}", self.date, self.region)
    }
}

/// Whether the query has a parameter that only presigned requests have, of either signature version.
pub(super) fn is_presigned(head: &Head) -> bool {
    let parameters = uri::decode_query(head.query.as_deref()).unwrap_or_default();
    parameters.iter().any(|(name, _)| PRESIGNED_MARKS.iter().any(|mark| mark.as_bytes() == name))
}

const PRESIGNED_MARKS: [&str; 5] =
    ["X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Signature", "AWSAccessKeyId", "Signature"];

impl Claim {
    pub(super) fn read(head: &Head) -> Result<Self, AuthError> {
        let path = uri::decode_path(&head.path).map_err(|_| AuthError::InvalidUri)?;
        let query = uri::decode_query(head.query.as_deref()).map_err(|_| AuthError::InvalidUri)?;
        let in_header = single(head, "authorization")?.filter(|value| !value.is_empty());
        let presigned = is_presigned(head);
        if (in_header.is_some() || presigned) && has_repeated_name(&query) {
            return Err(AuthError::Repeated("a query parameter".to_owned()));
        }
        match in_header {
            Some(_) if presigned => Err(AuthError::TwoMechanisms),
            Some(authorization) => Self::read_header(head, authorization, path, query),
            None if presigned => Self::read_query(head, path, query),
            None => Err(AuthError::Anonymous),
        }
    }

    fn read_header(head: &Head, authorization: &str, path: Vec<u8>, query: uri::Parameters) -> Result<Self, AuthError> {
        let place = Malformed::Header;
        let rest = authorization.strip_prefix(ALGORITHM).ok_or(AuthError::UnsupportedMechanism)?;
        if !rest.starts_with([' ', '\t']) {
            return Err(AuthError::UnsupportedMechanism);
        }
        refuse_session_token(single(head, "x-amz-security-token")?)?;
        let [credential, signed_headers, signature] = authorization_fields(rest)?;
        let (time_header, timestamp, time) = request_time(head)?;
        Ok(Self {
            place,
            scope: parse_scope(place, credential, &timestamp)?,
            signed_headers: parse_signed_headers(place, signed_headers)?,
            signature: parse_hex32(signature).ok_or(AuthError::SignatureDoesNotMatch)?,
            timestamp,
            time,
            time_header: Some(time_header),
            expires_seconds: None,
            payload_hash: single(head, "x-amz-content-sha256")?.ok_or(AuthError::MissingPayloadHash)?.to_owned(),
            path,
            query,
        })
    }

    fn read_query(head: &Head, path: Vec<u8>, query: uri::Parameters) -> Result<Self, AuthError> {
        let place = Malformed::Query;
        let parameter = |name: &str| {
            let (_, value) = query.iter().find(|(n, _)| n == name.as_bytes())?;
            std::str::from_utf8(value).ok()
        };
        let required = |name: &str| {
            parameter(name).ok_or_else(|| malformed(place, format!("The query parameter {name} is missing.")))
        };
        if parameter("X-Amz-Algorithm").is_none() && parameter("AWSAccessKeyId").is_some() {
            return Err(AuthError::UnsupportedMechanism);
        }
        if required("X-Amz-Algorithm")? != ALGORITHM {
            return Err(malformed(place, format!("X-Amz-Algorithm only supports \"{ALGORITHM}\"")));
        }
        refuse_session_token(single(head, "x-amz-security-token")?.or(parameter("X-Amz-Security-Token")))?;
        let timestamp = required("X-Amz-Date")?.to_owned();
        let time = time::parse_basic(&timestamp).ok_or_else(|| {
            malformed(place, "X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\"".to_owned())
        })?;
        let from_header = single(head, "x-amz-content-sha256")?;
        let payload_hash = from_header.or(parameter("X-Amz-Content-Sha256")).unwrap_or(UNSIGNED_PAYLOAD).to_owned();
        Ok(Self {
            place,
            scope: parse_scope(place, required("X-Amz-Credential")?, &timestamp)?,
            signed_headers: parse_signed_headers(place, required("X-Amz-SignedHeaders")?)?,
            signature: parse_hex32(required("X-Amz-Signature")?).ok_or(AuthError::SignatureDoesNotMatch)?,
            timestamp,
            time,
            time_header: None,
            expires_seconds: Some(parse_expires(required("X-Amz-Expires")?)?),
            payload_hash,
            path,
            query: query.into_iter().filter(|(name, _)| name != b"X-Amz-Signature").collect(),
        })
    }

    /// The signature is for this region.
    pub(super) fn check_scope(&self, region: &str) -> Result<(), AuthError> {
        if self.scope.region == region {
            return Ok(());
        }
        let (got, expected) = (self.scope.region.clone(), region.to_owned());
        Err(AuthError::WrongRegion { place: self.place, got, expected })
    }

    /// The signature is of now.
    pub(super) fn check_time(&self, now: WallTime) -> Result<(), AuthError> {
        let (signed, now) = (self.time.unix_ms, now.unix_ms);
        match self.expires_seconds {
            None if signed.abs_diff(now) > SKEW_MS_MAX => Err(AuthError::RequestTimeTooSkewed { server_unix_ms: now }),
            Some(_) if signed > now.saturating_add(SKEW_MS_MAX) => Err(AuthError::NotYetValid),
            Some(seconds) if now > signed.saturating_add(seconds * 1000) => Err(AuthError::Expired),
            _ => Ok(()),
        }
    }

    /// All that changes the meaning of the request is signed: host, date and every `x-amz-*`.
    pub(super) fn check_signed_headers(&self, head: &Head) -> Result<(), AuthError> {
        let is_signed = |name: &str| self.signed_headers.split(';').any(|signed| signed == name);
        let must = ["host"].into_iter().chain(self.time_header);
        let present = head.headers.iter().map(|(name, _)| name.as_str()).filter(|name| name.starts_with("x-amz-"));
        let unsigned: Vec<&str> = must.chain(present).filter(|name| !is_signed(name)).collect();
        if unsigned.is_empty() { Ok(()) } else { Err(AuthError::HeadersNotSigned(unsigned.join(", "))) }
    }

    /// SHA-256 of the canonical request.
    pub(super) fn canonical_request_hash(&self, head: &Head) -> [u8; 32] {
        sha256(&self.canonical_request(head))
    }

    fn canonical_request(&self, head: &Head) -> Vec<u8> {
        let mut canonical = Vec::with_capacity(1024);
        for line in [head.method.as_str(), &uri::encode_path(&self.path), &canonical_query(&self.query)] {
            canonical.extend_from_slice(line.as_bytes());
            canonical.push(b'\n');
        }
        for name in self.signed_headers.split(';') {
            push_canonical_header(&mut canonical, head, name);
        }
        canonical.push(b'\n');
        canonical.extend_from_slice(self.signed_headers.as_bytes());
        canonical.push(b'\n');
        canonical.extend_from_slice(self.payload_hash.as_bytes());
        canonical
    }
}

/// What a verified head promises of its body.
pub(super) fn payload(head: &Head, claim: Claim, key: SigningKey) -> Result<Payload, AuthError> {
    let (signed, with_trailer) = match claim.payload_hash.as_str() {
        UNSIGNED_PAYLOAD => return Ok(Payload::Unsigned),
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" => (true, false),
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER" => (true, true),
        "STREAMING-UNSIGNED-PAYLOAD-TRAILER" => (false, true),
        other if other.starts_with("STREAMING-AWS4-ECDSA-") => return Err(AuthError::NotImplemented(other.to_owned())),
        hash => return parse_hex32(hash).map(Payload::Signed).ok_or(AuthError::InvalidPayloadHash),
    };
    let decoded = single(head, "x-amz-decoded-content-length")?.and_then(parse_decimal);
    let trailer = if with_trailer { Some(announced_checksum(head)?) } else { None };
    let scope = claim.scope.text();
    let signer = signed.then(|| ChunkSigner::new(key, claim.timestamp, scope, claim.signature));
    Ok(Payload::Streaming(Streaming {
        signer,
        decoded_bytes: decoded.ok_or(AuthError::MissingDecodedLength)?,
        trailer,
    }))
}

fn announced_checksum(head: &Head) -> Result<Option<ChecksumAlgorithm>, AuthError> {
    let Some(names) = single(head, "x-amz-trailer")? else { return Ok(None) };
    let algorithm =
        ChecksumAlgorithm::ALL.into_iter().find(|&algorithm| names.eq_ignore_ascii_case(trailer_name(algorithm)));
    algorithm.map(Some).ok_or_else(|| AuthError::UnsupportedTrailer(names.to_owned()))
}

/// The header, or trailer, that a checksum comes in.
pub(super) const fn trailer_name(algorithm: ChecksumAlgorithm) -> &'static str {
    match algorithm {
        ChecksumAlgorithm::Crc32 => "x-amz-checksum-crc32",
        ChecksumAlgorithm::Crc32c => "x-amz-checksum-crc32c",
        ChecksumAlgorithm::Crc64Nvme => "x-amz-checksum-crc64nvme",
        ChecksumAlgorithm::Sha1 => "x-amz-checksum-sha1",
        ChecksumAlgorithm::Sha256 => "x-amz-checksum-sha256",
    }
}

/// `Credential=..`, `SignedHeaders=..`, `Signature=..` in any order, each once.
fn authorization_fields(text: &str) -> Result<[&str; 3], AuthError> {
    let mut fields = [None; 3];
    for field in text.split(',') {
        let (name, value) = field.trim().split_once('=').unwrap_or_default();
        let position = ["Credential", "SignedHeaders", "Signature"].iter().position(|known| *known == name);
        let slot = position.map(|position| &mut fields[position]).filter(|slot| slot.is_none());
        *slot.ok_or_else(missing_component)? = Some(value);
    }
    let [Some(credential), Some(signed_headers), Some(signature)] = fields else { return Err(missing_component()) };
    Ok([credential, signed_headers, signature])
}

fn missing_component() -> AuthError {
    let what = "The authorization header is malformed; the authorization header requires three components: \
                Credential, SignedHeaders, and Signature.";
    malformed(Malformed::Header, what.to_owned())
}

/// An access key may hold `/`; the other four words may not.
fn parse_scope(place: Malformed, credential: &str, timestamp: &str) -> Result<Scope, AuthError> {
    let wrong = |what: &str| malformed(place, format!("The {} is malformed; {what}", place.name()));
    let mut words = credential.rsplitn(5, '/');
    let mut word = || words.next().filter(|word| !word.is_empty());
    let (terminator, service, region, date, access_key) = (word(), word(), word(), word(), word());
    let (Some(terminator), Some(service), Some(region), Some(date), Some(access_key)) =
        (terminator, service, region, date, access_key)
    else {
        return Err(wrong(
            "the Credential is mal-formed; expecting \"<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request\".",
        ));
    };
    if terminator != TERMINATOR {
        return Err(wrong(&format!("incorrect terminal \"{terminator}\". This endpoint uses \"{TERMINATOR}\".")));
    }
    if service != SERVICE {
        return Err(wrong(&format!("incorrect service \"{service}\". This endpoint belongs to \"{SERVICE}\".")));
    }
    if timestamp.get(..8) != Some(date) {
        return Err(wrong(&format!("Invalid credential date \"{date}\". This date is not the same as X-Amz-Date.")));
    }
    Ok(Scope { access_key: access_key.to_owned(), date: date.to_owned(), region: region.to_owned() })
}

fn parse_signed_headers(place: Malformed, text: &str) -> Result<String, AuthError> {
    let names: Vec<&str> = text.split(';').collect();
    let is_name =
        |name: &&str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && !b.is_ascii_uppercase());
    let each_once = names.iter().enumerate().all(|(index, name)| !names[..index].contains(name));
    if names.len() <= SIGNED_HEADERS_MAX && names.iter().all(is_name) && each_once {
        return Ok(text.to_owned());
    }
    Err(malformed(place, "SignedHeaders must be names in lower case, each once, separated by semicolons.".to_owned()))
}

fn parse_expires(text: &str) -> Result<u64, AuthError> {
    let refuse = |what: &str| malformed(Malformed::Query, what.to_owned());
    match parse_decimal(text) {
        None => Err(refuse("X-Amz-Expires should be a number")),
        Some(0) => Err(refuse("X-Amz-Expires must be non-negative")),
        Some(seconds) if seconds > EXPIRES_SECONDS_MAX => Err(refuse(
            "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be less than 604800 seconds",
        )),
        Some(seconds) => Ok(seconds),
    }
}

/// The header that says when the request was signed: `x-amz-date`, else `date`.
fn request_time(head: &Head) -> Result<(&'static str, String, WallTime), AuthError> {
    if let Some(text) = single(head, "x-amz-date")? {
        let time = time::parse_basic(text).ok_or(AuthError::MissingDate)?;
        return Ok(("x-amz-date", text.to_owned(), time));
    }
    let text = single(head, "date")?.ok_or(AuthError::MissingDate)?;
    let time = time::parse_basic(text).or_else(|| time::parse_http(text)).ok_or(AuthError::MissingDate)?;
    Ok(("date", time::format_basic(time), time))
}

/// Sessions belong to a security token service; this server has none, so nobody can hold a valid token.
fn refuse_session_token(token: Option<&str>) -> Result<(), AuthError> {
    match token {
        Some(token) if !token.is_empty() => Err(AuthError::InvalidToken),
        _ => Ok(()),
    }
}

fn canonical_query(query: &[(Vec<u8>, Vec<u8>)]) -> String {
    let mut encoded: Vec<_> = query.iter().map(|(name, value)| (uri::encode(name), uri::encode(value))).collect();
    encoded.sort_unstable();
    let pairs: Vec<String> = encoded.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join("&")
}

/// `name:value\n`; several headers of one name are joined by commas, runs of white space become one space.
fn push_canonical_header(canonical: &mut Vec<u8>, head: &Head, name: &str) {
    canonical.extend_from_slice(name.as_bytes());
    canonical.push(b':');
    let values = head.headers.iter().filter(|(n, _)| n == name);
    for (index, (_, value)) in values.enumerate() {
        if index > 0 {
            canonical.push(b',');
        }
        let words = value.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
        for (index, word) in words.enumerate() {
            if index > 0 {
                canonical.push(b' ');
            }
            canonical.extend_from_slice(word);
        }
    }
    canonical.push(b'\n');
}

/// The value of a header that has one meaning: refused when it came twice, absent when it is not text.
fn single<'a>(head: &'a Head, name: &str) -> Result<Option<&'a str>, AuthError> {
    let mut values = head.headers.iter().filter(|(n, _)| n == name).map(|(_, value)| value);
    let first = values.next();
    if values.next().is_some() {
        return Err(AuthError::Repeated(name.to_owned()));
    }
    Ok(first.and_then(|value| std::str::from_utf8(value).ok()))
}

fn has_repeated_name(query: &[(Vec<u8>, Vec<u8>)]) -> bool {
    let mut names: Vec<&[u8]> = query.iter().map(|(name, _)| name.as_slice()).collect();
    names.sort_unstable();
    names.windows(2).any(|pair| pair[0] == pair[1])
}

/// Digits and nothing else: no sign, no space.
fn parse_decimal(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

fn malformed(place: Malformed, what: String) -> AuthError {
    AuthError::Malformed { place, what }
}

const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";
/// How far a client's clock may be off (AWS).
const SKEW_MS_MAX: u64 = 15 * 60 * 1000;
/// Seven days (AWS).
const EXPIRES_SECONDS_MAX: u64 = 604_800;
/// More than a head may have; keeps the check for doubles cheap.
const SIGNED_HEADERS_MAX: usize = 128;
