//! rclone (AWS's Go SDK): sync and check of two thousand files.

use std::fs;

use crate::support::clients::{rclone, run, run_to_fail};
use crate::support::content::Content;
use crate::support::node::{Node, scratch};
use crate::support::tree::{assert_same, files, write};
use crate::{fetch, make_tree};

const FILE_COUNT: u64 = 2_000;

#[test]
fn two_thousand_files_are_synced_and_checked() {
    let scratch = scratch();
    let (tree, back) = (scratch.path().join("tree"), scratch.path().join("back"));
    make_tree(&tree);
    for number in files(&tree).count() as u64..FILE_COUNT {
        let length = number * 7919 % 30_000;
        write(&tree, &format!("many/{:02}/file-{number}", number % 40), Content { seed: number, length });
    }
    let node = Node::start(&scratch.path().join("data"));
    let sync_and_check = || {
        run(rclone(&node).arg("sync").arg(&tree).args(["node:files/tree", "--transfers", "8", "--checkers", "8"]));
        // Byte for byte, not only by length and tag.
        run(rclone(&node).args(["check", "--download", "--checkers", "8"]).arg(&tree).arg("node:files/tree"));
    };
    run(rclone(&node).args(["mkdir", "node:files"]));
    sync_and_check();
    let idle =
        run(rclone(&node).args(["sync", "--use-json-log", "-v", "--stats-one-line"]).arg(&tree).arg("node:files/tree"));
    assert_eq!(idle, "");

    // Changed, new and deleted files are carried over.
    for number in (100..FILE_COUNT).step_by(9) {
        let path = tree.join(format!("many/{:02}/file-{number}", number % 40));
        match number % 2 {
            0 => fs::remove_file(path).unwrap(),
            _ => fs::write(path, Content { seed: number + 1, length: number }.bytes()).unwrap(),
        }
        write(&tree, &format!("new/{number}"), Content { seed: number, length: 100 });
    }
    assert!(run_to_fail(rclone(&node).arg("check").arg(&tree).arg("node:files/tree")).contains("differences found"));
    sync_and_check();
    run(rclone(&node).args(["sync", "node:files/tree"]).arg(&back));
    assert_same(&tree, &back);

    let names = run(rclone(&node).args(["lsf", "--recursive", "--files-only", "node:files/tree"]));
    assert_eq!(names.lines().count(), files(&tree).count());
    run(rclone(&node).args(["purge", "node:files/tree"]));
    assert_eq!(run(rclone(&node).args(["lsf", "--recursive", "node:files"])), "");
    node.stop();
}

#[test]
fn copies_streams_and_links() {
    let scratch = scratch();
    let tree = scratch.path().join("tree");
    make_tree(&tree);
    let node = Node::start(&scratch.path().join("data"));
    run(rclone(&node)
        .args(["copy", "--s3-upload-cutoff", "5Mi", "--s3-chunk-size", "5Mi"])
        .arg(&tree)
        .arg("node:one/tree"));
    // From bucket to bucket without the bytes coming by; parts where rclone cuts.
    run(rclone(&node).args(["copy", "--s3-copy-cutoff", "5Mi", "node:one/tree", "node:two/tree"]));
    run(rclone(&node).args(["check", "--download"]).arg(&tree).arg("node:two/tree"));
    run(rclone(&node).args(["moveto", "node:two/tree/large/12 MB", "node:two/moved"]));
    assert!(!run(rclone(&node).args(["lsf", "--recursive", "node:two/tree"])).contains("12 MB"));
    let link = run(rclone(&node).args(["link", "--expire", "1h", "node:two/moved"]));
    assert!(fetch(link.trim()) == fs::read(tree.join("large/12 MB")).unwrap(), "the link gave other bytes");
    run(rclone(&node).args(["touch", "--no-create", "--timestamp", "2020-01-02T03:04:05", "node:two/moved"]));
    assert!(run(rclone(&node).args(["lsl", "node:two/moved"])).contains("2020-01-02 03:04:05"));
    node.stop();
}
