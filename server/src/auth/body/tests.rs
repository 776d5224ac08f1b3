//! Bodies as clients send them, cut into every kind of pieces.

use std::task::{Context, Poll, Waker};

use anvil_model::io::{Reserve, World};
use anvil_model::object::{ChecksumAlgorithm, ChecksumType};
use anvil_runtime::{Core, Options};
use proptest::prelude::*;

use super::super::tests::{NOW, SCOPE, SECRET, authenticator, head, sign, signed};
use super::super::{Secret, sigv4::ChunkSigner, sigv4::SigningKey};
use super::*;
use crate::http::Head;

/// A connection that gives `bytes` in pieces of at most `piece`, and then ends.
struct Script {
    bytes: Vec<u8>,
    at: usize,
    piece: usize,
    length: Option<u64>,
}

impl Incoming for Script {
    fn length(&self) -> Option<u64> {
        self.length
    }

    async fn fill(&mut self, mut buffer: Buffer, range: Range<usize>) -> (Result<usize, ReceiveError>, Buffer) {
        let count = range.len().min(self.bytes.len() - self.at);
        buffer[range.start..][..count].copy_from_slice(&self.bytes[self.at..][..count]);
        self.at += count;
        (Ok(count), buffer)
    }

    async fn read(&mut self, into: &mut Vec<u8>, max: usize) -> Result<usize, ReceiveError> {
        let count = max.min(self.piece).min(self.bytes.len() - self.at);
        into.extend_from_slice(&self.bytes[self.at..][..count]);
        self.at += count;
        Ok(count)
    }

    async fn comes_soon(&mut self) -> bool {
        true
    }
}

/// Runs a future that never waits.
fn ready<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a script never waits"),
    }
}

/// Authenticates `head`, sends `bytes` in pieces and takes the whole payload.
fn receive(head: &Head, bytes: &[u8], piece: usize) -> Result<(Vec<u8>, Trailer), BodyError> {
    let payload = authenticator().authenticate(head, NOW).unwrap().payload;
    let length = head.header("content-length").map(|text| text.parse().unwrap());
    let mut script = Script { bytes: bytes.to_vec(), at: 0, piece, length };
    let mut body = VerifiedBody::new(&mut script, payload)?;
    ready(async {
        let payload = body.collect().await?;
        digest_now(&mut body, 0, &payload)?;
        let trailer = body.finish().await?;
        Ok((payload, trailer))
    })
}

/// The bytes of both published examples: 65 KiB of `a` in chunks of 64 KiB and 1 KiB.
fn example(signatures: [&str; 3], end: &str) -> Vec<u8> {
    let [first, second, last] = signatures;
    let mut bytes = format!("10000;chunk-signature={first}\r\n").into_bytes();
    bytes.extend(vec![b'a'; 65_536]);
    bytes.extend(format!("\r\n400;chunk-signature={second}\r\n").bytes());
    bytes.extend(vec![b'a'; 1024]);
    bytes.extend(format!("\r\n0;chunk-signature={last}\r\n{end}").bytes());
    bytes
}

fn example_head(authorization: &str, headers: &[(&str, &str)]) -> Head {
    let mut all = vec![
        ("host", "s3.amazonaws.com"),
        ("x-amz-date", "20130524T000000Z"),
        ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ("content-encoding", "aws-chunked"),
        ("x-amz-decoded-content-length", "66560"),
        ("content-length", "66824"),
        ("authorization", authorization),
    ];
    all.extend_from_slice(headers);
    head("PUT", "/examplebucket/chunkObject.txt", &all)
}

/// "Signature Calculations for the Authorization Header: Transferring Payload in Multiple Chunks".
#[test]
fn the_published_chunked_example_is_accepted() {
    let authorization = "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,\
        SignedHeaders=content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;\
        x-amz-decoded-content-length;x-amz-storage-class,\
        Signature=4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9";
    let head = example_head(authorization, &[("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD")]);
    let signatures = [
        "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
        "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
        "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
    ];
    let bytes = example(signatures, "\r\n");
    assert_eq!(bytes.len(), 66_824, "as the example's Content-Length says");
    for piece in [1, 7, 4096, usize::MAX] {
        let (payload, trailer) = receive(&head, &bytes, piece).unwrap();
        assert_eq!(payload, vec![b'a'; 66_560]);
        assert_eq!(trailer, Trailer::default());
    }
}

