//! Streams of bytes, and whose code digests them.

use anvil_digest::{Algorithm, Digest, Kernel, update_many};
use anyhow::bail;
use clap::ValueEnum;
use serde::Serialize;

/// A digest, as a user names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lowercase")]
pub(super) enum Digested {
    /// Entity tags
    Md5,
    /// Signatures
    Sha256,
    /// A checksum that clients may choose
    Sha1,
    /// A checksum that clients may choose
    Crc32,
    /// A checksum that clients may choose
    Crc32c,
    /// The checksum of every object and record
    Crc64nvme,
    /// Not used by S3: what a modern hash costs, for comparison
    Blake3,
}

impl Digested {
    fn algorithm(self) -> Option<Algorithm> {
        match self {
            Self::Md5 => Some(Algorithm::Md5),
            Self::Sha256 => Some(Algorithm::Sha256),
            Self::Sha1 => Some(Algorithm::Sha1),
            Self::Crc32 => Some(Algorithm::Crc32),
            Self::Crc32c => Some(Algorithm::Crc32c),
            Self::Crc64nvme => Some(Algorithm::Crc64Nvme),
            Self::Blake3 => None,
        }
    }
}

/// Whose code.
#[derive(Clone, Copy, Debug)]
pub(super) enum Code {
    Anvil { name: &'static str, kernel: Kernel },
    Library(&'static str),
}

const LIBRARIES: [&str; 4] = ["md-5", "sha2", "ring", "blake3"];

impl Code {
    /// Those of these names; when there are none, all but the one that is there for comparison of values only.
    pub(super) fn named(names: &[String]) -> anyhow::Result<Vec<Self>> {
        let server = Self::Anvil { name: "server", kernel: Kernel::detect() };
        let kernels = Kernel::all().into_iter().map(|kernel| Self::Anvil { name: kernel.name(), kernel });
        let all: Vec<Self> = [server].into_iter().chain(kernels).chain(LIBRARIES.map(Self::Library)).collect();
        if names.is_empty() {
            return Ok(all.into_iter().filter(|code| code.name() != "portable").collect());
        }
        let mut chosen = Vec::new();
        for name in names {
            let Some(code) = all.iter().find(|code| code.name() == name) else {
                let there: Vec<&str> = all.iter().map(Self::name).collect();
                bail!("there is no `{name}` here, only {}", there.join(", "));
            };
            chosen.push(*code);
        }
        Ok(chosen)
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Anvil { name, .. } | Self::Library(name) => name,
        }
    }

    /// Digests under way, one for each stream; `None` when it has no such digest, or takes it from another one here.
    pub(super) fn begin(&self, what: Digested, streams: usize) -> Option<Streams> {
        let one = match (self, what) {
            (Self::Anvil { name, kernel }, _) => {
                let algorithm = what.algorithm()?;
                let has_kernels = matches!(what, Digested::Md5 | Digested::Sha256);
                if !has_kernels && *name != "server" {
                    return None;
                }
                return Some(Streams::Anvil(*kernel, vec![Digest::new(algorithm); streams]));
            }
            (Self::Library("md-5"), Digested::Md5) => Alone::Md5(md5::Digest::new()),
            (Self::Library("sha2"), Digested::Sha256) => Alone::Sha2(sha2::Digest::new()),
            (Self::Library("ring"), Digested::Sha256) => Alone::Ring(ring::digest::Context::new(&ring::digest::SHA256)),
            (Self::Library("ring"), Digested::Sha1) => {
                Alone::Ring(ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY))
            }
            (Self::Library("blake3"), Digested::Blake3) => Alone::Blake3(Box::default()),
            _ => return None,
        };
        Some(Streams::Library(vec![one; streams]))
    }
}

/// Digests under way.
#[derive(Clone)]
pub(super) enum Streams {
    Anvil(Kernel, Vec<Digest>),
    Library(Vec<Alone>),
}

/// One stream of a library.
#[derive(Clone)]
pub(super) enum Alone {
    Md5(md5::Md5),
    Sha2(sha2::Sha256),
    Ring(ring::digest::Context),
    Blake3(Box<blake3::Hasher>),
}

impl Streams {
    /// Gives each stream its bytes.
    pub(super) fn update(&mut self, bytes: &[Vec<u8>]) {
        match self {
            Self::Anvil(kernel, digests) => {
                let mut updates: Vec<_> = digests.iter_mut().zip(bytes.iter().map(Vec::as_slice)).collect();
                update_many(kernel, &mut updates);
            }
            Self::Library(streams) => {
                for (stream, bytes) in streams.iter_mut().zip(bytes) {
                    match stream {
                        Alone::Md5(md5) => md5::Digest::update(md5, bytes),
                        Alone::Sha2(sha256) => sha2::Digest::update(sha256, bytes),
                        Alone::Ring(context) => context.update(bytes),
                        Alone::Blake3(hasher) => {
                            hasher.update(bytes);
                        }
                    }
                }
            }
        }
    }

    /// The value of each stream.
    pub(super) fn finish(self) -> Vec<Vec<u8>> {
        match self {
            Self::Anvil(_, digests) => digests.into_iter().map(|digest| digest.finish().to_vec()).collect(),
            Self::Library(streams) => streams
                .into_iter()
                .map(|stream| match stream {
                    Alone::Md5(md5) => md5::Digest::finalize(md5).to_vec(),
                    Alone::Sha2(sha256) => sha2::Digest::finalize(sha256).to_vec(),
                    Alone::Ring(context) => context.finish().as_ref().to_vec(),
                    Alone::Blake3(hasher) => hasher.finalize().as_bytes().to_vec(),
                })
                .collect(),
        }
    }
}
