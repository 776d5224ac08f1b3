//! All rows of an index that no node uses, table by table, as SQLite has them: to compare two, and to write them out.
//!
//! Knows no column by name, so that a migration needs nothing here: tables and keys are what the schema says.

use std::cmp::Ordering;
use std::fmt;
use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Row, Rows};

/// An index, opened for reading.
pub(crate) struct Tables {
    connection: Connection,
}

/// A table, as the schema has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) columns: Vec<String>,
    /// The columns that tell its rows apart, by their places, in the order of the key.
    key: Vec<usize>,
}

/// What a column of a row holds. Ordered as SQLite orders them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Value {
    Null,
    Integer(i64),
    Text(String),
    Bytes(Vec<u8>),
}

/// How many rows of a table there are, and how many differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Compared {
    pub(crate) table: String,
    pub(crate) old_rows: u64,
    pub(crate) new_rows: u64,
    pub(crate) differences: u64,
}

/// A row that is not the same in two indexes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) table: String,
    /// `column value` of each column of the key.
    pub(crate) row: String,
    pub(crate) what: What,
}

/// How a row differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    OnlyOld,
    OnlyNew,
    /// The columns that differ, with the value of each index.
    Columns(Vec<(String, Value, Value)>),
}

impl Tables {
    /// Opens an index that nobody writes to.
    pub(crate) fn open(path: &Path) -> rusqlite::Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Ok(Self { connection: Connection::open_with_flags(path, flags)? })
    }

    /// Writes all that is in it to a new file.
    pub(crate) fn copy_to(&self, path: &Path) -> rusqlite::Result<()> {
        let path = path.to_str().ok_or_else(|| rusqlite::Error::InvalidPath(path.to_owned()))?;
        self.connection.execute("VACUUM INTO ?1", [path]).map(drop)
    }

    /// The tables by their names.
    pub(crate) fn list(&self) -> rusqlite::Result<Vec<Table>> {
        let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name";
        let mut statement = self.connection.prepare(sql)?;
        let names = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
        names.into_iter().map(|name| self.table(name)).collect()
    }

    fn table(&self, name: String) -> rusqlite::Result<Table> {
        let mut statement = self.connection.prepare("SELECT name, pk FROM pragma_table_info(?1) ORDER BY cid")?;
        let columns: Vec<(String, i64)> =
            statement.query_map([&name], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
        let mut key: Vec<_> =
            columns.iter().enumerate().filter(|(_, (_, pk))| *pk > 0).map(|(at, (_, pk))| (*pk, at)).collect();
        key.sort_unstable();
        let key = key.into_iter().map(|(_, at)| at).collect();
        Ok(Table { name, columns: columns.into_iter().map(|(name, _)| name).collect(), key })
    }

    /// How many rows a table has.
    pub(crate) fn count(&self, table: &Table) -> rusqlite::Result<u64> {
        let sql = format!("SELECT count(*) FROM \"{}\"", table.name);
        self.connection.query_row(&sql, [], |row| row.get::<_, i64>(0).map(i64::cast_unsigned))
    }

    /// The generation that the next change is given.
    pub(crate) fn next_generation(&self) -> rusqlite::Result<i64> {
        self.connection.query_row("SELECT generation FROM counters", [], |row| row.get(0))
    }

    /// The last write that is remembered: its generation and its id.
    pub(crate) fn last_write(&self) -> rusqlite::Result<Option<(i64, Vec<u8>)>> {
        let sql = "SELECT generation, write_id FROM writes ORDER BY generation DESC LIMIT 1";
        let mut statement = self.connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        rows.next()?.map(|row| Ok((row.get(0)?, row.get(1)?))).transpose()
    }

    /// Calls `visit` for each row of a table, in the order of its key, until that fails.
    pub(crate) fn each<E: From<rusqlite::Error>>(
        &self,
        table: &Table,
        mut visit: impl FnMut(&[Value]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut statement = self.connection.prepare(&table.select())?;
        let mut rows = statement.query([])?;
        while let Some(row) = table.next(&mut rows)? {
            visit(&row)?;
        }
        Ok(())
    }
}

/// Compares all rows of two indexes with one schema. Tells every row that differs, in the order of tables and keys, and
/// gives the counts by table; `None` when `go_on` said no.
pub(crate) fn compare(
    old: &Tables,
    new: &Tables,
    mut tell: impl FnMut(Difference),
    mut go_on: impl FnMut() -> bool,
) -> rusqlite::Result<Option<Vec<Compared>>> {
    let mut all = Vec::new();
    for table in new.list()? {
        let mut compared = Compared { table: table.name.clone(), ..Compared::default() };
        let (mut of_old, mut of_new) =
            (old.connection.prepare(&table.select())?, new.connection.prepare(&table.select())?);
        let (mut old_rows, mut new_rows) = (of_old.query([])?, of_new.query([])?);
        let (mut left, mut right) = (table.next(&mut old_rows)?, table.next(&mut new_rows)?);
        while left.is_some() || right.is_some() {
            if !go_on() {
                return Ok(None);
            }
            let order = compared.step(&table, &mut left, &mut right, &mut tell);
            if order.is_le() {
                left = table.next(&mut old_rows)?;
            }
            if order.is_ge() {
                right = table.next(&mut new_rows)?;
            }
        }
        all.push(compared);
    }
    Ok(Some(all))
}

impl Compared {
    /// Compares the row whose key comes first with that of the other side, if that has one, takes what was compared out of
    /// its place and tells how they differ. Says where the next row is to be read: below or equal, on the old side; above
    /// or equal, on the new one.
    pub(crate) fn step(
        &mut self,
        table: &Table,
        old: &mut Option<Vec<Value>>,
        new: &mut Option<Vec<Value>>,
        mut tell: impl FnMut(Difference),
    ) -> Ordering {
        let order = match (&*old, &*new) {
            (Some(old), Some(new)) => table.key_of(old).cmp(table.key_of(new)),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        let one = if order.is_le() { old.take() } else { None };
        let other = if order.is_ge() { new.take() } else { None };
        self.old_rows += u64::from(one.is_some());
        self.new_rows += u64::from(other.is_some());
        if let Some(difference) = table.difference(one.as_deref(), other.as_deref()) {
            self.differences += 1;
            tell(difference);
        }
        order
    }
}

impl Table {
    /// The statement for all of its rows, in the order of its key; a database with these columns takes it too.
    pub(crate) fn select(&self) -> String {
        let columns = self.quoted_columns();
        let key: Vec<_> = self.key.iter().map(|&at| columns[at].clone()).collect();
        format!("SELECT {} FROM \"{}\" ORDER BY {}", columns.join(", "), self.name, key.join(", "))
    }

    /// The names of its columns as SQL has them.
    pub(crate) fn quoted_columns(&self) -> Vec<String> {
        self.columns.iter().map(|name| format!("\"{name}\"")).collect()
    }

    fn next(&self, rows: &mut Rows<'_>) -> rusqlite::Result<Option<Vec<Value>>> {
        let Some(row) = rows.next()? else { return Ok(None) };
        (0..self.columns.len()).map(|at| Value::of(row, at)).collect::<rusqlite::Result<_>>().map(Some)
    }

    /// What tells a row apart from others.
    fn key_of<'r>(&self, row: &'r [Value]) -> impl Iterator<Item = &'r Value> {
        self.key.iter().map(|&at| &row[at])
    }

    /// How two rows of one key differ, if they do.
    fn difference(&self, old: Option<&[Value]>, new: Option<&[Value]>) -> Option<Difference> {
        let (row, what) = match (old, new) {
            (Some(old), Some(new)) => {
                let both = self.columns.iter().zip(old.iter().zip(new));
                let differ = both.filter(|(_, (old, new))| old != new);
                let columns: Vec<_> =
                    differ.map(|(name, (old, new))| (name.clone(), old.clone(), new.clone())).collect();
                (old, What::Columns(columns).filled()?)
            }
            (Some(old), None) => (old, What::OnlyOld),
            (None, Some(new)) => (new, What::OnlyNew),
            (None, None) => return None,
        };
        let named: Vec<_> = self.key.iter().map(|&at| format!("{} {}", self.columns[at], row[at])).collect();
        Some(Difference { table: self.name.clone(), row: named.join(", "), what })
    }
}

