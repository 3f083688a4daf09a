//! TLS towards clients and servers: what the settings ask for, turned into an acceptor, a connector
//! and one stream type.
//!
//! It knows certificates and handshakes; not the PostgreSQL messages that lead to them (SSLRequest),
//! nor who may do without TLS. One crypto provider, *ring*, is passed explicitly everywhere: nothing
//! is installed for the process.

mod acceptor;
mod certificates;
mod connector;
mod end_point;
mod error;
mod names;
mod stream;
mod validity;
mod verifier;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use tokio_rustls::rustls::{
    SupportedProtocolVersion,
    crypto::{CryptoProvider, ring},
    version::{TLS12, TLS13},
};

use crate::config::TlsProtocols;

pub use acceptor::{Acceptor, acceptor};
pub use connector::{Connector, connector};
pub use error::{Peer, PemContents, PemItem, PresentedNames, TlsError};
pub use names::NamesError;
pub use stream::{Cipher, Stream};
pub use validity::{Validity, certificate_validity, crl_validity};

/// PostgreSQL's protocol name in TLS ALPN. Mandatory where TLS starts without an SSLRequest, so that
/// no other protocol's client can be talked into sending its bytes here.
pub const ALPN: &[u8] = b"postgresql";

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn versions(protocols: TlsProtocols) -> &'static [&'static SupportedProtocolVersion] {
    static SECURE: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    static ONLY_TLS13: [&SupportedProtocolVersion; 1] = [&TLS13];
    match protocols {
        TlsProtocols::Secure => &SECURE,
        TlsProtocols::Tls13 => &ONLY_TLS13,
    }
}
