//! How often somebody is let in: limits on requests without credentials, on attempts to get a token, and on the requests of
//! an app. Who it is and what it may do is for `auth` and `anvil_model::access` to say.
//!
//! `allowance` is the decision, a pure function; `table` remembers what has been used, in memory that does not grow; and
//! `visitor` finds out for which address a request counts. Asks no database, and is asked before any is.
//!
//! **Invariants**
//! - What is remembered is of a fixed size. Who comes when it is full takes the place of whoever used least, who then begins
//!   anew: strangers with many addresses keep nobody else out.
//! - A header counts only when a proxy wrote it that the operator named.

mod allowance;
mod table;
mod visitor;

use std::hash::Hash;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anvil_model::time::Moment;
use ipnet::IpNet;

use crate::http::Head;
use allowance::Allowance;
use table::Table;
use visitor::TrustedProxies;

/// What the operator wants; each limit in requests per minute, `None` for no limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests without credentials, or with those of nobody, from one address.
    pub anonymous: Option<u32>,
    /// Attempts to get a token, from one address, and for one app.
    pub logins: Option<u32>,
    /// Requests of one app.
    pub apps: Option<u32>,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { anonymous: Some(120), logins: Some(10), apps: None, trusted_proxies: Vec::new() }
    }
}

/// A limit per minute is at most this.
pub const PER_MINUTE_MAX: u32 = 10_000_000;

/// Decides who comes too often. One for all cores.
#[derive(Debug)]
pub struct Admission {
    proxies: TrustedProxies,
    /// In the order of [`Limit`].
    limits: [Option<Kept>; Limit::ALL.len()],
}

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Requests without credentials, by address.
    Anonymous,
    /// Attempts to get a token, by address.
    LoginsFrom,
    /// Attempts to get a token, by app.
    LoginsOf,
    /// Requests of an app.
    App,
}

impl Limit {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Anonymous, Self::LoginsFrom, Self::LoginsOf, Self::App];

    /// Its name in metrics and statuses.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::LoginsFrom => "logins_from_address",
            Self::LoginsOf => "logins_of_app",
            Self::App => "app",
        }
    }
}

/// A limit that is set, and what has been used of it.
#[derive(Debug)]
struct Kept {
    allowance: Allowance,
    used: Table,
    refused: AtomicU64,
}

/// Somebody comes too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", match .limit {
    Limit::Anonymous => "Too many requests without valid credentials come from this address. Please reduce your request rate.",
    Limit::LoginsFrom => "Too many tokens are asked for from this address. Please reduce your request rate.",
    Limit::LoginsOf => "Too many tokens are asked for with this client id. Please reduce your request rate.",
    Limit::App => "This app sends too many requests. Please reduce your request rate.",
})]
pub struct TooOften {
    /// Which limit it is.
    pub limit: Limit,
    /// When the next request would be let in.
    pub wait: Duration,
}

/// How many of one limit have come or not, for the page of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdmissionCounts {
    /// Requests that were refused.
    pub refused: u64,
    /// Those who were forgotten for others before they had their whole allowance back.
    pub forgotten: u64,
}

impl Admission {
    /// Admits what is within these limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let Limits { anonymous, logins, apps, trusted_proxies } = limits;
        let kept = |per_minute: Option<u32>, sets| {
            let allowance = Allowance::per_minute(per_minute?);
            Some(Kept { allowance, used: Table::new(sets), refused: AtomicU64::default() })
        };
        Self {
            proxies: TrustedProxies::new(trusted_proxies),
            limits: [
                kept(anonymous, VISITOR_SETS),
                kept(logins, VISITOR_SETS),
                kept(logins, APP_SETS),
                kept(apps, APP_SETS),
            ],
        }
    }

    /// The address that a request comes from: that of the connection, or what a trusted proxy says of it.
    #[must_use]
    pub fn client(&self, head: &Head) -> IpAddr {
        self.proxies.client(head)
    }

    /// A request comes without credentials, or with those of nobody.
    ///
    /// # Errors
    /// When too many do from there.
    pub fn anonymous(&self, head: &Head, now: Moment) -> Result<(), TooOften> {
        self.admit(Limit::Anonymous, &self.visitor(head), now)
    }

    /// Somebody wants a token; nothing of the message has been read yet.
    ///
    /// # Errors
    /// When too many are wanted from there.
    pub fn login_from(&self, head: &Head, now: Moment) -> Result<(), TooOften> {
        self.admit(Limit::LoginsFrom, &self.visitor(head), now)
    }

    /// Somebody wants a token for this app, whether there is one or not.
    ///
    /// # Errors
    /// When too many are wanted for it.
    pub fn login_of(&self, client_id: &str, now: Moment) -> Result<(), TooOften> {
        self.admit(Limit::LoginsOf, client_id, now)
    }

    /// A request of an app comes that is believed.
    ///
    /// # Errors
    /// When the app sends too many.
    pub fn app(&self, client_id: &str, now: Moment) -> Result<(), TooOften> {
        self.admit(Limit::App, client_id, now)
    }

    /// What became of those who came.
    #[must_use]
    pub fn counts(&self, limit: Limit) -> AdmissionCounts {
        self.limits[limit as usize].as_ref().map_or(AdmissionCounts { refused: 0, forgotten: 0 }, |kept| {
            AdmissionCounts { refused: kept.refused.load(Ordering::Relaxed), forgotten: kept.used.forgotten() }
        })
    }

    fn visitor(&self, head: &Head) -> IpAddr {
        visitor::of(self.client(head))
    }
    fn admit<K: Hash + ?Sized>(&self, limit: Limit, who: &K, now: Moment) -> Result<(), TooOften> {
        let Some(kept) = &self.limits[limit as usize] else { return Ok(()) };
        kept.used.take(who, kept.allowance, now).map_err(|wait| {
            kept.refused.fetch_add(1, Ordering::Relaxed);
            TooOften { limit, wait }
        })
    }
}

