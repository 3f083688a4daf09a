//! SCRAM-SHA-256-PLUS on both sides: who is offered it, and that a log-in does not survive somebody in the middle.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use std::{fs, io, net::SocketAddr, sync::Arc, thread};

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ED25519, PKCS_RSA_SHA256};
use support::{Authority, Certificate, Pooler, PoolerBuilder, Postgres, RawClient, postgres_with};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f];
/// A key that ring cannot make. It guards nothing.
const RSA_KEY: &str = include_str!("../src/tls/tests/rsa2048.pkcs8.pem");
/// OpenSSL does not read the form that ring writes. It guards nothing either.
const ED25519_KEY: &str = include_str!("../src/tls/tests/ed25519.pkcs8.pem");

fn trusting() -> Postgres {
    postgres_with(|builder| builder.hba(&["host all all all trust"]))
}

/// A certificate without a subject that is its own CA.
fn self_signed(key: &KeyPair) -> Certificate {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.distinguished_name = DistinguishedName::new();
    Certificate {
        certificate_pem: params.self_signed(key).unwrap().pem(),
        key_pem: key.serialize_pem(),
    }
}

/// What `SELECT 1` says, or psql itself.
fn psql(pg: &Postgres, port: u16, how: &str) -> Result<String, String> {
    let target = format!("host=localhost hostaddr=127.0.0.1 port={port} user=app dbname=app {how}");
    let mut command = pg.programs().command("psql");
    command.env("HOME", "/nonexistent").env("PGPASSWORD", "secret");
    let output = command.args(["-XAtc", "SELECT 1", &target]).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_owned();
    if output.status.success() {
        Ok(text(output.stdout))
    } else {
        Err(text(output.stderr))
    }
}

fn asking(builder: PoolerBuilder, method: &str) -> PoolerBuilder {
    builder.set("auth.auth_type", format!("'{method}'"))
}

/// A certificate, and whether SCRAM can be bound to it.
fn leaves() -> [(&'static str, Certificate, bool); 3] {
    let rsa = KeyPair::from_pem_and_sign_algo(RSA_KEY, &PKCS_RSA_SHA256).unwrap();
    let ed25519 = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    [
        ("ecdsa", self_signed(&KeyPair::generate().unwrap()), true),
        ("rsa", self_signed(&rsa), true),
        ("ed25519", self_signed(&ed25519), false),
    ]
}

#[test]
fn clients_may_insist_on_channel_binding() {
    let (pg, files) = (trusting(), tempfile::tempdir().unwrap());
    let one = || Ok("1".to_owned());
    for (kind, certificate, can_bind) in leaves() {
        let ca = files.path().join(kind);
        fs::write(&ca, &certificate.certificate_pem).unwrap();
        let pooler = Pooler::builder(&pg.address()).client_tls("prefer", &certificate);
        let pooler = asking(pooler, "scram-sha-256").start();
        let tls = format!("sslmode=verify-full sslrootcert={}", ca.display());
        let session = |how: &str| psql(&pg, pooler.port(), how);
        for binding in ["disable", "prefer"] {
            assert_eq!(
                session(&format!("{tls} channel_binding={binding}")),
                one(),
                "{kind}"
            );
            let plain = format!("sslmode=disable channel_binding={binding}");
            assert_eq!(session(&plain), one(), "{kind}");
        }
        let required = session(&format!("{tls} channel_binding=require"));
        if can_bind {
            assert_eq!(required, one(), "{kind}");
        } else {
            assert!(
                required.unwrap_err().contains("channel binding is required"),
                "{kind}"
            );
        }
        let plain = session("sslmode=disable channel_binding=require");
        assert!(plain.unwrap_err().contains("channel binding"), "{kind}");
    }
}

#[test]
fn verifiers_and_md5_can_be_bound_too() {
    let pg = trusting();
    let verifier = pg
        .psql("SELECT rolpassword FROM pg_authid WHERE rolname = 'app'")
        .unwrap();
    let certificate = self_signed(&KeyPair::generate().unwrap());
    for (method, secret) in [
        ("scram-sha-256", "secret"),
        ("scram-sha-256", &verifier),
        ("md5", &verifier),
    ] {
        let pooler = Pooler::builder(&pg.address())
            .client_tls("require", &certificate)
            .user("app", secret);
        let pooler = asking(pooler, method).start();
        let session = psql(&pg, pooler.port(), "sslmode=require channel_binding=require");
        assert_eq!(session.as_deref(), Ok("1"), "{method}");
    }
}

/// Somebody with a certificate of their own, who passes on what is said in both directions.
struct Intruder {
    address: SocketAddr,
}

impl Intruder {
    /// In front of a TLS server whose certificate `trusted` has signed, or is.
    fn before(target: String, trusted: &str) -> Self {
        let certificate = self_signed(&KeyPair::generate().unwrap());
        let server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(certificate.certificate_pem.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(certificate.key_pem.as_bytes()).unwrap(),
            )
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(trusted.as_bytes()).unwrap())
            .unwrap();
        let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let acceptor = TlsAcceptor::from(Arc::new(server));
        let connector = TlsConnector::from(Arc::new(client));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        // It ends with the test program.
        thread::spawn(move || {
            runtime.block_on(async {
                loop {
                    let (socket, _) = listener.accept().await.unwrap();
                    // One connection after the other will do.
                    let _ = pass_on(socket, &acceptor, &target, &connector).await;
                }
            });
        });
        Self { address }
    }
}

