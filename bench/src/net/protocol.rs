//! What client and server say to each other: eight bytes that say what the connection is for, a byte back when the server is
//! ready, and then only what is measured.

use std::fmt;

use clap::ValueEnum;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde::Serialize;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Operation {
    /// A request of some bytes, answered with the same bytes; then the next
    Echo,
    /// Bytes from the client to the server, which drops them
    Upload,
    /// Bytes from the server to the client, which drops them
    Download,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Measure {
        operation: Operation,
        message_bytes: usize,
    },
    /// The server says what CPU time its process has used, and ends the connection.
    Cpu,
}

impl Purpose {
    pub(super) fn encode(self) -> [u8; HELLO_BYTES] {
        let (kind, bytes) = match self {
            Self::Cpu => (0, 0),
            Self::Measure { operation, message_bytes } => (1 + operation as u8, message_bytes),
        };
        let mut hello = [0; HELLO_BYTES];
        hello[0] = kind;
        hello[4..].copy_from_slice(&u32::try_from(bytes).expect("at most 1 MiB").to_le_bytes());
        hello
    }

    /// `None` for what no client of ours says.
    pub(super) fn decode(hello: [u8; HELLO_BYTES]) -> Option<Self> {
        let [kind, _, _, _, bytes @ ..] = hello;
        let message_bytes = u32::from_le_bytes(bytes) as usize;
        let operation = match kind {
            0 => return Some(Self::Cpu),
            1 => Operation::Echo,
            2 => Operation::Upload,
            3 => Operation::Download,
            _ => return None,
        };
        (1..=MESSAGE_BYTES_MAX).contains(&message_bytes).then_some(Self::Measure { operation, message_bytes })
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Echo => "echo",
            Self::Upload => "upload",
            Self::Download => "download",
        })
    }
}

/// The answer to [`Purpose::Cpu`]: nanoseconds, and the name of the runtime, filled up with zeros.
pub(super) fn cpu_answer(name: &str) -> [u8; CPU_ANSWER_BYTES] {
    let mut answer = [0; CPU_ANSWER_BYTES];
    answer[..8].copy_from_slice(&cpu_ns().to_le_bytes());
    answer[8..8 + name.len()].copy_from_slice(name.as_bytes());
    answer
}

/// User and system time of all threads of this process.
fn cpu_ns() -> u64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("getrusage(2) of the process itself cannot fail");
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    u64::try_from(micros).expect("CPU time is not negative") * 1000
}

pub(super) const HELLO_BYTES: usize = 8;
pub(super) const READY: u8 = b'+';
pub(super) const CPU_ANSWER_BYTES: usize = 32;
/// Of a request, an answer, or a piece of a stream: what a buffer of the server holds.
pub(super) const MESSAGE_BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purpose_is_understood_as_it_was_said() {
        for operation in [Operation::Echo, Operation::Upload, Operation::Download] {
            let purpose = Purpose::Measure { operation, message_bytes: 4711 };
            assert_eq!(Purpose::decode(purpose.encode()), Some(purpose));
        }
        assert_eq!(Purpose::decode(Purpose::Cpu.encode()), Some(Purpose::Cpu));
        for foreign in [*b"GET / HT", [1, 0, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 1, 0, 16, 0], [9; 8]] {
            assert_eq!(Purpose::decode(foreign), None, "{foreign:?}");
        }
    }
}
