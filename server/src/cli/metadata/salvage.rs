//! Metadata made of the objects' bytes, where the log is lost on every disk.
//!
//! Everything is found and read first, and nothing is written meanwhile but superblocks, as at a start. Then the new log and the
//! index are written; a file in the data directory stands there until both are whole, and no node starts over it.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anvil_model::geometry;
use anvil_model::ids::DiskId;
use anvil_model::limits::ROSTER_DISKS_MAX;
use anvil_model::object::Key;
use anvil_node::Node;
use anvil_node::classes::Classes;
use anvil_node::encryption::Keys;
use anvil_node::metadata::batch::{Limits, mailboxes};
use anvil_node::metadata::client::Client;
use anvil_node::metadata::embedded::{self, Embedded};
use anvil_node::salvage::{Finding, Name, Salvaged};
use anvil_runtime::{Core, Device, Disk};
use anvil_store::{
    Identity, Inspection, LogWriter, Origin, OriginPayload, RecoverError, Roster, Store, enroll, identify, mail,
    recover, survey,
};
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::offline::{self, Stop};
use super::rebuild::{self, Files};
use crate::cli::Failure;
use crate::config::operator_keys;
use crate::data_dir::{DataDir, FILE_VERSION};
use crate::identity::EMBEDDED_NODE;
use crate::metadata::SqliteIndex;

/// Blobs are read side by side, a window of each.
const BUFFERS: usize = 64;
/// The file that stands in the data directory while log and index are written.
const UNFINISHED: &str = "salvage.json";

#[derive(Serialize, Deserialize)]
struct Unfinished {
    version: u32,
}

/// What is asked for.
pub(super) struct Request {
    /// Where the list goes; `None` for the file [`LIST`] in the data directory.
    pub(super) list: Option<PathBuf>,
    /// Where buckets are made.
    pub(super) region: String,
    /// Gives up what is left of the log.
    pub(super) discard_log: bool,
}

/// The list's name in the data directory.
pub(super) const LIST: &str = "salvage-list.jsonl";

/// What came of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    pub(super) objects: u64,
    pub(super) parts: u64,
    /// Older blobs of a key that came back.
    pub(super) superseded: u64,
    pub(super) left_out: u64,
    pub(super) refused: u64,
    pub(super) list: PathBuf,
}

/// Says why no node may start: a salvage was cut short while it wrote.
pub(in crate::cli) fn check_finished(data: &DataDir) -> Result<(), Failure> {
    match is_unfinished(data)? {
        false => Ok(()),
        true => Err(Failure::run(
            "a salvage of this node's metadata was cut short, and what is there of it is not whole: run `anvil admin metadata \
             rebuild --salvage` again",
        )),
    }
}

fn is_unfinished(data: &DataDir) -> Result<bool, Failure> {
    Ok(data.read::<Unfinished>(UNFINISHED).map_err(Failure::run)?.is_some())
}

/// Salvages what these disks hold. `None` when Ctrl-C ended it, before anything was written.
pub(super) fn salvage(
    data: DataDir,
    disks: Vec<(PathBuf, Disk)>,
    files: Files,
    request: Request,
) -> Result<Option<Outcome>, Failure> {
    let resumed = is_unfinished(&data)?;
    let path = request.list.clone().unwrap_or_else(|| data.path().join(LIST));
    let list = List::new(path)?;
    let work = async move |core: &Core, stop: &Stop| {
        Salvage { core, stop, data: &data, disks: &disks, request: &request, resumed }.run(files, list).await
    };
    offline::run_on_a_core(BUFFERS, work)?.map_err(Failure::run)
}

struct Salvage<'a> {
    core: &'a Core,
    stop: &'a Stop,
    data: &'a DataDir,
    disks: &'a [(PathBuf, Disk)],
    request: &'a Request,
    /// An earlier salvage was cut short: the log is its.
    resumed: bool,
}