async fn pass_on(
    mut socket: TcpStream,
    acceptor: &TlsAcceptor,
    target: &str,
    connector: &TlsConnector,
) -> io::Result<()> {
    let mut request = [0; 8];
    socket.read_exact(&mut request).await?;
    assert_eq!(request, SSL_REQUEST);
    socket.write_all(b"S").await?;
    let mut client = acceptor.accept(socket).await?;
    let mut server = TcpStream::connect(target).await?;
    server.write_all(&SSL_REQUEST).await?;
    assert_eq!(server.read_u8().await?, b'S');
    let mut server = connector.connect("localhost".try_into().unwrap(), server).await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

#[test]
fn a_client_does_not_log_in_through_somebody_in_the_middle() {
    let (pg, authority) = (trusting(), Authority::new("CA").unwrap());
    let certificate = authority.server(&["localhost"]).unwrap();
    let pooler = Pooler::builder(&pg.address()).client_tls("require", &certificate);
    let pooler = asking(pooler, "scram-sha-256").start();
    let intruder = Intruder::before(pooler.address().to_owned(), authority.certificate_pem());
    let port = intruder.address.port();
    let unbound = psql(&pg, port, "sslmode=require channel_binding=disable");
    assert_eq!(unbound.as_deref(), Ok("1"), "the intruder is there");
    for binding in ["prefer", "require"] {
        let refused = psql(&pg, port, &format!("sslmode=require channel_binding={binding}"));
        let said = refused.unwrap_err();
        assert!(said.contains("SCRAM channel binding check failed"), "{said}");
    }
}

#[test]
fn the_pooler_does_not_log_in_through_somebody_in_the_middle() {
    let authority = Authority::new("CA").unwrap();
    let pg = postgres_with(|builder| {
        builder
            .tls(&authority.server(&["localhost"]).unwrap())
            .hba(&["hostssl all trusted all trust", "host all all all scram-sha-256"])
    });
    pg.psql("CREATE ROLE trusted LOGIN").unwrap();
    let verifier = pg
        .psql("SELECT rolpassword FROM pg_authid WHERE rolname = 'app'")
        .unwrap();
    let intruder = Intruder::before(pg.address(), authority.certificate_pem());
    // `require` looks at no certificate: only the binding notices.
    let towards = |host: &str, secret: &str| {
        let builder = Pooler::builder(host).set("server_tls.mode", "'require'");
        asking(builder.user("app", secret), "scram-sha-256")
    };
    for secret in ["secret", &verifier] {
        let direct = towards(&pg.address(), secret).start();
        let session = psql(&pg, direct.port(), "sslmode=disable");
        assert_eq!(
            session.as_deref(),
            Ok("1"),
            "PostgreSQL takes what we are bound to"
        );
        let tricked = towards(&intruder.address.to_string(), secret).start();
        let said = psql(&pg, tricked.port(), "sslmode=disable").unwrap_err();
        assert!(said.contains("SCRAM channel binding check failed"), "{said}");
    }
    let trusted = asking(towards(&intruder.address.to_string(), "secret"), "trust").user("trusted", "x");
    let trusted = trusted.start();
    let mut client = RawClient::log_in(trusted.address(), "trusted", "", "app");
    assert_eq!(client.value("SELECT 1"), "1", "the intruder is there");
}

#[test]
fn a_server_whose_certificate_names_no_hash_is_logged_in_to_without_binding() {
    let certificate = self_signed(&KeyPair::from_pem(ED25519_KEY).unwrap());
    let pg = postgres_with(|builder| {
        builder
            .tls(&certificate)
            .hba(&["hostssl all all all scram-sha-256"])
    });
    let pooler = Pooler::builder(&pg.address())
        .set("server_tls.mode", "'require'")
        .start();
    let mut client = RawClient::log_in(pooler.address(), "app", "", "app");
    assert_eq!(client.value("SELECT 1"), "1");
}
