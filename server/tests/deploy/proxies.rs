//! Goal: with the configurations that `docs/deploy` gives, S3 and gRPC go through Caddy and nginx, on one name and port, with
//! nothing changed and nobody taken for the proxy. Method: Debian's own packages with those files, in which only names,
//! addresses and certificates are put in; the AWS CLI, boto3 and grpcio in front of them.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::daemon::{Daemon, free_address, repository};
use crate::support::clients::{aws, python, run};
use crate::support::content::Content;
use crate::support::node::{Node, Options, scratch};
use crate::support::tree::{assert_same, write};

/// A file of `docs/deploy` with an operator's own values in place of its examples, each of which stands in it so often.
fn with_values(file: &str, values: &[(&str, usize, String)]) -> String {
    let mut text = fs::read_to_string(repository("docs/deploy").join(file)).unwrap();
    // Comments speak of the examples too.
    text = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect::<Vec<_>>().join("\n");
    for (example, count, value) in values {
        assert_eq!(text.matches(example).count(), *count, "{example} in {file}");
        text = text.replace(example, value);
    }
    text + "\n"
}

/// Caddy with a certificate of its own authority; gives the authority's.
fn caddy(directory: &Path, node: SocketAddr) -> (Daemon, PathBuf) {
    let address = free_address();
    let site = format!("https://localhost:{} {{\n\tbind 127.0.0.1\n\ttls internal", address.port());
    let values = [("anvil.example.com {", 1, site), ("127.0.0.1:50051", 1, node.to_string())];
    // Neither the ports of the web nor the system's certificates are a test's to take.
    let options = "{\n\tadmin off\n\tauto_https disable_redirects\n\tskip_install_trust\n}\n";
    fs::write(directory.join("Caddyfile"), options.to_owned() + &with_values("Caddyfile", &values)).unwrap();
    let daemon = Daemon::start("caddy", directory, address, |command| {
        command.args(["run", "--config", "Caddyfile"]);
    });
    let authority = directory.join("caddy/pki/authorities/local/root.crt");
    let begun = Instant::now();
    while !authority.exists() {
        assert!(begun.elapsed() < Duration::from_secs(30), "Caddy makes no certificates");
        std::thread::sleep(Duration::from_millis(20));
    }
    (daemon, authority)
}

/// nginx with a certificate that was made for it.
fn nginx(directory: &Path, node: SocketAddr) -> (Daemon, PathBuf) {
    let address = free_address();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, key) = (directory.join("fullchain.pem"), directory.join("privkey.pem"));
    fs::write(&certificate, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let values = [
        ("anvil.example.com", 1, "localhost".to_owned()),
        ("listen 443", 1, format!("listen {address}")),
        ("/etc/nginx/anvil/fullchain.pem", 1, certificate.display().to_string()),
        ("/etc/nginx/anvil/privkey.pem", 1, key.display().to_string()),
        ("127.0.0.1:50051", 2, node.to_string()),
    ];
    fs::write(directory.join("anvil.conf"), with_values("nginx.conf", &values)).unwrap();
    let here = directory.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("    {kind}_temp_path {here}/temporary-{kind};\n"))
        .concat();
    let user = if nix::unistd::Uid::effective().is_root() { "user root;\n" } else { "" };
    // One process, which ends when it is killed.
    let main = format!(
        "daemon off;\nmaster_process off;\n{user}pid {here}/nginx.pid;\nerror_log stderr;\nevents {{}}\n\
         http {{\n    access_log off;\n{temporary}    include {here}/anvil.conf;\n}}\n"
    );
    fs::write(directory.join("nginx.conf"), main).unwrap();
    let daemon = Daemon::start("nginx", directory, address, |command| {
        command.arg("-p").arg(directory).arg("-c").arg(directory.join("nginx.conf")).args(["-e", "stderr"]);
    });
    (daemon, certificate)
}

fn check(proxy: fn(&Path, SocketAddr) -> (Daemon, PathBuf)) {
    let scratch = scratch();
    let data = scratch.path().join("data");
    let arguments = ["--admin-from", "anywhere", "--metrics-allow", "127.0.0.1"].map(str::to_owned).to_vec();
    // The proxy is believed, and its clients are counted one by one.
    let environment = [("ANVIL_TRUSTED_PROXIES", "127.0.0.1"), ("ANVIL_LIMIT_ANONYMOUS", "20")];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let node = Node::start_with(&data, &Options { arguments, environment, ..Options::default() });
    let directory = scratch.path().join("proxy");
    fs::create_dir(&directory).unwrap();
    let (daemon, authority) = proxy(&directory, node.address);
    let address = format!("localhost:{}", daemon.address.port());
    let through = |mut command: Command| {
        command.env("AWS_ENDPOINT_URL", format!("https://{address}")).env("AWS_CA_BUNDLE", &authority);
        command
    };

    let (tree, back) = (scratch.path().join("tree"), scratch.path().join("back"));
    let sizes =
        [("empty", 0), ("deep/er/4097", 4097), ("parts/25MB", 25_000_000), ("names/Üml@ut & 100% #1?.txt", 777)];
    for ((name, length), seed) in sizes.into_iter().zip(1..) {
        write(&tree, name, Content { seed, length });
    }
    run(through(aws(&node)).args(["s3", "mb", "s3://tree"]));
    run(through(aws(&node)).args(["s3", "cp", "--recursive", "--only-show-errors"]).arg(&tree).arg("s3://tree"));
    run(through(aws(&node)).args(["s3", "sync", "--only-show-errors", "s3://tree"]).arg(&back));
    assert_same(&tree, &back);

    let mut checks = through(python(&node, "proxy_checks.py"));
    checks.arg(repository("proto")).arg(&address).arg(&data).arg(&authority).env("GRPC_ENABLE_FORK_SUPPORT", "0");
    println!("{}", run(&mut checks));
    drop(daemon);
    node.stop();
}

#[test]
fn s3_and_grpc_go_through_caddy() {
    check(caddy);
}

#[test]
fn s3_and_grpc_go_through_nginx() {
    check(nginx);
}
