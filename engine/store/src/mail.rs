//! What crosses cores: a bounded mailbox per core.

/// One core's mailbox and the addresses of all others. Made once per process start by [`mail`], one per core.
#[derive(Debug)]
pub struct Mail {}

/// The mailboxes of a node with so many cores, in the order of its cores.
#[must_use]
pub fn mail(core_count: u16) -> Vec<Mail> {
    todo!()
}
