//! A connection to a database: how it is made, what must hold of it, and what its errors mean for a change.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use anvil_node::metadata::rows::RowsError;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, NoTls, Row, Statement};

use super::address::{Database, Encryption};

/// A connection that was found to be of use.
pub(super) struct Session {
    client: Client,
    /// Prepared once per connection.
    statements: RefCell<BTreeMap<&'static str, Statement>>,
    driver: AbortHandle,
}

/// Why a database is not used. Each text is one sentence.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each says itself what it is")]
pub enum SessionError {
    #[error("the {database} database cannot be reached: {}", told(source))]
    Connect { database: &'static str, source: tokio_postgres::Error },
    #[error("the {database} database did not answer within {time:?}")]
    Late { database: &'static str, time: Duration },
    #[error("the password of the {database} database cannot be read from {source}")]
    Password { database: &'static str, source: std::io::Error },
    #[error("the {database} database cannot be used: {}", told(source))]
    Sql { database: &'static str, source: tokio_postgres::Error },
    #[error("the {database} database takes no writes now: it is a standby, or read-only")]
    ReadOnly { database: &'static str },
    #[error(
        "the {database} database has {setting} off: what it says is kept may be lost in a crash; switch it on for the \
         role and database that Anvil uses"
    )]
    NotDurable { database: &'static str, setting: &'static str },
}

/// Why a statement has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum SqlError {
    #[error("{}", told(.0))]
    Postgres(#[from] tokio_postgres::Error),
    #[error(transparent)]
    Rows(RowsError),
}

/// The database's words with its code: the error alone says "db error".
fn told(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} (SQLSTATE {})", db.message(), db.code().code()),
        None => {
            std::error::Error::source(error).map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
        }
    }
}

/// What an error means for the transaction in which it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Another transaction was in the way: the same once more.
    Again,
    /// A row of it is at fault, or it is too much at once: less at a time.
    Divide,
    /// The connection is of no use any more, or the database.
    Lost,
}

impl SqlError {
    pub(super) fn meaning(&self) -> Meaning {
        let Self::Postgres(error) = self else { return Meaning::Divide };
        let Some(code) = error.code() else {
            // Without a code it is not the database that speaks: the connection, or what was to be sent.
            return if error.is_closed() || source_is_io(error) { Meaning::Lost } else { Meaning::Divide };
        };
        match code {
            &SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED | &SqlState::UNIQUE_VIOLATION => {
                Meaning::Again
            }
            // Connection exceptions, operator intervention (shutdown, crash, not up yet) but for a cancelled statement,
            // too many connections, refused authentication, a database that went to read-only.
            &SqlState::QUERY_CANCELED => Meaning::Divide,
            &SqlState::TOO_MANY_CONNECTIONS | &SqlState::READ_ONLY_SQL_TRANSACTION => Meaning::Lost,
            code if ["08", "28", "57", "58", "XX", "25"].contains(&&code.code()[..2]) => Meaning::Lost,
            _ => Meaning::Divide,
        }
    }

    /// Whether the database itself said so, in an answer to this statement.
    pub(super) fn is_an_answer(&self) -> bool {
        matches!(self, Self::Postgres(error) if error.as_db_error().is_some())
    }
}

fn source_is_io(error: &tokio_postgres::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<std::io::Error>())
}

impl Session {
    /// Connects and looks whether the database keeps what it says and takes writes. `database` has a name for errors.
    pub(super) async fn open(database: &Database) -> Result<Self, SessionError> {
        Self::open_with(database, None).await
    }

    /// The same, and tells `heard` of whatever the database notifies, for who listens to it.
    pub(super) async fn open_listening(database: &Database, heard: Arc<Notify>) -> Result<Self, SessionError> {
        Self::open_with(database, Some(heard)).await
    }

    /// Of several servers it takes the first one that is of use; the error is that of the one asked first.
    async fn open_with(database: &Database, heard: Option<Arc<Notify>>) -> Result<Self, SessionError> {
        let name = database.name();
        // A server that hangs leaves the others their time.
        let time = CONNECT_TIME_MAX / database.server_count();
        let mut first_error = None;
        for (number, server) in database.servers() {
            let opened = tokio::time::timeout(time, async {
                let session = Self::connect(database, server, heard.clone()).await?;
                session.check(name).await?;
                Ok(session)
            });
            match opened.await.unwrap_or(Err(SessionError::Late { database: name, time })) {
                Ok(session) => {
                    database.reached(number);
                    return Ok(session);
                }
                Err(error) => {
                    first_error.get_or_insert(error);
                }
            }
        }
        Err(first_error.expect("a URL names a server"))
    }

