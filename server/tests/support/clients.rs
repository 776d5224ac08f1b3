//! The real clients: AWS CLI and Python with boto3, from the environment that the test command made, or the PATH.

use std::ffi::OsStr;
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

fn find(program: &str) -> PathBuf {
    if let Some(environment) = std::env::var_os("ANVIL_TEST_VENV") {
        let path = Path::new(&environment).join("bin").join(program);
        assert!(path.exists(), "{} is missing: run .ci/test, which installs the clients", path.display());
        return path;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(<OsStr>::new(&path))
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| panic!("{program} is not installed: run .ci/test, which installs the clients"))
}