impl What {
    fn filled(self) -> Option<Self> {
        if let Self::Columns(columns) = &self
            && columns.is_empty()
        {
            None
        } else {
            Some(self)
        }
    }
}

impl Value {
    fn of(row: &Row<'_>, at: usize) -> rusqlite::Result<Self> {
        Ok(match row.get_ref(at)? {
            ValueRef::Null => Self::Null,
            ValueRef::Integer(number) => Self::Integer(number),
            // No table has any.
            ValueRef::Real(number) => Self::Text(number.to_string()),
            ValueRef::Text(text) => Self::Text(String::from_utf8_lossy(text).into_owned()),
            ValueRef::Blob(bytes) => Self::Bytes(bytes.to_vec()),
        })
    }

    /// Numbers and text as they are; bytes as text where they are an object's key, which is text, and else in hexadecimal.
    pub(crate) fn to_json(&self, column: &str) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Integer(number) => (*number).into(),
            Self::Text(text) => text.clone().into(),
            Self::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) if column == KEY => text.into(),
                _ => hex(bytes).into(),
            },
        }
    }
}

/// The column of objects' keys.
const KEY: &str = "key";
/// Bytes of a value that are shown, at most.
const SHOWN_BYTES: usize = 48;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = |text: &str| match text.char_indices().nth(SHOWN_BYTES) {
            Some((at, _)) => format!("{:?}...", &text[..at]),
            None => format!("{text:?}"),
        };
        match self {
            Self::Null => f.write_str("nothing"),
            Self::Integer(number) => number.fmt(f),
            Self::Text(text) => f.write_str(&short(text)),
            Self::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) if !text.is_empty() && !text.contains(char::is_control) => f.write_str(&short(text)),
                _ if bytes.len() > SHOWN_BYTES => write!(f, "0x{}...", hex(&bytes[..SHOWN_BYTES])),
                _ => write!(f, "0x{}", hex(bytes)),
            },
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, row, what } = self;
        write!(f, "{table}, {row}: ")?;
        match what {
            What::OnlyOld => f.write_str("only the old index has it"),
            What::OnlyNew => f.write_str("only the log has it"),
            What::Columns(columns) => {
                let each = |(name, old, new): &(String, Value, Value)| format!("{name} is {old} and by the log {new}");
                f.write_str(&columns.iter().map(each).collect::<Vec<_>>().join("; "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(directory: &Path, name: &str, rows: &[(&[u8], i64, Option<&str>)]) -> Tables {
        let path = directory.join(name);
        let connection = Connection::open(&path).unwrap();
        connection
            .execute_batch(
                "CREATE TABLE heads (bucket INTEGER NOT NULL, key BLOB NOT NULL, size INTEGER, etag TEXT, \
                 PRIMARY KEY (key, bucket)) STRICT, WITHOUT ROWID; CREATE TABLE empty (a INTEGER PRIMARY KEY)",
            )
            .unwrap();
        for (key, size, etag) in rows {
            let sql = "INSERT INTO heads (bucket, key, size, etag) VALUES (1, ?1, ?2, ?3)";
            connection.execute(sql, rusqlite::params![key, size, etag]).unwrap();
        }
        Tables::open(&path).unwrap()
    }

    /// Goal: each row that differs is told once and in words, and no other. Method: two small files that differ in all
    /// ways that there are.
    #[test]
    fn every_difference_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let old =
            index(directory.path(), "a", &[(b"a", 1, None), (b"b", 2, Some("x")), (b"d", 4, None), (b"e", 5, None)]);
        let new = index(
            directory.path(),
            "b",
            &[(b"b", 2, Some("y")), (b"c", 3, None), (b"d", 4, None), (b"e", 6, Some("z"))],
        );
        let mut told = Vec::new();
        let compared = compare(&old, &new, |difference| told.push(difference.to_string()), || true).unwrap().unwrap();
        assert_eq!(
            told,
            [
                "heads, key \"a\", bucket 1: only the old index has it",
                "heads, key \"b\", bucket 1: etag is \"x\" and by the log \"y\"",
                "heads, key \"c\", bucket 1: only the log has it",
                "heads, key \"e\", bucket 1: size is 5 and by the log 6; etag is nothing and by the log \"z\"",
            ]
        );
        let counts: Vec<_> =
            compared.iter().map(|c| (c.table.as_str(), c.old_rows, c.new_rows, c.differences)).collect();
        assert_eq!(counts, [("empty", 0, 0, 0), ("heads", 4, 4, 4)]);
        assert_eq!(compare(&old, &new, drop, || false).unwrap(), None);
        let copy = directory.path().join("copy");
        old.copy_to(&copy).unwrap();
        let compared = compare(&old, &Tables::open(&copy).unwrap(), |d| panic!("{d}"), || true).unwrap().unwrap();
        assert!(compared.iter().all(|compared| compared.differences == 0));
    }
}
