//! Messages with bytes of an object, written and read by hand, so that the bytes stay where the disk or the socket put them.
//!
//! Fields of a message may come in any order (protobuf, "Encoding"): in those that are written `content` comes last.

use anvil_digest::{Algorithm, Digest};
use anvil_proto::encoding::{DecodeContext, WireType, decode_key, decode_varint, fixed32, skip_field};
use bytes::Buf as _;

use super::rope::Rope;

/// A `Chunk` that came, its bytes in the pieces in which they did.
#[derive(Clone, Debug, Default)]
pub(super) struct Chunk {
    pub(super) content: Rope,
    pub(super) crc32c: Option<u32>,
}

/// Takes off what is before the fields of a chunk when the message has one, as field 2, and nothing else. False of any
/// other message, of which nothing is taken.
pub(super) fn begins(message: &mut Rope) -> bool {
    let Some([key, length @ ..]) = message.first::<{ 1 + LENGTH_BYTES_MAX }>() else { return false };
    let mut behind = &length[..];
    let Ok(length) = decode_varint(&mut behind) else { return false };
    let head = 1 + LENGTH_BYTES_MAX - behind.len();
    let is_chunk = key == CHUNK << 3 | LENGTH_DELIMITED && length == (message.remaining() - head) as u64;
    if is_chunk {
        message.advance(head);
    }
    is_chunk
}

/// The chunk with these fields; `None` when they are none.
pub(super) fn read(mut fields: Rope) -> Option<Chunk> {
    let mut chunk = Chunk::default();
    while fields.has_remaining() {
        match decode_key(&mut fields).ok()? {
            (1, WireType::LengthDelimited) => {
                let length = usize::try_from(decode_varint(&mut fields).ok()?).ok()?;
                if length > fields.remaining() {
                    return None;
                }
                chunk.content = fields.split_to(length);
            }
            // What is no chunk has something else here.
            (1, _) => return None,
            (2, wire_type) => {
                let crc32c = chunk.crc32c.get_or_insert_default();
                fixed32::merge(wire_type, crc32c, &mut fields, DecodeContext::default()).ok()?;
            }
            (number, wire_type) => {
                skip_field(wire_type, number, &mut fields, DecodeContext::default()).ok()?;
            }
        }
    }
    Some(chunk)
}

/// A `GetObjectResponse` with a chunk of these bytes, up to the bytes.
pub(super) fn of_object(content: &[u8]) -> Vec<u8> {
    frame(Vec::new(), content)
}

/// A `BidiReadResponse` with a chunk of these bytes of a range, up to the bytes.
pub(super) fn of_range(read_id: u64, offset: u64, content: &[u8]) -> Vec<u8> {
    let mut fields = Vec::with_capacity(2 * VARINT_BYTES_MAX + 2);
    field(&mut fields, 3, read_id);
    field(&mut fields, 4, offset);
    frame(fields, content)
}

/// The CRC32C of bytes.
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    crc32c_of([bytes])
}

/// The CRC32C of pieces, one behind the other.
pub(super) fn crc32c_of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    let mut digest = Digest::new(Algorithm::Crc32c);
    pieces.into_iter().for_each(|piece| digest.update(piece));
    u32::from_be_bytes(digest.finish()[..].try_into().expect("a CRC32C has four bytes"))
}

/// All messages have their chunk as field 2, and all chunks have the content as field 1 and its checksum as field 2.
fn frame(mut fields: Vec<u8>, content: &[u8]) -> Vec<u8> {
    fields.push(2 << 3 | FIXED32);
    fields.extend_from_slice(&crc32c(content).to_le_bytes());
    fields.push(1 << 3 | LENGTH_DELIMITED);
    varint(&mut fields, content.len() as u64);
    let mut head = vec![CHUNK << 3 | LENGTH_DELIMITED];
    varint(&mut head, (fields.len() + content.len()) as u64);
    let length = head.len() + fields.len() + content.len();
    let length = u32::try_from(length).expect("a piece is far below 4 GiB");
    [&[0], &length.to_be_bytes()[..], &head, &fields].concat()
}

fn field(into: &mut Vec<u8>, number: u8, value: u64) {
    into.push(number << 3 | VARINT);
    varint(into, value);
}

/// Seven bits per byte, the lowest first; the highest bit says that there are more.
fn varint(into: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        into.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

const CHUNK: u8 = 2;
/// A message is far below 2^35 bytes.
const LENGTH_BYTES_MAX: usize = 5;
const VARINT_BYTES_MAX: usize = 10;
const VARINT: u8 = 0;
const LENGTH_DELIMITED: u8 = 2;
const FIXED32: u8 = 5;

#[cfg(test)]
mod tests {
    use anvil_proto::v1::{BidiReadResponse, Chunk, GetObjectResponse, RangeChunk, bidi_read_response};
    use anvil_proto::{Message as _, v1::get_object_response};
    use bytes::Bytes;

    use super::*;

    fn message(mut head: Vec<u8>, content: &[u8]) -> Bytes {
        head.extend_from_slice(content);
        assert_eq!(head[..5], [&[0], &u32::try_from(head.len() - 5).unwrap().to_be_bytes()[..]].concat());
        Bytes::from(head).slice(5..)
    }

    #[test]
    fn what_is_written_by_hand_is_what_others_read() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        for length in [1, 127, 128, 1 << 20] {
            let content = vec![7; length];
            let chunk = Chunk { content: content.clone().into(), crc32c: Some(crc32c(&content)) };
            let expected = GetObjectResponse { part: Some(get_object_response::Part::Chunk(chunk)) };
            assert_eq!(GetObjectResponse::decode(message(of_object(&content), &content)).unwrap(), expected);
            for (read_id, offset) in [(0, 0), (300, u64::MAX)] {
                let (content, crc32c) = (Bytes::from(content.clone()), crc32c(&content));
                let chunk = RangeChunk { content: content.clone(), crc32c, read_id, offset };
                let expected = BidiReadResponse { part: Some(bidi_read_response::Part::Chunk(chunk)) };
                let head = of_range(read_id, offset, &content);
                assert_eq!(BidiReadResponse::decode(message(head, &content)).unwrap(), expected);
            }
        }
    }
}
