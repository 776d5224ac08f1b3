//! Passwords from a file, as libpq reads them (PostgreSQL documentation, "The Password File"): read for each connection, so that
//! a password can change while the node runs.

use std::fs;
use std::io;
use std::path::PathBuf;

use tokio_postgres::Config;
use tokio_postgres::config::Host;

/// A file of lines `host:port:database:user:password`. Knows where it is, and never what is in it.
#[derive(Clone, Debug)]
pub(super) struct PasswordFile(PathBuf);

impl PasswordFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// The password for a server, of the first line that is for it.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn password_for(&self, server: &Config) -> io::Result<Option<String>> {
        let told = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", self.0.display()));
        let text = fs::read_to_string(&self.0).map_err(told)?;
        let host = match server.get_hosts().first() {
            Some(Host::Tcp(name)) => name.clone(),
            // Of a socket that has the usual place it is localhost.
            Some(Host::Unix(path)) => path.display().to_string(),
            None => "localhost".to_owned(),
        };
        let port = server.get_ports().first().unwrap_or(&PORT).to_string();
        let (database, user) = (server.get_dbname().unwrap_or_default(), server.get_user().unwrap_or_default());
        Ok(find(&text, [&host, &port, database, user]))
    }
}

fn find(text: &str, wanted: [&str; 4]) -> Option<String> {
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let (fields, password) = fields(line)?;
        let is_for = |(field, wanted): (&String, &str)| field == "*" || field == wanted;
        fields.iter().zip(wanted).all(is_for).then_some(password)
    })
}

/// Four fields, and the password behind them. A backslash takes the next character as it is.
fn fields(line: &str) -> Option<([String; 4], String)> {
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        let count = fields.len();
        let field = fields.last_mut().expect("one at least");
        match character {
            '\\' => field.extend(characters.next()),
            ':' if count < 5 => fields.push(String::new()),
            other => field.push(other),
        }
    }
    let password = fields.pop()?;
    Some((fields.try_into().ok()?, password))
}

/// Where PostgreSQL listens when nobody says otherwise.
const PORT: u16 = 5432;

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the line is found that libpq would take. Method: a file with each of its peculiarities.
    #[test]
    fn the_first_line_that_is_for_the_server_counts() {
        let text = "# db:5432:r:u:comment\n\nshort:line\ndb:5433:*:u:other port\ndb:*:r\\:x:u:colon\n\
                    db:*:r:u:a\\:b\\\\c:d\n*:*:*:*:any";
        assert_eq!(find(text, ["db", "5432", "r", "u"]).as_deref(), Some("a:b\\c:d"));
        assert_eq!(find(text, ["db", "5433", "r", "u"]).as_deref(), Some("other port"));
        assert_eq!(find(text, ["db", "1", "r:x", "u"]).as_deref(), Some("colon"));
        assert_eq!(find(text, ["else", "1", "r", "v"]).as_deref(), Some("any"));
        assert_eq!(find("db:1:r:u", ["db", "1", "r", "u"]), None);
    }
}
