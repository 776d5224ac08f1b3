//! The chunked transfer coding (RFC 9112, 7.1), decoded without a copy of its own.
//!
//! Stricter than the grammar where readers are known to differ: lines end in CR LF and nothing else, no white space
//! around a chunk's size, extensions and trailers are bounded, looked at for control characters, and dropped.

/// What the caller does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Bring more input: all of it was used.
    More,
    /// So many bytes of payload come next in the stream. Take some of them and say so by [`ChunkedDecoder::take`].
    Data(u64),
    /// The body has ended.
    End,
}

/// The stream is not in the chunked coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Where in the coding the stream is. Fed with any division of the stream, it says the same.
#[derive(Clone, Debug)]
pub(crate) struct ChunkedDecoder {
    state: State,
    /// Of the chunk: its size while that is read, then what is left of its payload.
    left: u64,
    /// Bytes of the line, or of all trailers, read so far.
    line_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    SizeFirst,
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerFirst,
    Trailer,
    TrailerLf,
    EndLf,
    End,
}

/// Hexadecimal digits of a chunk's size: enough for 2^60, never an overflow.
const SIZE_DIGITS_MAX: usize = 15;
/// A chunk's line with its extension.
const LINE_BYTES_MAX: usize = 1024;
/// All trailers together.
const TRAILER_BYTES_MAX: usize = 8 << 10;

const _: () = assert!(SIZE_DIGITS_MAX * 4 < 64, "a size fits its number");

impl ChunkedDecoder {
    pub(crate) fn new() -> Self {
        Self { state: State::SizeFirst, left: 0, line_bytes: 0 }
    }

    /// True after [`Step::End`].
    pub(crate) fn ended(&self) -> bool {
        self.state == State::End
    }

    /// Reads framing from the front of `input` until payload or the end comes; gives how many bytes it used.
    pub(crate) fn step(&mut self, input: &[u8]) -> Result<(usize, Step), Malformed> {
        let mut used = 0;
        loop {
            match self.state {
                State::Data => return Ok((used, Step::Data(self.left))),
                State::End => return Ok((used, Step::End)),
                _ => {}
            }
            let Some(&byte) = input.get(used) else { return Ok((used, Step::More)) };
            used += 1;
            self.state = self.next(byte)?;
        }
    }

    /// Says that `count` bytes of payload were taken from the stream.
    pub(crate) fn take(&mut self, count: u64) {
        assert!(self.state == State::Data && count <= self.left, "payload is taken as it was offered");
        self.left -= count;
        if self.left == 0 {
            self.state = State::DataCr;
        }
    }

