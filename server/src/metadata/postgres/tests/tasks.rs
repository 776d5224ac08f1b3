//! The task queue in a real database: the suite of its trait, and what only a database can get wrong.

use std::time::Duration;

use anvil_model::ids::{Incarnation, NodeId};

use super::super::tasks::TaskDatabase;
use super::*;
use crate::tasks::suite::Timed;
use crate::tasks::task::{NewTask, Order, Report, Task, Worker};
use crate::tasks::{TaskError, TaskStore, jobs};

/// The tasks of one region, whose time passes when rows are moved into the past.
struct Queue {
    tasks: TaskDatabase,
    name: String,
}

impl Queue {
    fn empty() -> Self {
        let server = server();
        let name = server.fresh_name();
        with_tokio(async {
            sql(server, "postgres", &format!("CREATE DATABASE {name}")).await;
            let database = Database::parse("global", &server.url(&name)).unwrap();
            migrate(&database, GLOBAL).await.unwrap();
            for (region, number) in [("here", 0), ("there", 1)] {
                let lineage = number.to_string().repeat(32);
                let insert = format!(
                    "INSERT INTO regions (name, lineage, number) VALUES ('{region}', decode('{lineage}', 'hex'), {number})"
                );
                sql(server, &name, &insert).await;
            }
        });
        Self { tasks: tasks_of(&name, "here"), name }
    }
}

fn tasks_of(name: &str, region: &str) -> TaskDatabase {
    let database = Database::parse("global", &server().url(name)).unwrap();
    TaskDatabase::start(database, region.to_owned()).unwrap()
}

impl TaskStore for Queue {
    async fn add(&self, new: NewTask) -> Result<Task, TaskError> {
        self.tasks.add(new).await
    }

    async fn lease(&self, worker: Worker) -> Result<Option<Task>, TaskError> {
        self.tasks.lease(worker).await
    }

    async fn report(&self, leased: &Task, report: Report) -> Result<bool, TaskError> {
        self.tasks.report(leased, report).await
    }

    async fn list(&self) -> Result<Vec<Task>, TaskError> {
        self.tasks.list().await
    }

    async fn order(&self, id: u64, order: Order) -> Result<Task, TaskError> {
        self.tasks.order(id, order).await
    }
}

impl Timed for Queue {
    async fn pass(&self, time: Duration) {
        let back = format!("UPDATE tasks SET not_before_ms = not_before_ms - {}", time.as_millis());
        with_tokio(sql(server(), &self.name, &back));
    }
}

fn on_postgres(case: impl AsyncFnOnce(Queue)) {
    block_on(case(Queue::empty()));
}

mod suite {
    crate::tasks::suite::task_suite!(super::on_postgres);
}

fn bucket(number: u64) -> NewTask {
    NewTask { kind: jobs::DELETE_BUCKET, about: format!("{number}/a"), priority: 20 }
}

/// Goal: workers do not wait for one another, and have nothing to do with other regions. Method: a transaction holds the first
/// task; a process of each region leases.
#[test]
fn a_task_that_another_process_takes_is_skipped() {
    on_postgres(async |here| {
        let there = tasks_of(&here.name, "there");
        let (one, two) = (here.add(bucket(1)).await.unwrap(), here.add(bucket(2)).await.unwrap());
        let worker = Worker { node: NodeId(1), life: Incarnation(1) };
        let (is_held, held) = std::sync::mpsc::channel();
        let (let_go, told) = std::sync::mpsc::channel::<()>();
        let url = server().url(&here.name);
        let holder = thread::spawn(move || {
            with_tokio(async move {
                let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
                let driver = tokio::spawn(connection);
                client.batch_execute("BEGIN; SELECT * FROM tasks ORDER BY id LIMIT 1 FOR UPDATE").await.unwrap();
                is_held.send(()).unwrap();
                told.recv().unwrap();
                drop(client);
                driver.await.unwrap().unwrap();
            });
        });
        held.recv().unwrap();
        assert_eq!(here.lease(worker).await.unwrap().unwrap().id, two.id);
        assert_eq!(here.lease(worker).await.unwrap(), None);
        let_go.send(()).unwrap();
        holder.join().unwrap();
        assert_eq!((there.lease(worker).await, there.list().await), (Ok(None), Ok(Vec::new())));
        assert_eq!(there.order(one.id, Order::Cancel).await, Err(TaskError::NoSuchTask(one.id)));
    });
}

/// Goal: an outage is told as one, and over when it is over. Method: every connection is ended by the server, and a database
/// that is not there.
#[test]
fn tasks_come_back_with_their_database() {
    on_postgres(async |queue| {
        let added = queue.add(bucket(1)).await.unwrap();
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE datname = current_database() AND pid <> pg_backend_pid()";
        with_tokio(sql(server(), &queue.name, end));
        // The first question after it may find the connection gone.
        let found = match queue.list().await {
            Err(TaskError::Away(_)) => queue.list().await,
            found => found,
        };
        assert_eq!(found, Ok(vec![added]));
        let nowhere = tasks_of(&server().fresh_name(), "here");
        assert!(matches!(nowhere.add(bucket(1)).await, Err(TaskError::Away(_))));
    });
}