impl Salvage<'_> {
    async fn run(&self, files: Files, list: List) -> Result<Option<Outcome>, String> {
        let devices = rebuild::devices(self.core, self.disks).await?;
        let keys = match self.stop.unless_set(self.core, self.empty_log(&devices)).await {
            Some(keys) => keys?,
            None => return Ok(None),
        };
        let spinner = offline::spinner("reading the disks");
        let recovered = recover(self.core, devices.clone(), 1, devices.len() - 1).await;
        spinner.finish_and_clear();
        let recovered = recovered.map_err(|error| error.to_string())?;
        for error in &recovered.lost {
            list.line(&json!({ "disk_left_out": error.to_string() }));
        }
        let left_out: Vec<DiskId> = recovered.lost.iter().filter_map(RecoverError::disk).collect();
        let (index, threads) = SqliteIndex::start_in(files.new.clone()).map_err(|error| error.to_string())?;
        let replayed = embedded::replay(self.core, &recovered, &index).await.map_err(|error| error.to_string())?;
        let (mut shares, tail) = recovered.into_shares();
        let (Some(share), Some(mail)) = (shares.pop(), mail(1).pop()) else { unreachable!("there is one core") };
        let store = Store::open(self.core.clone(), devices.clone(), share, mail);
        let copies = usize::from(geometry::default_profile(devices.len()).parity) + 1;
        let writer = LogWriter::open(store.clone(), tail, copies);
        let metadata = Embedded::begin(self.core.clone(), writer, index, &replayed).await;
        let outcome = self.on(&store, &metadata, keys, &list).await;
        drop(metadata);
        store.close().await;
        threads.join();
        let Some(outcome) = outcome? else { return Ok(None) };
        self.enroll(devices.iter().filter(|(disk, _)| !left_out.contains(disk))).await?;
        let finished = files.put_in_place().and_then(|()| std::fs::remove_file(self.data.path().join(UNFINISHED)));
        finished.map_err(|error| format!("the new index cannot be put in place: {error}"))?;
        list.end(outcome).map(Some)
    }

    /// These disks are all that the node has from now on: of what is on others the metadata knows nothing.
    async fn enroll<'d>(&self, devices: impl Iterator<Item = &'d (DiskId, Device)> + Clone) -> Result<(), String> {
        let mut newest = Roster::default();
        for (_, device) in devices.clone() {
            if let Ok(Identity::Anvil(found)) = identify(self.core, device).await
                && found.roster.generation > newest.generation
            {
                newest = found.roster;
            }
        }
        let mut disks: Vec<DiskId> = devices.clone().map(|(disk, _)| *disk).collect();
        disks.sort_unstable();
        if newest.disks == disks {
            return Ok(());
        }
        let others = newest.disks.iter().chain(&newest.lost).filter(|disk| !disks.contains(disk));
        let lost = others.copied().take(ROSTER_DISKS_MAX).collect();
        let roster = Roster { generation: newest.generation + 1, disks, lost };
        for (disk, device) in devices {
            enroll(self.core, device, &roster).await.map_err(|error| format!("disk {disk}: {error}"))?;
        }
        Ok(())
    }

    /// Makes sure that there is no log in the way, and that what is encrypted can be read: what cannot would be given up.
    async fn empty_log(&self, devices: &[(DiskId, Device)]) -> Result<Keys, String> {
        let spinner = offline::spinner("looking for the metadata log");
        let recovered = survey(self.core, devices.to_vec()).await.map_err(|error| error.to_string())?;
        spinner.finish_and_clear();
        let operator = operator_keys().map_err(|error| error.to_string())?;
        if operator.is_empty() && !recovered.keys.is_empty() {
            return Err(
                "objects on these disks are encrypted: set ANVIL_SECRET_ENCRYPTION_KEY, without which they cannot be \
                 read"
                    .to_owned(),
            );
        }
        let keys = Keys::open(recovered.keys, &operator, false, |bytes| {
            getrandom::fill(bytes).expect("the kernel gives random bytes");
        });
        let (keys, _) = keys.map_err(|error| format!("ANVIL_SECRET_ENCRYPTION_KEY is not the right one: {error}"))?;
        let batches = recovered.log.count();
        if batches == 0 && recovered.log.torn().is_none() {
            return Ok(keys);
        }
        if !self.resumed && !self.request.discard_log {
            return Err(format!(
                "the disks hold {batches} batches of the metadata log: `anvil admin metadata rebuild` without --salvage makes \
                 all of the metadata of them; only where it cannot, --discard-log gives them up for good"
            ));
        }
        for ((_, device), (path, _)) in devices.iter().zip(self.disks) {
            let failed = |error: String| format!("the disk at {}: {error}", path.display());
            let inspection = Inspection::open(self.core, device).await.map_err(|error| failed(error.to_string()))?;
            inspection.give_up_log().await.map_err(|error| failed(error.to_string()))?;
        }
        Ok(keys)
    }

    /// Finds, reads, and writes the metadata. `None` when it was interrupted before it wrote any.
    async fn on(
        &self,
        store: &Store<Core>,
        metadata: &Embedded<Core, SqliteIndex>,
        keys: Keys,
        list: &List,
    ) -> Result<Option<Outcome>, String> {
        let (mailboxes, _nobody) = mailboxes(Limits::EMBEDDED);
        let client = Client::new(self.core.clone(), mailboxes);
        let classes = Arc::new(Classes::standard_only(geometry::default_profile(self.disks.len())));
        let node = Node::new(self.core.clone(), store.clone(), client, &self.request.region, classes)
            .with_keys(Arc::new(keys));
        let progress = RefCell::new(offline::spinner("asking the blobs what they were"));
        let tell = |finding: Finding<'_>| {
            list.note(&finding);
            show(&mut progress.borrow_mut(), &finding);
        };
        let salvaged = self.stop.unless_set(self.core, node.salvage(EMBEDDED_NODE, &tell)).await;
        progress.borrow().finish_and_clear();
        let Some(salvaged) = salvaged else { return Ok(None) };
        self.keep(salvaged, metadata, list).await.map(Some)
    }

    async fn keep(
        &self,
        salvaged: Salvaged,
        metadata: &Embedded<Core, SqliteIndex>,
        list: &List,
    ) -> Result<Outcome, String> {
        let unfinished = Unfinished { version: FILE_VERSION };
        self.data.write(UNFINISHED, &unfinished).map_err(|error| error.to_string())?;
        let (objects, parts) = salvaged.counts();
        let bar = offline::bar((objects + parts) as u64, "writing the metadata", "changes");
        let kept = |changes: usize| bar.inc(changes as u64);
        let refused = salvaged.keep(self.core, metadata, EMBEDDED_NODE, &self.request.region, &kept).await;
        bar.finish_and_clear();
        let refused = refused.map_err(|error| error.to_string())?;
        for (name, refusal) in &refused {
            list.line(&json!({ "refused": object(name), "why": refusal.to_string() }));
        }
        let mut outcome = list.outcome.borrow().clone();
        outcome.refused = refused.len() as u64;
        Ok(outcome)
    }
}

