//! What can go wrong with certificates and handshakes, in words that name the file or the setting.

use std::{fmt, io, path::PathBuf};

use tokio_rustls::rustls::{self, CertificateError, Error as RustlsError};

/// How many names of a certificate an error message lists.
const MAX_PRESENTED_NAMES: usize = 16;

/// Settings that cannot be used, or a handshake that failed.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file could not be read.
    #[error("cannot read {}", .file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file has PEM sections that cannot be decoded.
    #[error("{} is not valid PEM", .file.display())]
    NotPem {
        /// The file.
        file: PathBuf,
        /// Where it is broken.
        source: io::Error,
    },
    /// A file does not have what it is there for.
    #[error("no {wanted} in {}: it has {found}", .file.display())]
    NothingFound {
        /// The file.
        file: PathBuf,
        /// What was looked for.
        wanted: PemItem,
        /// What the file has.
        found: PemContents,
    },
    /// A certificate or key of a kind that is not supported.
    #[error("the {item} in {} cannot be used", .file.display())]
    Unusable {
        /// The file.
        file: PathBuf,
        /// Which of its contents.
        item: PemItem,
        /// Why not.
        source: RustlsError,
    },
    /// Certificate and key are not a pair.
    #[error("the key in {} does not belong to the certificate in {}", .key_file.display(), .cert_file.display())]
    KeyMismatch {
        /// The certificate's file.
        cert_file: PathBuf,
        /// The key's file.
        key_file: PathBuf,
    },
    /// The mode needs a file that the settings do not name.
    #[error("this tls mode needs {setting}")]
    MissingSetting {
        /// The setting's key.
        setting: &'static str,
    },
    /// The TLS library refused the combination of settings.
    #[error("tls cannot be set up")]
    Setup(#[source] RustlsError),
    /// `verify-full` cannot look for this name in a certificate.
    #[error("{name:?} is neither a host name nor an ip address, so no certificate can be valid for it")]
    NotAName {
        /// The name, from `server_name` or from the host.
        name: String,
    },
    /// The server's certificate is for other names.
    #[error("the server's certificate is for {presented}, not for {expected:?}")]
    WrongName {
        /// The name looked for.
        expected: String,
        /// The names it has.
        presented: PresentedNames,
    },
    /// The server's certificate does not lead to a CA of `server_tls.ca_file`.
    #[error("the server's certificate is not signed by a ca in server_tls.ca_file")]
    UnknownServerIssuer,
    /// The client's certificate does not lead to a CA of `client_ca_file`.
    #[error("the client's certificate is not signed by a ca in client_ca_file")]
    UnknownClientIssuer,
    /// The client has to show a certificate and did not.
    #[error("the client sent no certificate")]
    NoClientCertificate,
    /// The peer's certificate is in a CRL.
    #[error("the {peer}'s certificate is revoked")]
    Revoked {
        /// Whose.
        peer: Peer,
    },
    /// No CRL says whether it is.
    #[error("whether the {peer}'s certificate is revoked is not known: {} has no crl of its ca", .peer.crl_setting())]
    NoRevocationList {
        /// Whose.
        peer: Peer,
    },
    /// The CRL that would say it may be out of date.
    #[error("whether the {peer}'s certificate is revoked is not known: its ca's crl in {} has expired", .peer.crl_setting())]
    ExpiredRevocationList {
        /// Whose.
        peer: Peer,
    },
    /// Any other failure of a handshake: of the network, of the protocol, or refused by the peer.
    #[error("tls handshake failed")]
    Handshake(#[source] io::Error),
}

impl TlsError {
    /// How the connection ended or broke during the handshake, which says nothing about the settings: everything that is
    /// not the protocol's own reason is the network's.
    pub fn disconnect(&self) -> Option<&io::Error> {
        match self {
            Self::Handshake(error) if tls_reason(error).is_none() => Some(error),
            _ => None,
        }
    }

    /// Explains the failure of a handshake that a client began.
    pub(super) fn accepting(error: io::Error) -> Self {
        match tls_reason(&error) {
            Some(RustlsError::NoCertificatesPresented) => Self::NoClientCertificate,
            Some(RustlsError::InvalidCertificate(error)) if is_unknown_issuer(error) => {
                Self::UnknownClientIssuer
            }
            Some(reason) => Self::revocation(reason, Peer::Client).unwrap_or(Self::Handshake(error)),
            None => Self::Handshake(error),
        }
    }

    fn revocation(reason: &RustlsError, peer: Peer) -> Option<Self> {
        let RustlsError::InvalidCertificate(reason) = reason else {
            return None;
        };
        match reason {
            CertificateError::Revoked => Some(Self::Revoked { peer }),
            CertificateError::UnknownRevocationStatus => Some(Self::NoRevocationList { peer }),
            CertificateError::ExpiredRevocationList
            | CertificateError::ExpiredRevocationListContext { .. } => {
                Some(Self::ExpiredRevocationList { peer })
            }
            _ => None,
        }
    }

    /// Explains the failure of a handshake with a server.
    pub(super) fn connecting(error: io::Error) -> Self {
        match tls_reason(&error) {
            Some(RustlsError::InvalidCertificate(error)) if is_unknown_issuer(error) => {
                Self::UnknownServerIssuer
            }
            Some(RustlsError::InvalidCertificate(CertificateError::NotValidForNameContext {
                expected,
                presented,
            })) => Self::WrongName {
                expected: expected.to_str().into_owned(),
                presented: PresentedNames::new(presented),
            },
            Some(reason) => Self::revocation(reason, Peer::Server).unwrap_or(Self::Handshake(error)),
            None => Self::Handshake(error),
        }
    }
}

/// A CA that was made anew under its old name has the right name and the wrong key, which is reported as a bad
/// signature.
fn is_unknown_issuer(error: &CertificateError) -> bool {
    matches!(
        error,
        CertificateError::UnknownIssuer | CertificateError::BadSignature
    )
}

/// rustls' own reason inside the `io::Error` that tokio-rustls reports.
fn tls_reason(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// The other side of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A client of ours.
    Client,
    /// A server of ours.
    Server,
}

impl Peer {
    fn crl_setting(self) -> &'static str {
        match self {
            Self::Client => "listen.tls.crl_file",
            Self::Server => "server_tls.crl_file",
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Server => "server",
        })
    }
}

/// What a PEM file is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PemItem {
    /// A certificate chain, leaf first.
    Certificate,
    /// An unencrypted private key.
    PrivateKey,
    /// Certificates to trust.
    CaCertificate,
    /// Certificates not to trust.
    RevocationList,
}

impl fmt::Display for PemItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Certificate => "certificate",
            Self::PrivateKey => "private key",
            Self::CaCertificate => "ca certificate",
            Self::RevocationList => "crl (version 2)",
        })
    }
}

/// The section labels of a file (`ENCRYPTED PRIVATE KEY`), never their contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PemContents(pub(super) Vec<String>);

impl fmt::Display for PemContents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no PEM section");
        }
        f.write_str(&self.0.join(", "))
    }
}

/// The names in a certificate's subjectAltName extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresentedNames(Vec<String>);

impl PresentedNames {
    /// From names in rustls' notation: `DnsName("db")`, `IpAddress(10.0.0.1)`.
    fn new(names: &[String]) -> Self {
        let plain = |name: &String| {
            let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
            inner.unwrap_or(name).trim_matches('"').escape_debug().to_string()
        };
        Self(names.iter().take(MAX_PRESENTED_NAMES).map(plain).collect())
    }
}

impl fmt::Display for PresentedNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no name at all (only subjectAltName counts)");
        }
        f.write_str(&self.0.join(", "))
    }
}
