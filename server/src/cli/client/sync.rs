//! Many files and objects: what is to be done to make one place like another, and doing it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anvil_digest::{Algorithm, Digest};
use anvil_proto::v1;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use indicatif::ProgressBar;
use jiff::Timestamp;

use super::place::{Place, Remote, path_below};
use super::put::{Put, Saying, blocking};
use super::session::{Line, Session};
use super::{get, put, time};
use crate::cli::Failure;
use crate::grpc::client::{Call, CallError};

/// Files that are looked at together; their parts wait for their turns.
const FILES: usize = 8;
/// A limit of the node.
const DELETED_AT_ONCE_MAX: usize = 1000;

/// From where to where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Up(PathBuf, Remote),
    Down(Remote, PathBuf),
    Across(Remote, Remote),
}

impl Direction {
    /// `None` for streams, and when both are files.
    pub(super) fn of(from: Place, to: Place) -> Option<Self> {
        match (from, to) {
            (Place::File(from), Place::Object(to)) => Some(Self::Up(from, to.as_directory())),
            (Place::Object(from), Place::File(to)) => Some(Self::Down(from.as_directory(), to)),
            (Place::Object(from), Place::Object(to)) => Some(Self::Across(from.as_directory(), to.as_directory())),
            _ => None,
        }
    }
}

/// What is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// Everything.
    All,
    /// What is missing or differs.
    Sync {
        /// What is only at the other place goes.
        delete: bool,
        /// What has the same size is compared by checksum where there is one.
        checksum: bool,
    },
}

/// A file or an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Entry {
    size: u64,
    modified: Timestamp,
    checksum: Option<(Algorithm, Vec<u8>)>,
}

/// By what stands behind the directory or prefix, with slashes.
type Tree = BTreeMap<String, Entry>;

/// What is to be done, by names behind the directory or prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) copied: Vec<String>,
    pub(super) deleted: Vec<String>,
    /// Of what is copied.
    pub(super) bytes: u64,
}

/// Looks at both places. Nothing is changed, and what cannot be carried out is refused.
pub(super) async fn plan(session: &Session, direction: &Direction, rule: Rule) -> Result<Plan, Failure> {
    let source = match direction {
        Direction::Up(from, _) => local(from.clone(), true).await?,
        Direction::Down(from, _) | Direction::Across(from, _) => remote(session, from).await?,
    };
    if let Direction::Down(from, to) = direction
        && let Some(key) = source.keys().find(|key| path_below(to, key).is_none())
    {
        return Err(Failure::run(format!("{} has no name that a file can have: nothing was copied", from.join(key))));
    }
    let Rule::Sync { delete, checksum } = rule else {
        let bytes = source.values().map(|entry| entry.size).sum();
        return Ok(Plan { copied: source.into_keys().collect(), deleted: Vec::new(), bytes });
    };
    let target = match direction {
        Direction::Down(_, to) => local(to.clone(), false).await?,
        Direction::Up(_, to) | Direction::Across(_, to) => remote(session, to).await?,
    };
    let directory = match direction {
        Direction::Up(directory, _) | Direction::Down(_, directory) if checksum => Some(directory),
        _ => None,
    };
    compare(source, &target, delete, directory.map(PathBuf::as_path)).await
}

/// `directory` is where files are read whose checksum counts.
async fn compare(source: Tree, target: &Tree, delete: bool, directory: Option<&Path>) -> Result<Plan, Failure> {
    let mut plan = Plan::default();
    if delete {
        plan.deleted = target.keys().filter(|key| !source.contains_key(*key)).cloned().collect();
    }
    for (key, entry) in source {
        let differs = match target.get(&key) {
            None => true,
            Some(other) if other.size != entry.size => true,
            Some(other) => match (directory, entry.checksum.as_ref().or(other.checksum.as_ref())) {
                (Some(directory), Some((algorithm, kept))) => {
                    digest_of(directory.join(&key), *algorithm).await? != *kept
                }
                _ => entry.modified > other.modified,
            },
        };
        if differs {
            plan.bytes += entry.size;
            plan.copied.push(key);
        }
    }
    Ok(plan)
}

async fn digest_of(path: PathBuf, algorithm: Algorithm) -> Result<Vec<u8>, Failure> {
    blocking(move || {
        let wrong = |error| Failure::run(format!("{}: {error}", path.display()));
        let (mut file, mut digest) = (File::open(&path).map_err(wrong)?, Digest::new(algorithm));
        let mut bytes = vec![0; 1 << 20];
        loop {
            match file.read(&mut bytes).map_err(wrong)? {
                0 => return Ok(digest.finish().to_vec()),
                length => digest.update(&bytes[..length]),
            }
        }
    })
    .await
}

