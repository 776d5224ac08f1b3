//! Bits that turn over at rest, of an object that somebody needs: scrub must name its blob without being asked for it.

use std::time::Duration;

use anvil_model::io::World;
use anvil_node::get::StreamError;
use anvil_store::ReadError;

use super::answers::Tolerance;
use super::boot::Running;
use super::client::{Client, value_in};
use super::payload;
use crate::disk::SimDisk;
use crate::index::IndexFile;

/// What is looked for on the disks: enough that no other value has it.
const NEEDLE_BYTES: usize = 32;
/// How long scrub may take for the two passes that certainly see it.
const PATIENCE: Duration = Duration::from_secs(600);

/// Turns over a bit in every copy of some bytes of an object, and waits until scrub has come by.
///
/// # Panics
/// When the object reads as before, or scrub does not name it, or names more than was hit.
pub(super) async fn plant(mut client: Client, running: &Running, index: &IndexFile, disks: &[SimDisk]) {
    let Some((key, victim)) = a_whole_object(&mut client).await else { return };
    let needles = victim.size / NEEDLE_BYTES as u64;
    let at = client.random.below(needles) * NEEDLE_BYTES as u64;
    let mut needle = [0; NEEDLE_BYTES];
    let origin = client.shared.about(value_in(&victim.headers)).bytes;
    payload::fill(origin, at, &mut needle);
    let mut hit = 0;
    for disk in disks {
        for place in disk.find(&needle) {
            disk.flip_bit(place + client.random.below(NEEDLE_BYTES as u64), 3);
            hit += 1;
        }
    }
    // Bytes that lie across two parts lie nowhere in one piece.
    if hit == 0 {
        return;
    }
    let tolerance = client.shared.tolerance.get();
    client.shared.tolerance.set(Tolerance { damage: true, ..tolerance });
    let passes = running.scrub_passes() + 2;
    let read = client.read(&victim, 0..victim.size).await;
    let began = client.world.now();
    while running.scrub_passes() < passes {
        assert!(client.world.now().since(began) < PATIENCE, "scrub does not come by");
        client.world.sleep(Duration::from_millis(20)).await;
    }
    // A request whose client went away may have replaced it meanwhile.
    if client.open(key).await.is_none_or(|now| value_in(&now.headers) != value_in(&victim.headers)) {
        return;
    }
    let blob = match read {
        // It was read from other cells, or all copies were hit; in either case repair may have been there before scrub.
        Ok(()) | Err(StreamError::Read(ReadError::Corrupt(_))) if running.profile.parity > 0 => return,
        Err(StreamError::Read(ReadError::Corrupt(blob))) => blob,
        _ => panic!("rotten bytes are read: {read:?}"),
    };
    let named = running.bad_of_objects(index);
    assert!(named.iter().any(|(named, ..)| *named == blob), "scrub does not name blob {blob}, only {named:?}");
    assert!(named.len() <= 2 * hit, "{hit} records rot, and {named:?} are named");
    client.shared.reach(|reached| reached.rot_named += 1);
}

async fn a_whole_object(client: &mut Client) -> Option<(usize, anvil_node::get::Found)> {
    for key in 0..client.shared.keys {
        let Some(found) = client.open(key).await else { continue };
        if found.size >= NEEDLE_BYTES as u64 && client.read(&found, 0..found.size).await.is_ok() {
            return Some((key, found));
        }
    }
    None
}
