//! The suite of the metadata trait on a real PostgreSQL, and what only a database can get wrong.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use anvil_model::ids::NodeId;
use anvil_node::metadata::suite::histories;
use tokio_postgres::NoTls;

use super::schema::{GLOBAL, REGIONAL, Status, migrate};
use super::*;
use server::Postgres as Server;

mod cuts;
mod plans;
mod tasks;
mod writer;

#[path = "../../../tests/support/postgres.rs"]
#[allow(dead_code, unreachable_pub, reason = "end-to-end tests use more of it")]
mod server;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future to its end on this thread.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// Runs what speaks to a database by itself.
fn with_tokio<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, future)
}

/// One server for all tests of this process, with a migrated database to copy.
fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let server = Server::start();
        with_tokio(async {
            sql(&server, "postgres", "CREATE DATABASE migrated").await;
            let database = Database::parse("regional", &server.url("migrated")).unwrap();
            assert_eq!(migrate(&database, REGIONAL).await.unwrap(), 3);
            assert_eq!(migrate(&database, REGIONAL).await.unwrap(), 0, "what has run is not run again");
        });
        server
    })
}

/// Runs statements in a database of the server.
async fn sql(server: &Server, database: &str, text: &str) -> Vec<String> {
    let (client, connection) = tokio_postgres::connect(&server.url(database), NoTls).await.unwrap();
    let driver = tokio::spawn(connection);
    let answers = client.simple_query(text).await.unwrap_or_else(|error| panic!("{text}: {error:?}"));
    drop(client);
    driver.await.unwrap().unwrap();
    let rows = answers.into_iter().filter_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
        _ => None,
    });
    rows.collect()
}

/// A migrated database without rows.
fn fresh() -> (Database, Seen) {
    let (name, seen) = fresh_named();
    (Database::parse("regional", &server().url(&name)).unwrap(), seen)
}

fn fresh_named() -> (String, Seen) {
    let server = server();
    let name = server.fresh_name();
    let lineage = with_tokio(async {
        sql(server, "postgres", &format!("CREATE DATABASE {name} TEMPLATE migrated ")).await;
        sql(server, &name, "SELECT encode(lineage, 'hex') FROM timeline").await.remove(0)
    });
    let seen = Seen { lineage: u128::from_str_radix(&lineage, 16).unwrap(), change: None };
    (name, seen)
}

fn on_postgres(case: impl AsyncFnOnce(Postgres)) {
    let (database, seen) = fresh();
    let databases = Databases { global: database.clone(), regional: database };
    let (postgres, thread) =
        Postgres::start(databases, NodeId(1), seen, Box::new(|_, _| {}), Box::new(|_| {})).unwrap();
    block_on(case(postgres));
    thread.join();
}

anvil_node::metadata_suite!(super::on_postgres);

/// A schema that was not made, and one that this program does not understand, are refused with what to do.
#[test]
fn a_schema_is_looked_at_before_it_is_used() {
    let server = server();
    let name = server.fresh_name();
    with_tokio(async {
        sql(server, "postgres", &format!("CREATE DATABASE {name}")).await;
        let database = Database::parse("global", &server.url(&name)).unwrap();
        let status = Status::of(&database, GLOBAL).await.unwrap();
        assert_eq!(status.pending(), 6);
        assert!(status.check().unwrap_err().to_string().contains("anvil migrate up"));
        // Two at once: one migrates, the other one waits and finds it done.
        let (one, other) = tokio::join!(migrate(&database, GLOBAL), migrate(&database, GLOBAL));
        assert_eq!(one.unwrap() + other.unwrap(), 6);
        let status = Status::of(&database, GLOBAL).await.unwrap();
        assert_eq!((status.pending(), status.check().is_ok()), (0, true));
        sql(server, &name, "INSERT INTO schema_migrations VALUES (7, '0007_later', '', 7)").await;
        let refused = Status::of(&database, GLOBAL).await.unwrap().check().unwrap_err().to_string();
        assert!(refused.contains("newer version"), "{refused}");
    });
}

/// Goal: what a program that does not know usage left behind is counted when one that does starts, and nothing else is. Method:
/// a random history; usage that is wrong, behind a life that added nothing up.
#[test]
fn usage_is_counted_behind_a_program_that_does_not_know_it() {
    let (name, seen) = fresh_named();
    let database = Database::parse("regional", &server().url(&name)).unwrap();
    let databases = Databases { global: database.clone(), regional: database.clone() };
    let (postgres, thread) =
        Postgres::start(databases, NodeId(1), seen, Box::new(|_, _| {}), Box::new(|_| {})).unwrap();
    block_on(histories::random_histories_agree_with_a_map(&postgres));
    drop(postgres);
    thread.join();
    with_tokio(async {
        let session = session::Session::open(&database).await.unwrap();
        let held = async || sql(server(), &name, HELD).await;
        let before = held().await;
        assert!(before.len() >= 2, "something is left of the history: {before:?}");
        assert!(!usage::recount_if_due(&session).await.unwrap(), "all lives added up");
        let old = "UPDATE usage SET objects = objects + 7; INSERT INTO usage VALUES (1, 999, 1, 1, 1, 1); \
                   UPDATE writers SET incarnation = incarnation + 1";
        sql(server(), &name, old).await;
        assert_ne!(held().await, before);
        assert!(usage::recount_if_due(&session).await.unwrap());
        assert_eq!(held().await, before);
        assert!(!usage::recount_if_due(&session).await.unwrap(), "once");
    });
}

const HELD: &str = "SELECT concat_ws(' ', scope, id, sum(objects), sum(object_bytes), sum(upload_bytes)) FROM usage \
                    GROUP BY scope, id HAVING sum(objects) <> 0 OR sum(upload_bytes) <> 0 ORDER BY scope, id";
