//! What works when nothing goes wrong.

use anvil_model::ids::DiskId;
use anvil_sim::{DiskOptions, Sim, SimOptions};
use anvil_store::{FormatError, FormatOptions, IdentifyError, Identity, RecoverError, extent_bytes, format, identify};

use crate::harness::{Disks, MIB, batch, check_range, write};

const LENGTHS: [usize; 12] =
    [1, 7, 4096, 65_535, 65_536, 65_537, 1_048_575, 1_048_576, 1_048_577, 3_000_000, 4 << 20, 5_242_881];

#[test]
fn blobs_of_all_sizes_read_back_on_every_core_now_and_after_a_restart_with_other_cores() {
    let mut disks = Disks::new(1, 2, 256 * MIB);
    let node = disks.start(3);
    let blobs: Vec<_> =
        (0..3).flat_map(|core| LENGTHS.map(|length| (core, length))).map(|(core, n)| (node.put(core, n), n)).collect();
    for &(blob, length) in &blobs {
        for core in 0..3 {
            node.get(core, blob, length).unwrap();
        }
    }
    let figures: Vec<_> = node.stores.iter().map(anvil_store::Store::stats).collect();
    let appends: u64 = figures.iter().flat_map(|stats| &stats.disks).map(|disk| disk.appends).sum();
    assert!(appends > blobs.len() as u64);
    assert_eq!(figures.iter().flat_map(|stats| &stats.disks).filter(|disk| disk.space.is_some()).count(), 2);
    node.close();
    for cores in [1, 2, 5] {
        let node = disks.start(cores);
        assert!(node.report.clean && node.report.records_damaged == 0, "{:?}", node.report);
        for &(blob, length) in &blobs {
            for core in 0..cores {
                node.get(core, blob, length).unwrap();
            }
        }
        node.put(cores - 1, 100_000);
        node.close();
    }
    let node = disks.start(1);
    node.kill();
    assert!(!disks.start(1).report.clean, "a killed process does not close");
}

#[test]
fn ranges_are_read_by_the_blocks_that_they_touch() {
    let mut disks = Disks::new(2, 1, 64 * MIB);
    let node = disks.start(1);
    let length = 2_500_000;
    let blob = node.put(0, length);
    let store = node.stores[0].clone();
    let edges = [0, 1, 65_535, 65_536, 131_072, 196_608, 500_000, 1_048_575, 1_048_576, 2_400_000, length];
    node.life.block_on(0, move |_| async move {
        for start in edges {
            for end in edges.into_iter().filter(|&end| end > start) {
                check_range(&store, blob, start..end).await.unwrap();
            }
        }
        assert!(store.read(blob, length as u64..length as u64 + 1).await.is_err(), "behind the end");
        assert!(store.read(blob, 1 << 40..1 << 41).await.is_err(), "far behind the end");
    });
}

/// Many small blobs of one moment take few writes.
#[test]
fn small_blobs_share_writes() {
    let mut disks = Disks::new(3, 1, 64 * MIB);
    let node = disks.start(1);
    node.put(0, 10);
    let writes = || node.stores[0].stats().disks[0].writes;
    let before = writes();
    let tasks: Vec<_> = (0..200)
        .map(|number| {
            let store = node.stores[0].clone();
            node.life.spawn(0, move |world| async move {
                let blob = store.new_blob();
                write(&world, &store, DiskId(1), blob, 500 + number).await.unwrap();
                (blob, 500 + number)
            })
        })
        .collect();
    node.life.run_while(|| tasks.iter().any(|task| !task.is_done()));
    let writes = writes() - before;
    assert!(writes <= 10, "{writes} writes for 200 blobs that came at once");
    for task in tasks {
        let (blob, length) = task.take().unwrap();
        node.get(0, blob, length).unwrap();
    }
}

/// Flushes that are asked for at once, on all cores, are one or two of the device.
#[test]
fn cores_share_flushes() {
    let mut disks = Disks::new(4, 1, 64 * MIB);
    let node = disks.start(4);
    node.put(0, 10);
    node.life.run_for(std::time::Duration::from_secs(5));
    let before = disks.disk().counts().flushes;
    let requests = || -> u64 {
        node.stores
            .iter()
            .flat_map(|store| store.stats().disks)
            .filter_map(|disk| disk.space)
            .map(|s| s.flush_requests)
            .sum()
    };
    let requests_before = requests();
    let tasks: Vec<_> = (0..40)
        .map(|number| {
            let core = number % 4;
            let store = node.stores[usize::from(core)].clone();
            node.life.spawn(core, move |_| async move { store.flush(&[DiskId(1)]).await.unwrap() })
        })
        .collect();
    node.life.run_while(|| tasks.iter().any(|task| !task.is_done()));
    let flushes = disks.disk().counts().flushes - before;
    assert!((1..=3).contains(&flushes), "{flushes} flushes for 40 that were wanted at once");
    assert_eq!(requests() - requests_before, 40);
}

#[test]
fn the_log_reads_back_in_order_and_goes_on() {
    let mut disks = Disks::new(5, 1, 64 * MIB);
    let mut next = 1;
    for life in 0..6 {
        let mut node = disks.start(2);
        let records = node.log.clone().unwrap();
        assert_eq!(records.len() as u64, next - 1);
        for (record, number) in records.iter().zip(1..) {
            assert_eq!((record.number, &record.payload), (number, &batch(number)));
        }
        let writer = node.log_writer(life % 2);
        drop(node.log(writer, life % 2, next..next + 300));
        next += 300;
        if life % 2 == 0 { node.close() } else { node.power_cut() }
    }
    let node = disks.start(1);
    assert_eq!(node.log.clone().unwrap().len() as u64, next - 1);
}

