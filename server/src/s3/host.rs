//! Buckets that stand in the host: `bucket.s3.example.com/key` instead of `s3.example.com/bucket/key`.

use crate::http::Head;

/// The names under which clients reach this service, and under which every label in front is a bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Domains(Vec<String>);

impl Domains {
    /// Host names in lower case, with a port where only that port counts. None: buckets stand in the path alone.
    #[must_use]
    pub fn new(mut names: Vec<String>) -> Self {
        // Of two domains that both end a host, the longer one leaves the bucket.
        names.sort_by_key(|name| std::cmp::Reverse(name.len()));
        Self(names)
    }

    /// What stands in front of a domain in the host of this request, in lower case; `None` where the bucket is in the
    /// path. It may not be the name of a bucket.
    #[must_use]
    pub fn bucket(&self, head: &Head) -> Option<String> {
        if self.0.is_empty() {
            return None;
        }
        let host = head.host()?.to_ascii_lowercase();
        let without_port = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name);
        // The service's own name, even if it looks like a bucket of another domain.
        if self.0.iter().any(|domain| *domain == host || *domain == without_port) {
            return None;
        }
        let in_front = |domain: &String| {
            let host = if domain.contains(':') { host.as_str() } else { without_port };
            host.strip_suffix(domain.as_str())?.strip_suffix('.').map(str::to_owned)
        };
        self.0.iter().find_map(in_front).filter(|bucket| !bucket.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::s3::tests::head;

    fn bucket(host: &str) -> Option<String> {
        let domains = ["s3.example.com", "example.com:9000", "eu.s3.example.com"].map(str::to_owned);
        Domains::new(domains.to_vec()).bucket(&head("GET", "/k", &[("host", host)]))
    }

    #[test]
    fn a_bucket_stands_in_front_of_a_domain() {
        for (host, expected) in [
            ("b.s3.example.com", Some("b")),
            ("b.s3.example.com:8080", Some("b")),
            ("B.S3.Example.COM", Some("b")),
            ("a.b.c.s3.example.com", Some("a.b.c")),
            ("b.eu.s3.example.com", Some("b")),
            ("b.example.com:9000", Some("b")),
            ("b.example.com", None),
            ("b.example.com:9001", None),
            ("s3.example.com", None),
            ("s3.example.com:9000", None),
            ("eu.s3.example.com", None),
            ("xs3.example.com", None),
            (".s3.example.com", None),
            ("127.0.0.1:9000", None),
            ("[::1]:9000", None),
            ("", None),
        ] {
            assert_eq!(bucket(host).as_deref(), expected, "{host}");
        }
        assert_eq!(Domains::default().bucket(&head("GET", "/k", &[("host", "b.s3.example.com")])), None);
    }

    proptest! {
        #[test]
        fn no_host_breaks_it(host in "\\PC*|[a-z.:]{0,20}(s3.example.com)?") {
            let _ = bucket(&host);
        }
    }
}
