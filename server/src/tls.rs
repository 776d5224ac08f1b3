//! Certificates: from the operator's files to what a TLS handshake needs.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The names of the protocols in the handshake (RFC 7301; RFC 9113, 3.2).
pub(crate) const ALPN_HTTP2: &[u8] = b"h2";
const ALPN_HTTP1: &[u8] = b"http/1.1";

/// The files that the operator named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, and behind it those that lead to its root, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
}

/// What connections are told about who this is. Shared by all cores; may change while they run.
#[derive(Debug)]
pub struct Tls {
    files: CertificateFiles,
    /// Connections without TLS are refused.
    only: bool,
    config: Mutex<Arc<ServerConfig>>,
}

/// Why the files are of no use. Each text is one sentence.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each says itself what it is")]
pub enum TlsError {
    #[error("cannot read {path}, which --tls-cert or --tls-key names: {source}")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{path} holds no {what} in PEM: {hint}")]
    Empty { path: PathBuf, what: &'static str, hint: &'static str },
    #[error("{path} is not well-formed PEM: {reason}")]
    Malformed { path: PathBuf, reason: String },
    #[error("the key in {key} does not belong to the first certificate in {certificate}")]
    Mismatch { certificate: PathBuf, key: PathBuf },
    #[error("the certificate in {certificate} with the key in {key} cannot be used: {source}")]
    Unusable { certificate: PathBuf, key: PathBuf, source: rustls::Error },
}

impl Tls {
    /// Reads the files. With `only`, connections without TLS will be refused.
    ///
    /// # Errors
    /// When they are of no use.
    pub fn open(files: CertificateFiles, only: bool) -> Result<Self, TlsError> {
        let config = Mutex::new(read(&files)?);
        Ok(Self { files, only, config })
    }

    /// Reads the files again; handshakes from now on use what they hold.
    ///
    /// # Errors
    /// When they are of no use; then everything stays as it was.
    pub fn reload(&self) -> Result<(), TlsError> {
        let config = read(&self.files)?;
        *self.config.lock().expect("nobody panics with it") = config;
        Ok(())
    }

    /// Connections without TLS are refused.
    pub(crate) fn is_only(&self) -> bool {
        self.only
    }

    /// For the next handshake.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config.lock().expect("nobody panics with it"))
    }
}

fn read(files: &CertificateFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let CertificateFiles { certificate, key } = files;
    let text = read_file(certificate)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let chain = chain.map_err(|error| malformed(certificate, &error))?;
    if chain.is_empty() {
        let hint = "it takes one that begins with -----BEGIN CERTIFICATE-----";
        return Err(TlsError::Empty { path: certificate.clone(), what: "certificate", hint });
    }
    let secret = PrivateKeyDer::from_pem_slice(&read_file(key)?).map_err(|error| match error {
        pem::Error::NoItemsFound => {
            let hint = "it takes one that begins with -----BEGIN PRIVATE KEY-----, without a passphrase";
            TlsError::Empty { path: key.clone(), what: "private key", hint }
        }
        error => malformed(key, &error),
    })?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .expect("ring speaks both")
        .with_no_client_auth()
        .with_single_cert(chain, secret);
    let mut config = config.map_err(|source| match source {
        rustls::Error::InconsistentKeys(_) => TlsError::Mismatch { certificate: certificate.clone(), key: key.clone() },
        source => TlsError::Unusable { certificate: certificate.clone(), key: key.clone(), source },
    })?;
    config.alpn_protocols = vec![ALPN_HTTP2.to_vec(), ALPN_HTTP1.to_vec()];
    Ok(Arc::new(config))
}

fn read_file(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Unreadable { path: path.to_owned(), source })
}

fn malformed(path: &Path, error: &pem::Error) -> TlsError {
    TlsError::Malformed { path: path.to_owned(), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// An operator who mixes the files up, or forgets one, is told which in one sentence; and a change of the files
    /// counts once they are read again, unless it is a bad one.
    #[test]
    fn files_are_of_use_or_one_sentence_says_why_not() {
        let directory = tempfile::tempdir().unwrap();
        let made = || rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (one, other) = (made(), made());
        let certificate = write(directory.path(), "cert.pem", &one.cert.pem());
        let key = write(directory.path(), "key.pem", &one.signing_key.serialize_pem());
        let stranger = write(directory.path(), "stranger.pem", &other.signing_key.serialize_pem());
        let noise = write(directory.path(), "noise.pem", "no PEM at all\n");
        let cut = write(directory.path(), "cut.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n");
        let open = |certificate: &Path, key: &Path| {
            let files = CertificateFiles { certificate: certificate.to_owned(), key: key.to_owned() };
            Tls::open(files, false).map_err(|error| error.to_string())
        };
        for (certificate, key, says) in [
            (&noise, &key, "noise.pem holds no certificate in PEM"),
            (&certificate, &certificate, "cert.pem holds no private key in PEM"),
            (&certificate, &stranger, "stranger.pem does not belong to the first certificate in"),
            (&cut, &key, "cut.pem is not well-formed PEM"),
            (&directory.path().join("absent"), &key, "absent, which --tls-cert or --tls-key names: No such file"),
        ] {
            let sentence = open(certificate, key).unwrap_err();
            assert!(sentence.contains(says) && !sentence.contains('\n'), "{sentence}");
        }

        let tls = open(&certificate, &key).unwrap();
        let first = tls.config();
        write(directory.path(), "cert.pem", "no PEM at all\n");
        assert!(tls.reload().is_err() && Arc::ptr_eq(&first, &tls.config()));
        write(directory.path(), "cert.pem", &other.cert.pem());
        write(directory.path(), "key.pem", &other.signing_key.serialize_pem());
        tls.reload().unwrap();
        assert!(!Arc::ptr_eq(&first, &tls.config()));
    }
}
