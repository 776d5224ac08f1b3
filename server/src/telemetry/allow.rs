//! Who may read the page of metrics: it tells strangers how much is stored, and how busy the node is.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::http::{Head, forwarded_address};

/// Loopback, and the ranges that nobody routes through the internet (RFC 1918, RFC 4193).
pub const METRICS_ALLOW_DEFAULT: &str = "127.0.0.0/8,::1/128,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7";

/// The networks whose clients may read the page. Never changed while a node runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsAllow(Vec<IpNet>);

impl MetricsAllow {
    /// Clients of these networks may.
    #[must_use]
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Whether the sender of this request may: the client that is connected, and everybody for whom it says that it
    /// speaks. A proxy stands in a private range and would let everybody in otherwise; a name that cannot be read is
    /// nobody's. Headers take rights away here and never give any, so it does not matter who wrote them.
    #[must_use]
    pub fn admits(&self, head: &Head) -> bool {
        let named = head.headers.iter().flat_map(|(name, value)| match name.as_str() {
            "x-forwarded-for" | "x-real-ip" => addresses(value),
            "forwarded" => forwarded(value),
            _ => Vec::new(),
        });
        self.contains(head.peer.ip()) && named.into_iter().all(|ip| ip.is_some_and(|ip| self.contains(ip)))
    }

    fn contains(&self, ip: IpAddr) -> bool {
        // A listener on [::] sees clients of IPv4 as ::ffff:a.b.c.d.
        let ip = ip.to_canonical();
        self.0.iter().any(|network| network.contains(&ip))
    }
}

/// `a, b, c`; `None` for what is no address.
fn addresses(value: &[u8]) -> Vec<Option<IpAddr>> {
    let text = String::from_utf8_lossy(value);
    text.split(',').map(|item| forwarded_address(item.trim())).collect()
}

/// `for=192.0.2.60;proto=http, for="[2001:db8::1]:47"` (RFC 7239, section 4).
fn forwarded(value: &[u8]) -> Vec<Option<IpAddr>> {
    let text = String::from_utf8_lossy(value);
    let pairs = text.split([',', ';']).filter_map(|pair| pair.trim().split_once('='));
    let named = pairs.filter(|(name, _)| name.trim().eq_ignore_ascii_case("for"));
    named.map(|(_, who)| forwarded_address(who.trim().trim_matches('"'))).collect()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn allow(networks: &str) -> MetricsAllow {
        MetricsAllow::new(networks.split(',').map(|network| network.parse().unwrap()).collect())
    }

    fn admits(allow: &MetricsAllow, peer: &str, headers: &[(&str, &str)]) -> bool {
        allow.admits(&Head {
            method: "GET".to_owned(),
            path: "/metrics".to_owned(),
            query: None,
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect(),
            peer: SocketAddr::new(peer.parse().unwrap(), 1),
            request_id: "R".to_owned(),
        })
    }

    #[test]
    fn the_default_is_loopback_and_private_ranges() {
        let allow = allow(METRICS_ALLOW_DEFAULT);
        for (peer, expected) in [
            ("127.0.0.1", true),
            ("127.255.255.254", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("10.255.0.1", true),
            ("172.16.0.1", true),
            ("172.31.255.255", true),
            ("172.32.0.0", false),
            ("172.15.255.255", false),
            ("192.168.7.7", true),
            ("192.169.0.0", false),
            ("fd12::1", true),
            ("::ffff:8.8.8.8", false),
            ("8.8.8.8", false),
            ("2001:db8::1", false),
            ("::2", false),
        ] {
            assert_eq!(admits(&allow, peer, &[]), expected, "{peer}");
        }
    }

    /// A proxy on this host does not let in whom it speaks for.
    #[test]
    fn headers_take_rights_away_and_give_none() {
        let allow = allow("127.0.0.1/32,192.0.2.0/24");
        for (name, value, expected) in [
            ("x-forwarded-for", "192.0.2.7", true),
            ("x-forwarded-for", "192.0.2.7, 192.0.2.8:443", true),
            ("x-forwarded-for", "198.51.100.1", false),
            ("x-forwarded-for", "192.0.2.7, 198.51.100.1", false),
            ("x-forwarded-for", "198.51.100.1, 192.0.2.7", false),
            ("x-forwarded-for", "", false),
            ("x-forwarded-for", "unknown", false),
            ("x-real-ip", "198.51.100.1", false),
            ("forwarded", "for=192.0.2.60;proto=http;by=203.0.113.43", true),
            ("forwarded", "For=\"192.0.2.60:80\", for=198.51.100.1", false),
            ("forwarded", "for=\"[2001:db8::1]:47\"", false),
            ("forwarded", "for=_hidden", false),
            ("forwarded", "proto=https", true),
            ("x-other", "198.51.100.1", true),
        ] {
            assert_eq!(admits(&allow, "127.0.0.1", &[(name, value)]), expected, "{name}: {value}");
        }
        assert!(!admits(&allow, "198.51.100.1", &[("x-forwarded-for", "127.0.0.1")]));
    }
}
