//! The task queue in the global database.
//!
//! On a thread with an executor of its own, and one connection. What becomes of a task is decided by `tasks::task`, over the
//! row that the transaction holds; a lease skips rows that others hold. The clock is the database's.

use std::io;
use std::sync::LazyLock;
use std::time::Duration;

use anvil_model::ids::{Incarnation, NodeId};
use anvil_model::time::WallTime;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_postgres::Row;

use super::address::Database;
use super::session::{Session, SqlError};
use crate::tasks::chores::about;
use crate::tasks::task::{NewTask, Order, Report, TASKS_MAX, Task, TaskState, Worker};
use crate::tasks::{TaskError, TaskStore, jobs};

/// The way to the thread, for all cores. The thread ends with it.
#[derive(Debug)]
pub struct TaskDatabase {
    jobs: mpsc::Sender<Job>,
}

#[derive(Debug)]
struct Job {
    ask: Ask,
    reply: oneshot::Sender<Result<Answer, TaskError>>,
}

#[derive(Debug)]
enum Ask {
    Add(NewTask),
    Lease(Worker),
    Report(Box<Task>, Report),
    List,
    Order(u64, Order),
}

#[derive(Debug)]
enum Answer {
    Tasks(Vec<Task>),
    Kept(bool),
}

/// Questions on their way to the thread.
const QUEUE: usize = 16;
/// How long a question or a change may take.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

impl TaskDatabase {
    /// Starts the thread. It works on the tasks of this region; the database may be away.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(database: Database, region: String) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (jobs, queue) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new().name("tasks-postgres".to_owned());
        thread.spawn(move || {
            let work = Work { database, region, session: None }.run(queue);
            tokio::task::LocalSet::new().block_on(&runtime, work);
        })?;
        Ok(Self { jobs })
    }

    async fn ask(&self, ask: Ask) -> Result<Answer, TaskError> {
        let (reply, answer) = oneshot::channel();
        let stopping = || TaskError::Away("the node is stopping".to_owned());
        self.jobs.send(Job { ask, reply }).await.map_err(|_| stopping())?;
        answer.await.unwrap_or(Err(TaskError::Unknown))
    }

    async fn ask_for_one(&self, ask: Ask) -> Result<Option<Task>, TaskError> {
        match self.ask(ask).await? {
            Answer::Tasks(mut tasks) => Ok(tasks.pop()),
            other @ Answer::Kept(_) => unreachable!("a question for a task is answered with one, not with {other:?}"),
        }
    }
}

impl TaskStore for TaskDatabase {
    async fn add(&self, new: NewTask) -> Result<Task, TaskError> {
        Ok(self.ask_for_one(Ask::Add(new)).await?.expect("what was added is there"))
    }

    async fn lease(&self, worker: Worker) -> Result<Option<Task>, TaskError> {
        self.ask_for_one(Ask::Lease(worker)).await
    }

    async fn report(&self, leased: &Task, report: Report) -> Result<bool, TaskError> {
        match self.ask(Ask::Report(Box::new(leased.clone()), report)).await? {
            Answer::Kept(kept) => Ok(kept),
            other @ Answer::Tasks(_) => unreachable!("a report is kept or not, and not {other:?}"),
        }
    }

    async fn list(&self) -> Result<Vec<Task>, TaskError> {
        match self.ask(Ask::List).await? {
            Answer::Tasks(tasks) => Ok(tasks),
            other @ Answer::Kept(_) => unreachable!("a list is not {other:?}"),
        }
    }

    async fn order(&self, id: u64, order: Order) -> Result<Task, TaskError> {
        Ok(self.ask_for_one(Ask::Order(id, order)).await?.expect("the task that was ordered"))
    }
}

struct Work {
    database: Database,
    region: String,
    session: Option<Session>,
}

/// Why a transaction came to nothing, or is not known to have.
enum Failed {
    Refused(TaskError),
    Before(SqlError),
    Unknown,
}

impl From<SqlError> for Failed {
    fn from(error: SqlError) -> Self {
        Self::Before(error)
    }
}

