//! An IP network in CIDR notation. It knows no setting.

use std::{net::IpAddr, str::FromStr};

/// `10.0.0.0/8`, `fd00::/8`; an address alone is a network of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u32,
}

/// Why a text is no network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// No address before the slash.
    #[error("is not an IP address, alone or with a prefix length")]
    Address,
    /// No prefix length behind it, or one that is longer than the address.
    #[error("has a prefix length that does not fit the address")]
    Prefix,
    /// An IPv4 address written as IPv6, and a prefix that takes in more than IPv4.
    #[error("is an IPv4 address written as IPv6, with a prefix length below 96: write the IPv4 network")]
    Mapped,
}

impl Network {
    /// Whether the address is in the network. An IPv4 address that came in on an IPv6 socket is one of IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let difference = network.to_bits() ^ address.to_bits();
                difference.checked_shr(32 - self.prefix).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let difference = network.to_bits() ^ address.to_bits();
                difference.checked_shr(128 - self.prefix).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Address)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix: u32 = match prefix {
            None => most,
            Some(digits) if digits.bytes().all(|digit| digit.is_ascii_digit()) => digits
                .parse()
                .ok()
                .filter(|prefix| *prefix <= most)
                .ok_or(NetworkError::Prefix)?,
            Some(_) => return Err(NetworkError::Prefix),
        };
        // An address that comes in is IPv4 however it is written.
        match (address, address.to_canonical()) {
            (IpAddr::V6(_), canonical @ IpAddr::V4(_)) => Ok(Self {
                address: canonical,
                prefix: prefix.checked_sub(96).ok_or(NetworkError::Mapped)?,
            }),
            _ => Ok(Self { address, prefix }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(network: &str, address: &str) -> bool {
        network
            .parse::<Network>()
            .unwrap()
            .contains(address.parse().unwrap())
    }

    #[test]
    fn an_address_is_in_its_network() {
        for (network, address) in [
            ("10.0.0.0/8", "10.255.1.2"),
            ("10.1.2.3/8", "10.0.0.1"),
            ("0.0.0.0/0", "255.255.255.255"),
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.0/31", "192.0.2.1"),
            ("10.0.0.0/8", "::ffff:10.1.1.1"),
            ("::ffff:10.0.0.0/104", "10.1.1.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("fd00::/8", "fdff::1"),
            ("::/0", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
        ] {
            assert!(contains(network, address), "{network} {address}");
        }
        for (network, address) in [
            ("10.0.0.0/8", "11.0.0.0"),
            ("192.0.2.1", "192.0.2.2"),
            ("192.0.2.0/31", "192.0.2.2"),
            ("0.0.0.0/0", "::1"),
            ("::/0", "127.0.0.1"),
            ("fd00::/8", "fe00::1"),
            ("2001:db8::1", "2001:db8::2"),
        ] {
            assert!(!contains(network, address), "{network} {address}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for (text, error) in [
            ("", NetworkError::Address),
            ("localhost", NetworkError::Address),
            ("10.0.0/8", NetworkError::Address),
            ("10.0.0.0/33", NetworkError::Prefix),
            ("10.0.0.0/", NetworkError::Prefix),
            ("10.0.0.0/+8", NetworkError::Prefix),
            ("::/129", NetworkError::Prefix),
            ("10.0.0.0/255.0.0.0", NetworkError::Prefix),
            ("::ffff:10.0.0.0/8", NetworkError::Mapped),
        ] {
            assert_eq!(text.parse::<Network>(), Err(error), "{text}");
        }
    }
}
