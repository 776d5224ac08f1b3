//! Goal: a node with several disks starts with those that are left, says what is missing, and loses none of its metadata
//! with them. Method: the binary with four disks and the profile 2+2, whose directories are taken away, emptied, swapped
//! and copied between starts.

use std::fs;

use crate::place::Place;
use crate::support::node::{Node, Options};

const OBJECT_COUNT: usize = 40;

/// Objects without bytes: only the metadata knows them.
fn write(node: &Node) {
    let mut client = node.client();
    client.put("/bucket", b"").unwrap().succeeded();
    for number in 0..OBJECT_COUNT {
        client.put(&format!("/bucket/key-{number:03}"), b"").unwrap().succeeded();
    }
    client.delete("/bucket/key-007").unwrap().succeeded();
}

fn verify(node: &Node, name: &str) {
    let keys: Vec<String> = node.client().list("bucket").unwrap().into_iter().map(|(key, _)| key).collect();
    let expected: Vec<String> =
        (0..OBJECT_COUNT).filter(|&number| number != 7).map(|number| format!("key-{number:03}")).collect();
    assert_eq!(keys, expected, "{name}");
}

#[test]
fn any_two_disks_and_the_data_directory_may_be_lost() {
    for lost in [[0, 1], [1, 3], [2, 3]] {
        let place = Place::new();
        let node = place.start();
        write(&node);
        node.kill();
        lost.iter().for_each(|&disk| fs::remove_dir_all(&place.disks[disk]).unwrap());
        fs::remove_dir_all(&place.data).unwrap();
        let node = place.start();
        verify(&node, &format!("without {lost:?}"));
        node.stop();
    }
}

#[test]
fn a_start_with_two_missing_is_ready_and_says_so() {
    let place = Place::new();
    let node = place.start();
    write(&node);
    assert_eq!(place.missing(&node), Vec::<usize>::new());
    node.stop();
    let away = |disk: usize| place.disks[disk].with_extension("away");
    let take_away = |disk: usize| fs::rename(&place.disks[disk], away(disk)).unwrap();
    take_away(0);
    // Something blank is mounted where a disk was: it is never formatted.
    take_away(2);
    fs::create_dir(&place.disks[2]).unwrap();
    for _ in 0..2 {
        let node = place.start();
        assert_eq!(place.missing(&node), [0, 2]);
        let said = |disk: usize| node.banner.contains(&format!("last seen at {}", place.disks[disk].display()));
        assert!(said(0) && said(2) && !said(1) && node.banner.contains("are missing"), "{}", node.banner);
        verify(&node, "with two missing");
        node.client().put("/bucket/more", b"").unwrap().succeeded();
        node.client().delete("/bucket/more").unwrap().succeeded();
        node.stop();
        assert!(!place.disks[0].exists(), "nothing is made where a disk was");
    }
    take_away(3);
    let refusal = place.refused();
    for named in [&place.disks[0], &place.disks[2], &place.disks[3]] {
        assert!(refusal.contains(&format!("last seen at {}", named.display())), "{refusal}");
    }
    // All are back, each in another one's place.
    fs::remove_dir_all(&place.disks[2]).unwrap();
    fs::rename(away(0), &place.disks[3]).unwrap();
    fs::rename(away(2), &place.disks[0]).unwrap();
    fs::rename(away(3), &place.disks[2]).unwrap();
    let node = place.start();
    assert_eq!(place.missing(&node), Vec::<usize>::new());
    verify(&node, "with all of them again");
    node.stop();
}

/// An operator who takes failed disks out of the configuration does not thereby ask for less redundancy.
#[test]
fn disks_that_are_not_named_count_for_the_profile() {
    let place = Place::new();
    let start = |disks: &[usize]| {
        let named =
            disks.iter().flat_map(|&disk| ["--disk".to_owned(), format!("{}:4GiB", place.disks[disk].display())]);
        Node::start_with(&place.data, &Options { arguments: named.collect(), ..Options::default() })
    };
    let node = start(&[0, 1, 2, 3]);
    assert!(node.banner.contains("Profile 2+2"), "{}", node.banner);
    write(&node);
    node.stop();
    for with_data in [true, false] {
        if !with_data {
            fs::remove_dir_all(&place.data).unwrap();
        }
        let node = start(&[1, 2]);
        assert!(node.banner.contains("Profile 2+2") && node.banner.contains("are missing"), "{}", node.banner);
        verify(&node, "with two that nobody names");
        node.stop();
    }
}

