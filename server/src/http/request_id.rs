//! The names of requests.

/// The text of a request id: 16 characters of `0-9A-V` from 64 random bits, in the shape of those of AWS.
pub(crate) fn request_id(random: u64) -> String {
    const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHIJKLMNOPQRSTUV";
    // Sixteen digits of five bits hold 80; the upper ones take the mixed bits again, which costs no uniqueness.
    let wide = u128::from(random) | (u128::from(random.wrapping_mul(0x9e37_79b9_7f4a_7c15)) << 64);
    (0..16).map(|digit| char::from(DIGITS[((wide >> (5 * digit)) & 31) as usize])).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_have_sixteen_characters_and_differ_in_every_bit() {
        let ids: BTreeSet<String> = (0..64).map(|bit| request_id(1 << bit)).chain([request_id(0)]).collect();
        assert_eq!(ids.len(), 65);
        assert!(ids.iter().all(|id| id.len() == 16 && id.bytes().all(|b| b.is_ascii_alphanumeric())));
    }
}