    async fn connect(database: &Database, server: &Config, heard: Option<Arc<Notify>>) -> Result<Self, SessionError> {
        let name = database.name();
        let mut server = server.clone();
        if let (Some(file), None) = (database.password_file(), server.get_password()) {
            let password = file.password_for(&server);
            let password = password.map_err(|source| SessionError::Password { database: name, source })?;
            password.map(|password| server.password(password));
        }
        let refused = |source| SessionError::Connect { database: name, source };
        let (client, driver) = match database.encryption() {
            Encryption::Off => {
                let (client, connection) = server.connect(NoTls).await.map_err(refused)?;
                (client, tokio::spawn(drive(connection, heard)).abort_handle())
            }
            Encryption::Tls(tls) => {
                let (client, connection) = server.connect(tls.clone()).await.map_err(refused)?;
                (client, tokio::spawn(drive(connection, heard)).abort_handle())
            }
        };
        Ok(Self { client, statements: RefCell::default(), driver })
    }

    async fn check(&self, database: &'static str) -> Result<(), SessionError> {
        let sql = |source| SessionError::Sql { database, source };
        self.client.batch_execute(SETTINGS).await.map_err(sql)?;
        let row = self.client.query_one(DURABLE, &[]).await.map_err(sql)?;
        let settings = ["fsync", "full_page_writes", "synchronous_commit"];
        if let Some((_, &setting)) =
            settings.iter().enumerate().find(|(column, _)| row.get::<_, &str>(*column) == "off")
        {
            return Err(SessionError::NotDurable { database, setting });
        }
        if row.get::<_, bool>(3) || row.get::<_, &str>(4) == "on" {
            return Err(SessionError::ReadOnly { database });
        }
        Ok(())
    }

    /// For what reads and writes whole tables: statements that are made for them and sent once.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Whether it can be used no more.
    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Makes sure that a statement is prepared, so that what is sent next goes out at once and in order.
    pub(super) async fn prepare(&self, sql: &'static str) -> Result<Statement, SqlError> {
        if let Some(statement) = self.statements.borrow().get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).await?;
        self.statements.borrow_mut().insert(sql, statement.clone());
        Ok(statement)
    }

    pub(super) async fn query(
        &self,
        sql: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, SqlError> {
        let statement = self.prepare(sql).await?;
        Ok(self.client.query(&statement, parameters).await?)
    }

    /// The rows that it changed.
    pub(super) async fn execute(&self, sql: &'static str, parameters: &[&(dyn ToSql + Sync)]) -> Result<u64, SqlError> {
        let statement = self.prepare(sql).await?;
        Ok(self.client.execute(&statement, parameters).await?)
    }

    /// Several statements without parameters.
    pub(super) async fn run(&self, sql: &str) -> Result<(), SqlError> {
        Ok(self.client.batch_execute(sql).await?)
    }
}

/// Moves what comes and goes over a connection until it ends.
async fn drive<S, T>(mut connection: Connection<S, T>, heard: Option<Arc<Notify>>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
        match (message, &heard) {
            (Ok(AsyncMessage::Notification(_)), Some(heard)) => heard.notify_one(),
            (Ok(_), _) => {}
            // Those who wait for an answer hear of it.
            (Err(_), _) => return,
        }
    }
}

impl Drop for Session {
    /// Whatever the connection waits for, it ends now.
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A database that is there answers in milliseconds. All servers of a URL share it, and whoever waits for a connection waits
/// a little longer.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(4);

/// Every statement here finds its rows by an index, also where tables were never analysed and the planner would guess that
/// they are small; a plan that was made once serves all parameters. Nothing waits for ever: neither for a lock nor for a
/// client that went away inside a transaction.
const SETTINGS: &str = "SET application_name = 'anvil'; SET client_min_messages = warning; \
    SET statement_timeout = '15s'; SET lock_timeout = '5s'; SET idle_in_transaction_session_timeout = '20s'; \
    SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; \
    SET enable_bitmapscan = off; SET max_parallel_workers_per_gather = 0; SET jit = off; \
    SET plan_cache_mode = force_generic_plan";
const DURABLE: &str = "SELECT current_setting('fsync'), current_setting('full_page_writes'), \
    current_setting('synchronous_commit'), pg_is_in_recovery(), current_setting('transaction_read_only')";
