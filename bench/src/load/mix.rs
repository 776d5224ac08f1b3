//! Several kinds of operations with their shares.

use std::fmt;

use anyhow::ensure;
use clap::ValueEnum;

use super::random::Random;

/// Reads `get` or `get=45`.
///
/// # Errors
/// One sentence that says what is taken.
pub(crate) fn share<O: ValueEnum>(text: &str) -> Result<(O, u32), String> {
    let (name, share) = text.split_once('=').unwrap_or((text, "1"));
    let operation = O::from_str(name, false).map_err(|_| {
        let names = O::value_variants().iter().filter_map(O::to_possible_value);
        let names: Vec<_> = names.map(|value| value.get_name().to_owned()).collect();
        format!("`{name}` is none of {}", names.join(", "))
    })?;
    let share = share.parse().ok().filter(|share| *share <= 1000).ok_or("a share is a number up to 1000")?;
    Ok((operation, share))
}

/// # Errors
/// One sentence, when a kind is there twice or never comes.
pub(crate) fn check_mix<O: PartialEq + fmt::Display>(mix: &[(O, u32)]) -> anyhow::Result<()> {
    for (at, (operation, share)) in mix.iter().enumerate() {
        ensure!(*share > 0, "--operation {operation} has a share of 0");
        let is_twice = mix[..at].iter().any(|(other, _)| other == operation);
        ensure!(!is_twice, "--operation {operation} is there twice");
    }
    Ok(())
}

/// Which comes next. The mix is not empty.
pub(crate) fn draw<O: Copy>(mix: &[(O, u32)], random: &mut Random) -> O {
    if let [(only, _)] = mix {
        return *only;
    }
    let sum: u32 = mix.iter().map(|(_, share)| share).sum();
    let mut drawn = random.below(u64::from(sum));
    for &(operation, share) in mix {
        match drawn.checked_sub(u64::from(share)) {
            None => return operation,
            Some(rest) => drawn = rest,
        }
    }
    unreachable!("a number below the sum falls into a share")
}
