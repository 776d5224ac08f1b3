//! What is put: the same bytes in every object, and the messages that carry them, made once.

use anvil_digest::{Algorithm, Digest};
use anvil_proto::v1::{Chunk, WriteFinish, WriteObjectRequest, write_object_request};
use bytes::Bytes;

use super::message::frame;
use crate::load::{Sizes, random_bytes};

/// All objects of a load.
#[derive(Clone, Debug)]
pub(super) struct Payloads {
    sizes: Sizes,
    content: Bytes,
    chunk_bytes: usize,
    /// The chunks of the content, framed; empty where nothing streams in.
    chunks: Vec<Bytes>,
    /// By size: the chunk that is not whole, if there is one, and the finish, framed.
    ends: Vec<Vec<Bytes>>,
}

impl Payloads {
    /// `streams_in` where objects are written in chunks.
    pub(super) fn new(sizes: &Sizes, chunk_bytes: usize, streams_in: bool) -> anyhow::Result<Self> {
        let content = Bytes::from(random_bytes(usize::try_from(sizes.bytes_max())?));
        let (mut chunks, mut ends) = (Vec::new(), Vec::new());
        if streams_in {
            let whole = content.len() / chunk_bytes;
            chunks = (0..whole).map(|at| chunk(content.slice(at * chunk_bytes..(at + 1) * chunk_bytes))).collect();
            ends =
                sizes.choices().iter().map(|choice| end(&content.slice(..length(choice.bytes)), chunk_bytes)).collect();
        }
        Ok(Self { sizes: sizes.clone(), content, chunk_bytes, chunks, ends })
    }

    /// Of object `number`.
    pub(super) fn content(&self, number: u64) -> Bytes {
        self.content.slice(..self.length(number))
    }

    /// The messages behind the spec that write object `number`.
    pub(super) fn messages(&self, number: u64) -> impl Iterator<Item = &Bytes> {
        let whole = self.length(number) / self.chunk_bytes;
        self.chunks[..whole].iter().chain(&self.ends[self.sizes.index_of(number)])
    }

    fn length(&self, number: u64) -> usize {
        length(self.sizes.choices()[self.sizes.index_of(number)].bytes)
    }
}

fn length(bytes: u64) -> usize {
    usize::try_from(bytes).expect("the largest of them fits")
}

fn end(content: &Bytes, chunk_bytes: usize) -> Vec<Bytes> {
    let rest = content.slice(content.len() / chunk_bytes * chunk_bytes..);
    let finish = WriteFinish { size: content.len() as u64, crc32c: Some(crc32c(content)), checksum: None };
    let finish = frame(&WriteObjectRequest { part: Some(write_object_request::Part::Finish(finish)) });
    (!rest.is_empty()).then(|| chunk(rest)).into_iter().chain([finish]).collect()
}

fn chunk(content: Bytes) -> Bytes {
    let chunk = Chunk { crc32c: Some(crc32c(&content)), content };
    frame(&WriteObjectRequest { part: Some(write_object_request::Part::Chunk(chunk)) })
}

/// The CRC32C of bytes.
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    let mut digest = Digest::new(Algorithm::Crc32c);
    digest.update(bytes);
    u32::from_be_bytes(digest.finish()[..].try_into().expect("a CRC32C has four bytes"))
}

#[cfg(test)]
mod tests {
    use anvil_proto::Message as _;

    use super::*;

    #[test]
    fn messages_carry_the_object_and_its_checksum() {
        let sizes: Sizes = "0=1,10=1,25=1,30=1".parse().unwrap();
        let payloads = Payloads::new(&sizes, 10, true).unwrap();
        for number in 0..40 {
            let (mut joined, mut finish) = (Vec::new(), None);
            for message in payloads.messages(number) {
                assert!(finish.is_none(), "the finish comes last");
                match WriteObjectRequest::decode(&message[5..]).unwrap().part.unwrap() {
                    write_object_request::Part::Chunk(chunk) => {
                        assert_eq!(chunk.crc32c, Some(crc32c(&chunk.content)));
                        joined.extend_from_slice(&chunk.content);
                    }
                    write_object_request::Part::Finish(said) => finish = Some(said),
                    write_object_request::Part::Spec(_) => panic!("the spec is not among them"),
                }
            }
            let finish = finish.unwrap();
            assert_eq!(joined, payloads.content(number));
            assert_eq!((finish.size, finish.crc32c), (joined.len() as u64, Some(crc32c(&joined))));
        }
    }
}
