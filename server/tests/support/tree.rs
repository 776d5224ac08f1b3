//! Trees of files that clients copy to and fro.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::content::Content;

/// A file below `tree`, with the directories above it.
pub fn write(tree: &Path, name: &str, content: Content) {
    let path = tree.join(name);
    fs::create_dir_all(path.parent().expect("below the tree")).unwrap();
    fs::write(path, content.bytes()).unwrap();
}

/// Paths of all files below `root`, relative to it, with their lengths.
pub fn files(root: &Path) -> impl Iterator<Item = (String, u64)> {
    let (mut directories, mut found) = (vec![root.to_owned()], Vec::new());
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                directories.push(entry.path());
            } else {
                let name = entry.path().strip_prefix(root).unwrap().to_str().expect("named in UTF-8").to_owned();
                found.push((name, entry.metadata().unwrap().len()));
            }
        }
    }
    found.into_iter()
}

/// Fails unless both trees hold the same files with the same bytes.
#[track_caller]
pub fn assert_same(expected: &Path, actual: &Path) {
    let names: BTreeMap<_, _> = files(expected).collect();
    assert_eq!(files(actual).collect::<BTreeMap<_, _>>(), names);
    for name in names.keys() {
        assert!(fs::read(expected.join(name)).unwrap() == fs::read(actual.join(name)).unwrap(), "{name} differs");
    }
}
