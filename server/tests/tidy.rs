//! The rules of the house that no compiler knows: which crate may use which, whose code may be unsafe, what is taken from
//! others and under which licence, and what is never changed again. Reads `Cargo.toml` by way of `cargo metadata`,
//! `deny.toml`, and the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn metadata() -> Metadata {
    let options = ["--locked", "--filter-platform", "x86_64-unknown-linux-gnu"].map(str::to_owned);
    MetadataCommand::new().manifest_path(root().join("Cargo.toml")).other_options(options).exec().unwrap()
}

/// Which of our crates each may use. Arrows point down only, and the floors of one crate never see each other but
/// through `anvil-model`.
const ARROWS: &[(&str, &[&str])] = &[
    ("anvil-model", &[]),
    ("anvil-digest", &[]),
    ("anvil-erasure", &[]),
    ("anvil-proto", &[]),
    ("anvil-store", &["anvil-model"]),
    ("anvil-runtime", &["anvil-model"]),
    ("anvil-node", &["anvil-model", "anvil-digest", "anvil-erasure", "anvil-store"]),
    ("anvil-sim", &["anvil-model", "anvil-digest", "anvil-erasure", "anvil-store", "anvil-node"]),
    (
        "anvil",
        &["anvil-model", "anvil-digest", "anvil-erasure", "anvil-store", "anvil-runtime", "anvil-node", "anvil-proto"],
    ),
    (
        "anvil-bench",
        &["anvil-model", "anvil-digest", "anvil-erasure", "anvil-store", "anvil-runtime", "anvil-node", "anvil-proto"],
    ),
];

#[test]
fn arrows_between_crates_point_down() {
    let metadata = metadata();
    let members: Vec<&Package> = metadata.workspace_packages();
    let names: BTreeSet<&str> = members.iter().map(|package| package.name.as_str()).collect();
    assert_eq!(names, ARROWS.iter().map(|(name, _)| *name).collect(), "every crate has its floor here");
    for package in members {
        let (_, allowed) = ARROWS.iter().find(|(name, _)| *name == package.name.as_str()).unwrap();
        for dependency in &package.dependencies {
            let ours = names.contains(dependency.name.as_str());
            // Tests of the lower floors may run in the simulator.
            let for_tests = dependency.kind == DependencyKind::Development;
            assert!(
                !ours || for_tests || allowed.contains(&dependency.name.as_str()),
                "{} must not use {}",
                package.name,
                dependency.name
            );
        }
    }
}

/// Where `unsafe` may stand: the paths of a crate below which a file may allow it. All other crates forbid it, and these
/// deny it everywhere else.
const UNSAFE: &[(&str, &[&str])] = &[
    ("anvil-runtime", &["src/"]),
    ("anvil-digest", &["src/lanes/"]),
    ("anvil-erasure", &["src/kernel/"]),
    ("anvil-bench", &["src/ec/isal.rs"]),
];

#[test]
fn unsafe_code_lives_where_it_may() {
    let metadata = metadata();
    let mut guarding = 0;
    for package in metadata.workspace_packages() {
        let places =
            UNSAFE.iter().find(|(name, _)| *name == package.name.as_str()).map_or(&[][..], |(_, places)| places);
        let folder = package.manifest_path.parent().unwrap().as_std_path();
        for target in package.targets.iter().filter(|target| target.is_lib() || target.is_bin()) {
            let source = fs::read_to_string(&target.src_path).unwrap();
            let calls_the_library = package.targets.iter().any(|other| other.is_lib()) && target.is_bin();
            let guards = source.contains("#![forbid(unsafe_code)]")
                || !places.is_empty() && source.contains("#![deny(unsafe_code)]");
            assert!(
                guards || calls_the_library || places.contains(&"src/"),
                "{} lacks #![forbid(unsafe_code)]",
                target.src_path
            );
            guarding += usize::from(guards);
        }
        for file in sources(&folder.join("src")) {
            let path = file.strip_prefix(folder).unwrap().to_str().unwrap();
            let allows = fs::read_to_string(&file).unwrap().contains("allow(unsafe_code)");
            assert!(
                !allows || places.iter().any(|place| path.starts_with(place)),
                "{} allows unsafe code",
                file.display()
            );
        }
    }
    assert!(guarding >= 6, "only {guarding} crates were looked at");
}

/// Every Rust file below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

#[test]
fn every_version_stands_once_in_the_workspace() {
    for package in metadata().workspace_packages() {
        let manifest = fs::read_to_string(&package.manifest_path).unwrap();
        let sections = manifest
            .split("\n[")
            .filter(|section| section.starts_with("dependencies]") || section.starts_with("dev-dependencies]"));
        for line in sections.flat_map(str::lines).filter(|line| line.contains('=')) {
            assert!(line.contains("workspace = true"), "{}: {line}", package.manifest_path);
        }
    }
}

/// The strings of a list in `deny.toml`: `key = [ ... ]`.
fn deny_list(key: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join("deny.toml")).unwrap();
    let (_, rest) = text.split_once(&format!("\n{key} = [\n")).unwrap();
    let (list, _) = rest.split_once("\n]").unwrap();
    list.lines().filter_map(|line| line.split('"').nth(1).map(str::to_owned)).collect()
}

