//! Cases of lists, compared with a map that is filtered and rolled up by hand.

use std::collections::{BTreeMap, BTreeSet};

use anvil_model::ids::UploadId;

use super::kit::{Caller, Dice, path};
use crate::list::{After, Entry, ListObjects, Page};
use crate::metadata::Metadata;
use crate::metadata::mutation::NewUpload;
use crate::metadata::query::{Answer, Query};
use crate::multipart::{ListUploads, UploadsPage};

async fn page(caller: &Caller<'_, impl Metadata>, list: ListObjects) -> Page {
    match caller.ask(Query::List { bucket: path("bucket"), list }).await {
        Ok(Answer::List(page)) => page,
        other => panic!("a page is not {other:?}"),
    }
}

async fn uploads_page(caller: &Caller<'_, impl Metadata>, list: ListUploads) -> UploadsPage {
    match caller.ask(Query::Uploads { bucket: path("bucket"), list }).await {
        Ok(Answer::Uploads(page)) => page,
        other => panic!("a page of uploads is not {other:?}"),
    }
}

/// Keys that meet each other's prefixes, and the corners of UTF-8.
fn some_key(dice: &mut Dice) -> String {
    const PIECES: [&str; 10] = ["a", "b", "/", "/", "--", "\u{7f}", "\u{80}", "\u{10ffff}", "\0", "é"];
    (0..1 + dice.below(5)).map(|_| *dice.pick(&PIECES)).collect()
}

/// Where a listed thing stands in the order.
fn name(entry: &Entry) -> Vec<u8> {
    match entry {
        Entry::Object { key, .. } => key.as_bytes().to_vec(),
        Entry::CommonPrefix(prefix) => prefix.clone(),
    }
}

fn rolled_up<'k>(key: &'k [u8], prefix: &[u8], delimiter: &[u8]) -> Option<&'k [u8]> {
    let rest = key.strip_prefix(prefix)?;
    if delimiter.is_empty() {
        return None;
    }
    let at = (0..rest.len()).find(|&at| rest[at..].starts_with(delimiter))?;
    Some(&key[..prefix.len() + at + delimiter.len()])
}

/// All that a list shows, without pages: names, and whether each is a common prefix.
fn expected<'k>(
    keys: impl Iterator<Item = &'k [u8]>,
    prefix: &[u8],
    delimiter: &[u8],
    after: Option<&[u8]>,
) -> Vec<(Vec<u8>, bool)> {
    let mut shown = BTreeSet::new();
    for key in keys.filter(|key| key.starts_with(prefix)) {
        match rolled_up(key, prefix, delimiter) {
            Some(common) => {
                let marker_is_it = after.is_some_and(|after| after == common);
                if !marker_is_it && after.is_none_or(|after| key > after) {
                    shown.insert((common.to_vec(), true));
                }
            }
            None if after.is_none_or(|after| key > after) => {
                shown.insert((key.to_vec(), false));
            }
            None => {}
        }
    }
    shown.into_iter().collect()
}

/// Goal: every page of every list is right. Method: random keys, prefixes, delimiters, markers and sizes against a map.
pub async fn pages_agree_with_a_map(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let mut dice = Dice::new(11);
    let bucket = caller.create_bucket("bucket").await;
    let mut keys = BTreeMap::new();
    for _ in 0..120 {
        let key = some_key(&mut dice);
        if dice.one_in(5) {
            caller.delete(bucket, &key).await.expect("a deletion is not refused");
            keys.remove(key.as_bytes());
        } else {
            let object = caller.put(bucket, &key, 1).await;
            keys.insert(key.into_bytes(), object);
        }
    }
    // A neighbour whose keys must not show.
    let neighbour = caller.create_bucket("neighbour").await;
    caller.put(neighbour, "a/n", 1).await;
    for round in 0..150 {
        let prefix = if dice.one_in(2) { Vec::new() } else { some_key(&mut dice).into_bytes() };
        let prefix = prefix[..prefix.len() - dice.below(2).min(prefix.len())].to_vec();
        let delimiter = dice.pick(&["", "/", "--", "a", "\u{10ffff}"]).as_bytes().to_vec();
        let start = dice.one_in(2).then(|| some_key(&mut dice).into_bytes());
        let all = expected(keys.keys().map(Vec::as_slice), &prefix, &delimiter, start.as_deref());
        let max = 1 + dice.below(12);
        let mut seen = Vec::new();
        let mut after = start.clone().map_or(After::Start, After::Key);
        loop {
            let list = ListObjects { prefix: prefix.clone(), delimiter: delimiter.clone(), after, max };
            let page = page(&caller, list).await;
            assert!(page.entries.len() <= max, "round {round}");
            for entry in &page.entries {
                if let Entry::Object { key, etag, size, checksum, .. } = entry {
                    let object = &keys[key.as_bytes()];
                    assert_eq!((etag, size, checksum), (&object.etag, &object.size, &object.checksum));
                }
            }
            seen.extend(page.entries.iter().map(|entry| (name(entry), matches!(entry, Entry::CommonPrefix(_)))));
            match page.next {
                Some(next) => {
                    assert_eq!(page.entries.len(), max, "round {round}: only a full page has a next one");
                    after = After::Key(next);
                }
                None => break,
            }
        }
        let shape = (String::from_utf8_lossy(&prefix), String::from_utf8_lossy(&delimiter), &start, max);
        assert_eq!(seen, all, "round {round}: {shape:?}");
    }
    let none = ListObjects { max: 0, ..ListObjects::default() };
    assert_eq!(page(&caller, none).await, Page::default(), "a page of nothing has no next one");
}

