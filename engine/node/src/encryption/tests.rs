use anvil_model::ids::{Incarnation, NodeId};
use anvil_model::limits::BUFFER_BYTES;

use super::*;
use crate::stripe::Stripe;

const BLOCK: usize = CHECKSUM_BLOCK_BYTES;

/// Different bytes each time, the same in each run.
fn counting() -> impl FnMut(&mut [u8]) {
    let mut next = 0_u8;
    move |bytes| {
        bytes.fill_with(|| {
            next = next.wrapping_mul(29).wrapping_add(17);
            next
        });
    }
}

fn operator(name: &str, byte: u8) -> OperatorKey {
    OperatorKey::new(name, &[byte; KEY_BYTES])
}

fn blob(sequence: u64) -> BlobId {
    BlobId { node: NodeId(1), incarnation: Incarnation(2), sequence }
}

fn fresh() -> (Keys, KeyRing) {
    Keys::open(KeyRing::default(), &[operator("", 7)], true, counting()).unwrap()
}

fn cell_of(decryptor: &Decryptor, window: u32, cell: u8, bytes: &[u8]) -> Result<Vec<u8>, NotAuthentic> {
    let mut bytes = bytes.to_vec();
    decryptor.decrypt(window, cell, bytes.len(), &(0..bytes.len()), &mut bytes).map(|()| bytes)
}

/// Goal: what was encrypted comes back frame by frame, and nothing else does. Method: a stripe of each profile, whose frames
/// are decrypted one by one; then a bit, a tag, and the places of frames, cells, windows and blobs are changed.
#[test]
fn frames_come_back_as_they_were_or_not_at_all() {
    let (keys, _) = fresh();
    for (data, parity) in [(1, 0), (1, 2), (2, 2), (4, 2), (3, 1), (12, 0), (16, 4)] {
        let profile = Profile { data, parity };
        let most = geometry::window_bytes(profile);
        for length in [1, 5000, 70_000, most - 1, most] {
            let stripe = Stripe::new(profile, length.min(most));
            let mut buffer: Vec<u8> = (0..BUFFER_BYTES).map(|at| (at * 131 % 251) as u8).collect();
            stripe.pad(&mut buffer);
            let plain: Vec<Vec<u8>> = stripe.data_cells(&mut buffer).map(|cell| cell.to_vec()).collect();
            let mut encryptor = keys.encryptor(blob(5), profile, || 3).unwrap();
            encryptor.encrypt(0, stripe.data_cells(&mut buffer.clone()));
            let encryption = encryptor.encrypt(1, stripe.data_cells(&mut buffer));
            let cell_bytes = stripe.cell_bytes();
            assert_eq!(encryption.tags.len(), geometry::frames(profile, cell_bytes));
            let cells: Vec<Vec<u8>> = stripe.data_cells(&mut buffer).map(|cell| cell.to_vec()).collect();
            let decryptor = keys.decryptor(blob(5), profile, &encryption).unwrap();
            for (cell, (encrypted, plain)) in (0..).zip(cells.iter().zip(&plain)) {
                assert!(encrypted != plain, "{profile} of {length}: nothing was encrypted");
                for start in (0..cell_bytes).step_by(BLOCK) {
                    let columns = start..(start + BLOCK).min(cell_bytes);
                    let mut frame = encrypted[columns.clone()].to_vec();
                    decryptor.decrypt(1, cell, cell_bytes, &columns, &mut frame).unwrap();
                    assert!(frame == plain[columns], "{profile} of {length}");
                }
                assert_eq!(cell_of(&decryptor, 1, cell, encrypted).as_ref(), Ok(plain));
                assert_eq!(cell_of(&decryptor, 0, cell, encrypted), Err(NotAuthentic), "of another window");
                let other = keys.decryptor(blob(6), profile, &encryption).unwrap();
                assert_eq!(cell_of(&other, 1, cell, encrypted), Err(NotAuthentic), "of another blob");
                let wider = Profile { parity: parity + 1, ..profile };
                let other = keys.decryptor(blob(5), wider, &encryption).unwrap();
                assert_eq!(cell_of(&other, 1, cell, encrypted), Err(NotAuthentic), "spread in another way");
                let mut flipped = encrypted.clone();
                flipped[cell_bytes / 2] ^= 1;
                assert_eq!(cell_of(&decryptor, 1, cell, &flipped), Err(NotAuthentic), "a flipped bit");
            }
            if data > 1 {
                assert_eq!(cell_of(&decryptor, 1, 1, &cells[0]), Err(NotAuthentic), "in another cell's place");
            }
            let mut salted = encryption.clone();
            salted.salt[0] ^= 1;
            let other = keys.decryptor(blob(5), profile, &salted).unwrap();
            assert_eq!(cell_of(&other, 1, 0, &cells[0]), Err(NotAuthentic), "another salt");
            let mut tagged = encryption.clone();
            tagged.tags[0][15] ^= 0x80;
            let other = keys.decryptor(blob(5), profile, &tagged).unwrap();
            assert_eq!(cell_of(&other, 1, 0, &cells[0]), Err(NotAuthentic), "a flipped tag");
            if let Some(mut swapped) = Some(cells[0].clone()).filter(|cell| cell.len() >= 2 * BLOCK) {
                let (first, rest) = swapped.split_at_mut(BLOCK);
                first.swap_with_slice(&mut rest[..BLOCK]);
                assert_eq!(cell_of(&decryptor, 1, 0, &swapped), Err(NotAuthentic), "two frames exchanged");
            }
        }
    }
}

