//! What is left when cores have ended, and what happens when descriptors run out. Looks at the whole process, so its
//! tests run one at a time.

mod common;

use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anvil_model::io::{Device as _, Reserve, Task as _, World};
use anvil_runtime::net::{Connection, Listener};
use anvil_runtime::{Core, Disk, DiskOptions};
use tempfile::TempDir;

use common::{alone, open_files, options, run, run_one, settled};

/// The end of a core drops its tasks, also those whose drop spawns others, and leaves no descriptor open.
#[test]
fn the_end_of_the_cores_leaves_nothing() {
    struct SpawnsWhenDropped(Core, Arc<AtomicUsize>);
    impl Drop for SpawnsWhenDropped {
        fn drop(&mut self) {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.spawn(pending()).detach();
        }
    }
    let _alone = alone();
    let files = open_files();
    let drops = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&drops);
    run(options(2), move |core| {
        let counted = Arc::clone(&counted);
        async move {
            for _ in 0..10 {
                let guard = SpawnsWhenDropped(core.clone(), Arc::clone(&counted));
                let sleeper = core.clone();
                let waiting = core.clone();
                core.spawn(async move {
                    let _guard = guard;
                    let _buffer = waiting.buffer(Reserve::Foreground).await;
                    sleeper.sleep(Duration::from_secs(3600)).await;
                })
                .detach();
            }
            core.yield_now().await;
        }
    });
    assert_eq!(drops.load(Ordering::Relaxed), 20);
    assert_eq!(open_files(), files);
}

/// A core that ends in the middle of everything lets go of everything: sockets, disks, waiting operations of each kind.
#[test]
fn a_core_may_end_in_the_middle() {
    let _alone = alone();
    let directory = TempDir::new().unwrap();
    let path = directory.path().to_owned();
    let files = open_files();
    run_one(move |core| {
        let path = path.clone();
        async move {
            let disk = Disk::open(&path, &DiskOptions { create: true, ..DiskOptions::default() }).unwrap();
            let device = disk.device(&core);
            device.grow(1 << 20).await.unwrap();
            let mut listener = Listener::bind(&core, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
            let address = listener.local_addr();
            let mut peers = Vec::new();
            for number in 0..4 {
                peers.push(TcpStream::connect(address).unwrap());
                let (mut connection, _) = listener.accept().await.unwrap();
                let (core, device) = (core.clone(), device.clone());
                core.clone()
                    .spawn(async move {
                        let buffer = core.buffer(Reserve::Progress).await;
                        match number {
                            0 => drop(connection.receive().await),
                            1 => drop(connection.fill(buffer, 0..1000).await),
                            2 => loop {
                                connection.send(vec![0; 1 << 20], 0..1 << 20).await.0.unwrap();
                            },
                            _ => drop(device.read(0, buffer, 0..4096).await),
                        }
                    })
                    .detach();
            }
            core.spawn(async move { drop(listener.accept().await) }).detach();
            core.spawn(async move { device.grow(64 << 20).await.unwrap() }).detach();
            core.sleep(Duration::from_millis(5)).await;
        }
    });
    assert_eq!(open_files(), files);
}

/// A listener survives that the process has no descriptor left, and goes on when there is one.
#[test]
fn a_listener_survives_a_shortage_of_descriptors() {
    let _alone = alone();
    let (ask, asked) = std::sync::mpsc::channel();
    let (connected, connecting) = std::sync::mpsc::channel::<TcpStream>();
    let connecting = std::sync::Mutex::new(Some(connecting));
    let client = std::thread::spawn(move || {
        // Both ends are descriptors of this process: the client connects before the table is full.
        for address in asked {
            connected.send(TcpStream::connect::<SocketAddr>(address).unwrap()).unwrap();
        }
    });
    run_one(move |core| {
        let (ask, connecting) = (ask.clone(), connecting.lock().unwrap().take().unwrap());
        async move {
            let mut listener = Listener::bind(&core, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
            ask.send(listener.local_addr()).unwrap();
            let _first = connecting.recv().unwrap();
            let limit = limit_files(lowest_free_descriptor());
            let waited = common::poll_some(&core, 20, listener.accept()).await;
            assert!(waited.is_none(), "there was no descriptor for it");
            core.sleep(Duration::from_millis(30)).await;
            assert!(common::poll_some(&core, 5, listener.accept()).await.is_none());
            limit_files(limit);
            let (_connection, _): (Connection, _) = listener.accept().await.unwrap();
            ask.send(listener.local_addr()).unwrap();
            let _second = connecting.recv().unwrap();
            listener.accept().await.unwrap();
            drop(ask);
            drop(listener);
            settled(&core, 1).await;
        }
    });
    drop(client);
}

/// The number that the next descriptor gets.
fn lowest_free_descriptor() -> u64 {
    let file = std::fs::File::open("/dev/null").unwrap();
    u64::try_from(std::os::fd::AsRawFd::as_raw_fd(&file)).unwrap()
}

/// Sets the soft limit on descriptors; gives the old one.
fn limit_files(count: u64) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel fills, and then reads, a local variable.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
        let old = std::mem::replace(&mut limit.rlim_cur, count);
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
        old
    }
}

/// All of the above on the blocking driver.
#[test]
fn also_without_io_uring() {
    common::also_without_io_uring();
}