/// "Transferring Payload in Multiple Chunks with Trailing Headers"; the example puts an empty line before the
/// trailers' signature, clients do not.
#[test]
fn the_published_example_with_trailers_is_accepted() {
    let authorization = "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,\
        SignedHeaders=content-encoding;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;\
        x-amz-storage-class;x-amz-trailer,\
        Signature=106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e";
    let form = ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER");
    let head = example_head(authorization, &[form, ("x-amz-trailer", "x-amz-checksum-crc32c")]);
    let signatures = [
        "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
        "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
        "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
    ];
    let signature = "x-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435";
    for end in [
        format!("x-amz-checksum-crc32c:sOO8/Q==\r\n{signature}\r\n\r\n"),
        format!("x-amz-checksum-crc32c:sOO8/Q==\n\r\n{signature}\r\n\r\n"),
    ] {
        let (payload, trailer) = receive(&head, &example(signatures, &end), 1000).unwrap();
        let checksum = trailer.checksum.unwrap();
        assert_eq!(payload.len(), 66_560);
        assert_eq!((checksum.algorithm, checksum.of), (ChecksumAlgorithm::Crc32c, ChecksumType::FullObject));
        let digest = {
            let mut digest = Digest::new(anvil_digest::Algorithm::Crc32c);
            digest.update(&payload);
            digest.finish()
        };
        assert_eq!(checksum.value, digest[..]);
    }
    let changed = format!("x-amz-checksum-crc32c:AOO8/Q==\r\n{signature}\r\n\r\n");
    assert_eq!(receive(&head, &example(signatures, &changed), 1000), Err(ChunkError::Signature.into()));
    let unsigned = "x-amz-checksum-crc32c:sOO8/Q==\r\n\r\n";
    assert_eq!(receive(&head, &example(signatures, unsigned), 1000), Err(BodyError::Incomplete));
}

/// A client that signs what it sends.
struct Client {
    head: Head,
    signer: Option<ChunkSigner>,
    trailer: Option<(&'static str, String)>,
}

impl Client {
    fn new(form: &str, length: usize, trailer: Option<(&'static str, String)>) -> Self {
        let length = length.to_string();
        let mut headers = vec![("x-amz-content-sha256", form), ("x-amz-decoded-content-length", length.as_str())];
        headers.extend(trailer.as_ref().map(|(name, _)| ("x-amz-trailer", *name)));
        let head = signed("PUT", "/b/k", &headers);
        let seed = head.header("authorization").unwrap().split_once("Signature=").unwrap().1;
        let seed = hex::decode(seed).unwrap().try_into().unwrap();
        let key = SigningKey::derive(&Secret::new(SECRET).unwrap(), "20130524", "us-east-1");
        let signer = ChunkSigner::new(key, "20130524T000000Z".to_owned(), SCOPE.to_owned(), seed);
        Self { head, signer: form.contains("HMAC").then_some(signer), trailer }
    }

    fn chunk(&mut self, data: &[u8]) -> Vec<u8> {
        let mut bytes = format!("{:x}", data.len()).into_bytes();
        if let Some(signer) = &mut self.signer {
            bytes.extend(format!(";chunk-signature={}", hex::encode(signer.sign_chunk(data))).bytes());
        }
        bytes.extend(b"\r\n");
        bytes.extend(data);
        if !data.is_empty() {
            bytes.extend(b"\r\n");
        }
        bytes
    }

    fn end(&mut self) -> Vec<u8> {
        let mut bytes = self.chunk(b"");
        if let Some((name, value)) = &self.trailer {
            bytes.extend(format!("{name}:{value}\r\n").bytes());
            if let Some(signer) = &mut self.signer {
                let signature = signer.sign_trailer(format!("{name}:{value}\n").as_bytes());
                bytes.extend(format!("x-amz-trailer-signature:{}\r\n", hex::encode(signature)).bytes());
            }
        }
        bytes.extend(b"\r\n");
        bytes
    }

    fn body(&mut self, chunks: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes: Vec<u8> = chunks.iter().filter(|chunk| !chunk.is_empty()).flat_map(|c| self.chunk(c)).collect();
        bytes.extend(self.end());
        bytes
    }
}

const FORMS: [(&str, bool); 3] = [
    ("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", false),
    ("STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER", true),
    ("STREAMING-UNSIGNED-PAYLOAD-TRAILER", true),
];

fn client(form: usize, payload_bytes: usize) -> Client {
    let (name, trailer) = FORMS[form];
    let trailer = trailer.then(|| ("x-amz-checksum-crc32", "AAAAAA==".to_owned()));
    Client::new(name, payload_bytes, trailer)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_split_of_a_body_gives_its_payload(
        form in 0usize..3,
        chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..6),
        piece in 1usize..200,
    ) {
        let payload = chunks.concat();
        let mut client = client(form, payload.len());
        let bytes = client.body(&chunks);
        let (received, trailer) = receive(&client.head, &bytes, piece).unwrap();
        prop_assert_eq!(received, payload);
        prop_assert_eq!(trailer.checksum.is_some(), FORMS[form].1);
    }

