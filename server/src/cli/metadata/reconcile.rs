//! A node that goes on with a database that went back: restored from a backup, or failed over to a standby that was behind.
//!
//! The disks say which lives of the node wrote, and so which names of blobs must not be given again.

use std::path::PathBuf;

use anvil_model::ids::Incarnation;
use anvil_runtime::Core;
use anvil_store::{Store, mail, recover};

use super::import::open;
use super::offline::{self, Stop};
use super::rebuild;
use crate::cli::Failure;
use crate::data_dir::DataDir;
use crate::identity::Identity;
use crate::metadata::postgres::cluster::{self, Databases};

const BUFFERS: usize = 32;
/// Blobs that are looked at in one step.
const PAGE: usize = 1000;

/// Says how the database is not what the node saw last; `None` when it is, and nothing was changed.
pub(super) fn reconcile(databases: &Databases, data: &DataDir) -> Result<Option<String>, Failure> {
    let identity = Identity::read(data).map_err(Failure::run)?;
    let paths: Vec<PathBuf> = identity.into_iter().flat_map(|identity| identity.disks.into_keys()).collect();
    let disks = open(&paths)?;
    let last = offline::run_on_a_core(BUFFERS, async move |core: &Core, _: &Stop| {
        let devices = rebuild::devices(core, &disks).await?;
        let spinner = offline::spinner("reading the disks");
        let recovered = recover(core, devices.clone(), 1, 0).await;
        spinner.finish_and_clear();
        let (mut shares, _) = recovered.map_err(|error| error.to_string())?.into_shares();
        let (Some(share), Some(mail)) = (shares.pop(), mail(1).pop()) else { unreachable!("there is one core") };
        let store = Store::open(core.clone(), devices, share, mail);
        let (mut last, mut after) = (Incarnation(0), None);
        loop {
            let page = store.blobs(after, PAGE);
            let Some(end) = page.last() else { break };
            after = Some(end.blob);
            last = page.iter().map(|known| known.blob.incarnation).fold(last, Incarnation::max);
        }
        store.close().await;
        Ok::<_, String>(last)
    });
    let last = last?.map_err(Failure::run)?;
    cluster::reconcile(databases, data, last).map_err(Failure::run)
}
