//! Floor 3, for tests only: the seam made false. One seed, one thread, one trace.
//!
//! [`Sim`] is a universe that outlives processes: its clock, its entropy and its [disks](SimDisk). [`Life`] is one
//! process in it, with as many cores as its start says, all of them tasks on this thread; it ends by itself, by
//! [`Life::kill`] or by [`Life::power_cut`]. [`SimWorld`] and [`SimDevice`] are what the store and the stories see.
//! Which lies are told is written at the top of `device.rs`.
//!
//! ```
//! use anvil_model::io::{Device, Reserve, World};
//! use anvil_sim::{DiskOptions, Sim, SimOptions};
//!
//! let sim = Sim::new(7, SimOptions::default());
//! let disk = sim.disk(DiskOptions::default());
//! let life = sim.start(2);
//! let device = disk.open(&life.world(0));
//! life.block_on(0, move |world| async move {
//!     device.grow(1 << 20).await.unwrap();
//!     let buffer = world.buffer(Reserve::Foreground).await;
//!     let (written, _) = device.write(0, buffer, 0..4096).await;
//!     written.unwrap();
//!     device.flush().await.unwrap();
//! });
//! life.power_cut();
//! assert_eq!(disk.size_bytes(), 1 << 20);
//! ```
#![forbid(unsafe_code)]

mod counters;
mod device;
mod disk;
mod executor;
pub mod history;
mod image;
mod index;
mod life;
mod lossy;
mod random;
mod rows;
mod wait;
mod world;

pub use device::SimDevice;
pub use disk::{DiskCounts, DiskOptions, Faults, Injected, Operation, Saved, SimDisk, Tamper};
pub use index::{IndexFile, SimIndex};
pub use life::{Join, Life, Sim, SimOptions};
pub use lossy::{Line, Lossy};
pub use random::Random;
pub use rows::MemoryRows;
pub use world::{SimBuffer, SimTask, SimWorld};
