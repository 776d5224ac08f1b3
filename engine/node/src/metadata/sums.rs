//! Tags and checksums of an object from those of its parts, without reading a byte.

use anvil_digest::{Algorithm, Digest, combine, md5};
use anvil_model::object::{Checksum, ChecksumAlgorithm, ChecksumType, Etag};

use super::rows::PartRow;
use crate::multipart::PartName;
use crate::payload::digest_algorithm;

/// `<md5 of the parts' md5s>-<parts>`, as AWS makes it. A part's tag that is not an MD5 counts with its text.
pub(super) fn etag(parts: &[&PartRow]) -> Etag {
    let mut digest = Digest::new(Algorithm::Md5);
    for part in parts {
        match md5_of(&part.etag) {
            Some(md5) => digest.update(&md5.to_be_bytes()),
            None => digest.update(part.etag.0.as_bytes()),
        }
    }
    Etag(format!("{}-{}", digest.finish(), parts.len()))
}

/// The object's checksum. Full-object types combine the parts' CRCs; composite ones sum the parts' checksums. `None`
/// when the parts were not summed with that algorithm, or it cannot be combined.
pub(super) fn checksum(parts: &[&PartRow], algorithm: ChecksumAlgorithm, of: ChecksumType) -> Option<Checksum> {
    if parts.iter().any(|part| part.checksum.algorithm != algorithm) {
        return None;
    }
    let value = match of {
        ChecksumType::Composite => {
            let mut digest = Digest::new(digest_algorithm(algorithm));
            parts.iter().for_each(|part| digest.update(&part.checksum.value));
            digest.finish().to_vec()
        }
        ChecksumType::FullObject => {
            if matches!(algorithm, ChecksumAlgorithm::Sha1 | ChecksumAlgorithm::Sha256) {
                return None;
            }
            let (first, rest) = parts.split_first()?;
            rest.iter().fold(first.checksum.value.clone(), |sum, part| {
                combine(digest_algorithm(algorithm), &sum, &part.checksum.value, part.size).to_vec()
            })
        }
    };
    Some(Checksum { algorithm, of, value })
}

/// The CRC64NVME of the object's bytes.
pub(super) fn crc64nvme(parts: &[&PartRow]) -> u64 {
    let sum = |crc: u64, part: &&PartRow| {
        let combined =
            combine(Algorithm::Crc64Nvme, &crc.to_be_bytes(), &part.crc64nvme.to_be_bytes(), part.size).to_vec();
        combined.iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
    };
    parts.split_first().map_or(0, |(first, rest)| rest.iter().fold(first.crc64nvme, sum))
}

/// What tells one list of parts from another.
pub(super) fn fingerprint(parts: &[PartName]) -> [u8; 16] {
    let mut bytes = Vec::with_capacity(parts.len() * 35);
    for part in parts {
        bytes.extend_from_slice(&part.number.to_le_bytes());
        bytes.extend_from_slice(part.etag.0.as_bytes());
        bytes.push(0);
    }
    md5(&bytes)
}

/// The same of a completion of all parts.
pub(super) fn fingerprint_of_all(size: u64, checksum: &Checksum) -> [u8; 16] {
    // No list of parts begins so: none has the number 0.
    md5(&[&[0, 0][..], &size.to_le_bytes(), &checksum.value].concat())
}

fn md5_of(etag: &Etag) -> Option<u128> {
    let digits = etag.0.len() == 32 && etag.0.bytes().all(|byte| byte.is_ascii_hexdigit());
    if digits { u128::from_str_radix(&etag.0, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use anvil_model::ids::WriteId;
    use anvil_model::time::WallTime;

    use super::*;

    fn part(bytes: &[u8], algorithm: ChecksumAlgorithm) -> PartRow {
        let sum = |algorithm| {
            let mut digest = Digest::new(algorithm);
            digest.update(bytes);
            digest.finish()
        };
        let crc: [u8; 8] = sum(Algorithm::Crc64Nvme).to_vec().try_into().unwrap();
        PartRow {
            number: 1,
            write: WriteId(0),
            size: bytes.len() as u64,
            etag: Etag(sum(Algorithm::Md5).to_string()),
            checksum: Checksum {
                algorithm,
                of: ChecksumType::FullObject,
                value: sum(digest_algorithm(algorithm)).to_vec(),
            },
            crc64nvme: u64::from_be_bytes(crc),
            last_modified: WallTime { unix_ms: 0 },
            slices: Vec::new(),
            envelope: None,
        }
    }

    /// Goal: what is computed from parts is what the whole would give. Method: sum the whole and compare.
    #[test]
    fn full_object_sums_are_those_of_the_bytes() {
        let (a, b, c) = (vec![1; 100_000], vec![2; 70_001], vec![]);
        let whole = [a.clone(), b.clone(), c.clone()].concat();
        for algorithm in [ChecksumAlgorithm::Crc32, ChecksumAlgorithm::Crc32c, ChecksumAlgorithm::Crc64Nvme] {
            let rows = [part(&a, algorithm), part(&b, algorithm), part(&c, algorithm)];
            let parts: Vec<_> = rows.iter().collect();
            let expected = part(&whole, algorithm);
            assert_eq!(checksum(&parts, algorithm, ChecksumType::FullObject), Some(expected.checksum), "{algorithm:?}");
            assert_eq!(crc64nvme(&parts), expected.crc64nvme, "{algorithm:?}");
        }
    }

    /// Goal: tags and composite sums are those that AWS documents. Method: values computed with Python's hashlib.
    #[test]
    fn tags_and_composite_sums_follow_aws() {
        let rows = [part(b"hello", ChecksumAlgorithm::Sha256), part(b"world", ChecksumAlgorithm::Sha256)];
        let parts: Vec<_> = rows.iter().collect();
        assert_eq!(etag(&parts).0, "065947336a2f2a95ba8899f3675c3be6-2");
        let composite = checksum(&parts, ChecksumAlgorithm::Sha256, ChecksumType::Composite).unwrap();
        assert_eq!(
            composite.value.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
            "7305db9b2abccd706c256db3d97e5ff48d677cfe4d3a5904afb7da0e3950e1e2"
        );
        assert_eq!(checksum(&parts, ChecksumAlgorithm::Sha256, ChecksumType::FullObject), None);
        assert_eq!(checksum(&parts, ChecksumAlgorithm::Crc32, ChecksumType::FullObject), None);
    }
}
