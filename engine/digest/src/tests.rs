//! Goal: every digest is the one that S3 clients compute, however its bytes are cut. Method: published vectors, and
//! for CRCs a bit-by-bit twin at every short length; proptest for cuts.

use proptest::prelude::*;

use super::*;

const ALL: [Algorithm; 6] =
    [Algorithm::Md5, Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64Nvme, Algorithm::Sha1, Algorithm::Sha256];
const CRCS: [Algorithm; 3] = [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64Nvme];

fn digest(algorithm: Algorithm, bytes: &[u8]) -> Value {
    let mut digest = Digest::new(algorithm);
    digest.update(bytes);
    digest.finish()
}

fn check(algorithm: Algorithm, bytes: &[u8], expected: &str) {
    assert_eq!(digest(algorithm, bytes).to_string(), expected, "{algorithm:?} of {} bytes", bytes.len());
}

/// A CRC as the catalogue defines it, one bit at a time; `polynomial` reflected. All three begin and end inverted.
fn naive_crc(width: u32, polynomial: u64, bytes: &[u8]) -> u64 {
    let ones = u64::MAX >> (64 - width);
    let mut crc = ones;
    for &byte in bytes {
        crc ^= u64::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ polynomial } else { crc >> 1 };
        }
    }
    crc ^ ones
}

fn naive(algorithm: Algorithm, bytes: &[u8]) -> Vec<u8> {
    let (width, polynomial) = match algorithm {
        Algorithm::Crc32 => (32, 0xedb8_8320),
        Algorithm::Crc32c => (32, 0x82f6_3b78),
        Algorithm::Crc64Nvme => (64, 0x9a6c_9329_ac4b_c9b5),
        Algorithm::Md5 | Algorithm::Sha1 | Algorithm::Sha256 => unreachable!("not a CRC"),
    };
    naive_crc(width, polynomial, bytes).to_be_bytes()[8 - width as usize / 8..].to_vec()
}

/// Bytes that do not repeat with any power of two.
fn sample(length: usize) -> Vec<u8> {
    (0..length).map(|i| u8::try_from((i * i + 7 * i) % 251).expect("below 251")).collect()
}

#[test]
fn md5_agrees_with_rfc_1321() {
    check(Algorithm::Md5, b"", "d41d8cd98f00b204e9800998ecf8427e");
    check(Algorithm::Md5, b"abc", "900150983cd24fb0d6963f7d28e17f72");
    check(Algorithm::Md5, b"message digest", "f96b697d7cb7938d525a2f31aaf161d0");
    let digits = b"1234567890".repeat(8);
    check(Algorithm::Md5, &digits, "57edf4a22be3c955ac49da2e2107b67a");
}

