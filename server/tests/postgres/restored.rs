//! Goal: the guide to backup and restore in docs/OPERATIONS.md does what it says. Method: its commands, on a server that has
//! them; both databases are lost, once with nothing written since the backup, and once with objects that were deleted,
//! overwritten and written since.

use std::path::Path;
use std::process::{Command, Output};

use super::support::command::told;
use super::support::content::Content;
use super::support::node::{self, Node, scratch, start_to_fail};
use super::support::postgres::Postgres;
use super::{create_database, environment, options, until, with_server};

const OBJECTS: u64 = 60;

#[test]
fn what_was_backed_up_is_served_again() {
    let Some(server) = Postgres::start_with_tools() else {
        println!("LEFT OUT: there is no PostgreSQL with pg_dump here");
        return;
    };
    println!("on PostgreSQL {}", with_server(&server, "postgres", "SHOW server_version").concat());
    for database in DATABASES {
        create_database(&server, database);
    }
    let scratch = scratch();
    let data = scratch.path().join("data");
    // Bytes are kept for as long as the oldest backup that is to be restored is old.
    let options = options(&server, &["--init-cluster", "--reclaim-delay", "1h"]);
    let node = Node::start_with(&data, &options);
    let mut client = node.client();
    client.put("/bucket", b"").unwrap().succeeded();
    for number in 0..OBJECTS {
        client.put(&key(number), &content(number).bytes()).unwrap().succeeded();
    }
    back_up(&server, scratch.path());
    node.stop();
    lose_and_restore(&server, scratch.path());
    // Nothing was changed since: it goes on by itself.
    let node = Node::start_with(&data, &options);
    serves_all(&node);

    let mut client = node.client();
    for number in 0..OBJECTS / 3 {
        client.delete(&key(number)).unwrap().succeeded();
        client.put(&key(number + OBJECTS / 3), b"overwritten").unwrap().succeeded();
        client.put(&format!("/bucket/new-{number}"), &content(1000 + number).bytes()).unwrap().succeeded();
    }
    let deleted = with_server(&server, "anvil_regional", "SELECT count(*) FROM garbage");
    assert_eq!(deleted, [(OBJECTS / 3 * 2).to_string()]);
    node.stop();
    lose_and_restore(&server, scratch.path());
    let refused = start_to_fail(&data, &options);
    assert!(refused.contains("went back") && refused.contains("anvil admin metadata reconcile"), "{refused}");
    let said = told(reconcile(&server, &data));
    assert!(said.contains("went back") && said.contains("goes on with it as it is"), "{said}");
    let said = told(reconcile(&server, &data));
    assert!(said.contains("nothing was changed"), "{said}");
    let node = Node::start_with(&data, &options);
    serves_all(&node);
    let mut client = node.client();
    assert_eq!(client.get("/bucket/new-0").unwrap().status(), 404, "what was written since is given up");
    // Names that lives have given since the backup are not given again.
    for number in 0..OBJECTS {
        client.put(&format!("/bucket/new-{number}"), &content(2000 + number).bytes()).unwrap().succeeded();
    }
    until(|| node.metric("anvil_orphaned_blobs_total") > 0.5, "what was given up is claimed");
    serves_all(&node);
    for number in 0..OBJECTS {
        let answer = client.get(&format!("/bucket/new-{number}")).unwrap().succeeded();
        assert_eq!(answer.body, content(2000 + number).bytes());
    }
    node.stop();
}

/// As the guide has it: the global database first.
fn back_up(server: &Postgres, to: &Path) {
    for database in DATABASES {
        let mut dump = server.tool("pg_dump", database);
        told(dump.args(["--format=custom", "--file"]).arg(to.join(database)).output().unwrap());
    }
}

fn lose_and_restore(server: &Postgres, from: &Path) {
    for database in DATABASES {
        with_server(server, "postgres", &format!("DROP DATABASE {database} WITH (FORCE)"));
        create_database(server, database);
        let mut restore = server.tool("pg_restore", database);
        told(restore.args(["--exit-on-error", "--single-transaction"]).arg(from.join(database)).output().unwrap());
    }
}

fn reconcile(server: &Postgres, data: &Path) -> Output {
    let mut command = Command::new(node::anvil());
    command.args(["admin", "metadata", "reconcile", "--data-dir"]).arg(data).envs(environment(server));
    command.output().unwrap()
}

fn serves_all(node: &Node) {
    let mut client = node.client();
    for number in 0..OBJECTS {
        assert_eq!(client.get(&key(number)).unwrap().succeeded().body, content(number).bytes(), "object {number}");
    }
}

fn key(number: u64) -> String {
    format!("/bucket/object-{number:03}")
}

/// Small ones, which share their places on the disks with others, and large ones.
fn content(seed: u64) -> Content {
    Content { seed, length: if seed.is_multiple_of(10) { 2_000_000 } else { 20_000 + seed } }
}

const DATABASES: [&str; 2] = ["anvil_global", "anvil_regional"];
