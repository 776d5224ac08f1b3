//! The migrations of both databases: which have run, what runs them, and on which schema a program serves.
//!
//! A schema says of each of its migrations how many a program must know to serve on it, a program how many it needs. So
//! version N of a program serves on the schema of N+1 for as long as N+1 says that it may, and the other way round.

use std::fmt::Write as _;

use anvil_digest::sha256;
use tokio_postgres::Row;

use super::address::Database;
use super::session::{Session, SessionError, SqlError};

/// One file of `migrations/`.
#[derive(Clone, Copy, Debug)]
struct Migration {
    name: &'static str,
    sql: &'static str,
    /// How many migrations a program must know to serve on a schema with this one.
    needs: i32,
}

/// The schema of one database, as this program knows it.
#[derive(Clone, Copy, Debug)]
pub struct Schema {
    /// What the database is called.
    database: &'static str,
    migrations: &'static [Migration],
    /// How many must have run for this program to serve.
    serves_from: usize,
}

/// What regions share.
pub const GLOBAL: Schema = Schema {
    database: "global",
    migrations: &[
        Migration { name: "0001_first", sql: include_str!("../../../../migrations/global/0001_first.sql"), needs: 1 },
        Migration { name: "0002_access", sql: include_str!("../../../../migrations/global/0002_access.sql"), needs: 1 },
        Migration { name: "0003_users", sql: include_str!("../../../../migrations/global/0003_users.sql"), needs: 1 },
        Migration { name: "0004_tasks", sql: include_str!("../../../../migrations/global/0004_tasks.sql"), needs: 1 },
        Migration { name: "0005_tokens", sql: include_str!("../../../../migrations/global/0005_tokens.sql"), needs: 1 },
        Migration {
            name: "0006_bucket_names",
            sql: include_str!("../../../../migrations/global/0006_bucket_names.sql"),
            needs: 1,
        },
    ],
    serves_from: 6,
};

/// What is stored in a region.
pub const REGIONAL: Schema = Schema {
    database: "regional",
    migrations: &[
        Migration { name: "0001_first", sql: include_str!("../../../../migrations/regional/0001_first.sql"), needs: 1 },
        Migration {
            name: "0002_parts_of_versions",
            sql: include_str!("../../../../migrations/regional/0002_parts_of_versions.sql"),
            needs: 1,
        },
        // A program that does not know it adds nothing up: the next start of one that does counts anew.
        Migration { name: "0003_usage", sql: include_str!("../../../../migrations/regional/0003_usage.sql"), needs: 1 },
    ],
    serves_from: 3,
};

/// Why a schema is not served on, or not migrated. Each text is one sentence.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each says itself what it is")]
pub enum SchemaError {
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(
        "the {database} database has no schema of Anvil's yet: run `anvil migrate up`, or start with --init-cluster"
    )]
    Empty { database: &'static str },
    #[error(
        "the {database} database has schema {found} and this program serves from {wanted} on: run `anvil migrate up` of this \
         version first"
    )]
    TooOld { database: &'static str, found: usize, wanted: usize },
    #[error(
        "the {database} database has schema {found}, which takes a program that knows {needs} migrations, and this one knows \
         {known}: start the newer version"
    )]
    TooNew { database: &'static str, found: usize, needs: i32, known: usize },
    #[error(
        "migration {name} of the {database} database ran with another text than this program has: it was made by a \
         changed program; start the one that made it"
    )]
    Changed { database: &'static str, name: String },
    #[error("migration {name} of the {database} database failed and changed nothing: {reason}")]
    Failed { database: &'static str, name: &'static str, reason: String },
    #[error("the {database} database cannot be asked for its schema: {reason}")]
    Asking { database: &'static str, reason: String },
}

/// A migration that has run.
#[derive(Clone, Debug)]
struct Applied {
    name: String,
    sha256: Vec<u8>,
    needs: i32,
    at: String,
}

/// What has run of a schema, and what has not.
#[derive(Debug)]
pub struct Status {
    schema: Schema,
    applied: Vec<Applied>,
}

impl Status {
    /// Asks a database.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn of(database: &Database, schema: Schema) -> Result<Self, SchemaError> {
        let session = Session::open(database).await?;
        Self::read(&session, schema).await
    }

    pub(super) async fn read(session: &Session, schema: Schema) -> Result<Self, SchemaError> {
        let asking = |error: SqlError| SchemaError::Asking { database: schema.database, reason: error.to_string() };
        let there = session.query(IS_THERE, &[]).await.map_err(asking)?;
        if !there.first().is_some_and(|row| row.get::<_, bool>(0)) {
            return Ok(Self { schema, applied: Vec::new() });
        }
        let rows = session.query(APPLIED, &[]).await.map_err(asking)?;
        let applied = |row: &Row| Applied { name: row.get(0), sha256: row.get(1), needs: row.get(2), at: row.get(3) };
        Ok(Self { schema, applied: rows.iter().map(applied).collect() })
    }

    /// Whether this program may serve on it.
    ///
    /// # Errors
    /// When it may not: with what to do.
    pub fn check(&self) -> Result<(), SchemaError> {
        let Schema { database, migrations, serves_from } = self.schema;
        if self.applied.is_empty() {
            return Err(SchemaError::Empty { database });
        }
        self.check_texts()?;
        let (found, known) = (self.applied.len(), migrations.len());
        let needs = self.applied.iter().map(|applied| applied.needs).max().unwrap_or(0);
        if usize::try_from(needs).is_ok_and(|needs| needs > known) {
            return Err(SchemaError::TooNew { database, found, needs, known });
        }
        if found < serves_from {
            return Err(SchemaError::TooOld { database, found, wanted: serves_from });
        }
        Ok(())
    }

    /// What ran is what this program would have run, as far as it knows it.
    fn check_texts(&self) -> Result<(), SchemaError> {
        let database = self.schema.database;
        for (applied, known) in self.applied.iter().zip(self.schema.migrations) {
            if applied.name != known.name || applied.sha256 != sha256(known.sql.as_bytes()) {
                return Err(SchemaError::Changed { database, name: applied.name.clone() });
            }
        }
        Ok(())
    }

    /// How many have not run yet.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.schema.migrations.len().saturating_sub(self.applied.len())
    }

    /// A line for each migration, for people.
    #[must_use]
    pub fn lines(&self) -> String {
        let mut lines = String::new();
        let database = self.schema.database;
        for applied in &self.applied {
            writeln!(lines, "{database:<9} {:<24} applied {}", applied.name, applied.at).expect("a String grows");
        }
        for pending in self.schema.migrations.iter().skip(self.applied.len()) {
            writeln!(lines, "{database:<9} {:<24} pending", pending.name).expect("a String grows");
        }
        lines
    }
}