/// Does what was planned. The first failure ends it; deletions come last.
pub(super) async fn carry_out(
    session: &Session,
    direction: &Direction,
    plan: &Plan,
    saying: &Saying,
    bar: &ProgressBar,
) -> Result<(), Failure> {
    let is_down = matches!(direction, Direction::Down(..));
    // What comes down adds its own length when it begins.
    bar.set_length(if is_down { 0 } else { plan.bytes });
    let copies = plan.copied.iter().map(|key| copy_one(session, direction, key, saying, bar));
    stream::iter(copies).buffer_unordered(FILES).try_collect::<Vec<()>>().await?;
    match direction {
        Direction::Up(_, to) | Direction::Across(_, to) => {
            for keys in plan.deleted.chunks(DELETED_AT_ONCE_MAX) {
                delete(session, &to.bucket, keys.iter().map(|key| to.join(key).key)).await?;
            }
        }
        Direction::Down(_, to) => {
            for path in plan.deleted.iter().map(|key| to.join(key)) {
                fs::remove_file(&path).map_err(|error| Failure::run(format!("{}: {error}", path.display())))?;
            }
        }
    }
    Ok(())
}

async fn copy_one(
    session: &Session,
    direction: &Direction,
    key: &str,
    saying: &Saying,
    bar: &ProgressBar,
) -> Result<(), Failure> {
    match direction {
        Direction::Up(from, to) => drop(put::put_file(session, &from.join(key), &to.join(key), saying, bar).await?),
        Direction::Down(from, to) => {
            let path = path_below(to, key).expect("the plan found it good");
            let directory = path.parent().expect("it is below a directory");
            let made = fs::create_dir_all(directory);
            made.map_err(|error| Failure::run(format!("{}: {error}", directory.display())))?;
            get::get_file(session, &from.join(key), &path, bar).await?;
        }
        Direction::Across(from, to) => drop(copy_object(session, &from.join(key), &to.join(key), saying).await?),
    }
    Ok(())
}

/// Makes an object of another one; no byte moves.
pub(super) async fn copy_object(
    session: &Session,
    from: &Remote,
    to: &Remote,
    saying: &Saying,
) -> Result<Put, Failure> {
    let request = v1::CopyObjectRequest {
        source_bucket_name: from.bucket.clone(),
        source_object_key: from.key.clone(),
        bucket_name: to.bucket.clone(),
        object_key: to.key.clone(),
        storage_class: saying.storage_class.clone(),
        ..v1::CopyObjectRequest::default()
    };
    let copied: v1::CopyObjectResponse = session.line().ask("ObjectService/CopyObject", &request).await?;
    Ok(Put { etag: copied.etag, size: copied.size })
}

/// Begins a listing.
pub(super) async fn list(line: &mut Line<'_>, request: &v1::ListObjectsRequest) -> Result<Call, Failure> {
    let open = async {
        let mut call = line.open("ObjectService/ListObjects").await?;
        call.send(request).await?;
        call.close().await?;
        Ok::<_, CallError>(call)
    };
    open.await.map_err(Failure::run)
}

/// Deletes all objects whose keys begin so, page by page; gives how many.
pub(super) async fn delete_all(session: &Session, prefix: &Remote) -> Result<usize, Failure> {
    let request = v1::ListObjectsRequest {
        bucket_name: prefix.bucket.clone(),
        prefix: prefix.key.clone(),
        ..v1::ListObjectsRequest::default()
    };
    let mut line = session.line();
    let (mut call, mut count) = (list(&mut line, &request).await?, 0);
    while let Some(v1::ListObjectsResponse { objects, .. }) = call.next().await.map_err(Failure::run)? {
        for objects in objects.chunks(DELETED_AT_ONCE_MAX) {
            delete(session, &prefix.bucket, objects.iter().map(|object| object.object_key.clone())).await?;
            count += objects.len();
        }
    }
    Ok(count)
}

