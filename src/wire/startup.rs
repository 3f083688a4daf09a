//! The packets without a type byte that open a connection: SSLRequest, GSSENCRequest, CancelRequest and
//! StartupMessage.
//!
//! Checked decoders of our own: pgwire's turn bytes that are not UTF-8 into replacement characters and
//! stop at an empty parameter name, and what a stranger sends before log-in deserves an exact reading.

use super::reader::{Malformed, Reader};
use crate::types::BackendKey;

/// The shortest packet: a length and a code.
pub const MIN_PACKET: usize = 8;
/// The longest (`MAX_STARTUP_PACKET_LENGTH` in `pqcomm.h`).
pub const MAX_PACKET: usize = 10_000;
/// The newest minor version of protocol 3 that is spoken here.
pub const NEWEST_MINOR: u16 = 2;

const CANCEL_REQUEST: i32 = 80_877_102;
const SSL_REQUEST: i32 = 80_877_103;
const GSSENC_REQUEST: i32 = 80_877_104;
/// `MAX_CANCEL_KEY_LENGTH` and the length that protocol 3.0 always has.
const CANCEL_KEY: std::ops::RangeInclusive<usize> = 4..=256;

/// One packet before log-in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// The client would like TLS.
    SslRequest,
    /// The client would like GSSAPI encryption.
    GssEncRequest,
    /// Cancel the query of another connection.
    Cancel(BackendKey),
    /// Log in.
    Startup(Startup),
}

/// A StartupMessage of protocol 3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Startup {
    /// The minor version that the client asks for.
    pub minor: u16,
    /// Name and value as the client sent them, in order, `_pq_.` options left out.
    pub parameters: Vec<(String, String)>,
    /// The names that begin with `_pq_.`: protocol options, none of which is known yet.
    pub protocol_options: Vec<String>,
}

/// A packet that cannot be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// Out of [`MIN_PACKET`]..=[`MAX_PACKET`].
    #[error("invalid length of startup packet")]
    Length,
    /// Something other than protocol 3.
    #[error("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.{NEWEST_MINOR}")]
    Version {
        /// Major version.
        major: u16,
        /// Minor version.
        minor: u16,
    },
    /// Names or values without an end, or bytes behind the end.
    #[error("invalid startup packet layout: expected terminator as last byte")]
    Layout,
    /// A name or value that is not UTF-8.
    #[error("startup parameter is not valid UTF-8")]
    NotUtf8,
    /// A cancel key shorter than 4 or longer than 256 bytes.
    #[error("invalid length of cancel request packet")]
    CancelKey,
}

impl From<Malformed> for PacketError {
    fn from(_: Malformed) -> Self {
        Self::Layout
    }
}

/// The number of bytes that follow the length field, from that field.
///
/// # Errors
/// [`PacketError::Length`], so that nothing is allocated for a length that cannot be.
pub fn body_length(length: [u8; 4]) -> Result<usize, PacketError> {
    let length = u32::from_be_bytes(length) as usize;
    if (MIN_PACKET..=MAX_PACKET).contains(&length) {
        Ok(length - 4)
    } else {
        Err(PacketError::Length)
    }
}

/// Reads a packet from what follows its length field.
///
/// # Errors
/// See [`PacketError`].
pub fn decode(body: &[u8]) -> Result<Packet, PacketError> {
    let mut reader = Reader::new(body);
    match reader.int32()? {
        SSL_REQUEST => exact(&reader, Packet::SslRequest),
        GSSENC_REQUEST => exact(&reader, Packet::GssEncRequest),
        CANCEL_REQUEST => {
            let pid = reader.int32().map_err(|_| PacketError::CancelKey)?;
            let secret = reader.rest();
            if !CANCEL_KEY.contains(&secret.len()) {
                return Err(PacketError::CancelKey);
            }
            Ok(Packet::Cancel(BackendKey {
                pid,
                secret: secret.into(),
            }))
        }
        version => {
            let [major_high, major_low, minor_high, minor_low] = version.to_be_bytes();
            let major = u16::from_be_bytes([major_high, major_low]);
            let minor = u16::from_be_bytes([minor_high, minor_low]);
            if major != 3 {
                return Err(PacketError::Version { major, minor });
            }
            parameters(reader, minor).map(Packet::Startup)
        }
    }
}

