//! Socket addresses as the kernel has them.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// An IPv4 or IPv6 address with its port.
#[derive(Clone, Copy)]
pub(crate) struct RawAddress {
    storage: libc::sockaddr_storage,
    length: libc::socklen_t,
}

impl std::fmt::Debug for RawAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("RawAddress").field(&self.decode().ok()).finish()
    }
}

impl RawAddress {
    pub(crate) const fn pointer(&self) -> *const libc::sockaddr {
        (&raw const self.storage).cast()
    }

    pub(crate) const fn length(&self) -> libc::socklen_t {
        self.length
    }

    pub(crate) const fn family(&self) -> libc::c_int {
        self.storage.ss_family as libc::c_int
    }

    /// What getsockname(2) or getpeername(2) writes, through `ask`.
    pub(crate) fn ask(
        ask: impl FnOnce(*mut libc::sockaddr, *mut libc::socklen_t) -> libc::c_int,
    ) -> io::Result<SocketAddr> {
        let mut address = Self::empty();
        if ask((&raw mut address.storage).cast(), &raw mut address.length) != 0 {
            return Err(io::Error::last_os_error());
        }
        address.decode()
    }

    const fn empty() -> Self {
        // SAFETY: a sockaddr_storage is numbers only, for all of which zero is valid.
        let storage = unsafe { std::mem::zeroed() };
        Self { storage, length: SPACE }
    }

    fn decode(&self) -> io::Result<SocketAddr> {
        match self.family() {
            libc::AF_INET => {
                // SAFETY: a sockaddr_storage is large enough and aligned for every address, and the family says which.
                let v4 = unsafe { &*self.pointer().cast::<libc::sockaddr_in>() };
                let ip = Ipv4Addr::from_bits(u32::from_be(v4.sin_addr.s_addr));
                Ok(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
            }
            libc::AF_INET6 => {
                // SAFETY: as above.
                let v6 = unsafe { &*self.pointer().cast::<libc::sockaddr_in6>() };
                let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
                let port = u16::from_be(v6.sin6_port);
                Ok(SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id).into())
            }
            family => Err(io::Error::other(format!("an address of the unknown family {family}"))),
        }
    }
}

impl From<SocketAddr> for RawAddress {
    fn from(address: SocketAddr) -> Self {
        let mut raw = Self::empty();
        let storage = &raw mut raw.storage;
        match address {
            SocketAddr::V4(v4) => {
                // SAFETY: `storage` is large enough and aligned for every address, and ours alone.
                let into = unsafe { &mut *storage.cast::<libc::sockaddr_in>() };
                into.sin_family = FAMILY_V4;
                into.sin_port = v4.port().to_be();
                into.sin_addr.s_addr = v4.ip().to_bits().to_be();
                raw.length = LENGTH_V4;
            }
            SocketAddr::V6(v6) => {
                // SAFETY: as above.
                let into = unsafe { &mut *storage.cast::<libc::sockaddr_in6>() };
                into.sin6_family = FAMILY_V6;
                into.sin6_port = v6.port().to_be();
                into.sin6_addr.s6_addr = v6.ip().octets();
                into.sin6_flowinfo = v6.flowinfo();
                into.sin6_scope_id = v6.scope_id();
                raw.length = LENGTH_V6;
            }
        }
        raw
    }
}

const FAMILY_V4: libc::sa_family_t = libc::AF_INET as libc::sa_family_t;
const FAMILY_V6: libc::sa_family_t = libc::AF_INET6 as libc::sa_family_t;
const SPACE: libc::socklen_t = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
const LENGTH_V4: libc::socklen_t = size_of::<libc::sockaddr_in>() as libc::socklen_t;
const LENGTH_V6: libc::socklen_t = size_of::<libc::sockaddr_in6>() as libc::socklen_t;

#[cfg(test)]
mod tests {
    use super::*;

    /// An address survives its way to the kernel's form and back.
    #[test]
    fn addresses_survive() {
        for text in ["127.0.0.1:50051", "[::1]:7443", "[fe80::1%3]:80", "255.255.255.255:65535"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(RawAddress::from(address).decode().unwrap(), address);
        }
    }
}
