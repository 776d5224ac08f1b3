//! For which address a request counts.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use crate::http::{Head, forwarded_address};

/// The proxies whose word counts. Never changed while a node runs.
#[derive(Debug)]
pub(super) struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    pub(super) fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// The last one on the way here that is no trusted proxy: the connection's other end, or else the right-most hop in
    /// `X-Forwarded-For` that none of them is. What stands left of it anybody may have written. Where a hop cannot be read, the
    /// proxy that wrote it counts.
    pub(super) fn client(&self, head: &Head) -> IpAddr {
        // A listener on [::] sees clients of IPv4 as ::ffff:a.b.c.d.
        let mut client = head.peer.ip().to_canonical();
        let lines = head.headers.iter().rev().filter(|(name, _)| name == "x-forwarded-for");
        let mut hops = lines.flat_map(|(_, line)| line.rsplit(|&byte| byte == b','));
        while self.contains(client) {
            let hop = hops.next().and_then(|hop| forwarded_address(std::str::from_utf8(hop).ok()?.trim()));
            match hop {
                Some(hop) => client = hop.to_canonical(),
                None => break,
            }
        }
        client
    }

    fn contains(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&ip))
    }
}

/// Whose allowance an address uses: its own, or with IPv6 that of its /64, which is the least that a customer gets.
pub(super) fn of(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn client(trusted: &str, peer: &str, headers: &[(&str, &str)]) -> String {
        let networks = trusted.split(',').filter(|text| !text.is_empty());
        let proxies = TrustedProxies::new(networks.map(|network| network.parse().unwrap()).collect());
        let head = Head {
            method: "GET".to_owned(),
            path: "/".to_owned(),
            query: None,
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect(),
            peer: SocketAddr::new(peer.parse().unwrap(), 1),
            request_id: "R".to_owned(),
        };
        proxies.client(&head).to_string()
    }

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        const FOR: &str = "x-forwarded-for";
        const PROXIES: &str = "127.0.0.0/8,10.0.0.0/8,fd00::/8";
        for (trusted, peer, headers, expected) in [
            // Nobody is trusted: nothing that is said counts.
            ("", "192.0.2.1", &[] as &[_], "192.0.2.1"),
            ("", "127.0.0.1", &[(FOR, "198.51.100.1")], "127.0.0.1"),
            // A stranger says things.
            (PROXIES, "192.0.2.1", &[(FOR, "198.51.100.1")], "192.0.2.1"),
            (PROXIES, "192.0.2.1", &[(FOR, "10.0.0.1")], "192.0.2.1"),
            // A proxy says for whom it speaks; what its client said of itself stands left of that.
            (PROXIES, "10.0.0.1", &[(FOR, "198.51.100.1")], "198.51.100.1"),
            (PROXIES, "10.0.0.1", &[(FOR, "203.0.113.9, 198.51.100.1")], "198.51.100.1"),
            (PROXIES, "10.0.0.1", &[(FOR, "203.0.113.9,10.0.0.2 , 10.0.0.3")], "203.0.113.9"),
            (PROXIES, "::ffff:10.0.0.1", &[(FOR, "::ffff:198.51.100.1")], "198.51.100.1"),
            (PROXIES, "fd00::1", &[(FOR, "2001:db8::7")], "2001:db8::7"),
            (PROXIES, "10.0.0.1", &[(FOR, "[2001:db8::7]:443")], "2001:db8::7"),
            (PROXIES, "10.0.0.1", &[(FOR, "198.51.100.1:80")], "198.51.100.1"),
            // Several lines are one.
            (PROXIES, "10.0.0.1", &[(FOR, "203.0.113.9"), (FOR, "198.51.100.1")], "198.51.100.1"),
            (PROXIES, "10.0.0.1", &[(FOR, "198.51.100.1"), ("x-other", "a"), (FOR, "10.9.9.9")], "198.51.100.1"),
            // It speaks for itself, or of nobody that can be read.
            (PROXIES, "10.0.0.1", &[], "10.0.0.1"),
            (PROXIES, "10.0.0.1", &[(FOR, "")], "10.0.0.1"),
            (PROXIES, "10.0.0.1", &[(FOR, "unknown")], "10.0.0.1"),
            (PROXIES, "10.0.0.1", &[(FOR, "198.51.100.1, ")], "10.0.0.1"),
            (PROXIES, "10.0.0.1", &[(FOR, "198.51.100.1, nobody, 10.0.0.2")], "10.0.0.2"),
            (PROXIES, "10.0.0.1", &[(FOR, "10.0.0.3, 10.0.0.2")], "10.0.0.3"),
            // Other headers say nothing.
            (PROXIES, "10.0.0.1", &[("x-real-ip", "198.51.100.1"), ("forwarded", "for=198.51.100.1")], "10.0.0.1"),
        ] {
            assert_eq!(client(trusted, peer, headers), expected, "{trusted:?} {peer} {headers:?}");
        }
    }

    #[test]
    fn an_address_of_ipv6_counts_by_its_network() {
        let of = |text: &str| of(text.parse().unwrap()).to_string();
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_ne!(of("2001:db8:1:3::6"), of("2001:db8:1:2::6"));
        assert_eq!((of("192.0.2.1"), of("::ffff:192.0.2.1")), ("192.0.2.1".to_owned(), "192.0.2.1".to_owned()));
    }
}
