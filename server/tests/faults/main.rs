//! Goal: when the ground goes away under a running node, it stops acknowledging, and nothing acknowledged is lost; where it
//! has disks to spare, everything is read and writes go on. Method: file systems on loop devices are shut down, unmounted,
//! filled up, made read-only, cut short, changed and slowed down, a directory is removed, under load of readers and writers
//! who know what was acknowledged; then the node starts again on what is left.
//!
//! Loop devices and mounts need root; where they cannot be had, a test says that it was left out.

#[path = "../support/mod.rs"]
mod support;

mod four;
mod full;
mod loop_disk;
mod spare;
mod throttle;
mod vanished;
