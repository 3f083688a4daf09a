//! What clients meet: every mode, every kind of certificate, versions and application protocols.

use std::{path::PathBuf, sync::Arc};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::rustls::{
    HandshakeKind,
    version::{TLS12, TLS13},
};

use super::fixtures::{
    Authority, Files, client_leaf, expired, handshake, pipe, plain_acceptor, plain_connector, raw_client,
    raw_handshake, server_leaf, talk,
};
use crate::{
    config::{ClientTls, Identity, TlsProtocols},
    tls::{ALPN, Acceptor, NamesError, Stream, TlsError, acceptor},
    types::TlsMode,
};

const ALL_MODES: [TlsMode; 5] = [
    TlsMode::Allow,
    TlsMode::Prefer,
    TlsMode::Require,
    TlsMode::VerifyCa,
    TlsMode::VerifyFull,
];

/// Files for a pooler with a CA for its clients.
struct World {
    files: Files,
    identity: Identity,
    client_ca: Authority,
}

impl World {
    fn new() -> Self {
        let files = Files::new();
        let pair = Authority::new("server ca").issue(&server_leaf(&["localhost"]));
        Self {
            identity: files.identity("server", &pair),
            client_ca: Authority::new("client ca"),
            files,
        }
    }

    fn settings(&self, mode: TlsMode) -> ClientTls {
        ClientTls {
            mode,
            identity: Some(self.identity.clone()),
            client_ca_file: Some(self.files.write("client-ca.crt", &self.client_ca.pem())),
            crl_file: None,
            protocols: TlsProtocols::Secure,
        }
    }

    fn acceptor(&self, mode: TlsMode) -> Acceptor {
        acceptor(&self.settings(mode)).unwrap().unwrap()
    }
}

#[tokio::test]
async fn every_mode_against_every_certificate() {
    let world = World::new();
    let client = |name, ca: &Authority, params| Some(world.files.identity(name, &ca.issue(&params)));
    let foreign = Authority::new("another ca");
    let server_purpose = server_leaf(&["localhost"]);
    let none = None;
    let good = client("good", &world.client_ca, client_leaf("app"));
    let bad = [
        client("foreign", &foreign, client_leaf("app")),
        client("old", &world.client_ca, expired(client_leaf("app"))),
        client("purpose", &world.client_ca, server_purpose),
    ];
    for mode in ALL_MODES {
        let acceptor = world.acceptor(mode);
        let accepted = async |identity: &Option<Identity>| {
            let connector = plain_connector(identity.clone());
            handshake(&connector, "localhost", &acceptor).await.1
        };
        let mandatory = matches!(mode, TlsMode::VerifyCa | TlsMode::VerifyFull);
        match accepted(&none).await {
            Ok(stream) => assert!(!mandatory && stream.peer_certificate().is_none(), "{mode:?}"),
            Err(error) => assert!(mandatory && matches!(error, TlsError::NoClientCertificate)),
        }
        assert!(
            accepted(&good).await.unwrap().peer_certificate().is_some(),
            "{mode:?}"
        );
        for identity in &bad {
            accepted(identity).await.unwrap_err();
        }
        let error = accepted(&bad[0]).await.unwrap_err();
        assert!(
            matches!(error, TlsError::UnknownClientIssuer),
            "{mode:?} {error:?}"
        );
    }
}

#[tokio::test]
async fn without_client_cas_no_certificate_is_asked_for() {
    let world = World::new();
    let pair = Authority::new("another ca").issue(&client_leaf("app"));
    let connector = plain_connector(Some(world.files.identity("client", &pair)));
    for mode in [TlsMode::Allow, TlsMode::Prefer, TlsMode::Require] {
        let settings = ClientTls {
            client_ca_file: None,
            ..world.settings(mode)
        };
        let acceptor = acceptor(&settings).unwrap().unwrap();
        let (client, server) = handshake(&connector, "localhost", &acceptor).await;
        let mut server = server.unwrap();
        assert!(server.peer_certificate().is_none());
        talk(&mut client.unwrap(), &mut server).await;
    }
}

#[tokio::test]
async fn a_refused_client_learns_why_from_its_first_read() {
    let acceptor = World::new().acceptor(TlsMode::VerifyFull);
    let (client, server) = handshake(&plain_connector(None), "localhost", &acceptor).await;
    server.unwrap_err();
    let error = client.unwrap().read_u8().await.unwrap_err();
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
}

#[test]
fn where_tls_is_not_offered_there_is_no_acceptor() {
    let nowhere = || PathBuf::from("/nonexistent");
    let disabled = ClientTls {
        mode: TlsMode::Disable,
        identity: Some(Identity {
            cert_file: nowhere(),
            key_file: nowhere(),
        }),
        client_ca_file: Some(nowhere()),
        ..ClientTls::default()
    };
    assert!(acceptor(&disabled).unwrap().is_none());
    assert!(acceptor(&ClientTls::default()).unwrap().is_none());
}