impl Work {
    async fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        while let Some(Job { ask, reply }) = queue.recv().await {
            // Who asked may be gone.
            let _ = reply.send(self.answer(&ask).await);
        }
    }

    async fn answer(&mut self, ask: &Ask) -> Result<Answer, TaskError> {
        if self.session.as_ref().is_none_or(Session::is_closed) {
            let session = Session::open(&self.database).await;
            self.session = Some(session.map_err(|error| TaskError::Away(error.to_string()))?);
        }
        let session = self.session.as_ref().expect("just opened");
        let answered = timeout(ANSWERED_WITHIN, transaction(session, &self.region, ask)).await;
        answered.unwrap_or(Err(Failed::Unknown)).map_err(|failed| {
            // Whatever was open ends with the connection.
            self.session = None;
            match failed {
                Failed::Refused(refused) => refused,
                Failed::Before(error) => TaskError::Away(error.to_string()),
                Failed::Unknown => TaskError::Unknown,
            }
        })
    }
}

async fn transaction(session: &Session, region: &str, ask: &Ask) -> Result<Answer, Failed> {
    if matches!(ask, Ask::List) {
        return Ok(Answer::Tasks(all(session, region).await?));
    }
    session.run("BEGIN").await?;
    let answer = change(session, region, ask).await?;
    match session.run("COMMIT").await {
        Ok(()) => Ok(answer),
        Err(error) if error.is_an_answer() => Err(error.into()),
        Err(_) => Err(Failed::Unknown),
    }
}

/// All tasks of a region, by id.
pub(super) async fn all(session: &Session, region: &str) -> Result<Vec<Task>, SqlError> {
    session.query(&LISTED, &[&region]).await?.iter().map(task).collect()
}

async fn change(session: &Session, region: &str, ask: &Ask) -> Result<Answer, Failed> {
    let now = session.query(NOW, &[]).await?;
    let now = WallTime { unix_ms: now.first().map_or(0, |row| row.get::<_, i64>(0).cast_unsigned()) };
    match ask {
        Ask::List => unreachable!("a list changes nothing"),
        Ask::Add(new) => {
            if let Some(row) = session.query(&ALIKE, &[&region, &new.kind, &new.about]).await?.first() {
                return Ok(Answer::Tasks(vec![task(row)?]));
            }
            let count = session.query(COUNT, &[&region]).await?;
            if count.first().is_some_and(|row| row.get::<_, i64>(0) >= i64::try_from(TASKS_MAX).unwrap_or(i64::MAX)) {
                return Err(Failed::Refused(TaskError::TooMany));
            }
            let NewTask { kind, about, priority } = new;
            let at = now.unix_ms.cast_signed();
            // Another process may have been faster: then its row is the one.
            session.execute(ADD, &[&region, kind, about, &i16::from(*priority), &at]).await?;
            let rows = session.query(&ALIKE, &[&region, kind, about]).await?;
            Ok(Answer::Tasks(rows.iter().map(task).collect::<Result<_, _>>()?))
        }
        Ask::Lease(worker) => {
            let (node, life) = (i64::from(worker.node.0), i64::from(worker.life.0));
            let at = now.unix_ms.cast_signed();
            let own = about(worker.node);
            let rows =
                session.query(&DUE, &[&region, &jobs::kinds(), &at, &node, &life, &jobs::chores(), &own]).await?;
            let Some(row) = rows.first() else { return Ok(Answer::Tasks(Vec::new())) };
            let leased = task(row)?.leased(*worker, now);
            save(session, &leased).await?;
            Ok(Answer::Tasks(vec![leased]))
        }
        Ask::Report(leased, report) => {
            let rows = session.query(&HELD, &[&region, &leased.id.cast_signed()]).await?;
            let held = rows.first().map(task).transpose()?;
            let Some(held) = held.filter(|held| (held.leases, held.state) == (leased.leases, leased.state)) else {
                return Ok(Answer::Kept(false));
            };
            match held.reported(report, now) {
                Some(kept) => save(session, &kept).await?,
                None => drop(session.execute(DROP, &[&leased.id.cast_signed()]).await?),
            }
            Ok(Answer::Kept(true))
        }
        Ask::Order(id, order) => {
            let rows = session.query(&HELD, &[&region, &id.cast_signed()]).await?;
            let Some(row) = rows.first() else { return Err(Failed::Refused(TaskError::NoSuchTask(*id))) };
            let found = task(row)?;
            match found.clone().ordered(*order, now) {
                Some(kept) => {
                    save(session, &kept).await?;
                    Ok(Answer::Tasks(vec![kept]))
                }
                None => {
                    session.execute(DROP, &[&id.cast_signed()]).await?;
                    Ok(Answer::Tasks(vec![found]))
                }
            }
        }
    }
}