/// A page goes on behind its position when the key that it names was deleted in between, or never was.
pub async fn positions_work_when_their_rows_are_gone(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let bucket = caller.create_bucket("bucket").await;
    for key in ["a", "b", "c/1", "c/2", "d"] {
        caller.put(bucket, key, 0).await;
    }
    let list = |after, max| ListObjects { delimiter: b"/".to_vec(), after, max, ..ListObjects::default() };
    let first = page(&caller, list(After::Start, 2)).await;
    let next = first.next.expect("there is more");
    caller.delete(bucket, "b").await.expect("it is there");
    let second = page(&caller, list(After::Key(next), 1)).await;
    assert_eq!(second.entries, [Entry::CommonPrefix(b"c/".to_vec())]);
    let next = second.next.expect("there is more");
    for key in ["c/1", "c/2"] {
        caller.delete(bucket, key).await.expect("it is there");
    }
    let last = page(&caller, list(After::Key(next), 9)).await;
    assert_eq!(last.entries.iter().map(name).collect::<Vec<_>>(), [b"d"]);
    let behind = page(&caller, list(After::Key(b"zzz\xff".to_vec()), 9)).await;
    assert_eq!(behind, Page::default());
}

/// Goal: uploads are listed like keys, several of one key by id. Method: as for keys.
pub async fn uploads_are_listed_like_keys(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let mut dice = Dice::new(12);
    let bucket = caller.create_bucket("bucket").await;
    let mut uploads: BTreeSet<(Vec<u8>, UploadId)> = BTreeSet::new();
    for _ in 0..60 {
        let key = some_key(&mut dice);
        let upload = caller.create_upload(bucket, &key, NewUpload::default()).await;
        if dice.one_in(4) {
            let part = caller.part(1, 1);
            caller.put_part(bucket, &key, upload, &part).await.expect("the upload is open");
            let complete = super::uploads::completion(bucket, &key, upload, &[&part]);
            caller.commit(complete).await.expect("the list is right");
        } else {
            uploads.insert((key.into_bytes(), upload));
        }
    }
    for round in 0..80 {
        let prefix = if dice.one_in(2) { Vec::new() } else { some_key(&mut dice).into_bytes() };
        let delimiter = dice.pick(&["", "/", "a"]).as_bytes().to_vec();
        let start = match dice.below(3) {
            0 => None,
            1 => Some((some_key(&mut dice).into_bytes(), None)),
            _ => uploads.iter().nth(dice.below(uploads.len())).map(|(key, upload)| (key.clone(), Some(*upload))),
        };
        let mut all = BTreeSet::new();
        for (key, upload) in uploads.iter().filter(|(key, _)| key.starts_with(&prefix)) {
            let behind = match &start {
                None => true,
                Some((after, None)) => key > after,
                Some((after, Some(id))) => (key, upload) > (after, id),
            };
            match rolled_up(key, &prefix, &delimiter) {
                Some(common) if start.as_ref().is_some_and(|(after, _)| after == common) => {}
                Some(common) if behind => drop(all.insert((common.to_vec(), None))),
                None if behind => drop(all.insert((key.clone(), Some(*upload)))),
                _ => {}
            }
        }
        let max = 1 + dice.below(9);
        let (mut seen, mut after) = (BTreeSet::new(), start.clone());
        loop {
            let list = ListUploads { prefix: prefix.clone(), delimiter: delimiter.clone(), after, max };
            let page = uploads_page(&caller, list).await;
            assert!(page.uploads.len() + page.common_prefixes.len() <= max, "round {round}");
            let shown = page.uploads.into_iter().map(|info| (info.key.into_bytes(), Some(info.upload)));
            for entry in shown.chain(page.common_prefixes.into_iter().map(|common| (common, None))) {
                assert!(seen.insert(entry), "round {round}: shown twice");
            }
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert_eq!(seen, all, "round {round}: {prefix:?} {delimiter:?} {start:?} {max}");
    }
}