fn exact(reader: &Reader<'_>, packet: Packet) -> Result<Packet, PacketError> {
    if reader.is_empty() {
        Ok(packet)
    } else {
        Err(PacketError::Length)
    }
}

fn parameters(mut reader: Reader<'_>, minor: u16) -> Result<Startup, PacketError> {
    let mut startup = Startup {
        minor,
        parameters: Vec::new(),
        protocol_options: Vec::new(),
    };
    loop {
        let name = text(reader.cstring()?)?;
        if name.is_empty() {
            break;
        }
        let value = text(reader.cstring()?)?;
        if name.starts_with("_pq_.") {
            startup.protocol_options.push(name);
        } else {
            startup.parameters.push((name, value));
        }
    }
    if reader.is_empty() {
        Ok(startup)
    } else {
        Err(PacketError::Layout)
    }
}

fn text(bytes: &[u8]) -> Result<String, PacketError> {
    std::str::from_utf8(bytes)
        .map(str::to_owned)
        .map_err(|_| PacketError::NotUtf8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn startup(version: i32, pairs: &[(&str, &str)]) -> Vec<u8> {
        let mut body = version.to_be_bytes().to_vec();
        for (name, value) in pairs {
            for text in [name, value] {
                body.extend(text.as_bytes());
                body.push(0);
            }
        }
        body.push(0);
        body
    }

    #[test]
    fn lengths_are_checked_before_anything_is_allocated() {
        for length in [0u32, 7, 10_001, 0x8000_0000, u32::MAX] {
            assert_eq!(
                body_length(length.to_be_bytes()),
                Err(PacketError::Length),
                "{length}"
            );
        }
        assert_eq!(body_length(8u32.to_be_bytes()), Ok(4));
        assert_eq!(body_length(10_000u32.to_be_bytes()), Ok(9_996));
    }

    #[test]
    fn startup_keeps_order_and_takes_protocol_options_apart() {
        let body = startup(
            196_610,
            &[("user", "ünï"), ("_pq_.x", "1"), ("database", ""), ("a", "b")],
        );
        let Ok(Packet::Startup(read)) = decode(&body) else {
            panic!("not a startup message")
        };
        assert_eq!(read.minor, 2);
        assert_eq!(read.protocol_options, ["_pq_.x"]);
        let names: Vec<_> = read.parameters.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["user", "database", "a"]);
        assert_eq!(read.parameters[0].1, "ünï");
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert_eq!(
            decode(&startup(131_072, &[])),
            Err(PacketError::Version { major: 2, minor: 0 })
        );
        assert_eq!(decode(b"\0\x03\0\0user\0x"), Err(PacketError::Layout));
        assert_eq!(decode(b"\0\x03\0\0user\0x\0\0more"), Err(PacketError::Layout));
        assert_eq!(decode(b"\0\x03\0\0user\0\xff\0\0"), Err(PacketError::NotUtf8));
        let mut cancel = CANCEL_REQUEST.to_be_bytes().to_vec();
        assert_eq!(decode(&cancel), Err(PacketError::CancelKey));
        cancel.extend([0, 0, 0, 9]);
        cancel.extend([1; 257]);
        assert_eq!(decode(&cancel), Err(PacketError::CancelKey));
        cancel.truncate(8 + 256);
        assert!(
            matches!(decode(&cancel), Ok(Packet::Cancel(key)) if key.pid == 9 && key.secret.len() == 256)
        );
        assert_eq!(
            decode(&[SSL_REQUEST.to_be_bytes().as_slice(), b"x"].concat()),
            Err(PacketError::Length)
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&body);
        }

        #[test]
        fn arbitrary_parameters_never_panic(tail in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&[196_608i32.to_be_bytes().as_slice(), &tail].concat());
        }
    }
}
