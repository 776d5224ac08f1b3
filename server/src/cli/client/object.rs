//! `anvil object`.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anvil_proto::v1;
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::place::{Place, Remote};
use super::put::{PART_BYTES, PART_BYTES_MIN, Saying};
use super::session::{Session, run_session};
use super::sync::{self, Direction};
use super::{Common, Output, get, put, time_text};
use crate::cli::{Failure, print};
use crate::config::Size;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ObjectCommand {
    /// Lists objects
    Ls {
        /// What the keys begin with
        #[arg(value_name = "s3://BUCKET/PREFIX")]
        place: Remote,
        /// Also what lies behind the next slash
        #[arg(long, short)]
        recursive: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Tells what an object is
    Head {
        /// The object
        #[arg(value_name = "s3://BUCKET/KEY")]
        object: Remote,
        #[command(flatten)]
        common: Common,
    },
    /// Stores a file, stdin (-), or with --recursive what is in a directory
    Put {
        /// The file
        #[arg(value_name = "FILE")]
        from: Place,
        /// The object; behind a slash it is called like the file
        #[arg(value_name = "s3://BUCKET/KEY")]
        to: Remote,
        #[command(flatten)]
        copy: CopyArgs,
    },
    /// Writes an object into a file, to stdout (-), or with --recursive all that begins so into a directory
    Get {
        /// The object
        #[arg(value_name = "s3://BUCKET/KEY")]
        from: Remote,
        /// The file or directory; without it, here under the object's name
        #[arg(value_name = "FILE")]
        to: Option<Place>,
        #[command(flatten)]
        copy: CopyArgs,
    },
    /// Copies an object into another one (no byte moves), or as put and get do
    Cp {
        /// A file, an object, or -
        #[arg(value_name = "FROM")]
        from: Place,
        /// A file, an object, or -
        #[arg(value_name = "TO")]
        to: Place,
        #[command(flatten)]
        copy: CopyArgs,
    },
    /// Deletes an object, or with --recursive all that begins so
    Rm {
        /// The object
        #[arg(value_name = "s3://BUCKET/KEY")]
        object: Remote,
        /// All objects whose keys begin so
        #[arg(long, short)]
        recursive: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Makes a prefix like a directory, or a directory like a prefix: moves what is missing, has another size, or is newer
    Sync {
        /// A directory or s3://BUCKET/PREFIX/
        #[arg(value_name = "FROM")]
        from: Place,
        /// The other one
        #[arg(value_name = "TO")]
        to: Place,
        /// Deletes what the first one has not
        #[arg(long)]
        delete: bool,
        /// Only says what would be done
        #[arg(long)]
        dry_run: bool,
        /// Compares what has the same size by its checksum, not by its time; reads all files
        #[arg(long)]
        checksum: bool,
        #[command(flatten)]
        copy: CopyOptions,
    },
}

#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct CopyArgs {
    /// All that is in a directory, or begins so
    #[arg(long, short)]
    recursive: bool,
    #[command(flatten)]
    options: CopyOptions,
}

#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct CopyOptions {
    /// The `Content-Type` of new objects
    #[arg(long, value_name = "TYPE", default_value = "", hide_default_value = true)]
    content_type: String,
    /// The storage class of new objects; without it, that of the bucket
    #[arg(long, value_name = "CLASS", default_value = "", hide_default_value = true)]
    storage_class: String,
    /// Larger files go in parts of this size, four at once
    #[arg(long, value_name = "SIZE", default_value = "16MiB")]
    part_size: Size,
    #[command(flatten)]
    pub(super) common: Common,
}

impl CopyOptions {
    fn saying(&self) -> Result<Saying, Failure> {
        let part_bytes = self.part_size.bytes;
        if !(PART_BYTES_MIN..=PART_BYTES_LARGEST).contains(&part_bytes) {
            return Err(Failure::usage("--part-size takes 5MiB to 5GiB"));
        }
        let (content_type, storage_class) = (self.content_type.clone(), self.storage_class.clone());
        Ok(Saying { content_type, storage_class, part_bytes })
    }
}

const PART_BYTES_LARGEST: u64 = 5 << 30;
const _: () = assert!(PART_BYTES >= PART_BYTES_MIN && PART_BYTES <= PART_BYTES_LARGEST);

pub(in crate::cli) fn run(command: ObjectCommand) -> Result<(), Failure> {
    match command {
        ObjectCommand::Ls { place, recursive, common } => {
            run_session(&common, async |session: &Session| ls(session, &place, recursive, common.output).await)
        }
        ObjectCommand::Head { object, common } => run_session(&common, async |session: &Session| {
            let info = get::head(session, &object).await?;
            common.tell(|| to_json(&info), || head_text(&info))
        }),
        ObjectCommand::Put { from, to, copy } => match from {
            Place::Object(_) => Err(Failure::usage("put stores a file: `anvil object cp` copies objects")),
            from => copy_between(from, Place::Object(to), &copy),
        },
        ObjectCommand::Get { from, to, copy } => match to {
            Some(Place::Object(_)) => Err(Failure::usage("get writes a file: `anvil object cp` copies objects")),
            to => copy_between(Place::Object(from), to.unwrap_or_else(|| Place::File(".".into())), &copy),
        },
        ObjectCommand::Cp { from, to, copy } => copy_between(from, to, &copy),
        ObjectCommand::Rm { object, recursive, common } => rm(&object, recursive, &common),
        ObjectCommand::Sync { from, to, delete, dry_run, checksum, copy } => {
            let direction = Direction::of(from, to).ok_or_else(|| {
                Failure::usage("sync takes a directory and s3://BUCKET/PREFIX/, in one order or the other")
            })?;
            let (saying, rule) = (copy.saying()?, sync::Rule::Sync { delete, checksum });
            many(&direction, rule, dry_run, &saying, &copy.common)
        }
    }
}

