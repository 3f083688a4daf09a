//! Addresses as they are written in the file: where to listen, where servers are.
//!
//! It resolves no name and touches no socket.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use super::settings::ListenAddress;
use crate::types::Endpoint;

/// The port of a server for which none is given.
const SERVER_PORT: u16 = 5432;
/// How PostgreSQL's clients name the socket file in a directory; the port follows.
const SOCKET_NAME: &str = ".s.PGSQL.";
/// The room in `sockaddr_un` without the closing zero.
const LONGEST_SOCKET_PATH: usize = 107;

/// Why a text is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum AddressError {
    #[error("is not an IP address with a port")]
    NoSocketAddress,
    #[error("has no port")]
    NoPort,
    #[error("has a port that is not between 1 and 65535")]
    BadPort,
    #[error("is not a host name or an IP address")]
    BadHost,
    #[error("has no path after \"unix:\"")]
    NoPath,
    #[error("is a path without \"unix:\" before it")]
    BarePath,
    #[error("is a socket path of more than 107 bytes")]
    LongPath,
    #[error("is more than one address")]
    Several,
}

impl AddressError {
    /// How it is written right.
    pub(super) fn hint(self) -> Option<&'static str> {
        match self {
            Self::NoSocketAddress | Self::NoPort => {
                Some("such as \"0.0.0.0:6432\", \"[::]:6432\" or \"127.0.0.1:6432\"")
            }
            Self::BadHost => Some("such as \"db.example\", \"10.0.0.5:5432\" or \"[::1]:5432\""),
            Self::NoPath | Self::BarePath => Some("such as \"unix:/run/postgresql\""),
            Self::LongPath => Some("the operating system takes no longer ones"),
            Self::Several => Some("a list is written [\"first\", \"second\"]"),
            Self::BadPort => None,
        }
    }
}

/// An IP address and a port.
pub(super) fn socket_address(text: &str) -> Result<SocketAddr, AddressError> {
    text.parse().map_err(|_| match text {
        _ if text.contains(',') => AddressError::Several,
        _ if text.starts_with('/') => AddressError::BarePath,
        _ if text.parse::<IpAddr>().is_ok() => AddressError::NoPort,
        _ => AddressError::NoSocketAddress,
    })
}

/// An address to listen on; `port` completes the name of a unix socket in a directory.
pub(super) fn listen_address(text: &str, base: &Path, port: u16) -> Result<ListenAddress, AddressError> {
    match text.strip_prefix("unix:") {
        Some(path) => unix_socket(path, base, port).map(ListenAddress::Unix),
        None => socket_address(text).map(ListenAddress::Tcp),
    }
}

/// An address of a server.
pub(super) fn endpoint(text: &str, base: &Path) -> Result<Endpoint, AddressError> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix_socket(path, base, SERVER_PORT).map(Endpoint::Unix);
    }
    if text.starts_with('/') {
        return Err(AddressError::BarePath);
    }
    if text.contains(',') {
        return Err(AddressError::Several);
    }
    let (host, port) = host_and_port(text)?;
    Ok(Endpoint::Tcp {
        host: host.to_owned(),
        port: port.map_or(Ok(SERVER_PORT), nonzero_port)?,
    })
}

/// The host in `host` or `host:port`.
pub(super) fn host(text: &str) -> Result<&str, AddressError> {
    host_and_any_port(text).map(|(host, _)| host)
}

/// A host, and a port if one is given.
pub(super) fn host_and_any_port(text: &str) -> Result<(&str, Option<u16>), AddressError> {
    let (host, port) = host_and_port(text)?;
    Ok((host, port.map(nonzero_port).transpose()?))
}

/// A host and a port, both of them given.
pub(super) fn host_with_port(text: &str) -> Result<(String, u16), AddressError> {
    if text.contains(',') {
        return Err(AddressError::Several);
    }
    let (host, port) = host_and_port(text)?;
    Ok((host.to_owned(), nonzero_port(port.ok_or(AddressError::NoPort)?)?))
}

fn host_and_port(text: &str) -> Result<(&str, Option<&str>), AddressError> {
    let is_ipv6 = |host: &str| host.parse::<Ipv6Addr>().is_ok();
    if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or(AddressError::BadHost)?;
        let port = match port {
            "" => None,
            _ => Some(port.strip_prefix(':').ok_or(AddressError::BadHost)?),
        };
        return is_ipv6(host).then_some((host, port)).ok_or(AddressError::BadHost);
    }
    if is_ipv6(text) {
        return Ok((text, None));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    is_host_name(host)
        .then_some((host, port))
        .ok_or(AddressError::BadHost)
}

