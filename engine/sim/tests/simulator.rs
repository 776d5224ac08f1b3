//! The simulator itself: one seed is one trace, and a disk lies exactly as far as `device.rs` says.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use anvil_model::io::{Buffer, Device, DeviceError, Reserve, Task, World};
use anvil_model::limits::BUFFER_ALIGNMENT;
use anvil_sim::{DiskOptions, Faults, Operation, Random, Sim, SimDevice, SimDisk, SimOptions, SimWorld};
use tokio::sync::mpsc;

const SECTOR: usize = 512;

/// Writes `byte` everywhere in a range of the disk.
async fn fill(world: &SimWorld, device: &SimDevice, offset: u64, length: usize, byte: u8) -> Result<(), DeviceError> {
    let mut buffer = world.buffer(Reserve::Foreground).await;
    buffer[..length].fill(byte);
    device.write(offset, buffer, 0..length).await.0
}

fn grown_disk(sim: &Sim, options: DiskOptions, size_bytes: u64) -> SimDisk {
    let disk = sim.disk(options);
    let life = sim.start(1);
    let device = disk.open(&life.world(0));
    life.block_on(0, |_| async move { device.grow(size_bytes).await.unwrap() });
    life.kill();
    disk
}

/// Cores that talk, sleep, write, read and cancel.
fn busy_trace(seed: u64) -> u64 {
    let sim = Sim::new(seed, SimOptions { buffers: 3, buffers_reserved: 1, ..SimOptions::default() });
    let disk = grown_disk(&sim, DiskOptions::default(), 1 << 20);
    for core_count in [3, 1, 2] {
        let life = sim.start(core_count);
        let (send, mut receive) = mpsc::channel(2);
        for client in 0..8u64 {
            let device = disk.open(&life.world(0));
            let send = send.clone();
            let core = (client % u64::from(core_count)) as u16;
            let _ = life.spawn(core, |world| async move {
                for round in 0..4 {
                    world.sleep(Duration::from_micros(world.random() % 100)).await;
                    let offset = (client * 4 + round) * 8192;
                    let write_world = world.clone();
                    let write_device = device.clone();
                    let task = world.spawn(async move {
                        let _ = fill(&write_world, &write_device, offset, 4096, client as u8).await;
                    });
                    if world.random().is_multiple_of(3) {
                        drop(task)
                    } else {
                        task.detach()
                    }
                    device.flush().await.unwrap();
                    send.send(world.now().nanos).await.unwrap();
                }
            });
        }
        drop(send);
        life.block_on(0, |_| async move { while receive.recv().await.is_some() {} });
        life.power_cut();
    }
    sim.trace()
}

#[test]
fn one_seed_is_one_trace_and_another_seed_another() {
    let traces: Vec<u64> = (0..50).map(busy_trace).collect();
    let again: Vec<u64> = (0..50).map(busy_trace).collect();
    assert_eq!(traces, again);
    let different: BTreeSet<u64> = traces.into_iter().collect();
    assert_eq!(different.len(), 50);
}

#[test]
fn a_power_cut_keeps_what_was_flushed_and_any_sectors_of_the_rest() {
    // Goal: crash semantics; method: many seeds, three writes of which one is flushed, one completed, one in flight.
    let (mut kept, mut dropped, mut torn) = (0, 0, 0);
    for seed in 0..300 {
        let sim = Sim::new(seed, SimOptions::default());
        let disk = grown_disk(&sim, DiskOptions::default(), 1 << 20);
        let life = sim.start(1);
        let device = disk.open(&life.world(0));
        let begun = Rc::new(Cell::new(false));
        let flag = Rc::clone(&begun);
        let _ = life.spawn(0, |world| async move {
            fill(&world, &device, 0, 8192, 1).await.unwrap();
            device.flush().await.unwrap();
            fill(&world, &device, 8192, 8192, 2).await.unwrap();
            flag.set(true);
            let _ = fill(&world, &device, 16384, 8192, 3).await;
        });
        let before = disk.counts().writes_begun;
        life.run_while(|| !(begun.get() && disk.counts().writes_begun == before + 3));
        life.power_cut();
        assert_eq!(disk.bytes(0, 8192), [1; 8192], "a completed flush is true");
        for (offset, byte) in [(8192, 2), (16384, 3)] {
            let bytes = disk.bytes(offset, 8192);
            let sectors: Vec<bool> = bytes
                .chunks(SECTOR)
                .map(|sector| {
                    assert!(sector.iter().all(|b| *b == sector[0]), "a sector is whole");
                    assert!(sector[0] == byte || sector[0] == 0);
                    sector[0] == byte
                })
                .collect();
            match (sectors.iter().all(|kept| *kept), sectors.iter().any(|kept| *kept)) {
                (true, _) => kept += 1,
                (_, false) => dropped += 1,
                _ => torn += 1,
            }
        }
        assert_eq!(disk.bytes(24576, 4096), [0; 4096]);
    }
    assert!(kept > 50 && dropped > 50 && torn > 50, "{kept} kept, {dropped} dropped, {torn} torn");
}