    #[test]
    fn a_body_that_is_cut_or_goes_on_is_refused(form in 0usize..3, data: Vec<u8>, cut: prop::sample::Index) {
        let mut client = client(form, data.len());
        let bytes = client.body(&[data]);
        let cut = cut.index(bytes.len());
        prop_assert!(receive(&client.head, &bytes[..cut], 64).is_err());
        let mut longer = bytes;
        longer.push(b'x');
        prop_assert!(receive(&client.head, &longer, 64).is_err());
    }

    #[test]
    fn a_changed_byte_of_a_signed_body_is_refused(
        signed_form in 0usize..2,
        data in proptest::collection::vec(any::<u8>(), 1..200),
        at: prop::sample::Index,
        bit in 0u8..8,
    ) {
        let mut client = client(signed_form, data.len());
        let mut bytes = client.body(std::slice::from_ref(&data));
        let at = at.index(bytes.len());
        let case_only = bytes[at].is_ascii_alphabetic() && bit == 5;
        bytes[at] ^= 1 << bit;
        let result = receive(&client.head, &bytes, 64);
        // Names and hexadecimal digits have no case: such a change changes nothing that is signed.
        prop_assert!(result.is_err() || (case_only && result.unwrap().0 == data));
    }

    #[test]
    fn no_bytes_break_the_decoder(form in 0usize..3, bytes: Vec<u8>, piece in 1usize..20) {
        prop_assert!(receive(&client(form, 10).head, &bytes, piece).is_err());
    }
}

#[test]
fn a_chunk_signed_for_another_place_is_refused() {
    let mut client = client(0, 6);
    let (first, second) = (client.chunk(b"abc"), client.chunk(b"def"));
    let end = client.end();
    let swapped = [second, first, end].concat();
    assert_eq!(receive(&client.head, &swapped, 64), Err(ChunkError::Signature.into()));
}

#[test]
fn the_declared_length_is_held() {
    for declared in [2, 4] {
        let mut client = client(2, declared);
        let bytes = client.body(&[b"abc".to_vec()]);
        assert_eq!(receive(&client.head, &bytes, 64), Err(ChunkError::Length.into()), "{declared}");
    }
}

#[test]
fn endless_framing_is_refused() {
    let client = client(2, 10);
    let zeros = vec![b'0'; 100_000];
    assert_eq!(receive(&client.head, &zeros, 64), Err(ChunkError::Malformed.into()));
    let mut trailers = self::client(2, 0).chunk(b"");
    trailers.extend(vec![b'x'; 100_000]);
    assert_eq!(receive(&self::client(2, 0).head, &trailers, 64), Err(ChunkError::Trailer.into()));
}

#[test]
fn trailers_must_be_those_that_were_announced() {
    let body = |end: &str| {
        let mut client = client(2, 0);
        let mut bytes = client.chunk(b"");
        bytes.extend(end.bytes());
        receive(&client.head, &bytes, 64)
    };
    assert!(body("x-amz-checksum-crc32: AAAAAA==\r\n\r\n").is_ok());
    for wrong in [
        "\r\n",
        "x-amz-checksum-crc32c:AAAAAA==\r\n\r\n",
        "x-amz-checksum-crc32:AAAA\r\n\r\n",
        "x-amz-checksum-crc32:!\r\n\r\n",
        "x-amz-checksum-crc32:AAAAAA==\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n",
        "x-amz-meta-a:b\r\n\r\n",
        "nonsense\r\n\r\n",
    ] {
        assert_eq!(body(wrong), Err(ChunkError::Trailer.into()), "{wrong}");
    }
}

/// As minio-go writes them: a bare line feed behind the checksum, and one line end too many.
#[test]
fn unsigned_trailers_may_end_twice() {
    let mut client = client(2, 5);
    let chunk = client.chunk(b"12345");
    let body = |end: &str| [&chunk, format!("0\r\nx-amz-checksum-crc32:AAAAAA==\n{end}").as_bytes()].concat();
    for piece in [1, 3, 1000] {
        let (payload, trailer) = receive(&client.head, &body("\r\n\r\n"), piece).unwrap();
        assert_eq!((payload.as_slice(), trailer.checksum.is_some()), (b"12345".as_slice(), true));
        for end in ["\r\n\r", "\r\n\r\n\r\n", "\r\nx", "\r\n\r\nx"] {
            assert_eq!(receive(&client.head, &body(end), piece), Err(ChunkError::Malformed.into()), "{end:?}");
        }
    }
}

#[test]
fn a_signed_payload_is_compared_with_its_hash() {
    let hash = hex::encode(anvil_digest::sha256(b"Welcome to Amazon S3."));
    let head = signed("PUT", "/b/k", &[("x-amz-content-sha256", &hash), ("content-length", "21")]);
    assert_eq!(receive(&head, b"Welcome to Amazon S3.", 5).unwrap().0, b"Welcome to Amazon S3.");
    assert_eq!(receive(&head, b"Welcome to Amazon S4.", 5), Err(BodyError::PayloadHash));
    assert_eq!(receive(&head, b"Welcome", 5), Err(BodyError::Incomplete));
    let empty = signed("PUT", "/b/k", &[("content-length", "0")]);
    assert_eq!(receive(&empty, b"", 5).unwrap().0, b"");
}

#[test]
fn a_plain_payload_needs_a_length() {
    let mut head = signed("PUT", "/b/k", &[("x-amz-content-sha256", "UNSIGNED-PAYLOAD")]);
    sign(&mut head);
    assert_eq!(receive(&head, b"abc", 5), Err(BodyError::MissingLength));
}

#[test]
fn a_document_is_bounded() {
    let document = |max| {
        let mut script = Script { bytes: b"<x/>".to_vec(), at: 0, piece: 2, length: Some(4) };
        ready(VerifiedBody::new(&mut script, Payload::Unsigned).unwrap().document(max))
    };
    assert_eq!(document(4), Ok(Some(b"<x/>".to_vec())));
    assert_eq!(document(3), Ok(None));
}

/// Runs `main` on a core of the real runtime, because only there are buffers.
fn on_core<F: Future<Output = ()> + 'static>(main: impl Fn(Core) -> F + Send + Sync + 'static) {
    let options = Options {
        cpus: vec![anvil_runtime::available_cpus()[0]],
        buffers_per_core: 3,
        progress_reserve: 1,
        abort_on_panic: false,
        ..Options::default()
    };
    anvil_runtime::start(options, main).unwrap().join().unwrap();
}

