//! Goal: the commands of people store what they are given, give back what was stored, and leave nothing half-made, whatever
//! breaks. Method: the real binary on both ends, another client that looks, and a way between them that breaks as it is told.

mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use support::command::{complaint, told};
use support::content::Content;
use support::node::{self, Node, Options, scratch};
use support::s3::Body;

/// A person with a directory of their own, where nothing else is set.
struct Person {
    home: PathBuf,
}

impl Person {
    fn new(home: &Path) -> Self {
        let home = home.join("home");
        fs::create_dir(&home).unwrap();
        Self { home }
    }

    /// One whose default profile is the node's own app, at this address.
    fn of(home: &Path, node: &Node, endpoint: &str) -> Self {
        let person = Self::new(home);
        person.configure(node, endpoint, &node.credentials.secret_key);
        person
    }

    fn configure(&self, node: &Node, endpoint: &str, secret: &str) {
        let words =
            ["configure", "--endpoint", endpoint, "--client-id", &node.credentials.access_key, "--secret-stdin"];
        let output = self.with_input(&words, format!("{secret}\n").as_bytes());
        assert!(!told(output).contains(secret));
    }

    fn anvil(&self, words: &[&str]) -> Command {
        let mut command = Command::new(node::anvil());
        command.env_clear().env("HOME", &self.home).current_dir(&self.home).args(words).stdin(Stdio::null());
        command
    }

    fn asks(&self, words: &[&str]) -> Output {
        self.anvil(words).output().unwrap()
    }

    fn with_input(&self, words: &[&str], input: &[u8]) -> Output {
        let mut command = self.anvil(words);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = process.stdin.take().unwrap();
        // Who refuses early reads not all of it.
        let _ = stdin.write_all(input);
        drop(stdin);
        process.wait_with_output().unwrap()
    }

    fn starts(&self, words: &[&str]) -> Child {
        self.anvil(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&told(self.asks(&[words, &["--output", "json"]].concat()))).unwrap()
    }

