//! The client's side of TLS: what PostgreSQL servers get.
//!
//! It does not know how a server is asked for TLS, nor what to do when the server declines.

use std::{
    fmt,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig,
        client::{Resumption, WebPkiServerVerifier, danger::ServerCertVerifier},
        crypto::CryptoProvider,
        pki_types::ServerName,
        sign::SingleCertAndKey,
    },
};

use super::{
    Stream, TlsError, certificates, provider,
    verifier::{PartialVerifier, Trust},
    versions,
};
use crate::{config::ServerTls, net::Socket, types::TlsMode};

/// Begins handshakes with servers. Cheap to clone; it holds the certificates as they were when it was
/// built, so a reload builds another.
#[derive(Clone)]
pub struct Connector {
    /// What it was built from, and when.
    settings: Arc<ServerTls>,
    built: Instant,
    /// Whether a server has let anyone in with it.
    is_proven: Arc<AtomicBool>,
    mode: TlsMode,
    /// What stands in for the host, from `server_name`.
    server_name: Option<String>,
    /// `None` in mode `disable`.
    config: Option<Arc<ClientConfig>>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("mode", &self.mode)
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}

/// Builds the connector that the settings ask for. In mode `disable` no file is looked at, and below
/// `verify-ca` the CAs are not.
///
/// # Errors
/// Files that are missing, unreadable or do not belong together; a `server_name` that is no name.
pub fn connector(settings: &ServerTls) -> Result<Connector, TlsError> {
    let config = match settings.mode {
        TlsMode::Disable => None,
        _ => Some(Arc::new(client_config(settings)?)),
    };
    let connector = Connector {
        settings: Arc::new(settings.clone()),
        built: Instant::now(),
        is_proven: Arc::default(),
        mode: settings.mode,
        server_name: settings.server_name.clone(),
        config,
    };
    if let Some(name) = &connector.server_name {
        connector.name(name)?;
    }
    Ok(connector)
}

impl Connector {
    /// How much TLS the settings ask for. The caller decides with it whether to ask the server, and
    /// whether a refusal is acceptable.
    pub fn mode(&self) -> TlsMode {
        self.mode
    }

    /// Whether another was built from the same settings; what the files had in them may differ.
    pub fn is_like(&self, other: &Self) -> bool {
        self.settings == other.settings
    }

    /// When the files were read.
    pub fn built(&self) -> Instant {
        self.built
    }

    /// Whether a server has accepted a log-in over it.
    pub fn is_proven(&self) -> bool {
        self.is_proven.load(Ordering::Relaxed)
    }

    /// Notes that a server has.
    pub fn prove(&self) {
        self.is_proven.store(true, Ordering::Relaxed);
    }

    /// Performs the handshake after the server agreed to it. `host` is the name or address that was
    /// dialled; `server_name` of the settings takes its place. In mode `disable` the socket comes
    /// back as it is.
    ///
    /// A server that wants another client certificate, or one at all, says so only in the first
    /// read of a TLS 1.3 connection. Not bounded in time. Dropping the future closes the socket.
    ///
    /// # Errors
    /// The server broke off, speaks another version, or its certificate is not accepted.
    pub async fn connect(&self, socket: Socket, host: &str) -> Result<Stream, TlsError> {
        let Some(config) = &self.config else {
            return Ok(Stream::Plain(socket));
        };
        let name = self.name(self.server_name.as_deref().unwrap_or(host))?;
        let connector = TlsConnector::from(Arc::clone(config));
        let stream = connector
            .connect(name, socket)
            .await
            .map_err(TlsError::connecting)?;
        Ok(Stream::Connected(Box::new(stream)))
    }

    /// The name to verify and to send as SNI. Where it is not verified, any host will do: an address
    /// stands in for one that is no name, as no SNI is sent for an address.
    fn name(&self, name: &str) -> Result<ServerName<'static>, TlsError> {
        match ServerName::try_from(name) {
            Ok(name) => Ok(name.to_owned()),
            Err(_) if self.mode == TlsMode::VerifyFull => Err(TlsError::NotAName {
                name: name.to_owned(),
            }),
            Err(_) => Ok(ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into())),
        }
    }
}

fn client_config(settings: &ServerTls) -> Result<ClientConfig, TlsError> {
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions(settings.protocols))
        .map_err(TlsError::Setup)?
        .dangerous()
        .with_custom_certificate_verifier(server_verifier(settings, &provider)?);
    let mut config = match &settings.identity {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let certificate = certificates::identity(files, &provider)?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certificate)))
        }
    };
    // PostgreSQL issues no tickets. ALPN stays empty: it belongs to TLS without an SSLRequest, and
    // servers before 17 do not answer it.
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn server_verifier(
    settings: &ServerTls,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    Ok(match settings.mode {
        TlsMode::Disable | TlsMode::Allow | TlsMode::Prefer | TlsMode::Require => {
            Arc::new(PartialVerifier::new(Trust::Anything, provider))
        }
        TlsMode::VerifyCa => {
            let whole = whole_verifier(settings, provider)?;
            Arc::new(PartialVerifier::new(Trust::Chain(whole), provider))
        }
        TlsMode::VerifyFull => whole_verifier(settings, provider)?,
    })
}

/// Everything is verified: the chain, that nothing in it is revoked, and the name.
fn whole_verifier(
    settings: &ServerTls,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    let Some(ca_file) = &settings.ca_file else {
        return Err(TlsError::MissingSetting {
            setting: "server_tls.ca_file",
        });
    };
    let roots = certificates::roots(ca_file)?;
    let mut verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider));
    if let Some(file) = &settings.crl_file {
        // As OpenSSL in libpq: every CA of the chain has a list, and none has expired.
        verifier = verifier
            .with_crls(certificates::revocation_lists(file)?)
            .enforce_revocation_expiration();
    }
    verifier
        .build()
        .map_err(|error| certificates::unusable_crl(error, settings.crl_file.as_deref()))
}
