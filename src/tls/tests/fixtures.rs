//! Authorities, certificates, files and handshakes for the tests.

use std::{fs, path::PathBuf, sync::Arc};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SerialNumber, date_time_ymd,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, SupportedProtocolVersion},
};

use crate::{
    config::{ClientTls, Identity, ServerTls},
    net::Socket,
    tls::{
        Acceptor, Connector, Stream, TlsError, acceptor, connector, provider,
        verifier::{PartialVerifier, Trust},
    },
    types::TlsMode,
};

/// An RSA key of 2048 bits, which ring cannot make. It guards nothing.
pub(super) const RSA_PKCS8: &str = include_str!("rsa2048.pkcs8.pem");
/// The same in RSA's own format.
pub(super) const RSA_PKCS1: &str = include_str!("rsa2048.pkcs1.pem");
/// What `openssl ecparam -genkey` writes: parameters, then the key.
pub(super) const P256_SEC1: &str = include_str!("p256.sec1.pem");
/// The same key, self-signed by `openssl x509 -req`: X.509 version 1.
pub(super) const P256_VERSION1: &str = include_str!("p256.x509v1.pem");

/// A certificate authority.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate chain and its key, both PEM.
pub(super) struct Pair {
    pub(super) cert: String,
    pub(super) key: String,
}

/// A directory of PEM files that is gone afterwards.
pub(super) struct Files(TempDir);

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        Self(CertifiedIssuer::self_signed(authority(name), KeyPair::generate().unwrap()).unwrap())
    }

    pub(super) fn intermediate(&self, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::signed_by(authority(name), key, &self.0).unwrap())
    }

    pub(super) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A list of the serial numbers that are revoked, which expires at the end of `until`.
    pub(super) fn crl(&self, serials: &[u64], until: i32) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2001, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2001, 1, 1),
            next_update: date_time_ymd(until, 12, 31),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.0).unwrap().pem().unwrap()
    }

    pub(super) fn issue(&self, params: &CertificateParams) -> Pair {
        self.issue_for(params, &KeyPair::generate().unwrap())
    }

    pub(super) fn issue_for(&self, params: &CertificateParams, key: &KeyPair) -> Pair {
        Pair {
            cert: params.signed_by(key, &self.0).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}

impl Files {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(super) fn write(&self, name: &str, contents: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, contents).unwrap();
        path
    }

    pub(super) fn identity(&self, name: &str, pair: &Pair) -> Identity {
        Identity {
            cert_file: self.write(&format!("{name}.crt"), &pair.cert),
            key_file: self.write(&format!("{name}.key"), &pair.key),
        }
    }
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn common_name(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

/// A server certificate for names and addresses.
pub(super) fn server_leaf(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = common_name("a server");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

/// A client certificate for a role.
pub(super) fn client_leaf(role: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(role);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

pub(super) fn numbered(mut params: CertificateParams, serial: u64) -> CertificateParams {
    params.serial_number = Some(SerialNumber::from(serial));
    params
}

pub(super) fn expired(mut params: CertificateParams) -> CertificateParams {
    params.not_after = date_time_ymd(2001, 1, 1);
    params
}

/// An acceptor with a certificate for `localhost` and nothing special.
pub(super) fn plain_acceptor(files: &Files, ca: &Authority) -> Acceptor {
    acceptor_for(files.identity("localhost", &ca.issue(&server_leaf(&["localhost"]))))
}

pub(super) fn acceptor_for(identity: Identity) -> Acceptor {
    let settings = ClientTls {
        mode: TlsMode::Require,
        identity: Some(identity),
        ..ClientTls::default()
    };
    acceptor(&settings).unwrap().unwrap()
}

/// A connector that takes any certificate.
pub(super) fn plain_connector(identity: Option<Identity>) -> Connector {
    let settings = ServerTls {
        mode: TlsMode::Require,
        identity,
        ..ServerTls::default()
    };
    connector(&settings).unwrap()
}

/// A client configuration of rustls itself, to do what [`Connector`] does not.
pub(super) fn raw_client(versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let provider = provider();
    ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PartialVerifier::new(Trust::Anything, &provider)))
        .with_no_client_auth()
}

pub(super) type Outcome = Result<Stream, TlsError>;

pub(super) fn pipe() -> (Socket, Socket) {
    let (one, other) = tokio::io::duplex(64 * 1024);
    (Socket::memory(one), Socket::memory(other))
}

/// Both ends of a handshake: the client's view, then the server's.
pub(super) async fn handshake(connector: &Connector, host: &str, acceptor: &Acceptor) -> (Outcome, Outcome) {
    let (near, far) = pipe();
    tokio::join!(connector.connect(near, host), acceptor.accept(far))
}

/// As [`handshake`], with a configuration of [`raw_client`].
pub(super) async fn raw_handshake(config: &Arc<ClientConfig>, acceptor: &Acceptor) -> (Outcome, Outcome) {
    let (near, far) = pipe();
    let client = async {
        let name = "localhost".try_into().unwrap();
        let stream = TlsConnector::from(Arc::clone(config)).connect(name, near).await;
        stream
            .map(|stream| Stream::Connected(Box::new(stream)))
            .map_err(TlsError::connecting)
    };
    tokio::join!(client, acceptor.accept(far))
}

/// Whether bytes get through in both directions, and unchanged.
pub(super) async fn talk(client: &mut Stream, server: &mut Stream) {
    let mut received = [0; 4];
    client.write_all(b"ping").await.unwrap();
    client.flush().await.unwrap();
    server.read_exact(&mut received).await.unwrap();
    assert_eq!(&received, b"ping");
    server.write_all(b"pong").await.unwrap();
    server.flush().await.unwrap();
    client.read_exact(&mut received).await.unwrap();
    assert_eq!(&received, b"pong");
}
