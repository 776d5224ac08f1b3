//! Goal: a node serves as an ordinary user under the usual memlock limit of 8 MiB. Method: the real binary started
//! through `prlimit`, and through `setpriv` as nobody when the tests run as root.

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};

use nix::unistd::{Uid, User};
use support::content::Content;
use support::node::{self, Node, Options};

#[test]
fn eight_mebibytes_of_locked_memory_are_enough() {
    // Not below the target directory, which another user may not be able to reach.
    let scratch = tempfile::tempdir_in("/var/tmp").unwrap();
    let data = scratch.path().join("owned");
    fs::create_dir(&data).unwrap();
    let mut options =
        Options { prefix: ["prlimit", "--memlock=8388608:8388608"].map(String::from).to_vec(), ..Options::default() };
    if Uid::effective().is_root() {
        let nobody = User::from_name("nobody").unwrap().expect("every Linux has a user nobody");
        fs::set_permissions(scratch.path(), Permissions::from_mode(0o755)).unwrap();
        chown(&data, Some(nobody.uid.as_raw()), Some(nobody.gid.as_raw())).unwrap();
        let binary = scratch.path().join("anvil");
        fs::copy(node::anvil(), &binary).unwrap();
        options.binary = Some(binary);
        let become_nobody = [
            "setpriv".to_owned(),
            format!("--reuid={}", nobody.uid),
            format!("--regid={}", nobody.gid),
            "--clear-groups".to_owned(),
            "--bounding-set=-all".to_owned(),
        ];
        options.prefix.extend(become_nobody);
    }
    let node = Node::start_with(&data.join("anvil-data"), &options);
    let limits = fs::read_to_string(format!("/proc/{}/limits", node.pid())).unwrap();
    let memlock = limits.lines().find(|line| line.starts_with("Max locked memory")).unwrap();
    assert!(memlock.split_whitespace().nth(3) == Some("8388608"), "{memlock}");
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    assert!(status.lines().any(|line| line == "CapEff:\t0000000000000000"), "the node has privileges:\n{status}");

    let mut client = node.client();
    client.put("/bucket", b"").unwrap().succeeded();
    for length in [0, 1, 100_000, 20 << 20] {
        let bytes = Content { seed: length, length }.bytes();
        client.put("/bucket/key", &bytes).unwrap().succeeded();
        let answer = client.get("/bucket/key").unwrap().succeeded();
        assert!(answer.body == bytes, "{length} bytes came back changed");
    }
    node.stop();
}
