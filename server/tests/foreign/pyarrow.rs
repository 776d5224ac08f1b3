//! pyarrow (AWS's C++ SDK): Parquet, whose every file is a multipart upload with unsigned chunks and trailers.

use crate::support::clients::{python, run};
use crate::support::node::{Node, scratch};

#[test]
fn parquet_is_written_and_read() {
    let scratch = scratch();
    let node = Node::start(&scratch.path().join("data"));
    println!("{}", run(&mut python(&node, "pyarrow_checks.py")));
    node.stop();
}
