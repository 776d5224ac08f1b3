//! The regions that a node knows of: its own, and with a database those that share it.

use std::sync::Arc;

use anvil_node::names::BucketNames;

use crate::metadata::postgres::registry::{Region, Registry, RegistryAway};

/// Who knows the regions. Shared by all cores.
#[derive(Clone, Debug)]
pub enum Regions {
    /// A node without a database is a region by itself.
    Own(String),
    /// Those of the global database.
    Shared(Registry),
}

/// Why a region is not made, or the regions are not known. Each text is one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each says itself what it is")]
pub enum RegionError {
    #[error("a region's name is 1 to {NAME_BYTES_MAX} letters, digits and hyphens, and {0:?} is none")]
    Name(String),
    #[error("a node without a database is in one region, {0}, and knows no other: regions share a global database")]
    Alone(String),
    #[error(transparent)]
    Away(#[from] RegistryAway),
}

impl Regions {
    /// What regions share names of buckets by, if they do.
    #[must_use]
    pub fn names(&self) -> Option<Arc<dyn BucketNames>> {
        match self {
            Self::Own(_) => None,
            Self::Shared(registry) => Some(Arc::new(registry.clone())),
        }
    }

    /// All of them, by name.
    ///
    /// # Errors
    /// When the global database does not answer.
    pub async fn list(&self) -> Result<Vec<Region>, RegionError> {
        match self {
            Self::Own(name) => Ok(vec![Region { name: name.clone(), joined: true, buckets: None }]),
            Self::Shared(registry) => Ok(registry.regions().await?),
        }
    }

    /// Makes a region known, if it is not.
    ///
    /// # Errors
    /// When it is no name, or cannot be kept.
    pub async fn make(&self, name: &str) -> Result<(), RegionError> {
        let is_name = (1..=NAME_BYTES_MAX).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        match self {
            _ if !is_name => Err(RegionError::Name(name.to_owned())),
            Self::Own(own) if own == name => Ok(()),
            Self::Own(own) => Err(RegionError::Alone(own.clone())),
            Self::Shared(registry) => Ok(registry.make_region(name.to_owned()).await?),
        }
    }
}

const NAME_BYTES_MAX: usize = 63;
