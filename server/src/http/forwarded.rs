//! What proxies say of whom they speak for. Who believes it decides for itself.

use std::net::{IpAddr, SocketAddr};

/// An address as `X-Forwarded-For` and `Forwarded` have it: with a port or without, in brackets or without.
pub(crate) fn forwarded_address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}