#[test]
fn a_mode_that_needs_a_file_names_the_setting() {
    let world = World::new();
    for mode in [TlsMode::VerifyCa, TlsMode::VerifyFull] {
        let settings = ClientTls {
            client_ca_file: None,
            ..world.settings(mode)
        };
        let error = acceptor(&settings).unwrap_err();
        assert_eq!(error.to_string(), "this tls mode needs listen.tls.client_ca_file");
    }
    for mode in [TlsMode::Require, TlsMode::VerifyCa, TlsMode::VerifyFull] {
        let settings = ClientTls {
            identity: None,
            ..world.settings(mode)
        };
        let error = acceptor(&settings).unwrap_err();
        assert_eq!(error.to_string(), "this tls mode needs listen.tls.cert_file");
    }
}

#[tokio::test]
async fn protocols_bound_the_version() {
    let world = World::new();
    let tls12 = Arc::new(raw_client(&[&TLS12]));
    let tls13 = Arc::new(raw_client(&[&TLS13, &TLS12]));
    let secure = world.acceptor(TlsMode::Require);
    let settings = ClientTls {
        protocols: TlsProtocols::Tls13,
        ..world.settings(TlsMode::Require)
    };
    let only_tls13 = acceptor(&settings).unwrap().unwrap();

    for (config, acceptor, version) in [
        (&tls12, &secure, "TLSv1.2"),
        (&tls13, &secure, "TLSv1.3"),
        (&tls13, &only_tls13, "TLSv1.3"),
    ] {
        let (client, server) = raw_handshake(config, acceptor).await;
        let (mut client, mut server) = (client.unwrap(), server.unwrap());
        assert_eq!(server.tls_version(), Some(version));
        assert!(server.cipher().unwrap().suite.contains("AES"));
        talk(&mut client, &mut server).await;
    }
    let (client, server) = raw_handshake(&tls12, &only_tls13).await;
    assert!(matches!(client, Err(TlsError::Handshake(_))));
    assert!(matches!(server, Err(TlsError::Handshake(_))));
}

#[tokio::test]
async fn only_postgresql_is_spoken() {
    let acceptor = World::new().acceptor(TlsMode::Require);
    let offering = async |protocols: &[&[u8]]| {
        let mut config = raw_client(&[&TLS13, &TLS12]);
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        raw_handshake(&Arc::new(config), &acceptor).await.1
    };
    assert_eq!(offering(&[ALPN]).await.unwrap().alpn(), Some(ALPN));
    assert_eq!(offering(&[b"h2", ALPN]).await.unwrap().alpn(), Some(ALPN));
    assert_eq!(offering(&[]).await.unwrap().alpn(), None);
    assert!(matches!(
        offering(&[b"http/1.1"]).await,
        Err(TlsError::Handshake(_))
    ));
}

#[tokio::test]
async fn nothing_is_kept_for_resumption() {
    let acceptor = World::new().acceptor(TlsMode::Require);
    for version in [&TLS12, &TLS13] {
        // One configuration for both connections: it would resume if it could.
        let config = Arc::new(raw_client(&[version]));
        for _ in 0..2 {
            let (client, server) = raw_handshake(&config, &acceptor).await;
            let (mut client, mut server) = (client.unwrap(), server.unwrap());
            talk(&mut client, &mut server).await;
            let Stream::Connected(client) = client else {
                panic!("not a client's stream");
            };
            let session = client.get_ref().1;
            assert_eq!(session.handshake_kind(), Some(HandshakeKind::Full));
            assert_eq!(session.tls13_tickets_received(), 0);
        }
    }
}

#[tokio::test]
async fn a_client_that_speaks_no_tls_or_goes_is_an_error() {
    let files = Files::new();
    let acceptor = plain_acceptor(&files, &Authority::new("ca"));

    let (mut near, far) = pipe();
    near.write_all(b"\x00\x00\x00\x08\x04\xd2\x16\x2f").await.unwrap();
    assert!(matches!(acceptor.accept(far).await, Err(TlsError::Handshake(_))));

    let (near, far) = pipe();
    drop(near);
    assert!(matches!(acceptor.accept(far).await, Err(TlsError::Handshake(_))));
}

#[tokio::test]
async fn the_certificate_of_a_client_names_it() {
    let world = World::new();
    let acceptor = world.acceptor(TlsMode::Prefer);
    let named = async |identity: Option<Identity>| {
        let connector = plain_connector(identity);
        let (client, server) = handshake(&connector, "localhost", &acceptor).await;
        assert_eq!(
            client.unwrap().client_names(),
            Ok(None),
            "the server's certificate is no client's"
        );
        server.unwrap().client_names()
    };
    let with_name = |name: &str| {
        let pair = world.client_ca.issue(&client_leaf(name));
        Some(world.files.identity("client", &pair))
    };
    let names = named(with_name("app")).await.unwrap().unwrap();
    assert_eq!(names.common_name.as_deref(), Some("app"));
    assert_eq!(names.distinguished_name, "CN=app");
    assert_eq!(named(None).await, Ok(None));
    assert_eq!(named(with_name("app\0x")).await, Err(NamesError::EmbeddedNull));
    let (near, _far) = pipe();
    assert_eq!(Stream::Plain(near).client_names(), Ok(None));
}
