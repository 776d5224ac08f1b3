use std::net::{Ipv4Addr, SocketAddr};

use anvil_model::ids::TenantId;
use proptest::prelude::*;

use super::*;

pub(super) const ACCESS_KEY: &str = "AKIAIOSFODNN7EXAMPLE";
pub(super) const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
pub(super) const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// 2013-05-24T00:00:00Z, the day of all examples of AWS.
pub(super) const NOW: WallTime = WallTime { unix_ms: 1_369_353_600_000 };
pub(super) const SCOPE: &str = "20130524/us-east-1/s3/aws4_request";

pub(super) fn authenticator() -> Authenticator {
    let credential = Credential::own(Secret::new(SECRET).unwrap(), TenantId(7));
    Authenticator::new("us-east-1".to_owned(), Directory::new([(ACCESS_KEY.to_owned(), credential)]))
}

pub(super) fn head(method: &str, target: &str, headers: &[(&str, &str)]) -> Head {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query.to_owned())));
    Head {
        method: method.to_owned(),
        path: path.to_owned(),
        query,
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect(),
        peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
        request_id: "test".to_owned(),
    }
}

fn authorization(signed_headers: &str, signature: &str) -> String {
    format!("AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{SCOPE},SignedHeaders={signed_headers},Signature={signature}")
}

/// Signs a head as a client does that follows the document of AWS step by step; replaces `authorization`.
pub(super) fn sign(head: &mut Head) {
    head.headers.retain(|(name, _)| name != "authorization");
    let mut names: Vec<String> = head.headers.iter().map(|(name, _)| name.clone()).collect();
    names.sort();
    let header = |name: &str| head.header(name).unwrap().to_owned();
    let mut query: Vec<String> = uri::decode_query(head.query.as_deref())
        .unwrap()
        .iter()
        .map(|(name, value)| format!("{}={}", uri::encode(name), uri::encode(value)))
        .collect();
    query.sort();
    let lines: Vec<String> = names.iter().map(|name| format!("{name}:{}\n", header(name))).collect();
    let canonical = format!(
        "{}\n{}\n{}\n{}\n{}\n{}",
        head.method,
        uri::encode_path(&uri::decode_path(&head.path).unwrap()),
        query.join("&"),
        lines.concat(),
        names.join(";"),
        header("x-amz-content-sha256"),
    );
    let hash = anvil_digest::sha256(canonical.as_bytes());
    let key = SigningKey::derive(&Secret::new(SECRET).unwrap(), "20130524", "us-east-1");
    let signature = key.sign(&sigv4::string_to_sign(&header("x-amz-date"), SCOPE, &hash));
    let value = authorization(&names.join(";"), &hex::encode(signature));
    head.headers.push(("authorization".to_owned(), value.into_bytes()));
}

pub(super) fn signed(method: &str, target: &str, more: &[(&str, &str)]) -> Head {
    let mut headers =
        vec![("host", "localhost:50051"), ("x-amz-date", "20130524T000000Z"), ("x-amz-content-sha256", EMPTY_SHA256)];
    headers.retain(|(name, _)| more.iter().all(|(other, _)| other != name));
    headers.extend_from_slice(more);
    let mut head = head(method, target, &headers);
    sign(&mut head);
    head
}

fn refused(head: &Head) -> AuthError {
    authenticator().authenticate(head, NOW).unwrap_err()
}

fn set(head: &mut Head, name: &str, value: &str) {
    head.headers.retain(|(n, _)| n != name);
    head.headers.push((name.to_owned(), value.as_bytes().to_vec()));
}

