//! s3cmd: its everyday commands.

use std::fs;

use crate::make_tree;
use crate::support::clients::{run, run_to_fail, s3cmd};
use crate::support::content::Content;
use crate::support::node::{Node, scratch};
use crate::support::tree::{assert_same, files, write};

#[test]
fn everyday_commands() {
    let scratch = scratch();
    let (tree, back, file) = (scratch.path().join("tree"), scratch.path().join("back"), scratch.path().join("file"));
    make_tree(&tree);
    let large = tree.join("large/12 MB");
    let node = Node::start(&scratch.path().join("data"));
    run(s3cmd(&node).args(["mb", "s3://files"]));
    assert!(run_to_fail(s3cmd(&node).args(["mb", "s3://CAPS"])).contains("InvalidBucketName"));

    // Whole and in parts.
    run(s3cmd(&node).arg("put").arg(tree.join("small/64 KiB + 1")).arg("s3://files/small"));
    run(s3cmd(&node)
        .args(["put", "--multipart-chunk-size-mb=5", "--mime-type=application/x-test"])
        .arg(&large)
        .arg("s3://files/large"));
    run(s3cmd(&node).args(["get", "s3://files/large"]).arg(&file));
    assert!(fs::read(&file).unwrap() == fs::read(&large).unwrap(), "the object came back changed");
    let info = run(s3cmd(&node).args(["info", "s3://files/large"]));
    assert!(info.contains("12000000") && info.contains("application/x-test"), "{info}");
    assert!(run(s3cmd(&node).args(["info", "s3://files"])).contains("us-east-1"));
    assert!(!run(s3cmd(&node).args(["multipart", "s3://files"])).contains("large"), "the upload is over");

    // Copies and moves without the bytes coming by.
    run(s3cmd(&node).args(["cp", "s3://files/large", "s3://files/copy"]));
    run(s3cmd(&node).args(["mv", "s3://files/copy", "s3://files/moved"]));
    run(s3cmd(&node).args(["modify", "--mime-type=text/plain", "s3://files/small"]));
    assert!(run(s3cmd(&node).args(["info", "s3://files/small"])).contains("text/plain"));
    run(s3cmd(&node).args(["get", "--force", "s3://files/moved"]).arg(&file));
    assert!(fs::read(&file).unwrap() == fs::read(&large).unwrap(), "the copy has other bytes");
    let names = run(s3cmd(&node).args(["ls", "--recursive", "s3://files"]));
    let names: Vec<&str> = names.lines().map(|line| line.rsplit("s3://files/").next().unwrap()).collect();
    assert_eq!(names, ["large", "moved", "small"]);

    // sync carries changes and deletions over, and finds nothing to do the second time.
    let prefix = format!("{}/", tree.display());
    run(s3cmd(&node).args(["sync", &prefix, "s3://files/tree/"]));
    assert!(!run(s3cmd(&node).args(["sync", &prefix, "s3://files/tree/"])).contains("upload:"));
    write(&tree, "small/one byte", Content { seed: 9, length: 2 });
    fs::remove_file(tree.join("empty")).unwrap();
    run(s3cmd(&node).args(["sync", "--delete-removed", &prefix, "s3://files/tree/"]));
    run(s3cmd(&node).args(["sync", "s3://files/tree/", &format!("{}/", back.display())]));
    assert_same(&tree, &back);
    let length: u64 = files(&tree).map(|(_, length)| length).sum();
    let sum = run(s3cmd(&node).args(["du", "s3://files/tree"]));
    assert_eq!(sum.split_whitespace().next(), Some(length.to_string().as_str()), "{sum}");

    run(s3cmd(&node).args(["del", "s3://files/moved"]));
    run(s3cmd(&node).args(["del", "--recursive", "--force", "s3://files/tree"]));
    run(s3cmd(&node).args(["rb", "--recursive", "--force", "s3://files"]));
    assert_eq!(run(s3cmd(&node).arg("ls")), "");
    node.stop();
}

/// s3cmd signs URLs in the form that AWS gave up (`Expires` and `Signature`): refused with a reason, like there.
#[test]
fn urls_signed_in_the_old_form_are_refused() {
    let scratch = scratch();
    let node = Node::start(&scratch.path().join("data"));
    run(s3cmd(&node).args(["mb", "s3://files"]));
    let url = run(s3cmd(&node).args(["signurl", "s3://files/key", "+600"]));
    let target = url.trim().strip_prefix(&node.endpoint()).expect("a URL of the node");
    let answer = crate::plain_get(&node, target);
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("AWS4-HMAC-SHA256"), "{answer}");
}
