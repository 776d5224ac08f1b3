//! Cyclic redundancy checks: their parameters and values.

use crc_fast::CrcAlgorithm;

use crate::{Algorithm, Value};

/// Names the kernel that computes CRCs on this CPU, e.g. `x86_64-avx512-vpclmulqdq`. For people to read; not stable.
#[must_use]
pub fn crc_kernel() -> String {
    crc_fast::get_calculator_target(CrcAlgorithm::Crc64Nvme)
}

/// The parameters by their names in the catalogue (reveng, "Catalogue of parametrised CRC algorithms"); `None` for what
/// is not a CRC.
pub(crate) fn parameters(algorithm: Algorithm) -> Option<CrcAlgorithm> {
    match algorithm {
        Algorithm::Crc32 => Some(CrcAlgorithm::Crc32IsoHdlc),
        Algorithm::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
        Algorithm::Crc64Nvme => Some(CrcAlgorithm::Crc64Nvme),
        Algorithm::Md5 | Algorithm::Sha1 | Algorithm::Sha256 => None,
    }
}

/// The low bytes of `number`, big-endian.
pub(crate) fn value(algorithm: Algorithm, number: u64) -> Value {
    let unused = size_of::<u64>() - algorithm.value_bytes();
    Value::new(&number.to_be_bytes()[unused..])
}

pub(crate) fn number(algorithm: Algorithm, value: &[u8]) -> u64 {
    assert_eq!(value.len(), algorithm.value_bytes(), "a value of {algorithm:?} has this length");
    value.iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
}