/// Takes the payload through buffers, in ranges of at most `step` bytes.
async fn fill_all(core: &Core, body: &mut VerifiedBody<'_, Script>, step: usize) -> Result<Vec<u8>, BodyError> {
    let mut payload = Vec::new();
    let mut buffer = core.buffer(Reserve::Foreground).await;
    loop {
        let range = 7..7 + step;
        let (result, back) = body.fill(buffer, range.clone()).await;
        buffer = back;
        let count = result?;
        digest_now(body, payload.len() as u64, &buffer[range.start..][..count])?;
        payload.extend_from_slice(&buffer[range.start..][..count]);
        if count < step {
            body.finish().await?;
            return Ok(payload);
        }
    }
}

fn large_chunks() -> Vec<Vec<u8>> {
    let sizes = [1, 70_000, 8191, 8192, 8193, 300_000, 5, 5, 100_000];
    let mut state = 1u32;
    let mut byte = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_le_bytes()[3]
    };
    sizes.iter().map(|&size| (0..size).map(|_| byte()).collect()).collect()
}

#[test]
fn buffers_are_filled_with_the_payload_whatever_the_pieces() {
    on_core(|core| async move {
        let chunks = large_chunks();
        let payload = chunks.concat();
        for form in 0..3 {
            for (step, piece) in [(100_000, 97), (1 << 20, 4096), (4097, 16_384), (65_536, usize::MAX)] {
                let mut client = client(form, payload.len());
                let bytes = client.body(&chunks);
                let promised = authenticator().authenticate(&client.head, NOW).unwrap().payload;
                let mut script = Script { bytes, at: 0, piece, length: None };
                let mut body = VerifiedBody::new(&mut script, promised).unwrap();
                let received = fill_all(&core, &mut body, step).await.unwrap();
                assert!(received == payload, "form {form}, step {step}, piece {piece}");
            }
        }
        let hash = anvil_digest::sha256(&payload);
        let script = || Script { bytes: payload.clone(), at: 0, piece: 100, length: Some(payload.len() as u64) };
        for (promised, expected) in [
            (Payload::Unsigned, Ok(())),
            (Payload::Signed(hash), Ok(())),
            (Payload::Signed([0; 32]), Err(BodyError::PayloadHash)),
        ] {
            let mut script = script();
            let mut body = VerifiedBody::new(&mut script, promised).unwrap();
            assert_eq!(
                fill_all(&core, &mut body, 100_000).await.map(|received| assert!(received == payload)),
                expected
            );
        }
    });
}