async fn save(session: &Session, task: &Task) -> Result<(), SqlError> {
    let (state, worker) = match task.state {
        TaskState::Pending => (PENDING, None),
        TaskState::Running(worker) => (RUNNING, Some(worker)),
        TaskState::Failed => (FAILED, None),
    };
    let node = worker.map(|worker| i64::from(worker.node.0));
    let life = worker.map(|worker| i64::from(worker.life.0));
    let Task { id, attempts, not_before, leases, position, last_error, changed_at, .. } = task;
    session
        .execute(
            SAVE,
            &[
                &id.cast_signed(),
                &state,
                &i32::try_from(*attempts).unwrap_or(i32::MAX),
                &not_before.unix_ms.cast_signed(),
                &leases.cast_signed(),
                &node,
                &life,
                position,
                last_error,
                &changed_at.unix_ms.cast_signed(),
            ],
        )
        .await?;
    Ok(())
}

fn task(row: &Row) -> Result<Task, SqlError> {
    let time = |column| WallTime { unix_ms: row.get::<_, i64>(column).cast_unsigned() };
    let number = |column| u32::try_from(row.get::<_, Option<i64>>(column)?).ok();
    let worker = || Some(Worker { node: NodeId(number(8)?), life: Incarnation(number(9)?) });
    let state = match row.get::<_, i16>(4) {
        PENDING => Some(TaskState::Pending),
        RUNNING => worker().map(TaskState::Running),
        FAILED => Some(TaskState::Failed),
        _ => None,
    };
    let wrong = || {
        let problem = format!("task {} has a state that this program does not know", row.get::<_, i64>(0));
        SqlError::Rows(anvil_node::metadata::rows::RowsError::Inconsistent(problem))
    };
    Ok(Task {
        id: row.get::<_, i64>(0).cast_unsigned(),
        kind: row.get(1),
        about: row.get(2),
        priority: u8::try_from(row.get::<_, i16>(3)).unwrap_or(u8::MAX),
        state: state.ok_or_else(wrong)?,
        attempts: u32::try_from(row.get::<_, i32>(5)).unwrap_or(0),
        not_before: time(6),
        leases: row.get::<_, i64>(7).cast_unsigned(),
        position: row.get(10),
        last_error: row.get(11),
        created_at: time(12),
        changed_at: time(13),
    })
}

const PENDING: i16 = 1;
const RUNNING: i16 = 2;
const FAILED: i16 = 3;

/// A statement that is made once from the list of columns.
type Sql = LazyLock<String>;

const COLUMNS: &str = "id, kind, about, priority, state, attempts, not_before_ms, leases, lease_node, lease_life, position, \
    last_error, created_at_ms, changed_at_ms";
const NOW: &str = "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint";
static LISTED: Sql = LazyLock::new(|| format!("SELECT {COLUMNS} FROM tasks WHERE region = $1 ORDER BY id"));
static ALIKE: Sql =
    LazyLock::new(|| format!("SELECT {COLUMNS} FROM tasks WHERE region = $1 AND kind = $2 AND about = $3"));
const COUNT: &str = "SELECT count(*) FROM tasks WHERE region = $1";
const ADD: &str = "INSERT INTO tasks (region, kind, about, priority, state, attempts, not_before_ms, leases, position, \
    created_at_ms, changed_at_ms) VALUES ($1, $2, $3, $4, 1, 0, $5, 0, '', $5, $5) ON CONFLICT DO NOTHING";
static DUE: Sql = LazyLock::new(|| {
    format!(
        "SELECT {COLUMNS} FROM tasks WHERE region = $1 AND state < 3 AND kind = ANY($2) \
         AND (not_before_ms <= $3 OR (lease_node = $4 AND lease_life < $5)) \
         AND (kind <> ALL($6) OR about = $7) \
         ORDER BY priority, not_before_ms, id LIMIT 1 FOR UPDATE SKIP LOCKED"
    )
});
static HELD: Sql = LazyLock::new(|| format!("SELECT {COLUMNS} FROM tasks WHERE region = $1 AND id = $2 FOR UPDATE"));
const SAVE: &str = "UPDATE tasks SET state = $2, attempts = $3, not_before_ms = $4, leases = $5, lease_node = $6, \
    lease_life = $7, position = $8, last_error = $9, changed_at_ms = $10 WHERE id = $1";
const DROP: &str = "DELETE FROM tasks WHERE id = $1";

/// Every statement of this file, for the test that explains them.
#[cfg(test)]
pub(super) fn statements() -> Vec<(&'static str, &'static str)> {
    named![NOW, LISTED, ALIKE, COUNT, ADD, DUE, HELD, SAVE, DROP]
}