#[test]
fn a_kill_keeps_completed_writes_and_a_later_power_cut_may_not() {
    let mut lost = 0;
    for seed in 0..60 {
        let sim = Sim::new(seed, SimOptions::default());
        let disk = grown_disk(&sim, DiskOptions::default(), 1 << 20);
        let life = sim.start(1);
        let device = disk.open(&life.world(0));
        life.block_on(0, |world| async move { fill(&world, &device, 0, 4096, 1).await.unwrap() });
        life.kill();
        assert_eq!(disk.bytes(0, 4096), [1; 4096]);
        sim.start(1).power_cut();
        lost += u32::from(disk.bytes(0, 4096) != [1; 4096]);
    }
    assert!((10..50).contains(&lost), "{lost} of 60 were lost");
}

#[test]
fn a_flush_covers_only_what_completed_before_it_was_called() {
    let mut lost = 0;
    for seed in 0..60 {
        let sim = Sim::new(seed, SimOptions::default());
        let disk = grown_disk(&sim, DiskOptions::default(), 1 << 20);
        let life = sim.start(1);
        let device = disk.open(&life.world(0));
        life.block_on(0, |world| async move {
            let early = device.flush();
            fill(&world, &device, 0, 4096, 1).await.unwrap();
            early.await.unwrap();
        });
        life.power_cut();
        lost += u32::from(disk.bytes(0, 4096) != [1; 4096]);
    }
    assert!(lost > 10, "a flush that was called too early covered the write");
}

#[test]
fn an_older_write_never_replaces_a_newer_one() {
    for seed in 0..200 {
        let sim = Sim::new(seed, SimOptions::default());
        let disk = grown_disk(&sim, DiskOptions::default(), 1 << 20);
        let life = sim.start(1);
        let device = disk.open(&life.world(0));
        disk.fail_next(Operation::Flush, DeviceError::Io(5));
        life.block_on(0, |world| async move {
            fill(&world, &device, 0, 4096, 1).await.unwrap();
            assert_eq!(device.flush().await, Err(DeviceError::Io(5)));
            fill(&world, &device, 0, 4096, 2).await.unwrap();
            device.flush().await.unwrap();
        });
        life.power_cut();
        assert_eq!(disk.bytes(0, 4096), [2; 4096]);
    }
}

#[test]
fn a_lying_flush_loses_what_it_covers() {
    let mut lost = 0;
    for seed in 0..60 {
        let sim = Sim::new(seed, SimOptions::default());
        let disk = grown_disk(&sim, DiskOptions { flush_lies: true, ..DiskOptions::default() }, 1 << 20);
        let life = sim.start(1);
        let device = disk.open(&life.world(0));
        life.block_on(0, |world| async move {
            fill(&world, &device, 0, 4096, 1).await.unwrap();
            device.flush().await.unwrap();
        });
        life.power_cut();
        lost += u32::from(disk.bytes(0, 4096) != [1; 4096]);
    }
    assert!(lost > 10);
}

