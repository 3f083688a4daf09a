//! A throw-away certificate authority: server and client certificates for demos and tests.
//!
//! It knows nothing of sockets or of who uses the certificates.

use std::{
    fmt,
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Throw-away certificates are not valid for long.
const LIFETIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Why no certificate was made.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A name is not a DNS name, or the keys could not be made.
    #[error("cannot make a certificate")]
    Certificate(#[from] rcgen::Error),
}

/// A CA, root or intermediate.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    /// The intermediate CAs between its certificates and the root, nearest first.
    chain_pem: String,
}

/// A certificate chain (leaf first, no root) and its private key, both PEM.
#[derive(Clone)]
pub struct Certificate {
    /// The chain.
    pub certificate_pem: String,
    /// The private key, PKCS#8.
    pub key_pem: String,
}

/// What a leaf certificate says.
#[derive(Debug, Clone)]
pub struct Leaf {
    subject: Option<String>,
    names: Vec<String>,
    usage: ExtendedKeyUsagePurpose,
    not_after: SystemTime,
}

impl Leaf {
    /// A server certificate: the first name is the common name, all are alternative names.
    pub fn server(names: &[&str]) -> Self {
        Self {
            subject: names.first().map(|&name| name.to_owned()),
            names: names.iter().map(|&name| name.to_owned()).collect(),
            usage: ExtendedKeyUsagePurpose::ServerAuth,
            not_after: SystemTime::now() + LIFETIME,
        }
    }

    /// A client certificate whose common name is `common_name`.
    pub fn client(common_name: &str) -> Self {
        Self {
            subject: Some(common_name.to_owned()),
            names: Vec::new(),
            usage: ExtendedKeyUsagePurpose::ClientAuth,
            not_after: SystemTime::now() + LIFETIME,
        }
    }

    /// No subject at all, as cert-manager makes them.
    #[must_use]
    pub fn empty_subject(self) -> Self {
        Self {
            subject: None,
            ..self
        }
    }

    /// Another common name than the first alternative name.
    #[must_use]
    pub fn subject(self, common_name: &str) -> Self {
        Self {
            subject: Some(common_name.to_owned()),
            ..self
        }
    }

    /// Valid until an hour ago.
    #[must_use]
    pub fn expired(self) -> Self {
        Self {
            not_after: SystemTime::now() - Duration::from_secs(60 * 60),
            ..self
        }
    }
}

impl Authority {
    /// A new root CA.
    ///
    /// # Errors
    /// The key could not be made.
    pub fn new(common_name: &str) -> Result<Self, AuthorityError> {
        Self::of_key(common_name, KeyPair::generate()?)
    }

    /// A new root CA with this private key (PEM, PKCS#8): RSA keys can be used and not made.
    ///
    /// # Errors
    /// The key is none.
    pub fn with_key(common_name: &str, key_pem: &str) -> Result<Self, AuthorityError> {
        Self::of_key(common_name, KeyPair::from_pem(key_pem)?)
    }

    fn of_key(common_name: &str, key: KeyPair) -> Result<Self, AuthorityError> {
        let params = ca_params(common_name);
        let certificate_pem = params.self_signed(&key)?.pem();
        Ok(Self {
            issuer: Issuer::new(params, key),
            certificate_pem,
            chain_pem: String::new(),
        })
    }

    /// A CA signed by this one; the certificates that it issues carry it in their chain.
    ///
    /// # Errors
    /// The key could not be made.
    pub fn intermediate(&self, common_name: &str) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate()?;
        let params = ca_params(common_name);
        let certificate_pem = params.signed_by(&key, &self.issuer)?.pem();
        let chain_pem = format!("{certificate_pem}{}", self.chain_pem);
        Ok(Self {
            issuer: Issuer::new(params, key),
            certificate_pem,
            chain_pem,
        })
    }

    /// The CA's own certificate, what `sslrootcert` names.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// A certificate for a server with these DNS names and IP addresses.
    ///
    /// # Errors
    /// As [`Authority::issue`].
    pub fn server(&self, names: &[&str]) -> Result<Certificate, AuthorityError> {
        self.issue(&Leaf::server(names))
    }

    /// A certificate for a client.
    ///
    /// # Errors
    /// As [`Authority::issue`].
    pub fn client(&self, common_name: &str) -> Result<Certificate, AuthorityError> {
        self.issue(&Leaf::client(common_name))
    }

    /// A certificate as `leaf` says.
    ///
    /// # Errors
    /// A name that is neither an IP address nor a DNS name; the key could not be made.
    pub fn issue(&self, leaf: &Leaf) -> Result<Certificate, AuthorityError> {
        self.issue_for(leaf, &KeyPair::generate()?)
    }

    /// The same for this private key (PEM, PKCS#8).
    ///
    /// # Errors
    /// As [`Authority::issue`].
    pub fn issue_with_key(&self, leaf: &Leaf, key_pem: &str) -> Result<Certificate, AuthorityError> {
        self.issue_for(leaf, &KeyPair::from_pem(key_pem)?)
    }

    fn issue_for(&self, leaf: &Leaf, key: &KeyPair) -> Result<Certificate, AuthorityError> {
        let mut params = CertificateParams::new(leaf.names.clone())?;
        params.distinguished_name = DistinguishedName::new();
        if let Some(subject) = &leaf.subject {
            params.distinguished_name.push(DnType::CommonName, subject);
        }
        params.not_before = (SystemTime::now() - DAY).into();
        params.not_after = leaf.not_after.into();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![leaf.usage.clone()];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(key, &self.issuer)?;
        Ok(Certificate {
            certificate_pem: format!("{}{}", certificate.pem(), self.chain_pem),
            key_pem: key.serialize_pem(),
        })
    }
}

