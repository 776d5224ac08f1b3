//! The descriptors that the process may have: each connection takes one.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// What a node needs beside its connections: disks, databases, logs.
const OTHERS: u64 = 1024;
/// More is asked for silently: a node of many cores could hold more connections than anybody opens.
const WARNED_BELOW: u64 = 65_536;

/// Raises the soft limit so that there is a descriptor for each of so many connections, as far as the hard limit goes. Gives a
/// sentence for the operator when that is not far.
pub(crate) fn provide_for(connections: usize) -> Option<String> {
    let wanted = connections as u64 + OTHERS;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    let limit = limit(soft, hard, wanted);
    if limit > soft && setrlimit(Resource::RLIMIT_NOFILE, limit, hard).is_err() {
        return warning(soft, wanted);
    }
    warning(limit, wanted)
}

/// The soft limit that is best; never less than it is.
fn limit(soft: u64, hard: u64, wanted: u64) -> u64 {
    wanted.min(hard).max(soft)
}

fn warning(limit: u64, wanted: u64) -> Option<String> {
    let wanted = wanted.min(WARNED_BELOW);
    (limit < wanted).then(|| {
        format!(
            "nofile is {limit}, so at most as many connections can be open, and files: make its hard limit {wanted} or more \
             (systemd: LimitNOFILE={WARNED_BELOW})"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_as_far_as_it_may_and_told_when_that_is_not_far() {
        for (soft, hard, wanted, expected, warns) in [
            (1024, 524_288, 17_408, 17_408, false),
            (1024, 4096, 17_408, 4096, true),
            (50_000, 50_000, 17_408, 50_000, false),
            (u64::MAX, u64::MAX, 17_408, u64::MAX, false),
            // Many cores.
            (1024, 524_288, 1_000_000, 524_288, false),
            (1024, 20_000, 1_000_000, 20_000, true),
        ] {
            let limit = limit(soft, hard, wanted);
            assert_eq!((limit, warning(limit, wanted).is_some()), (expected, warns), "{soft} {hard} {wanted}");
        }
        let sentence = warning(4096, 17_408).unwrap();
        assert!(sentence.contains("nofile is 4096") && sentence.contains("17408 or more"), "{sentence}");
    }
}
