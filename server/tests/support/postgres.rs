//! A real PostgreSQL for tests: on a free port of 127.0.0.1, as a user without rights, gone when the test's process is.
//!
//! Its programs are taken from `ANVIL_PG_BIN`, or from where Debian puts them; `.ci/test` sees to it that there are some.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A running server. It ends, and its files are removed, when this is dropped or the process ends.
#[derive(Debug)]
pub struct Postgres {
    /// Its end tells the shell that keeps the server to stop it.
    keeper: Option<ChildStdin>,
    shell: Child,
    /// Where its programs are.
    bin: PathBuf,
    directory: PathBuf,
    port: u16,
    settings: Vec<String>,
    databases: AtomicU32,
}

impl Postgres {
    /// Makes a new cluster of databases and starts a server on it.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same, with settings like `max_connections=40`.
    pub fn start_with(settings: &[&str]) -> Self {
        Self::make(programs(), settings)
    }

    /// One that has `pg_dump` and `pg_restore` beside it; `None` where there is none. Not every package of a server has them.
    pub fn start_with_tools() -> Option<Self> {
        let has_tools = |bin: &PathBuf| bin.join("initdb").exists() && bin.join("pg_dump").exists();
        let named = |name| std::env::var_os(name).map(PathBuf::from);
        let named = [named("ANVIL_PG_BIN"), named("ANVIL_PG_TOOLS_BIN")].into_iter().flatten();
        let bin = named.chain(installed().into_iter().rev()).find(has_tools)?;
        Some(Self::make(bin, &[]))
    }

    /// One of its programs, as its superuser on this database.
    pub fn tool(&self, name: &str, database: &str) -> Command {
        let mut command = Command::new(self.bin.join(name));
        command.args(["-h", "127.0.0.1", "-U", "postgres", "-p"]).arg(self.port.to_string()).args(["-d", database]);
        command
    }

    fn make(bin: PathBuf, settings: &[&str]) -> Self {
        let directory = make_directory();
        run(as_nobody(bin.join("initdb"), &directory).arg("-D").arg(directory.join("data")).args([
            "-U",
            "postgres",
            "-A",
            "trust",
            "--no-sync",
            "-E",
            "UTF8",
            "--locale=C",
        ]));
        Self::on(bin, directory, settings)
    }

    /// Starts a server on the files of this directory.
    fn on(bin: PathBuf, directory: PathBuf, settings: &[&str]) -> Self {
        let port = free_port();
        let settings: Vec<String> = settings.iter().map(ToString::to_string).collect();
        let (keeper, shell) = keep(&bin, &directory, port, &settings);
        let databases = AtomicU32::new(0);
        let server = Self { keeper: Some(keeper), shell, bin, directory, port, settings, databases };
        server.wait_until_up();
        server
    }

    /// Starts a standby that follows this server, from a copy of its files that is taken while it runs, by the low-level
    /// way (PostgreSQL documentation, "Making a Base Backup Using the Low Level API").
    pub fn standby(&self) -> Self {
        let directory = make_directory();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an executor");
        let label = runtime.block_on(async {
            let connected = tokio_postgres::connect(&self.url("postgres"), tokio_postgres::NoTls).await;
            let (client, connection) = connected.expect("the server takes connections");
            let driver = tokio::spawn(connection);
            client.batch_execute("SELECT pg_backup_start('standby', true)").await.expect("it can be copied");
            // What it writes ahead comes from the server itself.
            let copy = "mkdir -m 700 \"$1\"; tar -C \"$0\" --exclude='./postmaster.*' --exclude='./pg_wal/*' -c . | tar -C \"$1\" -x";
            run(Command::new("sh").args(["-c", copy]).arg(self.directory.join("data")).arg(directory.join("data")));
            let row = client.query_one("SELECT labelfile FROM pg_backup_stop(false)", &[]).await;
            driver.abort();
            row.expect("the copy is whole").get::<_, String>(0)
        });
        let data = directory.join("data");
        let source = format!("primary_conninfo = 'host=127.0.0.1 port={} user=postgres'\n", self.port);
        for (name, text) in
            [("backup_label", label), ("standby.signal", String::new()), ("postgresql.auto.conf", source)]
        {
            fs::write(data.join(name), text).expect("the directory takes files");
        }
        if nix::unistd::Uid::effective().is_root() {
            run(Command::new("chown").args(["-R", "nobody:nogroup"]).arg(&data));
        }
        let settings: Vec<&str> = self.settings.iter().map(String::as_str).collect();
        Self::on(self.bin.clone(), directory, &settings)
    }

    /// Who may connect, and how they prove it: lines of `pg_hba.conf`, from the next reload on.
    pub fn allow(&self, lines: &str) {
        fs::write(self.directory.join("data/pg_hba.conf"), lines).expect("the file is there");
    }

