//! MinIO's `mc` (minio-go), from Debian.

use std::fs;

use crate::support::clients::{is_installed, mc, run, run_to_fail};
use crate::support::content::Content;
use crate::support::node::{Node, scratch};
use crate::support::tree::{assert_same, write};
use crate::{fetch, make_tree};

#[test]
fn everyday_commands() {
    if !is_installed("mc") {
        println!("LEFT OUT: mc is not installed. .ci/test gets it where Debian's packages can be had.");
        return;
    }
    let scratch = scratch();
    let (tree, back, file) = (scratch.path().join("tree"), scratch.path().join("back"), scratch.path().join("file"));
    make_tree(&tree);
    let large = tree.join("large/12 MB");
    let node = Node::start(&scratch.path().join("data"));
    let mc = |words: &[&str]| {
        let mut command = mc(&node, &scratch.path().join("settings"));
        command.args(words);
        command
    };
    let (tree_name, back_name) = (tree.to_str().unwrap(), back.to_str().unwrap());
    let (file_name, large_name) = (file.to_str().unwrap(), large.to_str().unwrap());
    run(&mut mc(&["mb", "node/files"]));

    // Whole, in parts and with every checksum in a trailer.
    run(&mut mc(&["cp", large_name, "node/files/large"]));
    run(&mut mc(&["put", "--part-size", "5MiB", "--parallel", "3", large_name, "node/files/parts"]));
    let checksums = ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"];
    for name in checksums {
        run(&mut mc(&["put", "--checksum", name, large_name, &format!("node/files/{name}")]));
        run(&mut mc(&[
            "put",
            "--checksum",
            name,
            "--part-size",
            "5MiB",
            large_name,
            &format!("node/files/{name}-parts"),
        ]));
        let stat = run(&mut mc(&["stat", &format!("node/files/{name}")]));
        assert!(stat.contains(name), "{stat}");
    }
    for name in ["large", "parts"].into_iter().chain(checksums) {
        run(&mut mc(&["get", &format!("node/files/{name}"), file_name]));
        assert!(fs::read(&file).unwrap() == fs::read(&large).unwrap(), "{name} came back changed");
    }
    assert!(!run(&mut mc(&["head", "-n", "1", "node/files/large"])).is_empty());
    let stat = run(&mut mc(&["stat", "--json", "node/files/large"]));
    assert!(stat.contains("\"size\":12000000"), "{stat}");
    assert!(run_to_fail(&mut mc(&["stat", "node/files/missing"])).contains("does not exist"));

    // Copies and moves without the bytes coming by.
    run(&mut mc(&["cp", "node/files/large", "node/files/copy"]));
    run(&mut mc(&["mv", "node/files/copy", "node/files/moved"]));
    let output = mc(&["cat", "node/files/moved"]).output().unwrap();
    assert!(output.stdout == fs::read(&large).unwrap(), "cat gave other bytes");
    run_to_fail(&mut mc(&["stat", "node/files/copy"]));

    // A mirror carries changes and deletions over, and back.
    run(&mut mc(&["mirror", tree_name, "node/files/tree"]));
    assert_eq!(run(&mut mc(&["diff", tree_name, "node/files/tree"])), "");
    write(&tree, "small/one byte", Content { seed: 9, length: 2 });
    fs::remove_file(tree.join("empty")).unwrap();
    assert_eq!(run(&mut mc(&["diff", tree_name, "node/files/tree"])).lines().count(), 2);
    run(&mut mc(&["mirror", "--overwrite", "--remove", tree_name, "node/files/tree"]));
    run(&mut mc(&["mirror", "node/files/tree", back_name]));
    assert_same(&tree, &back);
    let listed = run(&mut mc(&["ls", "--recursive", "node/files/tree"]));
    assert_eq!(listed.lines().count(), 6, "{listed}");
    let found = run(&mut mc(&["find", "node/files/tree", "--larger", "1MiB"]));
    assert_eq!(found.lines().count(), 2, "{found}");

    let shared = run(&mut mc(&["share", "download", "--expire", "1h", "node/files/moved"]));
    let url = shared.lines().find_map(|line| line.strip_prefix("Share: ")).expect("a URL");
    assert!(fetch(url) == fs::read(&large).unwrap(), "the shared URL gave other bytes");

    run(&mut mc(&["rm", "node/files/moved"]));
    run(&mut mc(&["rm", "--recursive", "--force", "node/files/tree"]));
    assert_eq!(run(&mut mc(&["ls", "--recursive", "node/files/tree"])), "");
    run(&mut mc(&["rb", "--force", "node/files"]));
    assert_eq!(run(&mut mc(&["ls", "node"])), "");
    node.stop();
}
