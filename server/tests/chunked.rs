//! Goal: bodies that a client signs chunk by chunk arrive whole or not at all. Method: an own client, from AWS's
//! description of `STREAMING-AWS4-HMAC-SHA256-PAYLOAD`, against the real binary.

mod support;

use support::content::Content;
use support::node::{Node, scratch};
use support::s3::{Answer, Body, Chunked, Client, Flaw};

fn put(client: &mut Client, bytes: &[u8], chunk_bytes: usize, flaw: Flaw) -> Answer {
    let headers = [("content-type", "text/plain")];
    let body = Body::Chunked(Chunked { bytes, chunk_bytes, flaw });
    client.request("PUT", "/chunked/key", &[], &headers, body).unwrap()
}

#[test]
fn chunks_of_every_kind_arrive_whole() {
    let scratch = scratch();
    let node = Node::start(&scratch.path().join("data"));
    let mut client = node.client();
    client.put("/chunked", b"").unwrap().succeeded();
    for (length, chunk_bytes) in [
        (0, 8192),
        (1, 8192),
        (65_536, 8192),
        (65_537, 65_536),
        (100_000, 8191),
        ((1 << 20) + 7, 1 << 20),
        (3 << 20, 100_003),
        (20 << 20, 128 << 10),
    ] {
        let bytes = Content { seed: length, length }.bytes();
        put(&mut client, &bytes, chunk_bytes, Flaw::None).succeeded();
        let answer = client.get("/chunked/key").unwrap().succeeded();
        assert!(answer.body == bytes, "{length} bytes in chunks of {chunk_bytes} came back changed");
        assert_eq!(answer.head.header("content-encoding"), None, "the coding of the transfer is not the object's");
    }
    node.stop();
}

#[test]
fn chunks_that_are_not_the_clients_change_nothing() {
    let scratch = scratch();
    let node = Node::start(&scratch.path().join("data"));
    let mut client = node.client();
    client.put("/chunked", b"").unwrap().succeeded();
    for (length, chunk_bytes) in [(40_000, 10_000), (4 << 20, 1 << 20)] {
        let (kept, other) = (Content { seed: 1, length }.bytes(), Content { seed: 2, length }.bytes());
        put(&mut client, &kept, chunk_bytes, Flaw::None).succeeded();
        for flaw in [Flaw::ChangedByte, Flaw::SwappedChunks, Flaw::ForgedEnd, Flaw::MissingChunk] {
            let answer = put(&mut client, &other, chunk_bytes, flaw);
            // Signatures are seen with their window: a body that ends too early within it is refused for that first.
            let too_short = matches!(flaw, Flaw::MissingChunk) && answer.elements("Code") == ["IncompleteBody"];
            let forged = answer.elements("Code") == ["SignatureDoesNotMatch"];
            assert!(forged || too_short, "{flaw:?}: {}", answer.text());
            assert!(client.get("/chunked/key").unwrap().succeeded().body == kept, "{flaw:?} changed the object");
        }
    }
    node.stop();
}