#[test]
fn faults_happen_when_asked_for() {
    let sim = Sim::new(1, SimOptions::default());
    let disk = grown_disk(&sim, DiskOptions { space_bytes: 2 << 20, ..DiskOptions::default() }, 1 << 20);
    let life = sim.start(1);
    let device = disk.open(&life.world(0));
    let asked = disk.clone();
    life.block_on(0, |world| async move {
        asked.fail_next(Operation::Write, DeviceError::Io(5));
        assert_eq!(fill(&world, &device, 0, 4096, 1).await, Err(DeviceError::Io(5)));
        assert_eq!(device.grow(3 << 20).await, Err(DeviceError::NoSpace));
        assert_eq!(device.size_bytes(), 1 << 20);

        fill(&world, &device, 0, 4096, 1).await.unwrap();
        asked.flip_bit(100, 6);
        assert_eq!(asked.bytes(100, 1), [1 ^ 64]);

        asked.set_faults(Faults { misdirected_write: 1_000_000, ..Faults::default() });
        fill(&world, &device, 65536, 4096, 9).await.unwrap();
        asked.set_faults(Faults::default());
        let nines = asked.bytes(0, 1 << 20).iter().filter(|byte| **byte == 9).count();
        assert_eq!((nines, asked.bytes(65536, 1)[0]), (4096, 0), "it went elsewhere");

        asked.set_gone(true);
        assert_eq!(device.flush().await, Err(DeviceError::Gone));
    });
    life.kill();
}

#[test]
fn a_read_beside_a_write_in_flight_sees_any_of_its_sectors() {
    let sim = Sim::new(3, SimOptions::default());
    let disk = grown_disk(&sim, DiskOptions::default(), 1 << 20);
    let life = sim.start(2);
    let (first, second) = (disk.open(&life.world(0)), disk.open(&life.world(1)));
    let mixed = Rc::new(Cell::new(0));
    let count = Rc::clone(&mixed);
    life.block_on(0, |world| async move {
        for round in 0..100u8 {
            let writer = world.clone();
            let device = first.clone();
            let task = world.spawn(async move { fill(&writer, &device, 0, 65536, round).await.unwrap() });
            let buffer = world.buffer(Reserve::Foreground).await;
            let (read, buffer) = second.read(0, buffer, 0..65536).await;
            read.unwrap();
            let seen: BTreeSet<u8> = buffer[..65536].iter().copied().collect();
            count.set(count.get() + usize::from(seen.len() == 2));
            drop(buffer);
            task.detach();
            // Two writes to the same bytes must not be in flight together.
            world.sleep(Duration::from_millis(100)).await;
        }
    });
    assert!(mixed.get() > 10, "{} reads were mixed", mixed.get());
    life.kill();
}

#[test]
fn a_dropped_operation_keeps_its_buffer_until_its_end() {
    let sim = Sim::new(5, SimOptions { buffers: 2, buffers_reserved: 1, ..SimOptions::default() });
    let disk = grown_disk(&sim, DiskOptions::default(), 1 << 20);
    let life = sim.start(1);
    let device = disk.open(&life.world(0));
    let held = disk.clone();
    life.block_on(0, |world| async move {
        let buffer = world.buffer(Reserve::Foreground).await;
        let begun = held.counts().writes_begun;
        let write = device.write(0, buffer, 0..4096);
        let task = world.spawn(async move { drop(write.await) });
        while held.counts().writes_begun == begun {
            world.sleep(Duration::from_nanos(1)).await;
        }
        drop(task);
        // The pool's only foreground buffer: there is none until the device has let go of it.
        let completed = held.counts().writes;
        let _buffer = world.buffer(Reserve::Foreground).await;
        assert_eq!(held.counts().writes, completed + 1);
    });
    life.kill();
}

#[test]
fn the_last_buffers_are_kept_for_progress_and_all_are_aligned() {
    let sim = Sim::new(5, SimOptions { buffers: 3, buffers_reserved: 1, ..SimOptions::default() });
    let life = sim.start(1);
    life.block_on(0, |world| async move {
        fn aligned<B: Buffer>(buffer: &B) -> bool {
            (buffer.as_ptr() as usize).is_multiple_of(BUFFER_ALIGNMENT)
        }
        let one = world.buffer(Reserve::Foreground).await;
        let two = world.buffer(Reserve::Foreground).await;
        let order = Rc::new(RefCell::new(Vec::new()));
        for name in ["first", "second"] {
            let (order, waiter) = (Rc::clone(&order), world.clone());
            world
                .spawn(async move {
                    drop(waiter.buffer(Reserve::Foreground).await);
                    order.borrow_mut().push(name);
                })
                .detach();
            world.sleep(Duration::from_millis(50)).await;
        }
        let kept = world.buffer(Reserve::Progress).await;
        assert!(aligned(&one) && aligned(&two) && aligned(&kept));
        drop(kept);
        world.sleep(Duration::from_millis(50)).await;
        assert!(order.borrow().is_empty(), "the foreground took a buffer that is kept");
        drop(one);
        world.sleep(Duration::from_millis(50)).await;
        assert_eq!(*order.borrow(), ["first", "second"]);
        drop(two);
    });
    life.kill();
}

