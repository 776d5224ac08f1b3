//! The disks of a node come and go, between its starts and while it runs, against the real binary.

mod place;
mod running;
mod starts;
#[path = "../support/mod.rs"]
mod support;
