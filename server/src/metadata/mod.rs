//! The metadata in databases: the embedded metadata's index on SQLite, and a region's on PostgreSQL ([`postgres`]).
//!
//! [`sqlite`] keeps the typed rows of `anvil_node::metadata::rows` in tables, [`threads`] runs it on threads of its own
//! and is the `Index` that the embedded metadata asks. `tables` reads all rows of an index that nobody uses, to compare
//! two. Decides nothing: the decisions are `node`'s.

mod columns;
pub mod postgres;
pub mod sqlite;
pub(crate) mod tables;
pub mod threads;

pub use threads::{SqliteIndex, Threads};

#[cfg(test)]
mod tests;
