//! Pages of lists: range scans that jump over what a delimiter rolls up, so that a page costs by its own length and
//! not by that of the bucket. Keys, prefixes and markers are byte strings throughout.

use anvil_model::ids::{BucketId, UploadId};
use anvil_model::limits::PAGE_KEYS_MAX;

use super::rows::{ListedRow, Rows, RowsError, UploadRow};
use crate::list::{After, Entry, ListObjects, Page};
use crate::multipart::{ListUploads, PartInfo, PartsPage, UploadInfo, UploadsPage};

/// Rows that are read at once while a delimiter may roll them up: doubled while it does not, because a jump wastes
/// what was read ahead of it.
const CHUNK_MIN: usize = 8;

/// A page of heads.
pub(super) fn objects(rows: &impl Rows, bucket: BucketId, list: &ListObjects) -> Result<Page, RowsError> {
    let mut page = Page::default();
    let max = list.max.min(PAGE_KEYS_MAX);
    if max == 0 {
        return Ok(page);
    }
    let shape = Shape { prefix: &list.prefix, delimiter: &list.delimiter };
    let after = match &list.after {
        After::Start => None,
        After::Key(key) => Some(key.as_slice()),
    };
    let Some(mut from) = shape.first(after) else { return Ok(page) };
    let until = successor(shape.prefix);
    let mut chunk = shape.first_chunk();
    loop {
        let wanted = chunk.min(max + 1 - page.entries.len());
        let heads = rows.heads(bucket, &from, until.as_deref(), wanted)?;
        let last_chunk = heads.len() < wanted;
        let mut jumped = false;
        for head in heads {
            if head.key < from {
                continue;
            }
            if page.entries.len() == max {
                page.next = page.entries.last().map(position);
                return Ok(page);
            }
            if let Some(rolled_up) = shape.common_prefix(&head.key) {
                page.entries.push(Entry::CommonPrefix(rolled_up.to_vec()));
                let Some(behind) = successor(rolled_up) else { return Ok(page) };
                from = behind;
                jumped = true;
            } else {
                from = next_key(&head.key);
                page.entries.push(entry(head)?);
            }
        }
        if last_chunk {
            return Ok(page);
        }
        chunk = if jumped { CHUNK_MIN } else { chunk.saturating_mul(2) };
    }
}

fn position(entry: &Entry) -> Vec<u8> {
    match entry {
        Entry::Object { key, .. } => key.as_bytes().to_vec(),
        Entry::CommonPrefix(prefix) => prefix.clone(),
    }
}

fn entry(head: ListedRow) -> Result<Entry, RowsError> {
    let ListedRow { key, etag, checksum, size, last_modified, storage_class } = head;
    Ok(Entry::Object { key: text(key)?, etag, checksum, size, last_modified, storage_class })
}

fn text(key: Vec<u8>) -> Result<String, RowsError> {
    String::from_utf8(key).map_err(|_| RowsError::Inconsistent("a key is not UTF-8".to_owned()))
}

/// A page of uploads under way, by key and then by id.
pub(super) fn uploads(rows: &impl Rows, bucket: BucketId, list: &ListUploads) -> Result<UploadsPage, RowsError> {
    let mut page = UploadsPage::default();
    let max = list.max.min(PAGE_KEYS_MAX);
    if max == 0 {
        return Ok(page);
    }
    let shape = Shape { prefix: &list.prefix, delimiter: &list.delimiter };
    let Some(mut from) = shape.first_upload(list.after.as_ref()) else { return Ok(page) };
    let until = successor(shape.prefix);
    let mut chunk = shape.first_chunk();
    let mut last = None;
    loop {
        let count = page.uploads.len() + page.common_prefixes.len();
        let wanted = chunk.min(max + 1 - count);
        let found = rows.open_uploads(bucket, (&from.0, from.1), until.as_deref(), wanted)?;
        let last_chunk = found.len() < wanted;
        let mut jumped = false;
        for upload in found {
            if (upload.key.as_slice(), upload.upload) < (from.0.as_slice(), from.1) {
                continue;
            }
            if page.uploads.len() + page.common_prefixes.len() == max {
                page.next = last;
                return Ok(page);
            }
            if let Some(rolled_up) = shape.common_prefix(&upload.key) {
                page.common_prefixes.push(rolled_up.to_vec());
                last = Some((rolled_up.to_vec(), None));
                let Some(behind) = successor(rolled_up) else { return Ok(page) };
                from = (behind, UploadId(0));
                jumped = true;
            } else {
                last = Some((upload.key.clone(), Some(upload.upload)));
                from = next_upload(&upload.key, upload.upload);
                page.uploads.push(upload_info(upload)?);
            }
        }
        if last_chunk {
            return Ok(page);
        }
        chunk = if jumped { CHUNK_MIN } else { chunk.saturating_mul(2) };
    }
}

