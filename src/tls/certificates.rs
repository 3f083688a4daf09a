//! Certificates and keys from PEM files.
//!
//! The only place that names `rustls_pemfile`. It does not know what the certificates are for.

use std::{fs, path::Path, sync::Arc};

use rustls_pemfile::Item;
use tokio_rustls::rustls::{
    Error as RustlsError, InconsistentKeys, RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer},
    server::VerifierBuilderError,
    sign::CertifiedKey,
};

use super::error::{PemContents, PemItem, TlsError};
use crate::config::Identity;

/// How many different section labels an error message lists, and how long one may be.
const MAX_LABELS: usize = 8;
const MAX_LABEL_LENGTH: usize = 40;

/// Loads a certificate chain with its private key, and checks that they are a pair.
pub(super) fn identity(files: &Identity, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let chain = chain(&files.cert_file)?;
    let key = read_pem(&files.key_file)?.into_private_key(&files.key_file)?;
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|source| TlsError::Unusable {
            file: files.key_file.clone(),
            item: PemItem::PrivateKey,
            source,
        })?;

    let pair = CertifiedKey::new(chain, key);
    match pair.keys_match() {
        // A key that does not tell its public half is found out by the first handshake.
        Ok(()) | Err(RustlsError::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(pair),
        Err(RustlsError::InconsistentKeys(_)) => Err(TlsError::KeyMismatch {
            cert_file: files.cert_file.clone(),
            key_file: files.key_file.clone(),
        }),
        Err(source) => Err(TlsError::Unusable {
            file: files.cert_file.clone(),
            item: PemItem::Certificate,
            source,
        }),
    }
}

/// Loads certificates, whatever they are for.
pub(super) fn chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    read_pem(file)?.into_certificates(file, PemItem::Certificate)
}

/// Loads the CAs to trust.
pub(super) fn roots(file: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in read_pem(file)?.into_certificates(file, PemItem::CaCertificate)? {
        roots.add(certificate).map_err(|source| TlsError::Unusable {
            file: file.to_owned(),
            item: PemItem::CaCertificate,
            source,
        })?;
    }
    Ok(Arc::new(roots))
}

/// Loads what the CAs have revoked. Whether the lists can be read is found out by the verifier that gets them:
/// [`unusable_crl`].
pub(super) fn revocation_lists(file: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let pem = read_pem(file)?;
    if pem.revocation_lists.is_empty() {
        return Err(nothing_found(file, PemItem::RevocationList, pem.contents));
    }
    Ok(pem.revocation_lists)
}

/// Why a verifier does not take what was loaded for it.
pub(super) fn unusable_crl(error: VerifierBuilderError, crl_file: Option<&Path>) -> TlsError {
    match (error, crl_file) {
        (VerifierBuilderError::InvalidCrl(reason), Some(file)) => TlsError::Unusable {
            file: file.to_owned(),
            item: PemItem::RevocationList,
            source: RustlsError::InvalidCertRevocationList(reason),
        },
        (error, _) => TlsError::Setup(RustlsError::General(error.to_string())),
    }
}

/// What is of use in a PEM file, in the file's order.
struct Pem {
    certificates: Vec<CertificateDer<'static>>,
    revocation_lists: Vec<CertificateRevocationListDer<'static>>,
    private_keys: Vec<PrivateKeyDer<'static>>,
    contents: PemContents,
}

impl Pem {
    fn into_certificates(
        self,
        file: &Path,
        wanted: PemItem,
    ) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        if self.certificates.is_empty() {
            return Err(nothing_found(file, wanted, self.contents));
        }
        Ok(self.certificates)
    }

    /// The first key, as OpenSSL does.
    fn into_private_key(self, file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
        let first = self.private_keys.into_iter().next();
        first.ok_or_else(|| nothing_found(file, PemItem::PrivateKey, self.contents))
    }
}

fn nothing_found(file: &Path, wanted: PemItem, found: PemContents) -> TlsError {
    TlsError::NothingFound {
        file: file.to_owned(),
        wanted,
        found,
    }
}

fn read_pem(file: &Path) -> Result<Pem, TlsError> {
    let text = fs::read(file).map_err(|source| TlsError::Read {
        file: file.to_owned(),
        source,
    })?;
    let mut pem = Pem {
        certificates: Vec::new(),
        revocation_lists: Vec::new(),
        private_keys: Vec::new(),
        contents: labels(&text),
    };
    for item in rustls_pemfile::read_all(&mut text.as_slice()) {
        let item = item.map_err(|source| TlsError::NotPem {
            file: file.to_owned(),
            source,
        })?;
        match item {
            Item::X509Certificate(certificate) => pem.certificates.push(certificate),
            Item::Crl(list) => pem.revocation_lists.push(list),
            Item::Pkcs1Key(key) => pem.private_keys.push(key.into()),
            Item::Pkcs8Key(key) => pem.private_keys.push(key.into()),
            Item::Sec1Key(key) => pem.private_keys.push(key.into()),
            _ => {}
        }
    }
    Ok(pem)
}

/// The different section labels of a file: also of the sections that the PEM reader passes over, such
/// as an encrypted key.
fn labels(text: &[u8]) -> PemContents {
    let mut labels: Vec<String> = Vec::new();
    for line in text.split(|byte| *byte == b'\n') {
        if let Some(label) = label(line)
            && labels.len() < MAX_LABELS
            && !labels.iter().any(|known| known == label)
        {
            labels.push(label.to_owned());
        }
    }
    PemContents(labels)
}

fn label(line: &[u8]) -> Option<&str> {
    let line = std::str::from_utf8(line.trim_ascii()).ok()?;
    let label = line.strip_prefix("-----BEGIN ")?.strip_suffix("-----")?;
    let plain = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == ' ';
    (label.len() <= MAX_LABEL_LENGTH && label.chars().all(plain)).then_some(label)
}
