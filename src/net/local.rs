//! What this machine says of itself: its addresses and its users.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use nix::{
    ifaddrs::getifaddrs,
    sys::socket::SockaddrStorage,
    unistd::{Uid, User},
};

/// The addresses of this machine's interfaces, each with the mask of its network; without one it is all zeros.
///
/// # Errors
/// Those of `getifaddrs(3)`.
pub fn interfaces() -> io::Result<Vec<(IpAddr, IpAddr)>> {
    let interfaces = getifaddrs()?.filter_map(|interface| {
        let address = ip(&interface.address?)?;
        let mask = interface.netmask.as_ref().and_then(ip);
        Some((address, mask.unwrap_or_else(|| no_mask(address))))
    });
    Ok(interfaces.collect())
}

/// The name of a user of this machine; `None` where there is no such user. It may block.
///
/// # Errors
/// Those of `getpwuid_r(3)`.
pub fn user_name(uid: u32) -> io::Result<Option<String>> {
    Ok(User::from_uid(Uid::from_raw(uid))?.map(|user| user.name))
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| address.ip().into());
    v4.or_else(|| address.as_sockaddr_in6().map(|address| address.ip().into()))
}

fn no_mask(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_one_of_the_interfaces() {
        let interfaces = interfaces().unwrap();
        let loopback = (Ipv4Addr::LOCALHOST.into(), Ipv4Addr::new(255, 0, 0, 0).into());
        assert!(interfaces.contains(&loopback), "{interfaces:?}");
    }

    #[test]
    fn a_user_has_a_name_or_is_none() {
        assert_eq!(user_name(0).unwrap().as_deref(), Some("root"));
        assert_eq!(user_name(u32::MAX - 7).unwrap(), None);
    }
}
