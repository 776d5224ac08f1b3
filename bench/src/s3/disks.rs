//! The counters of the server's disks, as it tells them itself.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use serde::Serialize;

use super::connection::Connection;

/// What the server's disks did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct DiskCounts {
    pub(super) reads: u64,
    pub(super) read_bytes: u64,
    pub(super) writes: u64,
    pub(super) written_bytes: u64,
    pub(super) flushes: u64,
}

impl DiskCounts {
    /// Reads them from the node's `/metrics`.
    ///
    /// # Errors
    /// When the endpoint shows no such metrics.
    pub(super) fn read(address: SocketAddr) -> anyhow::Result<Self> {
        let mut page = Vec::new();
        let head = format!("GET /metrics HTTP/1.1\r\nhost: {address}\r\n\r\n");
        let answer = Connection::open(address)?
            .exchange(head.as_bytes(), b"", false, &mut |bytes| page.extend_from_slice(bytes))
            .context("cannot read /metrics")?;
        ensure!(answer.status == 200, "/metrics answers {}", answer.status);
        Ok(Self::parse(&String::from_utf8_lossy(&page)))
    }

    fn parse(page: &str) -> Self {
        let sum = |name: &str| {
            let name = format!("anvil_disk_{name}_total{{");
            let values = page.lines().filter(|line| line.starts_with(&name)).filter_map(|line| line.rsplit(' ').next());
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts below 2^53")]
            values.filter_map(|value| value.parse::<f64>().ok()).map(|value| value as u64).sum()
        };
        Self {
            reads: sum("reads"),
            read_bytes: sum("read_bytes"),
            writes: sum("writes"),
            written_bytes: sum("written_bytes"),
            flushes: sum("flushes"),
        }
    }

    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            reads: self.reads.saturating_sub(earlier.reads),
            read_bytes: self.read_bytes.saturating_sub(earlier.read_bytes),
            writes: self.writes.saturating_sub(earlier.writes),
            written_bytes: self.written_bytes.saturating_sub(earlier.written_bytes),
            flushes: self.flushes.saturating_sub(earlier.flushes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_added_up() {
        let page = "anvil_disk_flushes_total{disk=\"a\"} 3.0\nanvil_disk_flushes_total{disk=\"b c\"} 4\nanvil_disk_reads_total{disk=\"a\"} 1\n";
        let counts = DiskCounts::parse(page);
        assert_eq!((counts.flushes, counts.reads, counts.writes), (7, 1, 0));
        assert_eq!(counts.since(DiskCounts { flushes: 2, ..counts }).flushes, 5);
    }
}
