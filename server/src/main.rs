//! The `anvil` binary.

fn main() {}