fn copy_between(from: Place, to: Place, copy: &CopyArgs) -> Result<(), Failure> {
    let common = &copy.options.common;
    let saying = copy.options.saying()?;
    if copy.recursive {
        let direction = Direction::of(from, to);
        let direction =
            direction.ok_or_else(|| Failure::usage("--recursive takes directories and s3://BUCKET/PREFIX/"))?;
        return many(&direction, sync::Rule::All, false, &saying, common);
    }
    run_session(common, async |session: &Session| {
        let bar = bar();
        match (from, to) {
            (Place::Stream, Place::Object(to)) => {
                let to = named(to, None)?;
                let stored = put::put_stream(session, io::stdin(), &to, &saying, &bar).await?;
                bar.finish_and_clear();
                tell_put(common, "-", &to, &stored)
            }
            (Place::File(path), Place::Object(to)) => {
                let to = named(to, path.file_name().and_then(|name| name.to_str()))?;
                bar.set_length(std::fs::metadata(&path).map_or(0, |about| about.len()));
                let stored = put::put_file(session, &path, &to, &saying, &bar).await?;
                bar.finish_and_clear();
                tell_put(common, &path.display().to_string(), &to, &stored)
            }
            (Place::Object(from), Place::Stream) => {
                let from = whole(from)?;
                let info = get::head(session, &from).await?;
                bar.set_length(info.size);
                // Stdout holds the object: nothing is told there.
                get::get_stream(session, info, io::stdout(), &bar).await?;
                bar.finish_and_clear();
                Ok(())
            }
            (Place::Object(from), Place::File(path)) => {
                let from = whole(from)?;
                let path = file_for(&path, &from)?;
                let info = get::get_file(session, &from, &path, &bar).await?;
                bar.finish_and_clear();
                common.tell(
                    || json!({ "from": from.to_string(), "to": path, "size": info.size, "etag": info.etag }),
                    || format!("{from} -> {} ({})\n", path.display(), Size { bytes: info.size }),
                )
            }
            (Place::Object(from), Place::Object(to)) => {
                let from = whole(from)?;
                let to = named(to, Some(from.name()))?;
                let stored = sync::copy_object(session, &from, &to, &saying).await?;
                tell_put(common, &from.to_string(), &to, &stored)
            }
            _ => Err(Failure::usage("one of both is s3://BUCKET/KEY")),
        }
    })
}

fn many(
    direction: &Direction,
    rule: sync::Rule,
    dry_run: bool,
    saying: &Saying,
    common: &Common,
) -> Result<(), Failure> {
    run_session(common, async |session: &Session| {
        let plan = sync::plan(session, direction, rule).await?;
        if !dry_run {
            let bar = bar();
            sync::carry_out(session, direction, &plan, saying, &bar).await?;
            bar.finish_and_clear();
        }
        common.tell(
            || json!({ "copied": plan.copied, "deleted": plan.deleted, "bytes": plan.bytes, "dry_run": dry_run }),
            || {
                let lines =
                    plan.copied.iter().map(|key| ("copy", key)).chain(plan.deleted.iter().map(|key| ("delete", key)));
                let mut text: String = lines.map(|(what, key)| format!("{what} {key}\n")).collect();
                let (copied, deleted, bytes) = (plan.copied.len(), plan.deleted.len(), Size { bytes: plan.bytes });
                let would = if dry_run { "would be " } else { "" };
                text += &format!("{copied} {would}copied ({bytes}), {deleted} {would}deleted\n");
                text
            },
        )
    })
}

/// Shown on stderr, when that is a terminal.
fn bar() -> ProgressBar {
    let style =
        ProgressStyle::with_template("{wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}");
    ProgressBar::new(0).with_style(style.expect("the template is sound"))
}

fn tell_put(common: &Common, from: &str, to: &Remote, stored: &put::Put) -> Result<(), Failure> {
    common.tell(
        || json!({ "from": from, "to": to.to_string(), "size": stored.size, "etag": stored.etag }),
        || format!("{from} -> {to} ({})\n", Size { bytes: stored.size }),
    )
}

/// An object with a key: its own, or the name of what it is made of.
fn named(to: Remote, name: Option<&str>) -> Result<Remote, Failure> {
    match name {
        _ if !to.is_prefix() => Ok(to),
        Some(name) if !name.is_empty() => Ok(to.join(name)),
        _ => Err(Failure::usage(format!("{to} names no object: s3://BUCKET/KEY is meant"))),
    }
}

