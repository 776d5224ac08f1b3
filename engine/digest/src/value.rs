//! What a digest computes.

use std::fmt;
use std::ops::Deref;

/// A finished digest of 4 to 32 bytes, on the stack. CRCs are big-endian, as S3 writes them.
#[derive(Clone, Copy)]
pub struct Value {
    /// Behind `length` all zero.
    bytes: [u8; VALUE_BYTES_MAX],
    length: u8,
}

impl Value {
    pub(crate) fn new(value: &[u8]) -> Self {
        assert!(value.len() <= VALUE_BYTES_MAX, "no digest here is longer than SHA-256");
        let mut bytes = [0; VALUE_BYTES_MAX];
        bytes[..value.len()].copy_from_slice(value);
        Self { bytes, length: u8::try_from(value.len()).expect("checked above") }
    }
}

impl Deref for Value {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// Not in constant time: digests protect against damage. Compare secrets (signatures) with `subtle`.
impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self[..] == other[..]
    }
}

impl Eq for Value {}

/// Lower-case hexadecimal digits.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({self})")
    }
}

const VALUE_BYTES_MAX: usize = 32;
