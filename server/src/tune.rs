//! What a host should be set to, and what it is set to: `anvil tune`. Nothing here changes anything.
//!
//! `host` reads, `advice` decides; `tuning/README.md` tells the same to people, with the marks.

pub mod advice;
pub mod host;