    /// The URL of a database of this server.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// A name that no database here has had.
    pub fn fresh_name(&self) -> String {
        format!("db{}", self.databases.fetch_add(1, Ordering::Relaxed))
    }

    /// Stops the server as an operator would, its files stay: `fast` (clients are thrown out) or `immediate` (as a crash).
    pub fn stop(&self, mode: &str) {
        let mut command = as_nobody(self.bin.join("pg_ctl"), &self.directory);
        run(command.arg("-D").arg(self.directory.join("data")).args(["-w", "-m", mode, "stop"]));
    }

    /// Starts it again on the same port.
    pub fn start_again(&mut self) {
        let (keeper, shell) = keep(&self.bin, &self.directory, self.port, &self.settings);
        if let Some(mut before) = self.keeper.replace(keeper) {
            before.write_all(b"keep").expect("the shell waits for its orders");
        }
        let mut before = std::mem::replace(&mut self.shell, shell);
        before.wait().expect("it is our child");
        self.wait_until_up();
    }

    fn wait_until_up(&self) {
        let begun = Instant::now();
        while !answers(self.port) {
            let log = || fs::read_to_string(self.directory.join("log")).unwrap_or_default();
            assert!(begun.elapsed() < Duration::from_secs(60), "PostgreSQL does not start: {}", log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.keeper.take());
        self.shell.wait().ok();
    }
}

/// Whether it takes connections: it answers a request for TLS with a letter, but while it starts it says so as an error.
fn answers(port: u16) -> bool {
    let asked = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        // Protocol 3.0, user postgres, database postgres (PostgreSQL documentation, "Message Formats", StartupMessage).
        let body = b"\x00\x03\x00\x00user\0postgres\0database\0postgres\0\0";
        stream.write_all(&u32::try_from(body.len() + 4).expect("short").to_be_bytes())?;
        stream.write_all(body)?;
        let mut first = [0];
        stream.read_exact(&mut first)?;
        Ok(first[0] == b'R')
    };
    asked().unwrap_or(false)
}

/// A shell that runs the server until its own input ends, which is when the test's process does, however that ends.
fn keep(bin: &Path, directory: &Path, port: u16, more: &[String]) -> (ChildStdin, Child) {
    let script = r#"
        "$@" </dev/null &
        server=$!
        order=$(cat)
        kill -QUIT $server 2>/dev/null
        wait $server
        [ "$order" = keep ] || rm -rf "$DIRECTORY"
    "#;
    let mut server = as_nobody(bin.join("postgres"), directory);
    let settings = [
        format!("port={port}"),
        "listen_addresses=127.0.0.1".to_owned(),
        format!("unix_socket_directories={}", directory.display()),
        "shared_buffers=64MB".to_owned(),
        "max_connections=200".to_owned(),
        "autovacuum_naptime=5s".to_owned(),
    ];
    server.arg("-D").arg(directory.join("data"));
    // Of two that say something about one the last one counts.
    for setting in settings.iter().chain(more) {
        server.args(["-c", setting]);
    }
    let log =
        fs::File::options().create(true).append(true).open(directory.join("log")).expect("the log can be written");
    let mut shell = Command::new("sh");
    shell.args(["-c", script, "sh"]).arg(server.get_program()).args(server.get_args());
    shell.env("DIRECTORY", directory);
    shell.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
    let mut shell = shell.spawn().expect("there is a shell");
    (shell.stdin.take().expect("piped"), shell)
}

/// Where initdb, postgres and pg_ctl are.
fn programs() -> PathBuf {
    if let Some(bin) = std::env::var_os("ANVIL_PG_BIN").filter(|bin| !bin.is_empty()) {
        return bin.into();
    }
    installed()
        .pop()
        .expect("tests of PostgreSQL need one: run .ci/test, or name the directory of its programs in ANVIL_PG_BIN")
}

/// Debian's, the newest last.
fn installed() -> Vec<PathBuf> {
    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path());
    let mut bins: Vec<PathBuf> =
        installed.map(|path| path.join("bin")).filter(|bin| bin.join("initdb").exists()).collect();
    bins.sort();
    bins
}

/// PostgreSQL refuses to run as root.
fn as_nobody(program: PathBuf, home: &Path) -> Command {
    let mut command = if nix::unistd::Uid::effective().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "env"]);
        command.arg(format!("HOME={}", home.display())).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.current_dir("/");
    command
}

/// A directory that the user of the server can reach: below the system's own for temporary files.
fn make_directory() -> PathBuf {
    let directory = tempfile::Builder::new().prefix("anvil-postgres-").tempdir().expect("there is room").keep();
    if nix::unistd::Uid::effective().is_root() {
        run(Command::new("chown").arg("nobody:nogroup").arg(&directory));
    }
    directory
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = || String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {}: {}", output.status, said());
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("it is bound").port()
}