/// The views of a split buffer keep its bytes, are written to disk by themselves, and are one buffer of the pool until the
/// last of them is dropped.
#[test]
fn a_split_buffer_is_one_buffer() {
    let sim = Sim::new(1, SimOptions { buffers: 2, buffers_reserved: 1, ..SimOptions::default() });
    let disk = grown_disk(&sim, DiskOptions::default(), 1 << 20);
    let life = sim.start(1);
    let device = disk.open(&life.world(0));
    life.block_on(0, |world| async move {
        let mut rest = world.buffer(Reserve::Foreground).await;
        let length = rest.len();
        for (unit, byte) in (0..).zip(1..=3) {
            rest[unit * BUFFER_ALIGNMENT..][..BUFFER_ALIGNMENT].fill(byte);
        }
        let first = rest.split_to(BUFFER_ALIGNMENT);
        let second = rest.split_to(BUFFER_ALIGNMENT);
        let (written, second) = device.write(4096, second, 0..4096).await;
        written.unwrap();
        let (read, first) = device.read(4096, first, 0..4096).await;
        read.unwrap();
        assert!(first.iter().all(|&byte| byte == 2), "what the second view wrote");
        let whole = first.unsplit(second.unsplit(rest));
        assert_eq!((whole.len(), whole[BUFFER_ALIGNMENT], whole[2 * BUFFER_ALIGNMENT]), (length, 2, 3));
        let mut rest = whole;
        let front = rest.split_to(2 * BUFFER_ALIGNMENT);
        drop(rest);
        let freed = Rc::new(Cell::new(false));
        let task = world.spawn({
            let (world, freed) = (world.clone(), Rc::clone(&freed));
            async move {
                let buffer = world.buffer(Reserve::Foreground).await;
                assert_eq!(buffer.len(), length);
                freed.set(true);
            }
        });
        world.sleep(Duration::from_secs(1)).await;
        assert!(!freed.get(), "a view is left");
        drop(front);
        world.sleep(Duration::from_secs(1)).await;
        assert!(freed.get());
        task.detach();
    });
    assert_eq!(life.buffers_out(), 0);
}

#[test]
fn growing_that_was_cut_short_leaves_a_size_between() {
    let mut sizes = BTreeSet::new();
    for seed in 0..100 {
        let sim = Sim::new(seed, SimOptions::default());
        let disk = grown_disk(&sim, DiskOptions::default(), 1 << 20);
        let life = sim.start(1);
        let device = disk.open(&life.world(0));
        let begun = Rc::new(Cell::new(false));
        let flag = Rc::clone(&begun);
        let _ = life.spawn(0, |_| async move {
            flag.set(true);
            device.grow(2 << 20).await.unwrap();
        });
        life.run_while(|| !begun.get());
        life.power_cut();
        let size = disk.size_bytes();
        assert!((1 << 20..=2 << 20).contains(&size) && size.is_multiple_of(4096));
        sizes.insert(size);
    }
    assert!(sizes.len() > 10 && sizes.contains(&(1 << 20)) && sizes.contains(&(2 << 20)));
}

#[test]
fn a_clock_on_the_wall_goes_back_and_the_steady_one_never() {
    let sim = Sim::new(2, SimOptions::default());
    let life = sim.start(1);
    let went_back = life.block_on(0, |world| async move {
        let mut went_back = false;
        for _ in 0..500 {
            let (now, wall) = (world.now(), world.wall_clock());
            world.sleep(Duration::from_millis(1)).await;
            assert!(world.now().since(now) >= Duration::from_millis(1));
            went_back |= world.wall_clock() < wall;
        }
        went_back
    });
    assert!(went_back);
    life.kill();
}