    fn file(&self, name: &str, bytes: &[u8]) {
        let path = self.home.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// What lies in a directory, also what is hidden.
    fn files(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.home.join(directory)).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// Pseudo-random bytes.
fn content(seed: u64, length: usize) -> Vec<u8> {
    Content { seed, length: length as u64 }.bytes()
}

#[track_caller]
fn same(left: &[u8], right: &[u8]) {
    let first = left.iter().zip(right).position(|(a, b)| a != b);
    assert_eq!((left.len(), first), (right.len(), None));
}

#[test]
fn objects_go_there_and_come_back() {
    let scratch = scratch();
    let node = Node::start(&scratch.path().join("data"));
    let person = Person::of(scratch.path(), &node, &node.endpoint());
    let config = person.home.join(".config/anvil/config.toml");
    assert_eq!(fs::metadata(config).unwrap().permissions().mode() & 0o777, 0o600);
    told(person.asks(&["bucket", "create", "docs"]));
    assert_eq!(person.json(&["bucket", "ls"])[0]["name"], "docs");
    fs::create_dir(person.home.join("got")).unwrap();
    let mut s3 = node.client();
    for (seed, length) in [(1, 0), (2, 1), (3, 64 << 10), (4, 9 << 20), (5, 70 << 20)] {
        let (bytes, name) = (content(seed, length), format!("of {length}"));
        let object = format!("s3://docs/a/{name}");
        person.file(&name, &bytes);
        let stored = person.json(&["object", "put", &name, "s3://docs/a/", "--content-type", "text/plain"]);
        let seen = s3.get(&format!("/docs/a/{name}")).unwrap().succeeded();
        same(&seen.body, &bytes);
        assert_eq!(seen.head.header("content-type"), Some("text/plain"));
        assert_eq!((stored["etag"].as_str(), stored["size"].as_u64()), (Some(seen.head.etag()), Some(length as u64)));
        told(person.asks(&["object", "get", &object, "got/"]));
        same(&fs::read(person.home.join("got").join(&name)).unwrap(), &bytes);
        let head = person.json(&["object", "head", &object]);
        assert_eq!((&head["etag"], head["size"].as_u64()), (&stored["etag"], Some(length as u64)));
        let stream = person.asks(&["object", "get", &object, "-"]);
        assert!(stream.status.success());
        same(&stream.stdout, &bytes);
        told(person.with_input(&["object", "put", "-", "s3://docs/stream"], &bytes));
        same(&s3.get("/docs/stream").unwrap().succeeded().body, &bytes);
    }
    assert_eq!(person.files("got").len(), 5, "a file with a name of its own was left");
    // What another client stored with other checksums, and in parts.
    let bytes = content(6, 40 << 20);
    let sha = [("x-amz-checksum-algorithm", "SHA256")];
    s3.request("PUT", "/docs/sha", &[], &sha, Body::Signed(&bytes)).unwrap().succeeded();
    s3.put_in_parts("/docs/parts", Content { seed: 6, length: 40 << 20 }, 8 << 20).unwrap().succeeded();
    for name in ["sha", "parts"] {
        told(person.asks(&["object", "get", &format!("s3://docs/{name}"), name]));
        same(&fs::read(person.home.join(name)).unwrap(), &bytes);
    }

    told(person.asks(&["object", "cp", "s3://docs/sha", "s3://docs/a/copy"]));
    same(&s3.get("/docs/a/copy").unwrap().succeeded().body, &bytes);
    let listed = person.json(&["object", "ls", "s3://docs"]);
    let names: Vec<_> = listed.as_array().unwrap().iter().map(|entry| entry["key"].as_str()).collect();
    assert_eq!((names, &listed[0]["prefix"]), (vec![None, Some("parts"), Some("sha"), Some("stream")], &"a/".into()));
    assert_eq!(told(person.asks(&["object", "ls", "-r", "s3://docs/a/of"])).lines().count(), 5);
    told(person.asks(&["object", "rm", "s3://docs/a/copy"]));
    let sentence = complaint(&person.asks(&["object", "get", "s3://docs/a/copy", "copy"]), 1);
    assert!(sentence.contains("NOT_FOUND"), "{sentence}");
    assert!(complaint(&person.asks(&["bucket", "rm", "docs"]), 1).contains("FAILED_PRECONDITION"));
    assert_eq!(person.json(&["object", "rm", "-r", "s3://docs"])["deleted"], 8);
    told(person.asks(&["bucket", "rm", "docs"]));
    assert_eq!(person.json(&["bucket", "ls"]), Value::Array(Vec::new()));
    node.stop();
}

/// Goal: a loop of commands does not run into the limit on tokens, and a token that a node does not take is no trouble.
#[test]
fn commands_share_a_token() {
    let scratch = scratch();
    let limit = [("ANVIL_LIMIT_LOGINS".to_owned(), "4".to_owned())];
    let options = Options { environment: limit.to_vec(), ..Options::default() };
    let node = Node::start_with(&scratch.path().join("data"), &options);
    let person = Person::of(scratch.path(), &node, &node.endpoint());
    told(person.asks(&["bucket", "create", "docs"]));
    for number in 0..10 {
        person.file("file", &content(number, 1000));
        told(person.asks(&["object", "put", "file", &format!("s3://docs/{number}")]));
    }
    let [name] = &person.files(".cache/anvil/tokens")[..] else { panic!("one token is kept") };
    let kept = person.home.join(".cache/anvil/tokens").join(name);
    assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    let commands: [&[&str]; 3] =
        [&["bucket", "ls"], &["object", "put", "file", "s3://docs/file"], &["object", "get", "s3://docs/file", "got"]];
    for command in commands {
        let mut token: Value = serde_json::from_slice(&fs::read(&kept).unwrap()).unwrap();
        token["token"] = "a.b.c".into();
        fs::write(&kept, token.to_string()).unwrap();
        told(person.asks(command));
    }
}

#[test]
fn what_is_wrong_is_said_in_one_sentence() {
    let scratch = scratch();
    let node = Node::start(&scratch.path().join("data"));
    let person = Person::new(scratch.path());
    let sentence = complaint(&person.asks(&["bucket", "ls"]), 2);
    assert!(sentence.contains("anvil configure") && sentence.contains("ANVIL_CLIENT_ID"), "{sentence}");
    let secret = "a-secret-that-nobody-has";
    person.configure(&node, &node.endpoint(), secret);
    let sentence = complaint(&person.asks(&["bucket", "ls"]), 1);
    assert!(sentence.contains("UNAUTHENTICATED") && !sentence.contains(secret), "{sentence}");
    // What the node prints for S3 clients counts more than the default profile.
    let credentials = &node.credentials;
    let variables =
        [("AWS_ACCESS_KEY_ID", &credentials.access_key), ("AWS_SECRET_ACCESS_KEY", &credentials.secret_key)];
    told(person.anvil(&["bucket", "ls"]).envs(variables).output().unwrap());
    let named = person.anvil(&["bucket", "ls", "--profile", "default"]).envs(variables).output().unwrap();
    assert!(complaint(&named, 1).contains("UNAUTHENTICATED"));
    person.configure(&node, &node.endpoint(), &credentials.secret_key);

    let token = told(person.asks(&["auth", "get-token", "--scope", "object:read|*"]));
    assert_eq!(token.trim_end().split('.').count(), 3, "{token}");
    let output = person.with_input(&["configure", "--client-id", "x", "--secret-stdin"], b"short");
    assert!(!complaint(&output, 2).contains("short"));
    person.file("a", b"a");
    for (words, code, expected) in [
        (&["object", "put", "a", "s3://nobody-has-it/a"][..], 1, "NOT_FOUND"),
        (&["object", "get", "s3://nobody-has-it/a", "b"], 1, "NOT_FOUND"),
        (&["object", "ls", "s3://nobody-has-it"], 1, "NOT_FOUND"),
        (&["object", "put", "missing", "s3://nobody-has-it/a"], 1, "missing: "),
        (&["object", "put", "-", "s3://nobody-has-it"], 2, "names no object"),
        (&["object", "get", "s3://nobody-has-it"], 2, "names no object"),
        (&["object", "rm", "s3://nobody-has-it"], 2, "--recursive"),
        (&["object", "sync", "a", "b"], 2, "s3://BUCKET/PREFIX/"),
        (&["object", "put", "a", "s3://nobody-has-it/a", "--part-size", "1MiB"], 2, "5MiB to 5GiB"),
        (&["bucket", "ls", "--profile", "other"], 2, "has no profile \"other\""),
        (&["bucket", "ls", "--endpoint", "127.0.0.1:1"], 2, "http://HOST:PORT"),
        (&["bucket", "ls", "--endpoint", "http://127.0.0.1:1"], 1, "cannot reach a node at http://127.0.0.1:1"),
        (&["bucket", "create", "X"], 1, "INVALID_ARGUMENT"),
    ] {
        let sentence = complaint(&person.asks(words), code);
        assert!(sentence.contains(expected), "{words:?}: {sentence}");
    }
    assert_eq!(person.files(""), [".cache", ".config", "a"]);
    told(person.asks(&["bucket", "create", "open"]));
    // Whoever may write the bucket may say so, with a token like any other.
    let admin = |words: &[&str]| {
        let mut command = Command::new(node::anvil());
        command.arg("admin").args(words).args(["--endpoint", &node.endpoint(), "--output", "json", "--data-dir"]);
        serde_json::from_str::<Value>(&told(command.arg(scratch.path().join("data")).output().unwrap())).unwrap()
    };
    let app = admin(&["app", "create", "web", "--tenant-name", "default"]);
    let variables = [("ANVIL_CLIENT_ID", &app["client_id"]), ("ANVIL_CLIENT_SECRET", &app["client_secret"])];
    let endpoint = node.endpoint();
    let as_app = || {
        let mut command = person.anvil(&["bucket", "set-public", "open", "--allow", "true"]);
        command.env("ANVIL_ENDPOINT", &endpoint);
        command.envs(variables.map(|(name, value)| (name, value.as_str().unwrap()))).output().unwrap()
    };
    assert!(complaint(&as_app(), 1).contains("PERMISSION_DENIED"));
    admin(&["policy", "grant", "--app-name", "web", "--action", "bucket:write", "--resource", "open"]);
    told(as_app());
    told(person.asks(&["object", "put", "a", "s3://open/a"]));
    let mut stream = TcpStream::connect(node.address).unwrap();
    write!(stream, "GET /open/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\na"), "{answer}");
    node.stop();
}

#[test]
fn an_https_endpoint_is_believed_with_its_certificate() {
    let scratch = scratch();
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let (certificate, key) = (scratch.path().join("certificate.pem"), scratch.path().join("key.pem"));
    fs::write(&certificate, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let words = ["--tls-cert", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let options = Options { arguments: words.map(str::to_owned).to_vec(), ..Options::default() };
    let node = Node::start_with(&scratch.path().join("data"), &options);
    let person = Person::of(scratch.path(), &node, &format!("https://{}", node.address));
    let ca_file = ["--ca-file", certificate.to_str().unwrap()];
    told(person.asks(&[&["bucket", "create", "docs"][..], &ca_file].concat()));
    let bytes = content(1, 9 << 20);
    person.file("a", &bytes);
    told(person.asks(&[&["object", "put", "a", "s3://docs/a"][..], &ca_file].concat()));
    told(person.asks(&[&["object", "get", "s3://docs/a", "b"][..], &ca_file].concat()));
    same(&fs::read(person.home.join("b")).unwrap(), &bytes);
    // Those of the system, if there are any, do not vouch for it.
    let sentence = complaint(&person.asks(&["bucket", "ls"]), 1);
    assert!(sentence.contains("cannot reach a node") && sentence.contains("certificate"), "{sentence}");
    node.stop();
}

const LARGE: usize = 70 << 20;

/// A node with a bucket, an object of 70 MiB and a file of as many bytes; and who speaks to it over a way that breaks.
struct Broken {
    node: Node,
    way: Way,
    person: Person,
    bytes: Vec<u8>,
}

impl Broken {
    fn new(scratch: &Path) -> Self {
        let node = Node::start(&scratch.join("data"));
        let way = Way::to(node.address);
        let person = Person::of(scratch, &node, &format!("http://{}", way.address));
        let bytes = content(1, LARGE);
        let mut s3 = node.client();
        s3.put("/docs", b"").unwrap().succeeded();
        s3.put("/docs/large", &bytes).unwrap().succeeded();
        person.file("large", &bytes);
        fs::create_dir(person.home.join("got")).unwrap();
        Self { node, way, person, bytes }
    }

    fn has(&self, object: &str) -> bool {
        self.node.client().get(object).unwrap().status() == 200
    }

    fn uploads(&self) -> Vec<String> {
        let answer = self.node.client().request("GET", "/docs", &[("uploads", "")], &[], Body::Signed(b""));
        answer.unwrap().succeeded().elements("UploadId")
    }
}

const GET: [&str; 4] = ["object", "get", "s3://docs/large", "got/large"];
const PUT: [&str; 4] = ["object", "put", "large", "s3://docs/other"];

/// Bytes after which the way breaks: with the third of four parts under way or so.
const MIDDLE: u64 = 30 << 20;

#[test]
fn a_broken_connection_costs_no_byte() {
    let scratch = scratch();
    let broken = Broken::new(scratch.path());
    broken.way.breaks(Direction::Down, MIDDLE, Break::Once);
    told(broken.person.asks(&GET));
    assert!(broken.way.is_broken());
    same(&fs::read(broken.person.home.join("got/large")).unwrap(), &broken.bytes);
    broken.way.breaks(Direction::Up, MIDDLE, Break::Once);
    told(broken.person.asks(&PUT));
    assert!(broken.way.is_broken());
    same(&broken.node.client().get("/docs/other").unwrap().succeeded().body, &broken.bytes);
    assert_eq!((broken.person.files("got"), broken.uploads()), (vec!["large".to_owned()], Vec::new()));
    broken.node.stop();
}

#[test]
fn a_wrong_byte_is_found() {
    let scratch = scratch();
    let broken = Broken::new(scratch.path());
    broken.way.breaks(Direction::Down, MIDDLE, Break::WrongByte);
    let sentence = complaint(&broken.person.asks(&GET), 1);
    assert!(broken.way.is_broken() && sentence.contains("damaged on the way"), "{sentence}");
    broken.way.breaks(Direction::Up, MIDDLE, Break::WrongByte);
    let sentence = complaint(&broken.person.asks(&PUT), 1);
    assert!(broken.way.is_broken() && sentence.contains("INVALID_ARGUMENT"), "{sentence}");
    assert!(!broken.has("/docs/other"));
    assert_eq!((broken.person.files("got"), broken.uploads()), (Vec::new(), Vec::new()));
    broken.node.stop();
}

#[test]
fn ctrl_c_leaves_nothing_behind() {
    let scratch = scratch();
    let broken = Broken::new(scratch.path());
    for (words, direction) in [(GET, Direction::Down), (PUT, Direction::Up)] {
        broken.way.breaks(direction, MIDDLE, Break::Hold);
        let process = broken.person.starts(&words);
        broken.way.wait_until_broken();
        kill(Pid::from_raw(process.id().try_into().unwrap()), Signal::SIGINT).unwrap();
        // What is to be taken back needs the way.
        broken.way.breaks(direction, u64::MAX, Break::Once);
        let output = process.wait_with_output().unwrap();
        assert!(complaint(&output, 130).contains("interrupted"));
    }
    assert!(!broken.has("/docs/other"));
    assert_eq!((broken.person.files("got"), broken.uploads()), (Vec::new(), Vec::new()));
    broken.node.stop();
}

#[test]
fn a_node_that_dies_leaves_nothing_half_made() {
    for (words, direction) in [(GET, Direction::Down), (PUT, Direction::Up)] {
        let scratch = scratch();
        let broken = Broken::new(scratch.path());
        broken.way.breaks(direction, MIDDLE, Break::Hold);
        let process = broken.person.starts(&words);
        broken.way.wait_until_broken();
        let Broken { node, way, person, .. } = broken;
        node.kill();
        way.breaks(direction, u64::MAX, Break::Once);
        let sentence = complaint(&process.wait_with_output().unwrap(), 1);
        assert!(sentence.contains("cannot reach a node"), "{sentence}");
        assert!(person.files("got").is_empty());
        let node = Node::start(&scratch.path().join("data"));
        assert_eq!(node.client().get("/docs/other").unwrap().status(), 404);
        node.stop();
    }
}

#[test]
fn directories_and_prefixes_are_made_alike() {
    let scratch = scratch();
    let node = Node::start(&scratch.path().join("data"));
    let person = Person::of(scratch.path(), &node, &node.endpoint());
    told(person.asks(&["bucket", "create", "docs"]));
    for name in ["from/a", "from/b/c", "from/b/d"] {
        person.file(name, name.as_bytes());
    }
    let copied = |words: &[&str]| -> (Vec<String>, Vec<String>) {
        let answer = person.json(&[&["object", "sync"], words].concat());
        let names = |name: &str| serde_json::from_value(answer[name].clone()).unwrap();
        (names("copied"), names("deleted"))
    };
    let words = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let all = words(&["a", "b/c", "b/d"]);
    let up = ["from", "s3://docs/x"];
    assert_eq!(copied(&[&up[..], &["--dry-run"]].concat()), (all.clone(), words(&[])));
    assert_eq!(person.json(&["object", "ls", "s3://docs"]), Value::Array(Vec::new()));
    assert_eq!(copied(&up), (all.clone(), words(&[])));
    assert_eq!(copied(&up), (words(&[]), words(&[])));
    let down = ["s3://docs/x/", "to"];
    assert_eq!(copied(&down), (all, words(&[])));
    assert_eq!(fs::read(person.home.join("to/b/c")).unwrap(), b"from/b/c");
    assert_eq!(copied(&down), (words(&[]), words(&[])));
    // Of the same size, and older than the object: only its checksum tells.
    person.file("from/b/c", b"FROM/b/c");
    let old = std::time::SystemTime::now() - Duration::from_secs(3600);
    fs::File::options().write(true).open(person.home.join("from/b/c")).unwrap().set_modified(old).unwrap();
    assert_eq!(copied(&up), (words(&[]), words(&[])));
    assert_eq!(copied(&[&up[..], &["--checksum"]].concat()), (words(&["b/c"]), words(&[])));
    fs::remove_file(person.home.join("from/a")).unwrap();
    person.file("to/e", b"");
    assert_eq!(copied(&[&up[..], &["--delete"]].concat()), (words(&[]), words(&["a"])));
    let (changed, gone) = copied(&[&down[..], &["--delete"]].concat());
    assert_eq!((changed, gone), (words(&["b/c"]), words(&["a", "e"])));
    assert_eq!(fs::read(person.home.join("to/b/c")).unwrap(), b"FROM/b/c");
    // Keys are written by others: none leads out of the directory.
    told(person.asks(&["object", "put", "from/b/d", "s3://docs/x/../../evil"]));
    let sentence = complaint(&person.asks(&["object", "get", "-r", "s3://docs/x", "to"]), 1);
    assert!(sentence.contains("evil") && person.files("") == [".cache", ".config", "from", "to"], "{sentence}");
    told(person.asks(&["object", "cp", "-r", "s3://docs/x/b", "s3://docs/y"]));
    assert_eq!(node.client().get("/docs/y/d").unwrap().succeeded().body, b"from/b/d");
    node.stop();
}

/// Which bytes are counted: those of the node, or of who speaks to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Down,
    Up,
}

/// What becomes of a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Break {
    /// The connection ends; the next ones go on for ever.
    Once,
    /// A bit of the next piece is another one.
    WrongByte,
    /// No byte goes on until another break is set.
    Hold,
}

/// Carries connections to a node, and breaks as it is told.
struct Way {
    address: SocketAddr,
    fault: Arc<Fault>,
}

#[derive(Default)]
struct Fault {
    plan: Mutex<Option<(Direction, Break)>>,
    changed: Condvar,
    left: AtomicU64,
    broken: AtomicBool,
}

impl Way {
    fn to(node: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, fault) = (listener.local_addr().unwrap(), Arc::new(Fault::default()));
        let of_connections = Arc::clone(&fault);
        std::thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                let Ok(node) = TcpStream::connect(node) else { continue };
                for (from, to, direction) in [
                    (client.try_clone().unwrap(), node.try_clone().unwrap(), Direction::Up),
                    (node.try_clone().unwrap(), client.try_clone().unwrap(), Direction::Down),
                ] {
                    let fault = Arc::clone(&of_connections);
                    std::thread::spawn(move || {
                        carry(&from, &to, direction, &fault);
                        // The other end may have gone first.
                        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
                    });
                }
            }
        });
        Self { address, fault }
    }

    fn breaks(&self, direction: Direction, after: u64, how: Break) {
        let mut plan = self.fault.plan.lock().unwrap();
        self.fault.left.store(after, Ordering::SeqCst);
        self.fault.broken.store(false, Ordering::SeqCst);
        *plan = Some((direction, how));
        self.fault.changed.notify_all();
    }

    fn is_broken(&self) -> bool {
        self.fault.broken.load(Ordering::SeqCst)
    }

    fn wait_until_broken(&self) {
        let plan = self.fault.plan.lock().unwrap();
        let waiting = self.fault.changed.wait_timeout_while(plan, Duration::from_secs(60), |_| !self.is_broken());
        assert!(!waiting.unwrap().1.timed_out(), "so many bytes never came");
    }
}

fn carry(mut from: &TcpStream, mut to: &TcpStream, direction: Direction, fault: &Fault) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let mut plan = fault.plan.lock().unwrap();
        if let Some((of, how)) = *plan
            && of == direction
        {
            let left = fault.left.load(Ordering::SeqCst);
            fault.left.store(left.saturating_sub(length as u64), Ordering::SeqCst);
            if left < length as u64 {
                let first = !fault.broken.swap(true, Ordering::SeqCst);
                fault.changed.notify_all();
                match how {
                    Break::Once if first => return,
                    // Far from the heads of frames, which have some bytes at their beginning.
                    Break::WrongByte if first => buffer[length / 2] ^= 1,
                    Break::Hold => {
                        plan = fault.changed.wait_while(plan, |plan| *plan == Some((of, how))).unwrap();
                    }
                    Break::Once | Break::WrongByte => {}
                }
            }
        }
        drop(plan);
        if to.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}
