//! Which addresses a line is about.
//!
//! A peer with an IPv4-mapped address (a client of a socket that is bound to `::`) is an IPv4 peer.

use std::net::IpAddr;

/// An address of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interface {
    /// The address.
    pub address: IpAddr,
    /// The mask of its network.
    pub mask: IpAddr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Addresses {
    All,
    SameHost,
    SameNet,
    Range(Range),
}

/// Bits that have to be the same, of an address of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Range {
    V4 { network: u32, mask: u32 },
    V6 { network: u128, mask: u128 },
}

impl Addresses {
    pub(super) fn contain(&self, peer: IpAddr, interfaces: &[Interface]) -> bool {
        let same = |range: fn(&Interface) -> Option<Range>| {
            interfaces
                .iter()
                .filter_map(range)
                .any(|range| range.contains(peer))
        };
        match self {
            Self::All => true,
            Self::SameHost => same(|interface| Some(Range::host(interface.address))),
            Self::SameNet => same(Interface::network),
            Self::Range(range) => range.contains(peer),
        }
    }
}

impl Interface {
    /// An interface without a mask is a host, not the world (PostgreSQL's `run_ifaddr_callback`).
    fn network(&self) -> Option<Range> {
        if self.mask.is_unspecified() {
            return Some(Range::host(self.address));
        }
        Range::masked(self.address, self.mask)
    }
}

impl Range {
    /// `address/prefix`; none if an address has no so many bits, or takes in more than the IPv4 that it is.
    pub(super) fn cidr(address: IpAddr, prefix: u32) -> Option<Self> {
        match (address.to_canonical(), address) {
            // An IPv4 network written as IPv6.
            (IpAddr::V4(v4), IpAddr::V6(_)) if prefix <= 128 => {
                Self::cidr(v4.into(), prefix.checked_sub(96)?)
            }
            (_, IpAddr::V4(network)) if prefix <= 32 => Some(Self::V4 {
                network: network.into(),
                mask: u32::MAX.checked_shl(32 - prefix).unwrap_or(0),
            }),
            (_, IpAddr::V6(network)) if prefix <= 128 => Some(Self::V6 {
                network: network.into(),
                mask: u128::MAX.checked_shl(128 - prefix).unwrap_or(0),
            }),
            _ => None,
        }
    }

    /// An address and a mask of its own; none if they are of two families, or the mask takes in more than the IPv4 that
    /// the address is.
    pub(super) fn masked(address: IpAddr, mask: IpAddr) -> Option<Self> {
        if let (IpAddr::V6(_), IpAddr::V4(v4), IpAddr::V6(mask)) = (address, address.to_canonical(), mask) {
            let bits = !u128::from(mask);
            // The rest of it is all ones.
            let mask = u32::try_from(bits).ok().map(|bits| !bits)?;
            return Some(Self::V4 {
                network: v4.into(),
                mask,
            });
        }
        match (address, mask) {
            (IpAddr::V4(network), IpAddr::V4(mask)) => Some(Self::V4 {
                network: network.into(),
                mask: mask.into(),
            }),
            (IpAddr::V6(network), IpAddr::V6(mask)) => Some(Self::V6 {
                network: network.into(),
                mask: mask.into(),
            }),
            _ => None,
        }
    }

    fn host(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(network) => Self::V4 {
                network: network.into(),
                mask: u32::MAX,
            },
            IpAddr::V6(network) => Self::V6 {
                network: network.into(),
                mask: u128::MAX,
            },
        }
    }

    pub(super) fn contains(&self, peer: IpAddr) -> bool {
        match (self, peer.to_canonical()) {
            (Self::V4 { network, mask }, IpAddr::V4(peer)) => (u32::from(peer) ^ network) & mask == 0,
            (Self::V6 { network, mask }, IpAddr::V6(peer)) => (u128::from(peer) ^ network) & mask == 0,
            _ => false,
        }
    }
}