fn upload_info(row: UploadRow) -> Result<UploadInfo, RowsError> {
    let UploadRow { upload, key, initiated_at, checksum, storage_class, .. } = row;
    Ok(UploadInfo { key: text(key)?, upload, initiated_at, checksum, storage_class })
}

/// A page of an upload's parts.
pub(super) fn parts(rows: &impl Rows, upload: &UploadRow, after: u16, max: usize) -> Result<PartsPage, RowsError> {
    let mut found = if max == 0 { Vec::new() } else { rows.parts(upload.upload, after, max + 1)? };
    let more = found.len() > max;
    found.truncate(max);
    let parts = found.into_iter().map(|part| PartInfo {
        number: part.number,
        etag: part.etag,
        checksum: part.checksum,
        size: part.size,
        last_modified: part.last_modified,
    });
    let (checksum, storage_class) = (upload.checksum, upload.storage_class.clone());
    Ok(PartsPage { parts: parts.collect(), more, checksum, storage_class })
}

/// What a list shows, and how it rolls up.
#[derive(Clone, Copy)]
struct Shape<'l> {
    prefix: &'l [u8],
    delimiter: &'l [u8],
}

impl<'l> Shape<'l> {
    /// The part of `key` that it is rolled up under: up to and with the first delimiter behind the prefix.
    fn common_prefix<'k>(&self, key: &'k [u8]) -> Option<&'k [u8]> {
        let rest = key.strip_prefix(self.prefix)?;
        if self.delimiter.is_empty() {
            return None;
        }
        let at = rest.windows(self.delimiter.len()).position(|window| window == self.delimiter)?;
        Some(&key[..self.prefix.len() + at + self.delimiter.len()])
    }

    /// The first key that may be shown after `after`; `None` when nothing can be.
    fn first(&self, after: Option<&[u8]>) -> Option<Vec<u8>> {
        let behind = match after {
            None => return Some(self.prefix.to_vec()),
            Some(marker) if self.common_prefix(marker) == Some(marker) => successor(marker)?,
            Some(marker) => next_key(marker),
        };
        Some(behind.max(self.prefix.to_vec()))
    }

    /// As [`Self::first`] for uploads: a marker with an id is behind that upload only, one without behind its key.
    fn first_upload(&self, after: Option<&(Vec<u8>, Option<UploadId>)>) -> Option<(Vec<u8>, UploadId)> {
        match after {
            Some((key, Some(upload))) if self.common_prefix(key) != Some(key) && key.as_slice() >= self.prefix => {
                Some(next_upload(key, *upload))
            }
            after => Some((self.first(after.map(|(key, _)| key.as_slice()))?, UploadId(0))),
        }
    }

    fn first_chunk(&self) -> usize {
        if self.delimiter.is_empty() { usize::MAX } else { CHUNK_MIN }
    }
}

/// The smallest byte string behind all that begin with `prefix`; `None` when there is none.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let keep = prefix.iter().rposition(|&byte| byte != u8::MAX)?;
    let mut bytes = prefix[..=keep].to_vec();
    bytes[keep] += 1;
    Some(bytes)
}

/// The smallest byte string behind `key`.
fn next_key(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

fn next_upload(key: &[u8], upload: UploadId) -> (Vec<u8>, UploadId) {
    match upload.0.checked_add(1) {
        Some(next) => (key.to_vec(), UploadId(next)),
        None => (next_key(key), UploadId(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_is_behind_everything_with_the_prefix() {
        assert_eq!(successor(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(successor(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(successor("\u{7f}".as_bytes()), Some(vec![0x80]), "not text, and need not be");
        assert_eq!(successor(b"\xff"), None);
        assert_eq!(successor(b""), None);
    }

    #[test]
    fn a_marker_that_is_a_common_prefix_is_behind_all_of_it() {
        let shape = Shape { prefix: b"p/", delimiter: b"/" };
        assert_eq!(shape.first(Some(b"p/a/")), Some(b"p/a0".to_vec()));
        assert_eq!(shape.first(Some(b"p/a/b")), Some(b"p/a/b\0".to_vec()), "inside: the rest is still to be shown");
        assert_eq!(shape.first(Some(b"a")), Some(b"p/".to_vec()));
        assert_eq!(shape.first(None), Some(b"p/".to_vec()));
        let no_delimiter = Shape { prefix: b"", delimiter: b"" };
        assert_eq!(no_delimiter.first(Some(b"a/")), Some(b"a/\0".to_vec()));
    }

    #[test]
    fn delimiters_may_have_many_bytes() {
        let shape = Shape { prefix: b"x", delimiter: b"--" };
        assert_eq!(shape.common_prefix(b"xa--b--c"), Some(b"xa--".as_slice()));
        assert_eq!(shape.common_prefix(b"xa-b"), None);
        assert_eq!(shape.common_prefix(b"y--"), None);
    }
}