/// What a run panics with.
fn panic_of(run: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(run)).expect_err("it panics");
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).expect("a text")
}

#[test]
fn a_standstill_names_its_seed_and_who_waits() {
    let text = panic_of(|| {
        let sim = Sim::new(0xabc, SimOptions { buffers: 2, buffers_reserved: 1, ..SimOptions::default() });
        sim.start(1).block_on(0, |world| async move {
            let _one = world.buffer(Reserve::Foreground).await;
            let _two = world.buffer(Reserve::Foreground).await;
        });
    });
    assert!(text.contains("0xabc") && text.contains("waits for a foreground buffer"), "{text}");
}

#[test]
fn a_loop_of_timers_is_a_standstill_too() {
    let text = panic_of(|| {
        let sim = Sim::new(1, SimOptions { patience: Duration::from_secs(60), ..SimOptions::default() });
        let life = sim.start(1);
        let _ = life.spawn(0, |world| async move {
            loop {
                world.sleep(Duration::from_secs(1)).await;
            }
        });
        life.block_on(0, |_| std::future::pending::<()>());
    });
    assert!(text.contains("out of patience"), "{text}");
}

#[test]
fn bugs_of_the_caller_panic() {
    fn misuse(act: impl AsyncFnOnce(SimWorld, SimDevice) + 'static) -> String {
        panic_of(|| {
            let sim = Sim::new(1, SimOptions::default());
            let disk = grown_disk(&sim, DiskOptions::default(), 1 << 20);
            let life = sim.start(1);
            let device = disk.open(&life.world(0));
            life.block_on(0, |world| async move { act(world, device).await });
        })
    }
    let text = misuse(async |world, device| fill(&world, &device, 512, 4096, 1).await.unwrap());
    assert!(text.contains("not in units"), "{text}");
    let text = misuse(async |world, device| fill(&world, &device, 1 << 20, 4096, 1).await.unwrap());
    assert!(text.contains("of a disk of 1048576 bytes"), "{text}");
    let text = misuse(async |world, device| {
        let _ = futures_util::join!(fill(&world, &device, 0, 8192, 1), fill(&world, &device, 4096, 4096, 2));
    });
    assert!(text.contains("in flight to the same bytes"), "{text}");
    let text = panic_of(|| {
        let sim = Sim::new(1, SimOptions::default());
        let life = sim.start(1);
        let buffer = life.block_on(0, |world| async move { world.buffer(Reserve::Foreground).await });
        std::mem::forget(buffer);
        life.kill();
    });
    assert!(text.contains("buffers that nobody can return"), "{text}");
}

#[test]
fn a_dropped_task_is_not_polled_again_and_a_detached_one_is() {
    let sim = Sim::new(9, SimOptions::default());
    let life = sim.start(2);
    let done = Rc::new(RefCell::new(Vec::new()));
    let list = Rc::clone(&done);
    life.block_on(0, |world| async move {
        let sleeper = |name: &'static str| {
            let (list, world) = (Rc::clone(&list), world.clone());
            async move {
                world.sleep(Duration::from_millis(1)).await;
                list.borrow_mut().push(name);
            }
        };
        world.spawn(sleeper("detached")).detach();
        drop(world.spawn(sleeper("dropped")));
        world.sleep(Duration::from_millis(100)).await;
    });
    assert_eq!(*done.borrow(), ["detached"]);
    life.kill();
}

#[test]
fn two_disks_of_one_universe_are_cut_together_and_a_copy_is_another_disk() {
    let mut random = Random::new(4);
    let sim = Sim::new(random.next(), SimOptions::default());
    let disk = grown_disk(&sim, DiskOptions::default(), 1 << 20);
    disk.overwrite(4096, &[7; 4096]);
    let copy = sim.copy_disk(&disk);
    disk.overwrite(4096, &[8; 4096]);
    assert_eq!((copy.bytes(4096, 1), disk.bytes(4096, 1)), (vec![7], vec![8]));
    assert_eq!(copy.size_bytes(), 1 << 20);
}