    fn next(&mut self, byte: u8) -> Result<State, Malformed> {
        self.line_bytes += 1;
        Ok(match (self.state, byte) {
            (State::SizeFirst, b) => {
                self.left = hex_digit(b)?;
                self.line_bytes = 1;
                State::Size
            }
            (State::Size, b'\r') => State::SizeLf,
            (State::Size, b';') => State::Extension,
            (State::Size, b) if self.line_bytes <= SIZE_DIGITS_MAX => {
                self.left = self.left * 16 + hex_digit(b)?;
                State::Size
            }
            (State::Extension, b'\r') => State::SizeLf,
            (State::Extension, b) if is_text(b) && self.line_bytes <= LINE_BYTES_MAX => State::Extension,
            (State::SizeLf, b'\n') if self.left > 0 => State::Data,
            (State::SizeLf, b'\n') => {
                self.line_bytes = 0;
                State::TrailerFirst
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::SizeFirst,
            (State::TrailerFirst, b'\r') => State::EndLf,
            // A folded line has no line to continue, and a field has a name.
            (State::TrailerFirst, b' ' | b'\t' | b':') => return Err(Malformed),
            (State::Trailer, b'\r') => State::TrailerLf,
            (State::TrailerFirst | State::Trailer, b) if is_text(b) && self.line_bytes <= TRAILER_BYTES_MAX => {
                State::Trailer
            }
            (State::TrailerLf, b'\n') => State::TrailerFirst,
            (State::EndLf, b'\n') => State::End,
            _ => return Err(Malformed),
        })
    }
}

fn hex_digit(byte: u8) -> Result<u64, Malformed> {
    char::from(byte).to_digit(16).map(u64::from).ok_or(Malformed)
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Decodes a stream that comes in these parts: the payload, what is left behind the end, and how it went.
    fn decode<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Result<(Vec<u8>, bool, usize), Malformed> {
        let mut decoder = ChunkedDecoder::new();
        let (mut payload, mut behind) = (Vec::new(), 0);
        for mut part in parts {
            loop {
                let (used, step) = decoder.step(part)?;
                part = &part[used..];
                match step {
                    Step::Data(left) => {
                        let count = part.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                        if count == 0 {
                            break;
                        }
                        payload.extend_from_slice(&part[..count]);
                        decoder.take(count as u64);
                        part = &part[count..];
                    }
                    Step::More => break,
                    Step::End => {
                        behind += part.len();
                        break;
                    }
                }
            }
        }
        Ok((payload, decoder.ended(), behind))
    }

    fn whole(stream: &str) -> Result<(Vec<u8>, bool, usize), Malformed> {
        decode([stream.as_bytes()])
    }

    #[test]
    fn chunks_extensions_and_trailers_are_read() {
        assert_eq!(whole("5\r\nhello\r\n0\r\n\r\n"), Ok((b"hello".to_vec(), true, 0)));
        assert_eq!(
            whole("A;a=\"b c\"\r\n0123456789\r\n00\r\nx: y\r\nz:\r\n\r\nGET"),
            Ok((b"0123456789".to_vec(), true, 3))
        );
        assert_eq!(whole("5\r\nhel"), Ok((b"hel".to_vec(), false, 0)));
        assert_eq!(whole("fffffffffffffff\r\nx"), Ok((b"x".to_vec(), false, 0)));
    }

    #[test]
    fn what_readers_could_understand_differently_is_refused() {
        for stream in [
            "\r\n",
            "g\r\n",
            "+5\r\nhello\r\n",
            "-1\r\n",
            "0x5\r\nhello\r\n",
            " 5\r\nhello\r\n",
            "5 \r\nhello\r\n",
            "5\nhello\n0\n\n",
            "5\rhello",
            "5\r\nhelloX\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "5\r\nhello\r0\r\n\r\n",
            "5;a\nb\r\nhello\r\n",
            "5;a\0\r\nhello\r\n",
            "0000000000000000\r\n",
            "10000000000000000\r\n",
            "0\r\n\n",
            "0\r\n folded\r\n\r\n",
            "0\r\nx: y\nz\r\n\r\n",
            "0\r\n\rx",
        ] {
            assert_eq!(whole(stream), Err(Malformed), "{stream:?}");
        }
        assert_eq!(whole(&format!("5;{}\r\n", "a".repeat(LINE_BYTES_MAX))), Err(Malformed));
        assert_eq!(whole(&format!("0\r\n{}", "a: b\r\n".repeat(TRAILER_BYTES_MAX))), Err(Malformed));
    }

    /// Cuts `stream` at the given positions (taken modulo its length).
    fn cut(stream: &[u8], mut cuts: Vec<usize>) -> Vec<&[u8]> {
        cuts.iter_mut().for_each(|cut| *cut %= stream.len() + 1);
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect()
    }

    proptest! {
        #[test]
        fn any_division_of_a_stream_decodes_the_same(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
            cuts in prop::collection::vec(any::<usize>(), 0..12),
        ) {
            let mut stream = Vec::new();
            for chunk in &chunks {
                stream.extend(format!("{:x};e=1\r\n", chunk.len()).into_bytes());
                stream.extend(chunk);
                stream.extend(b"\r\n");
            }
            stream.extend(b"0\r\nt: 1\r\n\r\nrest");
            prop_assert_eq!(decode(cut(&stream, cuts)), Ok((chunks.concat(), true, 4)));
        }

        #[test]
        fn arbitrary_bytes_give_an_outcome_that_no_division_changes(
            stream in prop::collection::vec(prop::sample::select(b"0123456789abcdefF;=\r\n\r\n\r\n xyz\0".to_vec()), 0..80),
            cuts in prop::collection::vec(any::<usize>(), 0..12),
        ) {
            prop_assert_eq!(decode(cut(&stream, cuts)), decode([&stream[..]]));
        }
    }
}
