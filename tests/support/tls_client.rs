//! TLS as a client speaks it.

use std::{net::TcpStream, sync::Arc};

use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use super::Authority;

/// A stream inside TLS.
pub type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// TLS on a connected socket, with these application protocols; the handshake is done by the first use.
pub fn tls(stream: TcpStream, authority: &Authority, protocols: &[&[u8]]) -> TlsStream {
    tls_trusting(stream, &[authority], protocols)
}

/// The same for a client that trusts several.
pub fn tls_trusting(stream: TcpStream, authorities: &[&Authority], protocols: &[&[u8]]) -> TlsStream {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        let pem = authority.certificate_pem().as_bytes();
        let certificate = CertificateDer::from_pem_slice(pem).expect("the authority has a certificate");
        roots.add(certificate).expect("it is a root");
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let name = ServerName::try_from("localhost").expect("it is a name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("the configuration is sound");
    StreamOwned::new(connection, stream)
}