#[test]
fn only_blank_devices_are_formatted_and_only_ours_are_opened() {
    let mut disks = Disks::new(6, 1, 64 * MIB);
    let options = FormatOptions { disk: DiskId(9), cluster: 7, extent_bytes: extent_bytes(64 * MIB) };
    let device_of = |disk: &anvil_sim::SimDisk, sim: &Sim| {
        let life = sim.start(1);
        let device = disk.open(&life.world(0));
        let identity = life.block_on(0, {
            let device = device.clone();
            move |world| async move { identify(&world, &device).await }
        });
        let formatted = life.block_on(0, move |world| async move { format(&world, &device, options).await });
        (identity, formatted)
    };
    let (identity, formatted) = device_of(disks.disk(), &disks.sim);
    let Ok(Identity::Anvil(identity)) = identity else { panic!("{identity:?}") };
    assert_eq!((identity.disk, identity.cluster, identity.clean), (DiskId(1), 0xc1, true));
    assert_eq!(formatted, Err(FormatError::NotBlank));

    let small = DiskOptions { capacity_bytes_max: 64 * MIB, ..DiskOptions::default() };
    for offset in [0, 1024, 65_536 + 64, MIB - 1, 2 * MIB, 63 * MIB] {
        let foreign = disks.sim.disk(small);
        foreign.overwrite(offset, &[1]);
        assert_eq!(device_of(&foreign, &disks.sim), (Ok(Identity::Foreign), Err(FormatError::NotBlank)), "{offset}");
    }
    let blank = disks.sim.disk(small);
    assert_eq!(device_of(&blank, &disks.sim), (Ok(Identity::Blank), Ok(())));
    assert!(matches!(device_of(&blank, &disks.sim).0, Ok(Identity::Anvil(identity)) if identity.disk == DiskId(9)));
    let tiny = disks.sim.disk(DiskOptions { capacity_bytes_max: 4 * MIB, ..small });
    assert!(matches!(device_of(&tiny, &disks.sim).1, Err(FormatError::TooSmall { .. })));

    // A foreign disk in the place of ours.
    disks.all[0].1 = blank;
    assert!(matches!(disks.try_start(1, &[]), Err(RecoverError::NotThisDisk(DiskId(1)))));
}

/// A format that was cut short at any write leaves a disk that can be formatted, or a formatted one.
#[test]
fn a_format_may_be_cut_short_anywhere() {
    for seed in 0..60 {
        let sim = Sim::new(seed, SimOptions::default());
        let disk = sim.disk(DiskOptions { capacity_bytes_max: 64 * MIB, ..DiskOptions::default() });
        let options = FormatOptions { disk: DiskId(9), cluster: 7, extent_bytes: extent_bytes(64 * MIB) };
        let life = sim.start(1);
        let device = disk.open(&life.world(0));
        let formatting = life.spawn(0, move |world| async move { format(&world, &device, options).await });
        let steps = life.steps() + seed / 2;
        life.run_while(|| life.steps() < steps && !formatting.is_done());
        life.power_cut();
        let life = sim.start(1);
        let device = disk.open(&life.world(0));
        let formatted = life.block_on(0, move |world| async move {
            match identify(&world, &device).await {
                Ok(Identity::Blank) => format(&world, &device, options).await.is_ok(),
                Ok(Identity::Anvil(identity)) => identity.disk == DiskId(9),
                other => panic!("seed {seed}: {other:?}"),
            }
        });
        assert!(formatted, "seed {seed}");
    }
}

#[test]
fn a_newer_format_and_unknown_features_are_refused_with_a_sentence() {
    use anvil_model::format::{SUPERBLOCK_OFFSETS, Superblock};
    type Change = fn(&mut Superblock);
    let changes: [(Change, &str); 3] = [
        (|superblock| superblock.format_version = 2, "the disk has format version 2, this program reads up to 1"),
        (
            |superblock| superblock.features_incompatible = 4,
            "the disk uses features 0x4 that this program does not have",
        ),
        (|superblock| superblock.features_read_only = 8, "the disk uses features 0x8 that this program does not have"),
    ];
    for (change, sentence) in changes {
        let mut disks = Disks::new(7, 1, 64 * MIB);
        let mut unit = disks.disk().bytes(0, 4096);
        let mut superblock = Superblock::decode(&unit).unwrap();
        change(&mut superblock);
        superblock.generation += 1;
        superblock.encode(&mut unit);
        disks.disk().overwrite(SUPERBLOCK_OFFSETS[1], &unit);
        let Err(RecoverError::Identify { source, .. }) = disks.try_start(1, &[]).map(|_| ()) else { panic!("opened") };
        assert_eq!(source.to_string(), sentence);
        assert_ne!(source, IdentifyError::Damaged);
    }
    let mut disks = Disks::new(8, 1, 64 * MIB);
    let mut unit = disks.disk().bytes(0, 4096);
    let mut superblock = Superblock::decode(&unit).unwrap();
    superblock.features_compatible = 16;
    superblock.generation += 1;
    superblock.encode(&mut unit);
    disks.disk().overwrite(0, &unit);
    drop(disks.start(1));
}
