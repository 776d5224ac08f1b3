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
