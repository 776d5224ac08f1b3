//! Goal: when the ground goes away under a running node, it stops acknowledging, and nothing acknowledged is lost. Method:
//! a file system on a loop device is shut down, unmounted, filled up or mounted read-only, a directory is removed, under
//! load of writers with ledgers; then the node starts again on what is left.
//!
//! Loop devices and mounts need root; where they cannot be had, a test says that it was left out.

#[path = "../support/mod.rs"]
mod support;

mod full;
mod loop_disk;
mod vanished;
