//! Unpredictable bits from the kernel, fetched in batches.

/// Random numbers of getrandom(2): no generator of our own whose state could be guessed.
#[derive(Debug)]
pub(crate) struct Entropy {
    words: [u64; WORDS],
    used: usize,
}

impl Entropy {
    pub(crate) const fn new() -> Self {
        Self { words: [0; WORDS], used: WORDS }
    }

    pub(crate) fn next(&mut self) -> u64 {
        if self.used == WORDS {
            self.refill();
        }
        // A number that was given is not kept.
        let word = std::mem::take(&mut self.words[self.used]);
        self.used += 1;
        word
    }

    fn refill(&mut self) {
        let wanted = size_of_val(&self.words);
        loop {
            // SAFETY: the kernel writes at most `wanted` bytes to the array, which is ours and has that size; any bits
            // are a valid u64.
            let got = unsafe { libc::getrandom(self.words.as_mut_ptr().cast(), wanted, 0) };
            // Requests of up to 256 bytes are neither cut short nor interrupted once the kernel's pool is seeded
            // (getrandom(2)); before that, a signal may come in between.
            if usize::try_from(got) == Ok(wanted) {
                break;
            }
            let error = std::io::Error::last_os_error();
            assert!(error.kind() == std::io::ErrorKind::Interrupted, "no entropy from the kernel: {error}");
        }
        self.used = 0;
    }
}

const WORDS: usize = 256 / size_of::<u64>();

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers differ, also over several batches.
    #[test]
    fn numbers_do_not_repeat() {
        let mut entropy = Entropy::new();
        let numbers: std::collections::BTreeSet<u64> = (0..4 * WORDS).map(|_| entropy.next()).collect();
        assert_eq!(numbers.len(), 4 * WORDS);
    }
}