/// 65,536 addresses in 1 MiB: with more than that at once, those that send least are forgotten.
const VISITOR_SETS: usize = 8192;
/// 16,384 apps, more than there can be.
const APP_SETS: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    fn head(peer: &str, forwarded: &[&str]) -> Head {
        Head {
            method: "GET".to_owned(),
            path: "/bucket".to_owned(),
            query: None,
            headers: forwarded.iter().map(|value| ("x-forwarded-for".to_owned(), value.as_bytes().to_vec())).collect(),
            peer: std::net::SocketAddr::new(peer.parse().unwrap(), 1),
            request_id: "R".to_owned(),
        }
    }

    const NOW: Moment = Moment { nanos: 5_000_000_000 };

    #[test]
    fn each_limit_counts_by_itself() {
        let admission = Admission::new(Limits { anonymous: Some(3), logins: Some(2), apps: None, ..Limits::default() });
        let (here, there) = (head("192.0.2.1", &[]), head("192.0.2.2", &[]));
        for _ in 0..3 {
            assert_eq!(admission.anonymous(&here, NOW), Ok(()));
        }
        let refused = admission.anonymous(&here, NOW).unwrap_err();
        assert_eq!(refused, TooOften { limit: Limit::Anonymous, wait: Duration::from_secs(20) });
        assert_eq!(admission.anonymous(&there, NOW), Ok(()));
        assert_eq!(admission.anonymous(&here, NOW + refused.wait), Ok(()));

        assert!((0..2).all(|_| admission.login_from(&here, NOW).is_ok() && admission.login_of("A", NOW).is_ok()));
        assert_eq!(admission.login_from(&here, NOW).unwrap_err().limit, Limit::LoginsFrom);
        assert_eq!(admission.login_of("A", NOW).unwrap_err().limit, Limit::LoginsOf);
        assert_eq!((admission.login_from(&there, NOW), admission.login_of("B", NOW)), (Ok(()), Ok(())));

        assert!((0..10_000).all(|_| admission.app("A", NOW).is_ok()), "nothing is limited that has no limit");
        let refused: Vec<u64> = Limit::ALL.iter().map(|&limit| admission.counts(limit).refused).collect();
        assert_eq!(refused, [1, 1, 1, 0]);
    }

    #[test]
    fn a_forged_header_gives_no_second_allowance() {
        let limits =
            Limits { anonymous: Some(1), trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()], ..Limits::default() };
        let admission = Admission::new(limits);
        assert_eq!(admission.anonymous(&head("192.0.2.1", &[]), NOW), Ok(()));
        assert!(admission.anonymous(&head("192.0.2.1", &["198.51.100.1"]), NOW).is_err());
        assert!(admission.anonymous(&head("192.0.2.1", &["10.0.0.1"]), NOW).is_err());
        // Through the proxy: each client has its own, and what clients say of themselves stands further left.
        assert!(admission.anonymous(&head("10.0.0.1", &["192.0.2.1"]), NOW).is_err());
        assert_eq!(admission.anonymous(&head("10.0.0.1", &["192.0.2.2"]), NOW), Ok(()));
        assert!(admission.anonymous(&head("10.0.0.1", &["203.0.113.9, 192.0.2.2"]), NOW).is_err());
    }
}