fn show(progress: &mut ProgressBar, finding: &Finding<'_>) {
    match finding {
        Finding::ToRead { bytes, .. } => {
            progress.finish_and_clear();
            *progress = offline::bytes_bar(*bytes, "reading");
        }
        Finding::Read(bytes) => progress.inc(*bytes),
        _ => {}
    }
}

/// The list of what came back, what did not, and what nobody can know.
struct List {
    path: PathBuf,
    out: RefCell<BufWriter<Box<dyn Write + Send>>>,
    failed: Cell<bool>,
    outcome: RefCell<Outcome>,
}

/// What blobs do not say.
const NOT_KNOWN: [&str; 6] = [
    "headers, user metadata, tags and storage classes: what came back has none",
    "objects without bytes, and copies, which share the bytes of what they were copied from: they are not back under their \
     own keys",
    "buckets in which no object with bytes was written, and the settings of all buckets",
    "deletions: what was deleted or overwritten and had not been given back yet may be back, and so may writes that were \
     never acknowledged",
    "which of several writes of one key was the last: the latest by the clock of the node is taken",
    "which parts made an object: parts are in uploads under way; complete those, and the object is back",
];

impl List {
    fn new(path: PathBuf) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::run(format!("cannot write the list {}: {error}", path.display()));
        let out: Box<dyn Write + Send> = Box::new(File::create(&path).map_err(failed)?);
        let outcome = RefCell::new(Outcome { list: path.clone(), ..Outcome::default() });
        let list = Self { path, out: RefCell::new(BufWriter::new(out)), failed: Cell::new(false), outcome };
        NOT_KNOWN.iter().for_each(|what| list.line(&json!({ "not_known": what })));
        Ok(list)
    }

    fn line(&self, line: &Value) {
        let written = writeln!(self.out.borrow_mut(), "{line}");
        self.failed.set(self.failed.get() || written.is_err());
    }

    fn note(&self, finding: &Finding<'_>) {
        let mut outcome = self.outcome.borrow_mut();
        match finding {
            Finding::Asked(_) | Finding::ToRead { .. } | Finding::Read(_) => {}
            Finding::LeftOut { blob, origin, why } => {
                outcome.left_out += 1;
                let origin = origin.map(described);
                self.line(&json!({ "left_out": blob.to_string(), "was": origin, "why": why.to_string() }));
            }
            Finding::Superseded { name, blob } => {
                outcome.superseded += 1;
                self.line(&json!({ "superseded": blob.to_string(), "by": object(name) }));
            }
            Finding::Object { name, size } => {
                outcome.objects += 1;
                self.line(&json!({ "object": object(name), "size": size }));
            }
            Finding::Part { name, upload, number, size } => {
                outcome.parts += 1;
                let upload = upload.to_string();
                self.line(&json!({ "part": number, "of": object(name), "upload": upload, "size": size }));
            }
        }
    }

    fn end(self, outcome: Outcome) -> Result<Outcome, String> {
        let mut out = self.out.into_inner();
        match out.flush() {
            Ok(()) if !self.failed.get() => Ok(outcome),
            _ => Err(format!("the metadata is in place, but the list {} could not be written", self.path.display())),
        }
    }
}

fn object(name: &Name) -> Value {
    let key: &Key = &name.key;
    json!({ "tenant": name.tenant.0, "bucket": name.bucket.as_str(), "key": key.as_str() })
}

fn described(origin: &Origin) -> Value {
    let Origin { tenant, bucket, key, at, payload } = origin;
    let mut value = json!({ "tenant": tenant.0, "bucket": bucket, "key": key, "put_at_unix_ms": at.unix_ms });
    match payload {
        OriginPayload::Unsaid => {}
        OriginPayload::Object { length } => value["size"] = json!(length),
        OriginPayload::Part { length, upload, number } => {
            value["size"] = json!(length);
            value["upload"] = json!(upload.to_string());
            value["part"] = json!(number);
        }
    }
    value
}

/// Whether an index is there that a salvage would put aside.
pub(super) fn index_is_there(directory: &Path) -> bool {
    directory.join(crate::metadata::threads::FILE_NAME).exists()
}
