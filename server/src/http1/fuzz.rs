//! What a fuzzer asks of the readers of this protocol: no panic, no endless loop, and the same outcome however a stream
//! is cut into pieces.

use super::chunked::{ChunkedDecoder, Step};
use super::head::{Scan, Scanner, parse};
use super::{HEAD_BYTES_MAX, HEADERS_MAX};
use crate::http::Head;

/// A head, whole and in two pieces.
pub(crate) fn head(input: &[u8]) {
    let Some((&cut, stream)) = input.split_first() else { return };
    let cut = usize::from(cut) * stream.len() / 256;
    let whole = Scanner::default().scan(stream);
    let mut scanner = Scanner::default();
    let divided = match scanner.scan(&stream[..cut]) {
        Ok(Scan::More) => scanner.scan(stream),
        outcome => outcome,
    };
    assert_eq!(whole, divided, "cut at {cut}");
    let Ok(Scan::Head { start, end }) = whole else { return };
    assert!(end - start <= HEAD_BYTES_MAX);
    let Ok(request) = parse(&stream[start..end]) else { return };
    assert!(request.path.starts_with('/') && request.headers.len() <= HEADERS_MAX + 1);
    let is_clean = |byte: &u8| !matches!(byte, b'\r' | b'\n' | 0);
    assert!(request.path.bytes().chain(request.query.iter().flat_map(|query| query.bytes())).all(|b| is_clean(&b)));
    assert!(request.headers.iter().all(|(name, value)| !name.is_empty() && value.iter().all(is_clean)));
}

/// A body in the chunked coding, whole and byte by byte.
pub(crate) fn chunked(input: &[u8]) {
    let whole = decode([input]);
    assert_eq!(whole, decode(input.chunks(1)));
    if let Some((payload, used)) = whole {
        assert!(payload.len() < used && used <= input.len());
    }
}

/// The payload and how much of the stream belongs to it; `None` when it is malformed or does not end.
fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Option<(Vec<u8>, usize)> {
    let mut decoder = ChunkedDecoder::new();
    let (mut payload, mut used) = (Vec::new(), 0);
    for mut piece in pieces {
        while !decoder.ended() {
            let (count, step) = decoder.step(piece).ok()?;
            (piece, used) = (&piece[count..], used + count);
            match step {
                Step::More => break,
                Step::End => {}
                Step::Data(_) if piece.is_empty() => break,
                Step::Data(left) => {
                    let count = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    payload.extend_from_slice(&piece[..count]);
                    decoder.take(count as u64);
                    (piece, used) = (&piece[count..], used + count);
                }
            }
        }
    }
    decoder.ended().then_some((payload, used))
}

/// The head at the beginning of a stream as a handler would get it.
pub(crate) fn request_head(stream: &[u8]) -> Option<Head> {
    let Ok(Scan::Head { start, end }) = Scanner::default().scan(stream) else { return None };
    let request = parse(&stream[start..end]).ok()?;
    Some(Head {
        method: request.method,
        path: request.path,
        query: request.query,
        headers: request.headers,
        peer: ([127, 0, 0, 1], 1).into(),
        request_id: "request-1".to_owned(),
    })
}
