//! The real store on disks that lie, tear, flip and vanish, in one deterministic world.

mod crash;
mod damage;
mod encrypted;
mod everyday;
mod harness;
mod log;
mod recall;
mod reclaim;
mod scrub;
mod shards;
mod space;
mod stop;
mod v1;
