//! The real clients, from the environment that the test command made, or the PATH.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::node::Node;

/// `aws`, ready to talk to this node.
pub fn aws(node: &Node) -> Command {
    prepared("aws", node)
}

/// `python3` with boto3, ready to talk to this node; `script` is a file of `tests/clients`.
pub fn python(node: &Node, script: &str) -> Command {
    let mut command = prepared("python3", node);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(script));
    command
}

/// `node` with gRPC's library, ready to talk to this node; `script` is a file of `tests/clients`. `None` where either is not.
pub fn grpc_js(node: &Node, script: &str) -> Option<Command> {
    let modules = std::env::var_os("ANVIL_TEST_NODE_PATH").map(PathBuf::from)?;
    if !modules.join("@grpc/grpc-js").is_dir() || !is_installed("node") {
        return None;
    }
    let mut command = prepared("node", node);
    command.env("NODE_PATH", modules).arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(script));
    Some(command)
}

/// `rclone`; the node is its remote `node:`.
pub fn rclone(node: &Node) -> Command {
    let mut command = prepared("rclone", node);
    command
        .env("RCLONE_CONFIG", "/dev/null")
        .env("RCLONE_CONFIG_NODE_TYPE", "s3")
        .env("RCLONE_CONFIG_NODE_PROVIDER", "Other")
        .env("RCLONE_CONFIG_NODE_ENDPOINT", node.endpoint())
        .env("RCLONE_CONFIG_NODE_REGION", "us-east-1")
        .env("RCLONE_CONFIG_NODE_ACCESS_KEY_ID", &node.credentials.access_key)
        .env("RCLONE_CONFIG_NODE_SECRET_ACCESS_KEY", &node.credentials.secret_key)
        .args(["--retries", "1", "--low-level-retries", "1"]);
    command
}

/// `s3cmd`, which shows no progress and asks nothing.
pub fn s3cmd(node: &Node) -> Command {
    let mut command = prepared("s3cmd", node);
    let address = node.address.to_string();
    command.args(["--config=/dev/null", "--no-ssl", "--no-progress", "--host", &address, "--host-bucket", &address]);
    command.arg(format!("--access_key={}", node.credentials.access_key));
    command.arg(format!("--secret_key={}", node.credentials.secret_key));
    command
}

/// MinIO's `mc`; the node is its alias `node`. It keeps its settings in `directory`.
pub fn mc(node: &Node, directory: &Path) -> Command {
    let mut command = prepared("mc", node);
    let (access_key, secret_key) = (&node.credentials.access_key, &node.credentials.secret_key);
    command
        .env("MC_HOST_node", format!("http://{access_key}:{secret_key}@{}", node.address))
        .env("MC_CONFIG_DIR", directory)
        .args(["--quiet", "--no-color"]);
    command
}

/// Whether a client is at hand. Those that cannot be had everywhere are asked for before they are used.
pub fn is_installed(program: &str) -> bool {
    look_for(program).is_some()
}

/// Runs a command that has to succeed; gives what it printed.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = output(command);
    assert!(
        output.status.success(),
        "{command:?} ended with {}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a command that has to fail; gives what it complained of.
#[track_caller]
pub fn run_to_fail(command: &mut Command) -> String {
    let output = output(command);
    assert!(!output.status.success(), "{command:?} succeeded\n{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn output(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?} could not be started: {error}"))
}

fn prepared(program: &str, node: &Node) -> Command {
    let mut command = Command::new(find(program));
    command
        .env("AWS_ACCESS_KEY_ID", &node.credentials.access_key)
        .env("AWS_SECRET_ACCESS_KEY", &node.credentials.secret_key)
        .env("AWS_ENDPOINT_URL", node.endpoint())
        .env("AWS_DEFAULT_REGION", "us-east-1")
        // Nothing of the user's own settings, no proxy, no question to a cloud.
        .env("AWS_CONFIG_FILE", "/dev/null")
        .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("NO_PROXY", "*")
        .env("no_proxy", "*")
        .env("PYTHONDONTWRITEBYTECODE", "1");
    for name in ["AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_CA_BUNDLE", "AWS_REGION", "AWS_ENDPOINT_URL_S3"] {
        command.env_remove(name);
    }
    command
}

/// The way to a client that has to be there.
pub fn find(program: &str) -> PathBuf {
    look_for(program).unwrap_or_else(|| panic!("{program} is not installed: run .ci/test, which installs the clients"))
}

fn look_for(program: &str) -> Option<PathBuf> {
    let environment = std::env::var_os("ANVIL_TEST_VENV").map(|path| Path::new(&path).join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = environment.into_iter().chain(std::env::split_paths(&path));
    directories.map(|directory| directory.join(program)).find(|candidate| candidate.is_file())
}
