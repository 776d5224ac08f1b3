//! The metadata of a node made again from its disks: from the log, and from the objects' bytes alone.

#[path = "../support/mod.rs"]
mod support;

mod place;
mod rebuild;
mod salvage;
