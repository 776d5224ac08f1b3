//! Goal: a node serves where io_uring is forbidden. Method: the real binary with `--io blocking`, and in a sandbox that
//! refuses io_uring as the profiles of containers do it; boto3 and our own client against it.

mod support;

use std::fs;
use std::process::Command;

use support::clients::{python, run};
use support::content::Content;
use support::node::{self, Node, Options, scratch};

/// Installs a seccomp filter under which io_uring_setup(2) fails with EPERM, and runs the command. The numbers are those
/// of linux/seccomp.h, linux/filter.h and linux/prctl.h; the system call has the same on x86-64 and arm64.
const SANDBOX: &str = r#"
import ctypes, os, struct, sys
statements = [(0x20, 0, 0, 0), (0x15, 0, 1, 425), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7fff0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *statement) for statement in statements))
program = ctypes.create_string_buffer(struct.pack("@HP", len(statements), ctypes.addressof(code)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program) == 0, os.strerror(ctypes.get_errno())
os.execv(sys.argv[1], sys.argv[1:])
"#;

fn sandbox() -> Vec<String> {
    ["python3", "-c", SANDBOX].map(String::from).to_vec()
}

#[test]
fn boto3_stores_and_gets_on_the_blocking_driver() {
    let scratch = scratch();
    let options = Options { arguments: ["--io", "blocking"].map(String::from).to_vec(), ..Options::default() };
    let node = Node::start_with(&scratch.path().join("data"), &options);
    for group in ["objects", "multipart"] {
        println!("{}", run(python(&node, "boto3_checks.py").arg(group)));
    }
    node.stop();
}

#[test]
fn where_io_uring_is_refused_a_node_says_so_and_serves() {
    let scratch = scratch();
    let data = scratch.path().join("data");
    let options =
        Options { prefix: sandbox(), arguments: ["--io", "auto"].map(String::from).to_vec(), ..Options::default() };
    let node = Node::start_with(&data, &options);
    let mut client = node.client();
    client.put("/bucket", b"").unwrap().succeeded();
    for length in [0, 1, 100_000, 20 << 20] {
        let bytes = Content { seed: length, length }.bytes();
        client.put("/bucket/key", &bytes).unwrap().succeeded();
        assert!(client.get("/bucket/key").unwrap().succeeded().body == bytes, "{length} bytes came back changed");
    }
    let metrics = String::from_utf8(client.get("/metrics").unwrap().succeeded().body).unwrap();
    assert!(metrics.contains("anvil_io_driver{core=\"0\",driver=\"blocking\"} 1"), "{metrics}");
    node.stop();
    let log = fs::read_to_string(data.with_extension("log")).unwrap();
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("without io_uring")).collect();
    assert!(warnings.len() == 1 && warnings[0].contains("WARN"), "{log}");
    assert!(warnings[0].contains("seccomp") || warnings[0].contains("sysctl"), "it says what to do: {log}");
}

#[test]
fn who_insists_on_io_uring_gets_a_sentence() {
    let scratch = scratch();
    let words = sandbox();
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).arg(node::anvil());
    command.args(["dev", "--http-bind-addr", "127.0.0.1:0", "--io", "uring", "--data-dir"]);
    let output = command.arg(scratch.path().join("data")).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(text.contains("denies io_uring") || text.contains("io_uring is switched off"), "{text}");
    assert!(!text.contains("panicked"), "{text}");
}