impl Certificate {
    /// Writes `NAME.crt` and `NAME.key` (0600) into `directory`.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write_to(&self, directory: &Path, name: &str) -> io::Result<()> {
        std::fs::write(directory.join(format!("{name}.crt")), &self.certificate_pem)?;
        write_private(&directory.join(format!("{name}.key")), &self.key_pem)
    }
}

/// Writes a file that only its owner can read.
///
/// # Errors
/// The file cannot be written.
pub fn write_private(path: &Path, contents: &str) -> io::Result<()> {
    // The mode applies to a new file only; an old one may be readable by others.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(contents.as_bytes())
}

fn ca_params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params.not_before = (SystemTime::now() - DAY).into();
    params.not_after = (SystemTime::now() + LIFETIME).into();
    params
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, sync::Arc};

    use tokio_rustls::rustls::{
        RootCertStore,
        client::{WebPkiServerVerifier, danger::ServerCertVerifier},
        crypto::ring,
        pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
    };

    use super::*;

    fn ders(pem: &str) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<_, _>>()
            .unwrap()
    }

    fn verifies(root: &Authority, certificate: &Certificate, name: &'static str) -> bool {
        let mut roots = RootCertStore::empty();
        roots.add(ders(root.certificate_pem()).remove(0)).unwrap();
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .unwrap();
        let chain = ders(&certificate.certificate_pem);
        let name = ServerName::try_from(name).unwrap();
        verifier
            .verify_server_cert(&chain[0], &chain[1..], &name, &[], UnixTime::now())
            .is_ok()
    }

    #[test]
    fn server_certificates_verify_for_their_names_only() {
        let root = Authority::new("root").unwrap();
        let certificate = root.server(&["localhost", "127.0.0.1"]).unwrap();
        assert!(verifies(&root, &certificate, "localhost"));
        assert!(verifies(&root, &certificate, "127.0.0.1"));
        assert!(!verifies(&root, &certificate, "example.org"));
        assert!(!verifies(
            &Authority::new("root").unwrap(),
            &certificate,
            "localhost"
        ));
    }

    #[test]
    fn an_empty_subject_verifies_by_its_alternative_name() {
        let root = Authority::new("root").unwrap();
        let certificate = root.issue(&Leaf::server(&["pooler"]).empty_subject()).unwrap();
        assert!(verifies(&root, &certificate, "pooler"));
    }

    #[test]
    fn an_intermediate_travels_in_the_chain() {
        let root = Authority::new("root").unwrap();
        let intermediate = root.intermediate("intermediate").unwrap();
        let certificate = intermediate.server(&["localhost"]).unwrap();
        assert_eq!(ders(&certificate.certificate_pem).len(), 2);
        assert!(verifies(&root, &certificate, "localhost"));
    }

    #[test]
    fn expired_and_client_certificates_do_not_verify_as_servers() {
        let root = Authority::new("root").unwrap();
        let expired = root.issue(&Leaf::server(&["localhost"]).expired()).unwrap();
        assert!(!verifies(&root, &expired, "localhost"));
        assert!(!verifies(&root, &root.client("localhost").unwrap(), "localhost"));
    }

    #[test]
    fn keys_are_written_for_their_owner_only() {
        let directory = tempfile::tempdir().unwrap();
        let key = directory.path().join("server.key");
        std::fs::write(&key, "old and readable").unwrap();
        let certificate = Authority::new("root").unwrap().server(&["localhost"]).unwrap();
        certificate.write_to(directory.path(), "server").unwrap();
        assert_eq!(std::fs::read_to_string(&key).unwrap(), certificate.key_pem);
        assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn debug_output_has_no_key() {
        let certificate = Authority::new("root").unwrap().client("app").unwrap();
        assert!(!format!("{certificate:?}").contains("PRIVATE"));
    }
}
