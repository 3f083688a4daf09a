//! The server's side of TLS: what clients get.
//!
//! It does not know how a client asked for TLS.

use std::{fmt, sync::Arc};

use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::CryptoProvider,
        server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
        sign::SingleCertAndKey,
    },
};

use super::{ALPN, Stream, TlsError, certificates, end_point, provider, versions};
use crate::{
    config::ClientTls,
    net::Socket,
    types::{EndPointHash, TlsMode},
};

/// Answers handshakes of clients. Cheap to clone; it holds the certificates as they were when it was
/// built, so a reload builds another.
#[derive(Clone)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
    end_point: Option<EndPointHash>,
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").finish_non_exhaustive()
    }
}

/// Builds the acceptor that the settings ask for; `None` where clients are offered no TLS: mode
/// `disable`, or a mode that only *may* use TLS and no certificate to use.
///
/// # Errors
/// Files that are missing, unreadable or do not belong together.
pub fn acceptor(settings: &ClientTls) -> Result<Option<Acceptor>, TlsError> {
    let identity = match (settings.mode, &settings.identity) {
        (TlsMode::Disable, _) | (TlsMode::Allow | TlsMode::Prefer, None) => return Ok(None),
        (_, None) => {
            return Err(TlsError::MissingSetting {
                setting: "listen.tls.cert_file",
            });
        }
        (_, Some(identity)) => identity,
    };
    let provider = provider();
    let certificate = certificates::identity(identity, &provider)?;
    let end_point = certificate.cert.first().and_then(|leaf| end_point::hash(leaf));
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions(settings.protocols))
        .map_err(TlsError::Setup)?
        .with_client_cert_verifier(client_verifier(settings, provider)?)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certificate)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    // libpq makes a new context for each connection and so never resumes: a ticket would be work and
    // memory for nothing, and without tickets there is no key to rotate.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Some(Acceptor {
        config: Arc::new(config),
        end_point,
    }))
}

impl Acceptor {
    /// Performs the handshake. A client that offers other application protocols than `postgresql` is
    /// refused; one that offers none is not, see [`Stream::alpn`].
    ///
    /// With TLS 1.3 a client believes that the handshake went well before its certificate is looked
    /// at; it learns of a refusal from its first read. Not bounded in time. Dropping the future
    /// closes the socket.
    ///
    /// # Errors
    /// The client broke off, speaks another version, or its certificate is not accepted.
    pub async fn accept(&self, socket: Socket) -> Result<Stream, TlsError> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.config));
        let stream = acceptor.accept(socket).await.map_err(TlsError::accepting)?;
        Ok(Stream::Accepted(Box::new(stream)))
    }

    /// What clients of this acceptor bind SCRAM to; `None` where the certificate's signature has no hash function
    /// of its own (Ed25519), as nothing says then which one to take.
    pub fn end_point(&self) -> Option<&EndPointHash> {
        self.end_point.as_ref()
    }
}

/// Without CAs no certificate is asked for. With them, one that is shown must be good in every mode,
/// and the `verify-` modes insist on one.
fn client_verifier(
    settings: &ClientTls,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mandatory = matches!(settings.mode, TlsMode::VerifyCa | TlsMode::VerifyFull);
    let Some(file) = &settings.client_ca_file else {
        if mandatory {
            return Err(TlsError::MissingSetting {
                setting: "listen.tls.client_ca_file",
            });
        }
        return Ok(WebPkiClientVerifier::no_client_auth());
    };
    let mut verifier = WebPkiClientVerifier::builder_with_provider(certificates::roots(file)?, provider);
    if let Some(file) = &settings.crl_file {
        // As OpenSSL in PostgreSQL: every CA of the chain has a list, and none has expired.
        verifier = verifier
            .with_crls(certificates::revocation_lists(file)?)
            .enforce_revocation_expiration();
    }
    if !mandatory {
        verifier = verifier.allow_unauthenticated();
    }
    verifier
        .build()
        .map_err(|error| certificates::unusable_crl(error, settings.crl_file.as_deref()))
}