/// These bytes are part of the format: keys of blobs and nonces of frames are never made in another way.
#[test]
fn a_frame_has_these_bytes() {
    let keys =
        Keys { volumes: [(KeyId(9), VolumeKey(Zeroizing::new([5; KEY_BYTES])))].into(), encrypting: Some(KeyId(9)) };
    let mut encryptor = keys.encryptor(blob(5), Profile { data: 4, parity: 2 }, || 0x0102).unwrap();
    let mut cell = *b"attack at dawn";
    encryptor.encrypt(0, std::iter::once(&mut [0; 3][..]));
    let encryption = encryptor.encrypt(1, std::iter::once(&mut cell[..]));
    assert_eq!(encryption.salt, [2, 1, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!((cell, encryption.tags[0]), VECTOR);
    let nonce = std::array::from_fn(|at| at as u8);
    let wrapped = WrappedKey { id: KeyId(0x0a0b), generation: 1, secret_name: [0; 16], nonce, wrapped: WRAPPED };
    assert_eq!(operator("", 7).open(&wrapped).map(|key| *key.0), Some([5; KEY_BYTES]));
}

/// Made by the same rules with another implementation (cryptography of Python).
const VECTOR: ([u8; 14], [u8; 16]) = (
    [195, 76, 48, 118, 219, 105, 34, 83, 148, 245, 223, 151, 47, 2],
    [210, 144, 110, 139, 150, 136, 150, 121, 165, 232, 140, 118, 187, 121, 240, 137],
);

/// The volume key, wrapped.
#[rustfmt::skip]
const WRAPPED: [u8; 48] = [
    29, 132, 236, 117, 24, 12, 220, 76, 114, 183, 224, 153, 231, 93, 105, 255,
    228, 57, 179, 139, 29, 103, 114, 52, 19, 203, 102, 191, 139, 210, 104, 0,
    233, 97, 28, 199, 151, 161, 180, 4, 173, 54, 197, 155, 77, 239, 251, 149,
];

#[test]
#[should_panic(expected = "no frame is encrypted twice")]
fn a_window_is_encrypted_once() {
    let (keys, _) = fresh();
    let mut encryptor = keys.encryptor(blob(5), Profile::SINGLE, || 3).unwrap();
    encryptor.encrypt(0, std::iter::once(&mut [1; 10][..]));
    encryptor.encrypt(0, std::iter::once(&mut [2; 10][..]));
}

/// A key is opened by the secret that wrapped it, whatever its name, and wrapped anew by the one that is named first.
#[test]
fn keys_are_opened_and_wrapped_anew() {
    let (keys, ring) = fresh();
    assert!(keys.encrypts() && ring.keys().count() == 1);
    let (same, kept) = Keys::open(ring, &[operator("old", 7)], true, |_| panic!("nothing is drawn")).unwrap();
    assert_eq!(kept, ring, "there is nothing to change");
    let mut encryptor = keys.encryptor(blob(1), Profile::SINGLE, || 4).unwrap();
    let mut bytes = [9; 100];
    let encryption = encryptor.encrypt(0, std::iter::once(&mut bytes[..]));
    let read = |keys: &Keys| cell_of(&keys.decryptor(blob(1), Profile::SINGLE, &encryption).unwrap(), 0, 0, &bytes);
    assert_eq!(read(&same), Ok(vec![9; 100]));

    let (renewed, kept) = Keys::open(ring, &[operator("new", 8), operator("old", 7)], false, counting()).unwrap();
    assert!(!renewed.encrypts() && renewed.encryptor(blob(2), Profile::SINGLE, || 4).is_none());
    assert_eq!(read(&renewed), Ok(vec![9; 100]));
    let generations = |ring: &KeyRing| ring.keys().map(|key| key.generation).collect::<Vec<_>>();
    assert_eq!((generations(&ring), generations(&kept)), (vec![1], vec![2]));
    let mut merged = ring;
    kept.keys().for_each(|key| merged.insert(*key).unwrap());
    assert_eq!(merged, kept, "a disk that was away has the former wrapping");
    let (alone, _) = Keys::open(kept, &[operator("new", 8)], true, counting()).unwrap();
    assert_eq!(read(&alone), Ok(vec![9; 100]));

    let refused = Keys::open(kept, &[operator("old", 7)], false, counting()).unwrap_err().to_string();
    assert!(refused.contains("called \"new\""), "{refused}");
    let mut moved = *ring.keys().next().unwrap();
    moved.id.0 ^= 1;
    let mut other = KeyRing::default();
    other.insert(moved).unwrap();
    assert!(Keys::open(other, &[operator("", 7)], false, counting()).is_err(), "a key under another's number");
}

#[test]
fn without_a_secret_nothing_is_opened_and_nothing_changes() {
    let (keys, ring) = fresh();
    let encryption =
        keys.encryptor(blob(1), Profile::SINGLE, || 4).unwrap().encrypt(0, std::iter::once(&mut [1; 10][..]));
    let (none, kept) = Keys::open(ring, &[], false, counting()).unwrap();
    assert_eq!(kept, ring);
    assert!(
        none.decryptor(blob(1), Profile::SINGLE, &encryption).is_none()
            && none.encryptor(blob(2), Profile::SINGLE, || 4).is_none()
    );
    let (off, kept) = Keys::open(KeyRing::default(), &[operator("", 7)], false, counting()).unwrap();
    assert!(
        kept.is_empty() && off.encryptor(blob(2), Profile::SINGLE, || 4).is_none(),
        "no key is made that nobody asked for"
    );
}

#[test]
fn nothing_shows_a_key() {
    let (keys, ring) = fresh();
    let shown = format!("{keys:?} {ring:?} {:?}", operator("mine", 0xab));
    assert!(!shown.contains("171") && !shown.to_lowercase().contains("abab"), "{shown}");
    let volume = keys.volumes.values().next().unwrap();
    assert!(!shown.contains(&format!("{:?}", &volume.0[..4]).replace(['[', ']'], "")), "{shown}");
}
