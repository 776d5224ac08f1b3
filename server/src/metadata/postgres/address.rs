//! Where a database is and how the way there is protected: from the URL that the operator gave.
//!
//! `sslmode` and `sslrootcert` mean what they mean to libpq (PostgreSQL documentation, "SSL Support"): `prefer` and
//! `require` encrypt without asking whom they speak to, `verify-ca` asks for a certificate of the named authority,
//! `verify-full` for one that is also for this host. So does `passfile`. Where the URL names several servers, the one that
//! takes writes is the one that counts.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use percent_encoding::percent_decode_str;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::password_file::PasswordFile;

/// A database, and how it is spoken to. Shows neither user nor password.
#[derive(Clone)]
pub struct Database {
    name: &'static str,
    /// One for each server that the URL names.
    servers: Vec<Config>,
    password_file: Option<PasswordFile>,
    encryption: Encryption,
    reached: Arc<Reached>,
}

/// What the connections to one database know of each other.
#[derive(Debug, Default)]
struct Reached {
    /// The server that was of use last: the next connection asks it first.
    last: AtomicUsize,
    /// Connections that came to be.
    count: AtomicU64,
}

/// How the connection is protected.
#[derive(Clone)]
pub(super) enum Encryption {
    Off,
    Tls(MakeRustlsConnect),
}

/// A URL that does not name a database, without the URL: it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AddressError(String);

impl Database {
    /// Reads `postgres://user:password@host:port/database?sslmode=...&sslrootcert=FILE`. `name` is that of the database
    /// for people: `global` or `regional`.
    ///
    /// # Errors
    /// When it is no such URL, or the file that it names is of no use.
    pub fn parse(name: &'static str, url: &str) -> Result<Self, AddressError> {
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(AddressError("it begins with postgres://".to_owned()));
        }
        let (plain, protection) = Protection::take(url)?;
        let servers: Vec<Config> = each_server(&plain).map(|url| read(&url)).collect::<Result<_, _>>()?;
        if servers.iter().any(|server| server.get_dbname().is_none()) {
            return Err(AddressError(
                "it names the database behind the host, as in postgres://host/database".to_owned(),
            ));
        }
        let protected = |mut server: Config| {
            server.ssl_mode(protection.mode()).tcp_user_timeout(UNHEARD_MAX);
            server.keepalives_idle(KEEPALIVE).keepalives_interval(KEEPALIVE).keepalives_retries(3);
            server
        };
        Ok(Self {
            name,
            servers: servers.into_iter().map(protected).collect(),
            encryption: protection.encryption()?,
            password_file: protection.password_file.map(PasswordFile::new),
            reached: Arc::default(),
        })
    }

    /// What it is called in errors and logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The servers, beginning with the one that was of use last, each with its number.
    pub(super) fn servers(&self) -> impl Iterator<Item = (usize, &Config)> {
        let (count, first) = (self.servers.len(), self.reached.last.load(Ordering::Relaxed));
        (first..first + count).map(move |number| (number % count, &self.servers[number % count]))
    }

    /// How many servers there are, at least one.
    pub(super) fn server_count(&self) -> u32 {
        u32::try_from(self.servers.len()).expect("a URL is short")
    }

    /// Notes that a connection to this server came to be.
    pub(super) fn reached(&self, server: usize) {
        self.reached.last.store(server, Ordering::Relaxed);
        self.reached.count.fetch_add(1, Ordering::Relaxed);
    }

    /// How many connections came to be, of whoever speaks to this database.
    pub(super) fn times_reached(&self) -> u64 {
        self.reached.count.load(Ordering::Relaxed)
    }

    /// Where passwords are that the URL does not have.
    pub(super) fn password_file(&self) -> Option<&PasswordFile> {
        self.password_file.as_ref()
    }

    pub(super) fn encryption(&self) -> &Encryption {
        &self.encryption
    }

    /// Where it is, for people: hosts and database, never user or password.
    #[must_use]
    pub fn place(&self) -> String {
        let hosts = self.servers.iter().flat_map(Config::get_hosts).map(|host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        });
        let hosts: Vec<String> = hosts.collect();
        let database = self.servers.first().and_then(Config::get_dbname);
        format!("{} on {}", database.unwrap_or_default(), hosts.join(", "))
    }
}

fn read(url: &str) -> Result<Config, AddressError> {
    url.parse().map_err(|error: tokio_postgres::Error| {
        let reason = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        AddressError(format!("it is not a URL of PostgreSQL ({reason})"))
    })
}

/// The same URL for each of the servers that it names, `host:port,host:port`.
fn each_server(url: &str) -> impl Iterator<Item = String> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("postgres", url));
    let (user, rest) = rest.split_once('@').map_or(("", rest), |(user, rest)| (user, rest));
    let (hosts, tail) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let at = if user.is_empty() { "" } else { "@" };
    hosts.split(',').map(move |host| format!("{scheme}://{user}{at}{host}{tail}"))
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Database({}, {})", self.name, self.place())
    }
}