/// Runs what has not run yet, each in a transaction, one program at a time. Gives how many that were.
///
/// # Errors
/// When one fails: those before it stay, it changed nothing.
pub async fn migrate(database: &Database, schema: Schema) -> Result<usize, SchemaError> {
    let session = Session::open(database).await?;
    let asking = |error: SqlError| SchemaError::Asking { database: schema.database, reason: error.to_string() };
    // Migrations take the time that they take; they wait for no lock for long, because those behind them would too.
    session.run("SET statement_timeout = 0; SET lock_timeout = 0").await.map_err(asking)?;
    session.query(LOCK, &[]).await.map_err(asking)?;
    session.run("SET lock_timeout = '10s'").await.map_err(asking)?;
    session.run(TABLE).await.map_err(asking)?;
    let status = Status::read(&session, schema).await?;
    status.check_texts()?;
    let pending = schema.migrations.iter().enumerate().skip(status.applied.len());
    let mut count = 0;
    for (index, migration) in pending {
        run(&session, index + 1, migration).await.map_err(|error| SchemaError::Failed {
            database: schema.database,
            name: migration.name,
            reason: error.to_string(),
        })?;
        tracing::info!(database = schema.database, migration = migration.name, "migrated");
        count += 1;
    }
    // The lock ends with the connection.
    Ok(count)
}

async fn run(session: &Session, number: usize, migration: &Migration) -> Result<(), SqlError> {
    session.run("BEGIN").await?;
    let number = i32::try_from(number).expect("migrations are few");
    let hash = sha256(migration.sql.as_bytes()).to_vec();
    let ran = async {
        session.run(migration.sql).await?;
        session.execute(NOTE, &[&number, &migration.name, &hash, &migration.needs]).await?;
        session.run("COMMIT").await
    };
    let ran = ran.await;
    if ran.is_err() {
        // Without a connection there is nothing to roll back.
        let _ = session.run("ROLLBACK").await;
    }
    ran
}

const TABLE: &str = "CREATE TABLE IF NOT EXISTS schema_migrations (\
    number integer NOT NULL PRIMARY KEY, name text NOT NULL, sha256 bytea NOT NULL, needs integer NOT NULL, \
    applied_at timestamptz NOT NULL DEFAULT now())";
/// Any number that nobody else takes: `anvil` in letters.
const LOCK: &str = "SELECT pg_advisory_lock(418565188972)";
const IS_THERE: &str = "SELECT to_regclass('schema_migrations') IS NOT NULL";
const APPLIED: &str = "SELECT name, sha256, needs, to_char(applied_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') \
                       FROM schema_migrations ORDER BY number";
const NOTE: &str = "INSERT INTO schema_migrations (number, name, sha256, needs) VALUES ($1, $2, $3, $4)";

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: Schema = Schema {
        database: "regional",
        migrations: &[
            Migration { name: "0001_a", sql: "a", needs: 1 },
            Migration { name: "0002_b", sql: "b", needs: 1 },
        ],
        serves_from: 2,
    };

    fn status(applied: &[(&str, &str, i32)]) -> Status {
        let applied = applied.iter().map(|&(name, sql, needs)| Applied {
            name: name.to_owned(),
            sha256: sha256(sql.as_bytes()).to_vec(),
            needs,
            at: String::new(),
        });
        Status { schema: TWO, applied: applied.collect() }
    }

    /// Goal: a program serves exactly on the schemas that both agree on. Method: each case and its sentence.
    #[test]
    fn a_schema_is_served_on_or_refused_with_a_sentence() {
        let (a, b) = (("0001_a", "a", 1), ("0002_b", "b", 1));
        for (applied, refused) in [
            (vec![], Some("no schema")),
            (vec![a], Some("migrate up")),
            (vec![a, b], None),
            (vec![a, b, ("0003_c", "c", 2)], None),
            (vec![a, b, ("0003_c", "c", 3)], Some("newer version")),
            (vec![a, ("0002_b", "other", 1)], Some("another text")),
            (vec![("0001_z", "a", 1)], Some("another text")),
        ] {
            let checked = status(&applied).check().map_err(|error| error.to_string());
            match refused {
                None => assert_eq!(checked, Ok(()), "{applied:?}"),
                Some(part) => {
                    assert!(checked.as_ref().is_err_and(|said| said.contains(part)), "{applied:?}: {checked:?}")
                }
            }
        }
        let status = status(&[a]);
        assert_eq!(status.pending(), 1);
        assert!(status.lines().lines().last().is_some_and(|line| line.contains("0002_b") && line.ends_with("pending")));
    }
}