#[test]
fn a_buffer_comes_back_from_a_body_that_fails() {
    on_core(|core| async move {
        let chunks = large_chunks();
        let length = chunks.concat().len();
        for cut in [0, 50, 100_000, 400_000] {
            let mut client = client(0, length);
            let mut bytes = client.body(&chunks);
            bytes.truncate(cut);
            let promised = authenticator().authenticate(&client.head, NOW).unwrap().payload;
            let mut script = Script { bytes, at: 0, piece: 4096, length: None };
            let mut body = VerifiedBody::new(&mut script, promised).unwrap();
            assert_eq!(fill_all(&core, &mut body, 65_536).await, Err(BodyError::Incomplete), "{cut}");
        }
        // Two are free for the foreground; one that was lost would make this wait for ever.
        let _both = (core.buffer(Reserve::Foreground).await, core.buffer(Reserve::Foreground).await);
    });
}

/// Chunks that are long enough for their hashes to be lent, and more of them than a body may have under way.
#[test]
fn a_changed_byte_of_any_lent_chunk_is_refused() {
    let sizes = [8192, 4096, 4095, 1].into_iter().cycle().take(400);
    let chunks: Vec<Vec<u8>> = sizes.enumerate().map(|(at, size)| vec![at.to_le_bytes()[0]; size]).collect();
    let payload = chunks.concat();
    let body = client(0, payload.len()).body(&chunks);
    let received = |bytes: &[u8]| receive(&client(0, payload.len()).head, bytes, 50_000);
    assert!(received(&body).unwrap().0 == payload);
    // The first byte of a chunk's data, at the beginning, in the middle, at the end.
    for chunk in [0, 1, 3, 100, 101, 161, 241, 396, 399] {
        let before: usize = chunks[..chunk].iter().map(Vec::len).sum();
        let framing = |size: usize| format!("{size:x};chunk-signature=").len() + 64 + 4;
        let framing: usize = chunks[..=chunk].iter().map(|chunk| framing(chunk.len())).sum();
        let mut changed = body.clone();
        changed[before + framing - 2] ^= 1;
        assert_eq!(received(&changed), Err(ChunkError::Signature.into()), "chunk {chunk}");
    }
}

#[test]
fn long_chunks_signed_for_another_place_are_refused() {
    let (a, b) = (vec![b'a'; 8192], vec![b'b'; 8192]);
    let mut client = client(0, 2 * 8192);
    let (first, second) = (client.chunk(&a), client.chunk(&b));
    let end = client.end();
    let swapped = [&second[..], &first, &end].concat();
    assert_eq!(receive(&client.head, &swapped, 1000), Err(ChunkError::Signature.into()));
    let left_out = [&second[..], &second, &end].concat();
    assert_eq!(receive(&client.head, &left_out, 1000), Err(ChunkError::Signature.into()));
    assert!(receive(&client.head, &[&first[..], &second, &end].concat(), 1000).is_ok());
}

/// Payload goes on coming while hashes are lent.
#[test]
fn what_comes_while_hashes_are_lent_is_digested_next() {
    let chunks = [vec![1; 10_000], vec![2; 50_000], vec![3; 6000]];
    let payload = chunks.concat();
    for form in [0, 3] {
        let hash = anvil_digest::sha256(&payload);
        let (bytes, promised, length) = if form == 0 {
            let mut client = client(form, payload.len());
            let promised = authenticator().authenticate(&client.head, NOW).unwrap().payload;
            (client.body(&chunks), promised, None)
        } else {
            (payload.clone(), Payload::Signed(hash), Some(payload.len() as u64))
        };
        let mut script = Script { bytes, at: 0, piece: 7000, length };
        let mut body = VerifiedBody::new(&mut script, promised).unwrap();
        let mut received = Vec::new();
        ready(async {
            let mut lent: Vec<Span> = Vec::new();
            while received.len() < payload.len() || !lent.is_empty() {
                for span in &mut lent {
                    let start = usize::try_from(span.start).unwrap();
                    span.digest.update(&received[start..][..usize::try_from(span.length).unwrap()]);
                }
                let left = payload.len() - received.len();
                if left > 0 {
                    body.read(&mut received, left).await.unwrap();
                }
                body.digested(lent).unwrap();
                lent = body.undigested();
            }
            body.finish().await.unwrap();
        });
        assert!(received == payload, "form {form}");
    }
}
