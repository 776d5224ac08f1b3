//! AWS Signature Version 4 as a client makes it (S3 API reference, "Authenticating Requests (AWS Signature Version 4)").

use std::fmt;

use anvil_digest::{hmac_sha256, sha256};
use jiff::Timestamp;

/// Who signs, and for which region.
#[derive(Clone)]
pub(super) struct Signer {
    access_key: String,
    secret_key: String,
    region: String,
}

impl Signer {
    pub(super) fn new(access_key: String, secret_key: String, region: String) -> Self {
        Self { access_key, secret_key, region }
    }

    /// The value of the `Authorization` header, and what the chunks of the body are signed with. `headers` are what is
    /// signed: lower-case names in order, among them `host`, `x-amz-content-sha256` and `x-amz-date`. Path and query are
    /// encoded already, the query in order.
    pub(super) fn sign(
        &self,
        method: &str,
        path: &str,
        query: &str,
        headers: &[(&str, &str)],
        date: &AmzDate,
    ) -> (String, Chain) {
        assert!(headers.is_sorted_by_key(|(name, _)| *name), "a signature is over sorted headers");
        let payload_hash =
            headers.iter().find(|(name, _)| *name == "x-amz-content-sha256").map_or("", |(_, hash)| hash);
        let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let request = format!("{method}\n{path}\n{query}\n{lines}\n{names}\n{payload_hash}");
        let scope = format!("{}/{}/s3/aws4_request", date.day(), self.region);
        let hash = hex::encode(sha256(request.as_bytes()));
        let text = format!("AWS4-HMAC-SHA256\n{}\n{scope}\n{hash}", date.0);
        let key = self.key(date.day());
        let signature = hex::encode(hmac_sha256(&key, text.as_bytes()));
        let value = format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope},SignedHeaders={names},Signature={signature}",
            self.access_key
        );
        (value, Chain { key, date: date.0.clone(), scope, signature })
    }

    fn key(&self, day: &str) -> [u8; 32] {
        let seed = format!("AWS4{}", self.secret_key);
        [day, &self.region, "s3", "aws4_request"]
            .iter()
            .fold(seed.into_bytes(), |key, word| hmac_sha256(&key, word.as_bytes()).to_vec())
            .try_into()
            .expect("the last of them has 32 bytes")
    }
}

/// Signatures of the chunks of one body, each over the one before it (S3 API reference, "Signature Calculations for the
/// Authorization Header: Transferring Payload in Multiple Chunks").
pub(super) struct Chain {
    key: [u8; 32],
    date: String,
    scope: String,
    signature: String,
}

impl Chain {
    /// Of the next chunk, whose SHA-256 this is, in hexadecimal.
    pub(super) fn chunk(&mut self, sha256: &str) -> &str {
        let end = format!("{NOTHING_SHA256}\n{sha256}");
        self.next("AWS4-HMAC-SHA256-PAYLOAD", &end)
    }

    /// Of the trailer behind the last chunk.
    pub(super) fn trailer(&mut self, sha256: &str) -> &str {
        self.next("AWS4-HMAC-SHA256-TRAILER", sha256)
    }

    fn next(&mut self, kind: &str, end: &str) -> &str {
        let text = format!("{kind}\n{}\n{}\n{}\n{end}", self.date, self.scope, self.signature);
        self.signature = hex::encode(hmac_sha256(&self.key, text.as_bytes()));
        &self.signature
    }
}

/// SHA-256 of no bytes.
pub(super) const NOTHING_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({}, secret hidden)", self.access_key)
    }
}

/// A moment as AWS writes it: `20130524T000000Z`.
#[derive(Clone, Debug)]
pub(super) struct AmzDate(String);

impl AmzDate {
    pub(super) fn now() -> Self {
        Self(Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    fn day(&self) -> &str {
        &self.0[..8]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example "GET Object" of the S3 API reference.
    #[test]
    fn a_signature_is_that_of_the_reference() {
        let signer = Signer::new(
            "AKIAIOSFODNN7EXAMPLE".to_owned(),
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
            "us-east-1".to_owned(),
        );
        let nothing = hex::encode(sha256(b""));
        let headers = [
            ("host", "examplebucket.s3.amazonaws.com"),
            ("range", "bytes=0-9"),
            ("x-amz-content-sha256", nothing.as_str()),
            ("x-amz-date", "20130524T000000Z"),
        ];
        let date = AmzDate("20130524T000000Z".to_owned());
        let (value, _) = signer.sign("GET", "/test.txt", "", &headers, &date);
        assert_eq!(
            value,
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,\
             SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,\
             Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        );
        assert!(!format!("{signer:?}").contains("wJalr"));
    }

    /// The example of the S3 API reference for transferring a payload in chunks: 65 KiB of `a`.
    #[test]
    fn chunks_are_signed_as_in_the_reference() {
        let signer = Signer::new(
            "AKIAIOSFODNN7EXAMPLE".to_owned(),
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
            "us-east-1".to_owned(),
        );
        let headers = [
            ("content-encoding", "aws-chunked"),
            ("content-length", "66824"),
            ("host", "s3.amazonaws.com"),
            ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
            ("x-amz-date", "20130524T000000Z"),
            ("x-amz-decoded-content-length", "66560"),
            ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ];
        let date = AmzDate("20130524T000000Z".to_owned());
        let (value, mut chain) = signer.sign("PUT", "/examplebucket/chunkObject.txt", "", &headers, &date);
        assert!(value.ends_with("4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"), "{value}");
        let sha256_of = |length: usize| hex::encode(sha256(&vec![b'a'; length]));
        assert_eq!(chain.chunk(&sha256_of(65536)), "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648");
        assert_eq!(chain.chunk(&sha256_of(1024)), "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497");
        assert_eq!(chain.chunk(&sha256_of(0)), "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9");
    }

    #[test]
    fn a_date_has_the_form_of_aws() {
        let now = AmzDate::now();
        assert_eq!(now.as_str().len(), 16);
        assert!(now.as_str().ends_with('Z') && now.day().bytes().all(|byte| byte.is_ascii_digit()));
    }
}
