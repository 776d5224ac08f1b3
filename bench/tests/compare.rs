//! Goal: `anvil-bench compare` starts, loads and ends servers, and its ratios are of what it measured. Method: the real binary,
//! and as servers this test's own program, which serves when it is told to by its environment.

mod toy;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use toy::{Fault, Toy};

const ADDRESS: &str = "ANVIL_BENCH_TOY_ADDRESS";
const PID_FILE: &str = "ANVIL_BENCH_TOY_PID_FILE";

/// Not a test but the server of the others, when it is started as such.
#[test]
fn serves() {
    let Ok(address) = std::env::var(ADDRESS) else { return };
    Toy::listen(TcpListener::bind(address).unwrap(), Fault::None);
    fs::write(std::env::var(PID_FILE).unwrap(), std::process::id().to_string()).unwrap();
    loop {
        std::thread::park();
    }
}

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn recipe(folder: &Path, name: &str) -> String {
    let program = std::env::current_exe().unwrap();
    let path = folder.join(format!("{name}.toml"));
    let text = format!(
        "name = {name:?}\ncommand = [{program:?}, \"--exact\", \"serves\"]\ndurability = \"none\"\n\
         [env]\n{ADDRESS} = \"{{address}}\"\n{PID_FILE} = {:?}\n",
        folder.join(format!("{name}.pid"))
    );
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn is_running(folder: &Path, name: &str) -> bool {
    let pid = fs::read_to_string(folder.join(format!("{name}.pid"))).unwrap();
    Path::new("/proc").join(pid).exists()
}

fn bench(recipes: &[String], data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_anvil-bench"));
    command.arg("compare").args(recipes).arg("--data").arg(data);
    command
}

#[test]
fn every_load_goes_to_every_server_in_every_round() {
    let (folder, data) = (scratch(), scratch());
    let recipes = ["one", "two"].map(|name| recipe(folder.path(), name));
    let arguments = ["--load", "put:1KiB", "--load", "mixed:1KiB..4KiB", "--rounds", "2", "--duration", "5s", "--json"];
    let output = bench(&recipes, data.path()).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let turns = report["turns"].as_array().unwrap();
    assert_eq!(turns.len(), 2 * 2 * 2);
    let first: Vec<&str> = turns.iter().step_by(4).map(|turn| turn["server"].as_str().unwrap()).collect();
    assert_eq!(first, ["one", "two"], "each round begins with another server");
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 4);
    for row in rows {
        assert_eq!((&row["rounds"], &row["errors"]), (&2.into(), &0.into()), "{row}");
        let rate = &row["figures"]["operations_per_second"];
        assert!(rate["value"]["least"].as_f64().unwrap() > 0.0, "{row}");
        assert!(row["figures"]["cpu_us_per_operation"]["value"]["median"].as_f64().unwrap() >= 0.0, "{row}");
        assert!(row["figures"]["peak_resident_mib"]["value"]["median"].as_f64().unwrap() > 0.0, "{row}");
        assert_eq!(rate["ratio"].is_null(), row["server"] == "two", "ratios are to the last: {row}");
    }
    assert_eq!(fs::read_dir(data.path()).unwrap().count(), 0);
    assert!(!is_running(folder.path(), "one") && !is_running(folder.path(), "two"));
}

#[test]
fn ctrl_c_ends_the_servers_too() {
    let (folder, data) = (scratch(), scratch());
    let recipes = [recipe(folder.path(), "one")];
    let mut run = bench(&recipes, data.path())
        .args(["--load", "put:1KiB", "--duration", "10m"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    while !folder.path().join("one.pid").exists() || fs::read(folder.path().join("one.pid")).unwrap().is_empty() {
        std::thread::yield_now();
    }
    assert!(is_running(folder.path(), "one"));
    kill(Pid::from_raw(i32::try_from(run.id()).unwrap()), Signal::SIGINT).unwrap();
    let lines: Vec<String> = BufReader::new(run.stdout.take().unwrap()).lines().map(Result::unwrap).collect();
    assert_eq!(run.wait().unwrap().code(), Some(130), "{lines:?}");
    assert!(!is_running(folder.path(), "one"));
    assert_eq!(fs::read_dir(data.path()).unwrap().count(), 0);
}

#[test]
fn a_refusal_is_one_sentence() {
    let (folder, data) = (scratch(), scratch());
    let good = recipe(folder.path(), "one");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let gone = write("gone.toml", "name = \"gone\"\ncommand = [\"/no/such/program\"]\ndurability = \"\"");
    let ends =
        write("ends.toml", "name = \"ends\"\ncommand = [\"sh\", \"-c\", \"echo why; exit 3\"]\ndurability = \"\"");
    for (recipes, says) in [
        (vec!["/no/such/file".to_owned()], "cannot read /no/such/file"),
        (vec![write("wrong.toml", "name = \"a\"")], "wrong.toml does not say how to start a server: line"),
        (vec![good.clone(), good], "two servers are named one"),
        (vec![gone], "/no/such/program cannot be started"),
        (vec![ends], "it has ended before it listens (exit status: 3): | why"),
    ] {
        let output = bench(&recipes, data.path()).args(["--load", "put:1KiB", "--json"]).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{recipes:?}");
        assert!(text.contains(says) && text.lines().count() == 1, "{recipes:?}: {text}");
    }
    assert_eq!(fs::read_dir(data.path()).unwrap().count(), 0);
}