/// `sslmode`, `sslrootcert` and `passfile`, which the client library does not know wholly.
#[derive(Debug)]
struct Protection {
    mode: Mode,
    root: Option<PathBuf>,
    password_file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl Protection {
    /// Takes them out of a URL.
    fn take(url: &str) -> Result<(String, Self), AddressError> {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut mode, mut root, mut password_file, mut rest) = (Mode::Prefer, None, None, Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decode_str(value).decode_utf8_lossy();
            match key {
                "sslmode" => {
                    mode = match &*value {
                        "disable" => Mode::Disable,
                        "prefer" => Mode::Prefer,
                        "require" => Mode::Require,
                        "verify-ca" => Mode::VerifyCa,
                        "verify-full" => Mode::VerifyFull,
                        other => {
                            let takes = "sslmode is disable, prefer, require, verify-ca or verify-full";
                            return Err(AddressError(format!("{takes}, not {other:?}")));
                        }
                    }
                }
                "sslrootcert" => root = Some(PathBuf::from(&*value)),
                "passfile" => password_file = Some(PathBuf::from(&*value)),
                _ => rest.push(pair),
            }
        }
        let plain = if rest.is_empty() { base.to_owned() } else { format!("{base}?{}", rest.join("&")) };
        Ok((plain, Self { mode, root, password_file }))
    }

    fn mode(&self) -> SslMode {
        match self.mode {
            Mode::Disable => SslMode::Disable,
            Mode::Prefer => SslMode::Prefer,
            Mode::Require | Mode::VerifyCa | Mode::VerifyFull => SslMode::Require,
        }
    }

    fn encryption(&self) -> Result<Encryption, AddressError> {
        let provider = Arc::new(ring::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = match (self.mode, &self.root) {
            (Mode::Disable, _) => return Ok(Encryption::Off),
            (Mode::Prefer | Mode::Require, None) => Arc::new(Unverified(provider.clone())),
            (Mode::VerifyCa | Mode::VerifyFull, None) => {
                let sentence =
                    "sslmode verify-ca and verify-full take sslrootcert=FILE, the certificate of the authority";
                return Err(AddressError(sentence.to_owned()));
            }
            // With an authority at hand, require asks for it too, as libpq does.
            (mode, Some(file)) => {
                let roots = Arc::new(read_roots(file)?);
                let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build();
                let inner = verifier.map_err(|error| AddressError(format!("sslrootcert cannot be used: {error}")))?;
                if mode == Mode::VerifyFull { inner } else { Arc::new(AnyName(inner)) }
            }
        };
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .expect("ring speaks both")
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Ok(Encryption::Tls(MakeRustlsConnect::new(config)))
    }
}

fn read_roots(file: &Path) -> Result<RootCertStore, AddressError> {
    let wrong = |reason: String| AddressError(format!("sslrootcert names {}, {reason}", file.display()));
    let mut roots = RootCertStore::empty();
    let certificates =
        CertificateDer::pem_file_iter(file).map_err(|error| wrong(format!("which cannot be read: {error}")))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| wrong(format!("which is not well-formed PEM: {error}")))?;
        roots.add(certificate).map_err(|error| wrong(format!("which holds an unusable certificate: {error}")))?;
    }
    if roots.is_empty() { Err(wrong("which holds no certificate".to_owned())) } else { Ok(roots) }
}

/// Takes every certificate: the operator asked for encryption only.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Takes a certificate of the authority whatever host it is for.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.0.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            // The name is looked at last, when the chain was found good.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// A peer that acknowledges nothing for so long is gone.
const UNHEARD_MAX: Duration = Duration::from_secs(10);
const KEEPALIVE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_and_never_shown() {
        let database =
            Database::parse("regional", "postgres://u:pa55word@db:5433/r?sslmode=disable&application_name=x");
        let database = database.unwrap();
        assert!(matches!(database.encryption, Encryption::Off));
        assert_eq!((database.place().as_str(), database.servers[0].get_ports()), ("r on db", &[5433][..]));
        assert!(!format!("{database:?}").contains("pa55word"));
        let tls = Database::parse("global", "postgresql://db/g?sslmode=require").unwrap();
        assert!(matches!(tls.encryption, Encryption::Tls(_)) && tls.servers[0].get_ssl_mode() == SslMode::Require);
    }

    /// Goal: a connection asks the servers in turn, first the one that was of use last.
    #[test]
    fn several_servers_are_asked_in_turn() {
        let url = "postgres://u:p%40ss@one,two:5433,[::1]:5434/r?passfile=%2Fp%3A1&sslmode=disable";
        let database = Database::parse("regional", url).unwrap();
        let order = || -> Vec<usize> { database.servers().map(|(number, _)| number).collect() };
        assert_eq!((database.place().as_str(), order()), ("r on one, two, ::1", vec![0, 1, 2]));
        for (_, server) in database.servers() {
            assert_eq!((server.get_hosts().len(), server.get_password()), (1, Some(&b"p@ss"[..])));
        }
        database.clone().reached(1);
        assert_eq!((order(), database.times_reached()), (vec![1, 2, 0], 1));
    }

    /// Each wrong one is one sentence, and none shows the password.
    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        for (url, expected) in [
            ("mysql://u:pa55word@h/d", "begins with postgres://"),
            ("host=h password=pa55word", "begins with postgres://"),
            ("postgres://u:pa55word@h", "names the database"),
            ("postgres://u:pa55word@h:x/d", "not a URL"),
            ("postgres://u:pa55word@h/d?sslmode=maybe", "\"maybe\""),
            ("postgres://u:pa55word@h/d?sslmode=verify-full", "sslrootcert=FILE"),
            ("postgres://u:pa55word@h/d?sslmode=verify-ca&sslrootcert=/nowhere.pem", "/nowhere.pem"),
            ("postgres://u:pa55word@h/d?nonsense=1", "not a URL"),
        ] {
            let error = Database::parse("global", url).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("pa55word"), "{url}: {error}");
        }
    }
}