#[test]
fn sha1_and_sha256_agree_with_fips_180() {
    let two_blocks = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    check(Algorithm::Sha1, b"", "da39a3ee5e6b4b0d3255bfef95601890afd80709");
    check(Algorithm::Sha1, b"abc", "a9993e364706816aba3e25717850c26c9cd0d89d");
    check(Algorithm::Sha1, two_blocks, "84983e441c3bd26ebaae4aa1f95129e5e54670f1");
    check(Algorithm::Sha256, b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    check(Algorithm::Sha256, b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    check(Algorithm::Sha256, two_blocks, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    let million = vec![b'a'; 1_000_000];
    check(Algorithm::Sha1, &million, "34aa973cd4c4daa4f61eeb2bdbad27316534016f");
    check(Algorithm::Sha256, &million, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

#[test]
fn crcs_agree_with_the_catalogue() {
    check(Algorithm::Crc32, b"123456789", "cbf43926");
    check(Algorithm::Crc32c, b"123456789", "e3069283");
    check(Algorithm::Crc64Nvme, b"123456789", "ae8b14860a799888");
    // RFC 3720, B.4: 32 bytes of zeros, of ones, ascending.
    check(Algorithm::Crc32c, &[0; 32], "8a9136aa");
    check(Algorithm::Crc32c, &[0xff; 32], "62a8ab43");
    check(Algorithm::Crc32c, &(0..32).collect::<Vec<u8>>(), "46dd794e");
    // NVM Express command set specification, 5.2.1.3.4: 4 KiB of zeros, of ones.
    check(Algorithm::Crc64Nvme, &[0; 4096], "6482d367eb22b64e");
    check(Algorithm::Crc64Nvme, &[0xff; 4096], "c0ddba7302eca3ac");
    for algorithm in CRCS {
        check(algorithm, b"", &"00".repeat(algorithm.value_bytes()));
    }
}

#[test]
fn hmac_agrees_with_rfc_4231() {
    let check = |key: &[u8], data: &[u8], expected| assert_eq!(hex::encode(hmac_sha256(key, data)), expected);
    check(&[0x0b; 20], b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    check(b"Jefe", b"what do ya want for nothing?", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    check(
        &[0xaa; 131],
        b"Test Using Larger Than Block-Size Key - Hash Key First",
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
    );
}

#[test]
fn every_short_length_is_the_same_in_one_piece_in_bytes_and_bit_by_bit() {
    let bytes = sample(300);
    for length in 0..=bytes.len() {
        let bytes = &bytes[..length];
        for algorithm in ALL {
            let mut one_by_one = Digest::new(algorithm);
            bytes.chunks(1).for_each(|byte| one_by_one.update(byte));
            assert_eq!(one_by_one.finish(), digest(algorithm, bytes), "{algorithm:?} of {length} bytes");
        }
        for algorithm in CRCS {
            assert_eq!(&digest(algorithm, bytes)[..], naive(algorithm, bytes), "{algorithm:?} of {length} bytes");
        }
        assert_eq!(&digest(Algorithm::Md5, bytes)[..], md5(bytes));
        assert_eq!(&digest(Algorithm::Sha256, bytes)[..], sha256(bytes));
    }
}

#[test]
fn combining_with_nothing_changes_nothing() {
    for algorithm in CRCS {
        let value = digest(algorithm, b"some bytes");
        let nothing = digest(algorithm, b"");
        assert_eq!(combine(algorithm, &value, &nothing, 0), value);
        assert_eq!(combine(algorithm, &nothing, &value, 10), value);
    }
}

/// A length that no test could hash: 2^40 zeros, combined by doubling, against the same in one step of halves.
#[test]
fn combining_holds_for_lengths_beyond_32_bits() {
    for algorithm in CRCS {
        let zeros = |power: u32| {
            let mut value = digest(algorithm, &[0; 1024]);
            for doubling in 10..power {
                value = combine(algorithm, &value.clone(), &value, 1 << doubling);
            }
            value
        };
        let whole = zeros(40);
        let halves = combine(algorithm, &zeros(39), &zeros(39), 1 << 39);
        let uneven = combine(
            algorithm,
            &digest(algorithm, &[0; 1024]),
            &{
                // 2^40 - 2^10 zeros: the sum of all powers between.
                let mut value = zeros(10);
                for power in 11..40 {
                    value = combine(algorithm, &value, &zeros(power), 1 << power);
                }
                value
            },
            (1 << 40) - (1 << 10),
        );
        assert_eq!(whole, halves);
        assert_eq!(whole, uneven);
    }
}

#[test]
#[should_panic(expected = "only CRCs can be combined")]
fn a_hash_cannot_be_combined() {
    let _ = combine(Algorithm::Md5, &[0; 16], &[0; 16], 1);
}

#[test]
#[should_panic(expected = "has this length")]
fn a_value_of_another_length_is_refused() {
    let _ = combine(Algorithm::Crc32, &[0; 8], &[0; 4], 1);
}

#[test]
fn crcs_use_the_cpu_where_it_can_multiply_without_carry() {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("pclmulqdq") && std::arch::is_x86_feature_detected!("sse4.1") {
        assert!(crc_kernel().starts_with("x86_64-"), "chose {}", crc_kernel());
    }
    assert!(!crc_kernel().is_empty());
}

/// The same by the crates of RustCrypto, which share no code with ours but SHA-256 of one stream.
fn independent(algorithm: Algorithm, bytes: &[u8]) -> Vec<u8> {
    use ::md5::Digest as _;
    match algorithm {
        Algorithm::Md5 => ::md5::Md5::digest(bytes).to_vec(),
        Algorithm::Sha256 => sha2::Sha256::digest(bytes).to_vec(),
        other => digest(other, bytes).to_vec(),
    }
}

/// Gives each of `inputs` to a digest of its own in steps: in step `i` as many bytes as `cuts(stream, i)` says.
fn check_many(kernel: &Kernel, algorithm: Algorithm, inputs: &[&[u8]], cuts: impl Fn(usize, usize) -> usize) {
    let mut digests = vec![Digest::new(algorithm); inputs.len()];
    let mut taken = vec![0; inputs.len()];
    for round in 0.. {
        let mut updates = Vec::new();
        for (stream, digest) in digests.iter_mut().enumerate() {
            let left = &inputs[stream][taken[stream]..];
            let step = &left[..left.len().min(cuts(stream, round))];
            taken[stream] += step.len();
            updates.push((digest, step));
        }
        update_many(kernel, &mut updates);
        if taken.iter().zip(inputs).all(|(&taken, input)| taken == input.len()) {
            break;
        }
    }
    for (stream, (digest, input)) in digests.into_iter().zip(inputs).enumerate() {
        let (value, expected) = (digest.finish(), independent(algorithm, input));
        assert_eq!(value[..], expected, "{kernel:?}, {algorithm:?}, stream {stream} of {} bytes", input.len());
    }
}

/// Every length from 0 to 300 in every lane, beside streams of other lengths, for every number of streams that fills the
/// lanes differently.
#[test]
fn every_kernel_gives_what_independent_code_gives() {
    let bytes = sample(300 + 40);
    for kernel in Kernel::all().iter().chain([&Kernel::detect()]) {
        for algorithm in [Algorithm::Md5, Algorithm::Sha256] {
            for count in [1, 2, 3, 7, 8, 9, 15, 16, 17, 33] {
                for length in 0..=300 {
                    let inputs: Vec<&[u8]> =
                        (0..count).map(|stream| &bytes[stream..][..(length + 37 * stream) % 301]).collect();
                    check_many(kernel, algorithm, &inputs, |_, _| usize::MAX);
                }
            }
        }
    }
}

#[test]
fn many_at_once_may_be_of_any_algorithm_or_none_at_all() {
    let bytes = sample(5000);
    for kernel in &Kernel::all() {
        update_many(kernel, &mut []);
        let mut digests: Vec<Digest> = ALL.iter().cycle().take(40).map(|&algorithm| Digest::new(algorithm)).collect();
        let mut updates: Vec<_> = digests.iter_mut().map(|digest| (digest, &bytes[..])).collect();
        update_many(kernel, &mut updates);
        for value in digests {
            let algorithm = value.algorithm();
            assert_eq!(value.finish(), digest(algorithm, &bytes), "{kernel:?}");
        }
    }
}

#[test]
fn the_cpu_is_used_for_what_it_has() {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        assert_eq!(Kernel::detect().lanes(Algorithm::Md5), 16, "{:?}", Kernel::detect());
        let instructions = std::arch::is_x86_feature_detected!("sha");
        assert_eq!(Kernel::detect().lanes(Algorithm::Sha256), if instructions { 2 } else { 8 });
    }
    assert_eq!(Kernel::detect().lanes(Algorithm::Crc64Nvme), 1);
}

proptest! {
    #[test]
    fn cuts_do_not_matter(length in 0..20_000_usize, cuts in prop::collection::vec(0..20_000_usize, 0..8)) {
        let bytes = sample(length);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(length)).chain([0, length]).collect();
        cuts.sort_unstable();
        for algorithm in ALL {
            let mut pieces = Digest::new(algorithm);
            cuts.windows(2).for_each(|cut| pieces.update(&bytes[cut[0]..cut[1]]));
            prop_assert_eq!(pieces.finish(), digest(algorithm, &bytes));
        }
    }

    #[test]
    fn combining_equals_the_whole(bytes in prop::collection::vec(any::<u8>(), 0..5_000), cut in any::<prop::sample::Index>()) {
        let (a, b) = bytes.split_at(cut.index(bytes.len() + 1));
        for algorithm in CRCS {
            let combined = combine(algorithm, &digest(algorithm, a), &digest(algorithm, b), b.len() as u64);
            prop_assert_eq!(combined, digest(algorithm, &bytes));
        }
    }

    #[test]
    fn combining_is_that_of_another_library(a in any::<u64>(), b in any::<u64>(), length in 0..=1_u64 << 62) {
        for algorithm in CRCS {
            let [a, b] = [a, b].map(|number| crc::value(algorithm, number));
            let parameters = crc::parameters(algorithm).unwrap();
            let [x, y] = [&a, &b].map(|value| crc::number(algorithm, value));
            let other = crc_fast::checksum_combine(parameters, x, y, length);
            prop_assert_eq!(combine(algorithm, &a, &b, length), crc::value(algorithm, other));
        }
    }

    #[test]
    fn streams_of_any_lengths_and_cuts_share_lanes(
        lengths in prop::collection::vec(0..3_000_usize, 1..24),
        cuts in prop::collection::vec(1..700_usize, 1..9),
    ) {
        let bytes = sample(3_000);
        let inputs: Vec<&[u8]> = lengths.iter().map(|&length| &bytes[3_000 - length..]).collect();
        for kernel in &Kernel::all() {
            for algorithm in [Algorithm::Md5, Algorithm::Sha256] {
                check_many(kernel, algorithm, &inputs, |stream, round| cuts[(stream + round) % cuts.len()]);
            }
        }
    }
}