fn is_host_name(host: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    !host.is_empty() && host.len() <= 253 && !host.starts_with('-') && host.bytes().all(allowed)
}

fn nonzero_port(text: &str) -> Result<u16, AddressError> {
    let only_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let port = text.parse().ok().filter(|port| *port != 0 && only_digits);
    port.ok_or(AddressError::BadPort)
}

/// A socket file, or the directory that holds it, as the path of the socket file.
fn unix_socket(path: &str, base: &Path, port: u16) -> Result<PathBuf, AddressError> {
    if path.is_empty() {
        return Err(AddressError::NoPath);
    }
    let mut path = base.join(path);
    let named_port = path
        .file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.strip_prefix(SOCKET_NAME))
        .map(nonzero_port);
    match named_port {
        Some(Err(error)) => return Err(error),
        Some(Ok(_)) => {}
        None => path.push(format!("{SOCKET_NAME}{port}")),
    }
    if path.as_os_str().len() > LONGEST_SOCKET_PATH {
        return Err(AddressError::LongPath);
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn server(text: &str) -> Result<String, AddressError> {
        endpoint(text, Path::new("/etc/pgweir")).map(|endpoint| endpoint.to_string())
    }

    fn unix(text: &str) -> Result<ListenAddress, AddressError> {
        listen_address(text, Path::new("/etc/pgweir"), 6432)
    }

    #[test]
    fn servers() {
        assert_eq!(server("db").unwrap(), "db:5432");
        assert_eq!(server("db.example:6000").unwrap(), "db.example:6000");
        assert_eq!(server("10.0.0.5").unwrap(), "10.0.0.5:5432");
        assert_eq!(server("[::1]:6000").unwrap(), "[::1]:6000");
        assert_eq!(server("[::1]").unwrap(), "[::1]:5432");
        assert_eq!(server("fe80::1").unwrap(), "[fe80::1]:5432");
        assert_eq!(
            server("unix:/run/postgresql").unwrap(),
            "unix:/run/postgresql/.s.PGSQL.5432"
        );
        assert_eq!(
            server("unix:/run/.s.PGSQL.5433").unwrap(),
            "unix:/run/.s.PGSQL.5433"
        );
        assert_eq!(server("unix:run").unwrap(), "unix:/etc/pgweir/run/.s.PGSQL.5432");
    }

    #[test]
    fn no_servers() {
        for (text, error) in [
            ("", AddressError::BadHost),
            ("a b", AddressError::BadHost),
            ("host=a", AddressError::BadHost),
            ("[::1", AddressError::BadHost),
            ("[db]:1", AddressError::BadHost),
            ("[::1]5432", AddressError::BadHost),
            ("postgres://a/b", AddressError::BadPort),
            ("db:", AddressError::BadPort),
            ("db:0", AddressError::BadPort),
            ("db:+5", AddressError::BadPort),
            ("db:65536", AddressError::BadPort),
            ("a,b", AddressError::Several),
            ("/run/postgresql", AddressError::BarePath),
            ("unix:", AddressError::NoPath),
            ("unix:/run/.s.PGSQL.x", AddressError::BadPort),
        ] {
            assert_eq!(server(text), Err(error), "{text}");
        }
        assert_eq!(
            server(&format!("unix:/{}", "x".repeat(100))),
            Err(AddressError::LongPath)
        );
    }

    #[test]
    fn listening() {
        assert_eq!(
            unix("[::]:6432"),
            Ok(ListenAddress::Tcp("[::]:6432".parse().unwrap()))
        );
        assert_eq!(
            unix("unix:/run/pgweir"),
            Ok(ListenAddress::Unix("/run/pgweir/.s.PGSQL.6432".into()))
        );
        assert_eq!(unix("127.0.0.1"), Err(AddressError::NoPort));
        assert_eq!(unix("::"), Err(AddressError::NoPort));
        assert_eq!(unix("localhost:6432"), Err(AddressError::NoSocketAddress));
        assert_eq!(unix("*"), Err(AddressError::NoSocketAddress));
        assert_eq!(unix("0.0.0.0:1,[::]:1"), Err(AddressError::Several));
        assert_eq!(unix("/run/pgweir"), Err(AddressError::BarePath));
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(text in "[a-z0-9.:\\[\\]-]{1,20}") {
            if let Ok(read) = endpoint(&text, Path::new("/")) {
                prop_assert_eq!(endpoint(&read.to_string(), Path::new("/")), Ok(read));
            }
        }
    }
}
