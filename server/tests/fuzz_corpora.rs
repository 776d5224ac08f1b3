//! What the fuzzers began with and what they have found is read again in every test run, and nothing of it breaks a
//! parser. `docs/TESTING.md` says how to look for more.

use std::fs;
use std::path::Path;

#[test]
fn what_the_fuzzers_know_breaks_no_parser() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut names: Vec<_> = fs::read_dir(&corpora).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    let mut targets: Vec<_> = anvil::fuzz::TARGETS.iter().map(|&(name, _)| name).collect();
    targets.sort_unstable();
    assert_eq!(names, targets, "each target has a corpus, and each corpus a target");
    for (name, target) in anvil::fuzz::TARGETS {
        let mut count = 0;
        for entry in fs::read_dir(corpora.join(name)).unwrap() {
            let path = entry.unwrap().path();
            // Said before it is read: a failure names the file.
            eprintln!("{}", path.display());
            target(&fs::read(&path).unwrap());
            count += 1;
        }
        assert!(count > 0, "the corpus of {name} is empty");
    }
}

/// A small generator (Knuth's MMIX), so that a failure repeats.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }
}

/// Their neighbours break none either: a few bytes changed, taken out, put in, or a piece of another one put behind. No
/// search, as the fuzzers make it; `ANVIL_FUZZ_TURNS` makes more of them.
#[test]
fn what_is_near_to_it_breaks_no_parser() {
    let turns = std::env::var("ANVIL_FUZZ_TURNS").map_or(2_000, |turns| turns.parse().unwrap());
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, target) in anvil::fuzz::TARGETS {
        let mut paths: Vec<_> = fs::read_dir(corpora.join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let corpus: Vec<_> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
        let mut dice = Dice(7);
        for _ in 0..turns {
            let mut input = corpus[dice.roll(corpus.len())].clone();
            for _ in 0..=dice.roll(6) {
                let at = dice.roll(input.len().max(1));
                match dice.roll(5) {
                    0 if !input.is_empty() => input[at] = u8::try_from(dice.roll(256)).unwrap(),
                    1 if !input.is_empty() => drop(input.remove(at)),
                    2 => input.insert(at.min(input.len()), b"\r\n\0: 9;<&%/=f"[dice.roll(13)]),
                    3 => {
                        let other = &corpus[dice.roll(corpus.len())];
                        input.truncate(at);
                        input.extend_from_slice(&other[dice.roll(other.len().max(1)).min(other.len())..]);
                    }
                    _ => {
                        let again = input[at.min(input.len())..].to_vec();
                        input.extend_from_slice(&again[..again.len().min(64)]);
                    }
                }
            }
            let outcome = std::panic::catch_unwind(|| target(&input));
            assert!(outcome.is_ok(), "{name} breaks on {:?}", input.escape_ascii().to_string());
        }
    }
}