/// One object, not a prefix.
fn whole(object: Remote) -> Result<Remote, Failure> {
    if object.key.is_empty() {
        return Err(Failure::usage(format!("{object} names no object: s3://BUCKET/KEY is meant, or --recursive")));
    }
    Ok(object)
}

/// In a directory an object has its own name.
fn file_for(path: &Path, object: &Remote) -> Result<PathBuf, Failure> {
    let is_directory = path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/");
    if !is_directory {
        return Ok(path.to_owned());
    }
    let below = super::place::path_below(path, object.name());
    below.ok_or_else(|| Failure::usage(format!("{object} has no name that a file can have: name the file")))
}

fn rm(object: &Remote, recursive: bool, common: &Common) -> Result<(), Failure> {
    if !recursive && object.key.is_empty() {
        return Err(Failure::usage(format!("{object} names no object: --recursive deletes all objects of a bucket")));
    }
    run_session(common, async |session: &Session| {
        let count = if recursive {
            sync::delete_all(session, object).await?
        } else {
            let (bucket_name, object_key) = (object.bucket.clone(), object.key.clone());
            let request = v1::DeleteObjectRequest { bucket_name, object_key, preconditions: None };
            let _: v1::DeleteObjectResponse = session.line().ask("ObjectService/DeleteObject", &request).await?;
            1
        };
        let text =
            || if recursive { format!("{object}: {count} objects are gone\n") } else { format!("{object} is gone\n") };
        common.tell(|| json!({ "object": object.to_string(), "deleted": count }), text)
    })
}

/// Prints page after page, so that a listing may be as long as it likes.
async fn ls(session: &Session, place: &Remote, recursive: bool, output: Output) -> Result<(), Failure> {
    let request = v1::ListObjectsRequest {
        bucket_name: place.bucket.clone(),
        prefix: place.key.clone(),
        delimiter: if recursive { String::new() } else { "/".to_owned() },
        ..v1::ListObjectsRequest::default()
    };
    let mut line = session.line();
    let mut call = sync::list(&mut line, &request).await?;
    let mut is_first = true;
    while let Some(v1::ListObjectsResponse { objects, common_prefixes, .. }) =
        call.next().await.map_err(Failure::run)?
    {
        let mut text = String::new();
        if output == Output::Json {
            let prefixes = common_prefixes.iter().map(|prefix| json!({ "prefix": prefix }));
            for entry in prefixes.chain(objects.iter().map(listed_json)) {
                text += if std::mem::take(&mut is_first) { "[\n" } else { ",\n" };
                text += &entry.to_string();
            }
        } else {
            for prefix in &common_prefixes {
                text += &format!("{:<20}  {:>13}  {prefix}\n", "", "PREFIX");
            }
            for object in &objects {
                text +=
                    &format!("{:<20}  {:>13}  {}\n", time_text(object.last_modified), object.size, object.object_key);
            }
        }
        if io::stdout().lock().write_all(text.as_bytes()).is_err() {
            // Who reads no more, as `head` does, asks for no more.
            return Ok(());
        }
    }
    match (output, is_first) {
        (Output::Json, true) => print("[]\n"),
        (Output::Json, false) => print("\n]\n"),
        (Output::Text, _) => print(""),
    }
}

/// What a listing tells.
fn listed_json(object: &v1::ObjectInfo) -> Value {
    json!({
        "key": object.object_key,
        "size": object.size,
        "etag": object.etag,
        "last_modified": time_text(object.last_modified),
        "storage_class": object.storage_class,
    })
}

fn to_json(info: &v1::ObjectInfo) -> Value {
    let said = info.metadata.clone().unwrap_or_default();
    let user: std::collections::BTreeMap<_, _> = said.user.into_iter().collect();
    let mut value = listed_json(info);
    value["bucket"] = json!(info.bucket_name);
    value["generation"] = json!(info.generation);
    value["content_type"] = json!(said.content_type);
    value["metadata"] = json!(user);
    value["parts"] = json!(info.parts_count);
    if let Some(kept) = &info.checksum {
        value["checksum"] = json!({ "algorithm": algorithm_word(kept), "value": hex::encode(&kept.value) });
    }
    value
}

fn algorithm_word(checksum: &v1::Checksum) -> &'static str {
    checksum.algorithm().as_str_name().trim_start_matches("CHECKSUM_ALGORITHM_")
}

fn head_text(info: &v1::ObjectInfo) -> String {
    let said = info.metadata.clone().unwrap_or_default();
    let mut lines = vec![
        ("key", info.object_key.clone()),
        ("size", info.size.to_string()),
        ("etag", info.etag.clone()),
        ("modified", time_text(info.last_modified)),
        ("type", said.content_type),
        ("class", info.storage_class.clone()),
        ("generation", info.generation.to_string()),
    ];
    lines.extend(
        info.checksum.iter().map(|kept| ("checksum", format!("{} {}", algorithm_word(kept), hex::encode(&kept.value)))),
    );
    lines.iter().map(|(name, value)| format!("{name:<10}  {value}\n")).collect()
}
