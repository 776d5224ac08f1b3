//! What loads have in common, whatever they speak: how many operations begin and when, which kinds of them, on objects of which
//! sizes; what was seen of them; and what they cost the server's process.

mod mix;
mod pace;
mod random;
pub(crate) mod report;
mod server;
mod sizes;
mod tally;

pub(crate) use mix::{check_mix, draw, share};
pub(crate) use pace::{Pace, due, rate};
pub(crate) use random::{Random, random_bytes};
pub(crate) use server::{Server, Usage};
pub(crate) use sizes::Sizes;
pub(crate) use tally::{Success, Tally};