async fn delete(session: &Session, bucket: &str, keys: impl Iterator<Item = String>) -> Result<(), Failure> {
    let objects = keys.map(|object_key| v1::ObjectToDelete { object_key, preconditions: None }).collect();
    let request = v1::DeleteObjectsRequest { bucket_name: bucket.to_owned(), objects };
    let answer: v1::DeleteObjectsResponse = session.line().ask("ObjectService/DeleteObjects", &request).await?;
    let refused = answer.outcomes.iter().find_map(|outcome| Some((outcome, outcome.error.as_ref()?)));
    match refused {
        None => Ok(()),
        Some((outcome, error)) => Err(Failure::run(format!("s3://{bucket}/{}: {}", outcome.object_key, error.message))),
    }
}

/// The objects behind a prefix; those that stand for directories are left out.
async fn remote(session: &Session, prefix: &Remote) -> Result<Tree, Failure> {
    let request = v1::ListObjectsRequest {
        bucket_name: prefix.bucket.clone(),
        prefix: prefix.key.clone(),
        ..v1::ListObjectsRequest::default()
    };
    let (mut line, mut tree) = (session.line(), Tree::new());
    let mut call = list(&mut line, &request).await?;
    while let Some(v1::ListObjectsResponse { objects, .. }) = call.next().await.map_err(Failure::run)? {
        for object in objects.into_iter().filter(|object| !(object.size == 0 && object.object_key.ends_with('/'))) {
            let checksum = get::checksum(&object).map(|(algorithm, value)| (algorithm, value.to_vec()));
            let modified = time(object.last_modified).unwrap_or_default();
            let name = object.object_key[prefix.key.len()..].to_owned();
            tree.insert(name, Entry { size: object.size, modified, checksum });
        }
    }
    Ok(tree)
}

/// The files below a directory. Links to files count as files, those to directories are not followed: they may lead in a
/// circle.
async fn local(directory: PathBuf, must_exist: bool) -> Result<Tree, Failure> {
    blocking(move || {
        let mut tree = Tree::new();
        match fs::metadata(&directory) {
            Ok(about) if about.is_dir() => walk(&directory, "", &mut tree)?,
            Ok(_) => return Err(Failure::usage(format!("{} is no directory", directory.display()))),
            Err(error) if !must_exist && error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Failure::run(format!("{}: {error}", directory.display()))),
        }
        Ok(tree)
    })
    .await
}

fn walk(directory: &Path, prefix: &str, tree: &mut Tree) -> Result<(), Failure> {
    let wrong = |path: &Path, error: &dyn std::fmt::Display| Failure::run(format!("{}: {error}", path.display()));
    for entry in fs::read_dir(directory).map_err(|error| wrong(directory, &error))? {
        let entry = entry.map_err(|error| wrong(directory, &error))?;
        let path = entry.path();
        let name = entry.file_name();
        let name = name.to_str().ok_or_else(|| wrong(&path, &"its name is not UTF-8, and cannot be a key"))?;
        let key = format!("{prefix}{name}");
        let kind = entry.file_type().map_err(|error| wrong(&path, &error))?;
        if kind.is_dir() {
            walk(&path, &format!("{key}/"), tree)?;
            continue;
        }
        let about = fs::metadata(&path).map_err(|error| wrong(&path, &error))?;
        if about.is_file() {
            let modified = about.modified().map_err(|error| wrong(&path, &error))?;
            let modified = Timestamp::try_from(modified).map_err(|error| wrong(&path, &error))?;
            tree.insert(key, Entry { size: about.len(), modified, checksum: None });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(entries: &[(&str, u64, i64)]) -> Tree {
        let entry = |&(key, size, second): &(&str, u64, i64)| {
            (key.to_owned(), Entry { size, modified: Timestamp::from_second(second).unwrap(), checksum: None })
        };
        entries.iter().map(entry).collect()
    }

    #[test]
    fn what_is_missing_of_another_size_or_newer_is_copied() {
        let source = tree(&[("same", 1, 5), ("newer", 2, 9), ("larger", 3, 1), ("missing", 4, 1)]);
        let target = tree(&[("same", 1, 5), ("newer", 2, 8), ("larger", 2, 7), ("gone", 9, 9)]);
        let compared = |delete| {
            let comparing = compare(source.clone(), &target, delete, None);
            futures_util::FutureExt::now_or_never(comparing).unwrap().unwrap()
        };
        let plan = compared(true);
        assert_eq!((plan.copied, plan.bytes), (["larger", "missing", "newer"].map(str::to_owned).to_vec(), 9));
        assert_eq!(plan.deleted, ["gone"]);
        assert!(compared(false).deleted.is_empty());
    }
}
