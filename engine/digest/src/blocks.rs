//! What MD5 and SHA-256 have in common: words that take whole blocks of 64 bytes, and a block that is not full yet
//! (RFC 1321, 3.1 and 3.2; FIPS 180-4, 5.1.1).

/// What both take at a time.
pub(crate) type Block = [u8; BLOCK_BYTES];

/// Takes blocks into the words of one stream.
pub(crate) type Compress<const WORDS: usize> = fn(&mut [u32; WORDS], &[Block]);

/// A stream under way. The first `length % 64` bytes of `partial` are those behind the last whole block.
#[derive(Clone, Debug)]
pub(crate) struct Stream<const WORDS: usize> {
    pub(crate) words: [u32; WORDS],
    partial: Block,
    length: u64,
}

impl<const WORDS: usize> Stream<WORDS> {
    pub(crate) fn new(words: [u32; WORDS]) -> Self {
        Self { words, partial: [0; BLOCK_BYTES], length: 0 }
    }

    pub(crate) fn update(&mut self, bytes: &[u8], compress: Compress<WORDS>) {
        let blocks = self.admit(bytes, compress);
        compress(&mut self.words, blocks);
    }

    /// Takes the ends of `bytes` that share a block with other bytes, and gives the whole blocks between them, which the
    /// caller takes into `words` before anything else happens to this stream.
    pub(crate) fn admit<'a>(&mut self, mut bytes: &'a [u8], compress: Compress<WORDS>) -> &'a [Block] {
        let held = self.held();
        self.length += bytes.len() as u64;
        if held > 0 {
            let (first, rest) = bytes.split_at(bytes.len().min(BLOCK_BYTES - held));
            self.partial[held..held + first.len()].copy_from_slice(first);
            if held + first.len() < BLOCK_BYTES {
                return &[];
            }
            compress(&mut self.words, &[self.partial]);
            bytes = rest;
        }
        let (blocks, rest) = bytes.as_chunks();
        self.partial[..rest.len()].copy_from_slice(rest);
        blocks
    }

    /// The words of all that was taken, padded: a one bit, zeros, and the length in bits as `length_of` writes it.
    pub(crate) fn finish(mut self, length_of: fn(u64) -> [u8; 8], compress: Compress<WORDS>) -> [u32; WORDS] {
        let held = self.held();
        self.partial[held] = 0x80;
        self.partial[held + 1..].fill(0);
        if held + 1 > BLOCK_BYTES - 8 {
            compress(&mut self.words, &[self.partial]);
            self.partial = [0; BLOCK_BYTES];
        }
        self.partial[BLOCK_BYTES - 8..].copy_from_slice(&length_of(self.length.wrapping_mul(8)));
        compress(&mut self.words, &[self.partial]);
        self.words
    }

    fn held(&self) -> usize {
        (self.length % BLOCK_BYTES as u64) as usize
    }
}

pub(crate) const BLOCK_BYTES: usize = 64;