#[test]
fn a_cloned_disk_is_refused() {
    let place = Place::new();
    place.start().stop();
    fs::copy(place.disks[0].join("anvil.disk"), place.disks[1].join("anvil.disk")).unwrap();
    assert!(place.refused().contains("one is a copy of the other"));
}

/// Disks of two clusters change places.
#[test]
fn a_disk_of_another_cluster_is_refused_and_left_alone() {
    let (place, other) = (Place::new(), Place::new());
    let node = place.start();
    write(&node);
    node.stop();
    other.start().stop();
    let aside = place.disks[1].with_extension("away");
    fs::rename(&place.disks[1], &aside).unwrap();
    fs::rename(&other.disks[1], &place.disks[1]).unwrap();
    let before = fs::read(place.disks[1].join("anvil.disk")).unwrap();
    let refusal = place.refused();
    assert!(refusal.contains("another cluster") && refusal.contains(place.disks[1].to_str().unwrap()), "{refusal}");
    assert!(fs::read(place.disks[1].join("anvil.disk")).unwrap() == before, "somebody else's disk was changed");
    fs::rename(&place.disks[1], &other.disks[1]).unwrap();
    fs::rename(&aside, &place.disks[1]).unwrap();
    let node = place.start();
    verify(&node, "with its own disk again");
    node.stop();
}

#[test]
fn a_disk_that_cannot_be_read_counts_as_missing() {
    let place = Place::new();
    let node = place.start();
    write(&node);
    node.stop();
    let truncate = |disk: usize| {
        let file = fs::OpenOptions::new().write(true).open(place.disks[disk].join("anvil.disk")).unwrap();
        file.set_len(2 << 20).unwrap();
    };
    truncate(1);
    // Somebody else's bytes.
    fs::write(place.disks[2].join("anvil.disk"), vec![0x5a; 8 << 20]).unwrap();
    let node = place.start();
    assert_eq!(place.missing(&node), [1, 2]);
    verify(&node, "with a truncated disk and a foreign one");
    node.stop();
}

/// The disks know one another: without the data directory nothing blank is taken for a new disk while one is missing.
#[test]
fn without_the_data_directory_the_disks_say_which_are_missing() {
    let place = Place::new();
    let node = place.start();
    write(&node);
    let ids: Vec<String> = {
        let listed = place.told(&node, &["disk", "list"]);
        listed.as_array().unwrap().iter().map(|disk| disk["id"].as_str().unwrap().to_owned()).collect()
    };
    node.stop();
    let away = |disk: usize| place.disks[disk].with_extension("away");
    fs::remove_dir_all(&place.data).unwrap();
    fs::rename(&place.disks[1], away(1)).unwrap();
    for _ in 0..2 {
        let node = place.start();
        let missing = (ids[1].clone(), "missing".to_owned());
        assert!(node.banner.contains(&format!("disk {} is missing", ids[1])), "{}", node.banner);
        assert!(place.states(&node).contains(&missing), "{:?}", place.states(&node));
        assert_eq!(place.states(&node).len(), 4, "nothing else was made of the blank path");
        assert!(node.metrics().contains(&format!("anvil_disk_missing{{disk=\"{}\"}} 1.0", ids[1])));
        verify(&node, "without the data directory and a disk");
        node.stop();
    }
    fs::remove_dir_all(&place.data).unwrap();
    for disk in [0, 2] {
        fs::rename(&place.disks[disk], away(disk)).unwrap();
    }
    let refusal = place.refused();
    for id in &ids[0..3] {
        assert!(refusal.contains(id.as_str()), "{refusal}");
    }
    assert!(refusal.contains("can do without 2"), "{refusal}");
    for disk in [0, 1, 2] {
        fs::remove_dir_all(&place.disks[disk]).unwrap();
        fs::rename(away(disk), &place.disks[disk]).unwrap();
    }
    let node = place.start();
    assert!(place.states(&node).iter().all(|(_, state)| state == "online"));
    verify(&node, "with all of them again");
    node.stop();
}