/// The examples of "Signature Calculations for the Authorization Header: Transferring Payload in a Single Chunk".
#[test]
fn the_published_examples_are_accepted() {
    let host = ("host", "examplebucket.s3.amazonaws.com");
    let date = ("x-amz-date", "20130524T000000Z");
    let empty = ("x-amz-content-sha256", EMPTY_SHA256);
    let range = authorization(
        "host;range;x-amz-content-sha256;x-amz-date",
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
    );
    let put = authorization(
        "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
        "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
    );
    let simple = |signature| authorization("host;x-amz-content-sha256;x-amz-date", signature);
    let lifecycle = simple("fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
    let list = simple("34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
    let put_hash = ("x-amz-content-sha256", "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072");
    let examples = [
        head("GET", "/test.txt", &[host, ("authorization", &range), ("range", "bytes=0-9"), empty, date]),
        head(
            "PUT",
            "/test$file.text",
            &[
                host,
                ("date", "Fri, 24 May 2013 00:00:00 GMT"),
                ("authorization", &put),
                date,
                ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
                put_hash,
            ],
        ),
        head("GET", "/?lifecycle", &[host, date, empty, ("authorization", &lifecycle)]),
        head("GET", "/?max-keys=2&prefix=J", &[host, date, empty, ("authorization", &list)]),
    ];
    let authenticator = authenticator();
    for example in examples {
        let authenticated = authenticator.authenticate(&example, NOW).unwrap();
        assert_eq!(authenticated.identity.tenant, TenantId(7));
        assert_eq!(authenticated.access_key, ACCESS_KEY);
        assert!(matches!(authenticated.payload, Payload::Signed(_)), "{:?}", authenticated.payload);
    }
}

fn presigned_example() -> Head {
    let target = "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256\
        &X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z\
        &X-Amz-Expires=86400&X-Amz-SignedHeaders=host\
        &X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404";
    head("GET", target, &[("host", "examplebucket.s3.amazonaws.com")])
}

/// "Authenticating Requests: Using Query Parameters".
#[test]
fn the_published_presigned_example_is_good_for_a_day() {
    let head = presigned_example();
    let at = |seconds: i64| {
        let unix_ms = NOW.unix_ms.checked_add_signed(seconds * 1000).unwrap();
        authenticator().authenticate(&head, WallTime { unix_ms }).map(|ok| matches!(ok.payload, Payload::Unsigned))
    };
    assert_eq!(at(0), Ok(true));
    assert_eq!(at(86_400), Ok(true));
    assert_eq!(at(86_401), Err(AuthError::Expired));
    assert_eq!(at(-900), Ok(true));
    assert_eq!(at(-901), Err(AuthError::NotYetValid));
}

#[test]
fn a_presigned_request_is_refused_in_every_broken_form() {
    let with = |from: &str, to: &str| {
        let mut head = presigned_example();
        head.query = head.query.map(|query| query.replacen(from, to, 1));
        refused(&head)
    };
    let code = |error: AuthError| error.code();
    for (from, to) in [
        ("X-Amz-Algorithm=AWS4-HMAC-SHA256", "X-Amz-Algorithm=AWS4-ECDSA-P256-SHA256"),
        ("&X-Amz-Expires=86400", ""),
        ("86400", "604801"),
        ("86400", "0"),
        ("86400", "-1"),
        ("&X-Amz-Date=20130524T000000Z", "&X-Amz-Date=20130524"),
        ("%2Faws4_request", "%2Faws3_request"),
        ("us-east-1", "eu-west-1"),
        ("SignedHeaders=host", "SignedHeaders=Host"),
    ] {
        assert_eq!(code(with(from, to)), "AuthorizationQueryParametersError", "{from} -> {to}");
    }
    assert_eq!(with("86400", "86401"), AuthError::SignatureDoesNotMatch);
    assert_eq!(with("&X-Amz-Expires", "&X-Amz-Security-Token=abc&X-Amz-Expires"), AuthError::InvalidToken);
    assert_eq!(code(with("X-Amz-Date=", "X-Amz-Date=20130524T000000Z&X-Amz-Date=")), "InvalidArgument");
    let mut two = presigned_example();
    set(&mut two, "authorization", &authorization("host", "00"));
    assert_eq!(refused(&two), AuthError::TwoMechanisms);
    let mut unsigned = presigned_example();
    set(&mut unsigned, "x-amz-acl", "private");
    assert_eq!(refused(&unsigned), AuthError::HeadersNotSigned("x-amz-acl".to_owned()));
    let version_2 = head("GET", "/b/k?AWSAccessKeyId=AK&Signature=x&Expires=1", &[("host", "h")]);
    assert_eq!(refused(&version_2), AuthError::UnsupportedMechanism);
}

#[test]
fn what_changes_the_request_must_be_signed() {
    let sneak = |name: &str, value: &str| {
        let mut head = signed("PUT", "/b/k", &[]);
        set(&mut head, name, value);
        refused(&head)
    };
    assert_eq!(sneak("x-amz-tagging", "a=b"), AuthError::HeadersNotSigned("x-amz-tagging".to_owned()));
    assert_eq!(sneak("x-amz-meta-a", ""), AuthError::HeadersNotSigned("x-amz-meta-a".to_owned()));
    assert_eq!(sneak("host", "other"), AuthError::SignatureDoesNotMatch);
    let mut without_host = signed("GET", "/", &[]);
    let value = without_host.header("authorization").unwrap().replace("SignedHeaders=host;", "SignedHeaders=");
    set(&mut without_host, "authorization", &value);
    assert_eq!(refused(&without_host), AuthError::HeadersNotSigned("host".to_owned()));
    let mut with_date = signed("GET", "/", &[("date", "Fri, 24 May 2013 00:00:00 GMT")]);
    with_date.headers.retain(|(name, _)| name != "x-amz-date");
    let value = with_date.header("authorization").unwrap().replace("date;", "");
    set(&mut with_date, "authorization", &value);
    assert_eq!(refused(&with_date), AuthError::HeadersNotSigned("date".to_owned()));
}

#[test]
fn another_method_path_query_or_hash_does_not_match() {
    let good = signed("PUT", "/b/k%20x?partNumber=1&uploadId=u", &[]);
    assert!(authenticator().authenticate(&good, NOW).is_ok());
    let mut order = good.clone();
    order.query = Some("uploadId=u&partNumber=1".to_owned());
    assert!(authenticator().authenticate(&order, NOW).is_ok(), "a query has no order");
    let mut changed = [good.clone(), good.clone(), good.clone(), good.clone()];
    changed[0].method = "DELETE".to_owned();
    changed[1].path = "/b/k%2520x".to_owned();
    changed[2].query = Some("partNumber=2&uploadId=u".to_owned());
    set(&mut changed[3], "x-amz-content-sha256", "UNSIGNED-PAYLOAD");
    for head in changed {
        assert_eq!(refused(&head), AuthError::SignatureDoesNotMatch, "{head:?}");
    }
}

#[test]
fn paths_are_never_normalised() {
    for path in ["/b/a//b", "/b/../c", "/b/./c", "/b/%2e%2e/c", "/b/a%2Fb", "/b/+ü~", "/b/%E0%A4%A"] {
        let decodes = uri::decode_path(path).is_ok();
        if decodes {
            assert!(authenticator().authenticate(&signed("GET", path, &[]), NOW).is_ok(), "{path}");
        } else {
            let mut head = signed("GET", "/", &[]);
            head.path = path.to_owned();
            assert_eq!(refused(&head), AuthError::InvalidUri, "{path}");
        }
    }
}

#[test]
fn each_broken_authorization_has_its_code() {
    let with = |value: &str| {
        let mut head = signed("GET", "/", &[]);
        set(&mut head, "authorization", value);
        refused(&head)
    };
    let good = signed("GET", "/", &[]).header("authorization").unwrap().to_owned();
    let replaced = |from: &str, to: &str| with(&good.replacen(from, to, 1));
    assert_eq!(with(""), AuthError::Anonymous);
    for other in ["AWS AKIA:xyz", "Basic abc", "AWS4-HMAC-SHA256x Credential=a", "AWS4-HMAC-SHA256"] {
        assert_eq!(with(other), AuthError::UnsupportedMechanism, "{other}");
    }
    for (from, to) in [
        ("Signature=", "Sig="),
        ("Credential=", ""),
        ("SignedHeaders=", "Signature=00,SignedHeaders="),
        ("SignedHeaders=host;", "SignedHeaders=host;host;"),
        ("SignedHeaders=host;", "SignedHeaders=Host;"),
        ("/s3/", "/ec2/"),
        ("/aws4_request", ""),
        ("aws4_request", "aws2_request"),
        ("/20130524/", "/20130525/"),
    ] {
        assert_eq!(replaced(from, to).code(), "AuthorizationHeaderMalformed", "{from} -> {to}");
    }
    let region = replaced("us-east-1", "eu-west-1");
    assert_eq!(region.expected_region(), Some("us-east-1"));
    assert_eq!(region.code(), "AuthorizationHeaderMalformed");
    assert_eq!(replaced(ACCESS_KEY, "AKIANOBODY"), AuthError::InvalidAccessKeyId);
    assert_eq!(replaced("Signature=", "Signature=zz"), AuthError::SignatureDoesNotMatch);
    let mut twice = signed("GET", "/", &[]);
    twice.headers.push(("authorization".to_owned(), good.into_bytes()));
    assert_eq!(refused(&twice), AuthError::Repeated("authorization".to_owned()));
    assert_eq!(refused(&head("GET", "/", &[("host", "h")])), AuthError::Anonymous);
    assert_eq!(refused(&signed("GET", "/?prefix=a&prefix=b", &[])).code(), "InvalidArgument");
    assert_eq!(refused(&signed("GET", "/", &[("x-amz-security-token", "t")])), AuthError::InvalidToken);
}

#[test]
fn clocks_may_differ_by_fifteen_minutes() {
    let head = signed("GET", "/", &[]);
    let at = |ms: i64| {
        let unix_ms = NOW.unix_ms.checked_add_signed(ms).unwrap();
        authenticator().authenticate(&head, WallTime { unix_ms }).map(drop).map_err(|error| error.code())
    };
    assert_eq!(at(900_000), Ok(()));
    assert_eq!(at(-900_000), Ok(()));
    assert_eq!(at(900_001), Err("RequestTimeTooSkewed"));
    assert_eq!(at(-900_001), Err("RequestTimeTooSkewed"));
}

#[test]
fn each_form_of_payload_is_known_or_refused() {
    let payload = |hash: &str, more: &[(&str, &str)]| {
        let mut headers = vec![("x-amz-content-sha256", hash)];
        headers.extend_from_slice(more);
        authenticator().authenticate(&signed("PUT", "/b/k", &headers), NOW).map(|ok| ok.payload)
    };
    let length = ("x-amz-decoded-content-length", "10");
    let trailer = ("x-amz-trailer", "x-amz-checksum-crc64nvme");
    assert!(matches!(payload("UNSIGNED-PAYLOAD", &[]), Ok(Payload::Unsigned)));
    assert!(matches!(payload(EMPTY_SHA256, &[]), Ok(Payload::Signed(_))));
    for form in ["STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"] {
        let Ok(Payload::Streaming(streaming)) = payload(form, &[length, trailer]) else { panic!("{form}") };
        assert_eq!(streaming.trailing_checksum(), Some(ChecksumAlgorithm::Crc64Nvme), "{form}");
    }
    let plain = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";
    assert!(matches!(payload(plain, &[length]), Ok(Payload::Streaming(_))));
    let refused = |hash: &str, more: &[(&str, &str)]| payload(hash, more).unwrap_err().code();
    assert_eq!(refused(plain, &[]), "MissingContentLength");
    assert_eq!(refused(plain, &[("x-amz-decoded-content-length", "-1")]), "MissingContentLength");
    assert_eq!(refused("STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD", &[length]), "NotImplemented");
    assert_eq!(refused("abc", &[]), "InvalidArgument");
    assert_eq!(
        refused("STREAMING-UNSIGNED-PAYLOAD-TRAILER", &[length, ("x-amz-trailer", "x-amz-meta-a")]),
        "InvalidRequest"
    );
    let mut missing = signed("GET", "/", &[]);
    missing.headers.retain(|(name, _)| name != "x-amz-content-sha256");
    assert_eq!(self::refused(&missing), AuthError::MissingPayloadHash);
}

#[test]
fn white_space_in_header_values_is_signed_as_one_space() {
    let mut head = signed("PUT", "/b/k", &[("x-amz-meta-a", "one two")]);
    set(&mut head, "x-amz-meta-a", "  one \t  two ");
    assert!(authenticator().authenticate(&head, NOW).is_ok());
    head.headers.push(("x-amz-meta-a".to_owned(), b"three".to_vec()));
    assert_eq!(refused(&head), AuthError::SignatureDoesNotMatch);
}

#[test]
fn remembered_keys_are_bounded_and_right() {
    let authenticator = authenticator();
    for _ in 0..2 {
        assert!(authenticator.authenticate(&signed("GET", "/", &[]), NOW).is_ok());
    }
    assert_eq!(KEYS.with_borrow(|keys| keys.len()), 1);
    let credential = authenticator.directory.find(ACCESS_KEY).unwrap();
    for day in 0..KEYS_REMEMBERED_MAX + 1 {
        let _ = authenticator.signing_key(ACCESS_KEY, &format!("{day:08}"), &credential);
    }
    assert!(KEYS.with_borrow(|keys| keys.len()) <= KEYS_REMEMBERED_MAX);
    assert!(authenticator.authenticate(&signed("GET", "/", &[]), NOW).is_ok());
    let changed = Credential::own(Secret::new("another-secret").unwrap(), TenantId(7));
    let other = Authenticator::new("us-east-1".to_owned(), Directory::new([(ACCESS_KEY.to_owned(), changed)]));
    let refused = other.authenticate(&signed("GET", "/", &[]), NOW).unwrap_err();
    assert_eq!(refused, AuthError::SignatureDoesNotMatch, "a key belongs to one secret");
}

proptest! {
    #[test]
    fn every_key_and_query_that_is_signed_is_accepted(key: String, name: String, value: String) {
        let target = format!("/bucket/{}?{}x={}", uri::encode_path(key.as_bytes()), uri::encode(name.as_bytes()),
            uri::encode(value.as_bytes()));
        let head = signed("PUT", &target, &[]);
        prop_assert!(authenticator().authenticate(&head, NOW).is_ok());
    }

    #[test]
    fn no_head_breaks_the_reader(
        method: String,
        path: String,
        query: Option<String>,
        authorization in "(AWS4-HMAC-SHA256 )?(Credential=[a-z0-9/]*,)?.*",
        date: Vec<u8>,
        hash: String,
    ) {
        let mut head = head(&method, "/", &[("authorization", &authorization), ("x-amz-content-sha256", &hash)]);
        head.path = path;
        head.query = query;
        head.headers.push(("x-amz-date".to_owned(), date));
        prop_assert!(authenticator().authenticate(&head, NOW).is_err());
    }

    #[test]
    fn one_changed_bit_of_a_signature_is_seen(bit in 0usize..256) {
        let head = signed("GET", "/", &[]);
        let value = head.header("authorization").unwrap().to_owned();
        let (start, signature) = value.split_once("Signature=").unwrap();
        let mut bytes = hex::decode(signature).unwrap();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let mut changed = head.clone();
        set(&mut changed, "authorization", &format!("{start}Signature={}", hex::encode(bytes)));
        prop_assert_eq!(refused(&changed), AuthError::SignatureDoesNotMatch);
    }
}