#[test]
fn licences_are_those_that_were_agreed_on() {
    let allowed = deny_list("allow");
    let metadata = metadata();
    let mut used = BTreeSet::new();
    for package in &metadata.packages {
        let expression = package.license.clone().unwrap_or_default();
        let satisfied = Licence::parse(&expression).satisfied(&allowed, &mut used);
        assert!(satisfied, "{} {} has the licence {expression:?}", package.name, package.version);
    }
    for licence in allowed {
        assert!(used.contains(&licence), "{licence} is allowed and not needed: remove it from deny.toml");
    }
}

/// An SPDX expression (SPDX specification, annex D) as a choice of sets: OR of ANDs.
struct Licence(Vec<BTreeSet<String>>);

impl Licence {
    fn parse(expression: &str) -> Self {
        let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
        let mut words = spaced.split_whitespace().peekable();
        let parsed = Self::any(&mut words);
        assert!(words.next().is_none(), "{expression:?} is no licence expression");
        parsed
    }

    fn any<'a>(words: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>) -> Self {
        let mut choices = Self::all(words).0;
        while words.next_if_eq(&"OR").is_some() {
            choices.extend(Self::all(words).0);
        }
        Self(choices)
    }

    fn all<'a>(words: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>) -> Self {
        let mut choices = Self::one(words).0;
        while words.next_if_eq(&"AND").is_some() {
            let more = Self::one(words).0;
            choices = choices.iter().flat_map(|a| more.iter().map(move |b| a.union(b).cloned().collect())).collect();
        }
        Self(choices)
    }

    fn one<'a>(words: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>) -> Self {
        let Some(word) = words.next() else { return Self(Vec::new()) };
        if word == "(" {
            let inner = Self::any(words);
            assert_eq!(words.next(), Some(")"), "a bracket is closed");
            return inner;
        }
        let exception = words.next_if_eq(&"WITH").and_then(|_| words.next());
        let name = exception.map_or_else(|| word.to_owned(), |exception| format!("{word} WITH {exception}"));
        Self(vec![BTreeSet::from([name])])
    }

    /// Notes what it takes from the list in `used`.
    fn satisfied(&self, allowed: &[String], used: &mut BTreeSet<String>) -> bool {
        let choice = self.0.iter().find(|set| set.iter().all(|name| allowed.contains(name)));
        used.extend(self.0.iter().flatten().filter(|name| allowed.contains(name)).cloned());
        choice.is_some()
    }
}

#[test]
fn licence_expressions_are_understood() {
    let allowed = ["MIT".to_owned(), "Unicode-3.0".to_owned()];
    let satisfied = |text: &str| Licence::parse(text).satisfied(&allowed, &mut BTreeSet::new());
    assert!(satisfied("MIT") && satisfied("GPL-3.0 OR MIT") && satisfied("GPL-3.0/MIT"));
    assert!(satisfied("(MIT OR Apache-2.0) AND Unicode-3.0"));
    assert!(!satisfied("") && !satisfied("MIT AND GPL-3.0") && !satisfied("MIT WITH some-exception"));
    assert!(!satisfied("(MIT OR Apache-2.0) AND Zlib"));
}

#[test]
fn no_dependency_comes_in_two_versions_without_a_reason() {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in &metadata().packages {
        versions.entry(package.name.to_string()).or_default().insert(package.version.to_string());
    }
    let doubled: BTreeSet<String> =
        versions.into_iter().filter(|(_, versions)| versions.len() > 1).map(|(name, _)| name).collect();
    let agreed: BTreeSet<String> = deny_list("skip").into_iter().collect();
    assert_eq!(doubled, agreed, "left: what there is; right: what deny.toml agrees to");
}

/// A migration that has run somewhere must stay as it ran: `migrations/SHA256SUMS` only ever gets new lines.
#[test]
fn migrations_are_only_added() {
    let directory = root().join("migrations");
    let sums = fs::read_to_string(directory.join("SHA256SUMS")).unwrap();
    let listed: BTreeMap<&str, &str> =
        sums.lines().map(|line| line.split_once("  ").map(|(sum, path)| (path, sum)).unwrap()).collect();
    let mut found = BTreeSet::new();
    for folder in fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
        for file in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            let path = file.strip_prefix(&directory).unwrap().to_str().unwrap().to_owned();
            let name = file.file_name().unwrap().to_str().unwrap();
            let numbered = name.len() > 5 && name[..4].bytes().all(|b| b.is_ascii_digit()) && name.ends_with(".sql");
            assert!(numbered, "{path} is not named like 0001_what_it_does.sql");
            let sum = hex::encode(anvil_digest::sha256(&fs::read(&file).unwrap()));
            let expected = listed.get(path.as_str());
            let expected = expected.unwrap_or_else(|| panic!("add this line to SHA256SUMS:\n{sum}  {path}"));
            assert_eq!(*expected, sum, "{path} has changed: add another migration instead");
            found.insert(path);
        }
    }
    assert_eq!(found, listed.keys().map(|path| (*path).to_owned()).collect(), "no migration is taken away");
}
