//! What is asked of servers: every mode against good, foreign, misnamed, old and odd certificates.

use std::{path::PathBuf, sync::Arc};

use rcgen::{BasicConstraints, DistinguishedName, IsCa, KeyPair};
use rustls_pemfile::{certs, private_key};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        sign::{CertifiedKey, SingleCertAndKey},
        version::TLS12,
    },
};

use super::fixtures::{
    Authority, Files, Outcome, P256_SEC1, P256_VERSION1, Pair, RSA_PKCS8, acceptor_for, client_leaf, expired,
    handshake, pipe, plain_connector, server_leaf, talk,
};
use crate::{
    config::{ClientTls, Identity, ServerTls, TlsProtocols},
    tls::{Connector, Stream, TlsError, acceptor, connector, provider, versions},
    types::TlsMode,
};

const UNVERIFIED: [TlsMode; 3] = [TlsMode::Allow, TlsMode::Prefer, TlsMode::Require];

fn verifying(mode: TlsMode, files: &Files, ca: &str) -> Connector {
    connector(&settings(mode, files, ca)).unwrap()
}

fn settings(mode: TlsMode, files: &Files, ca: &str) -> ServerTls {
    ServerTls {
        mode,
        ca_file: Some(files.write("ca.crt", ca)),
        ..ServerTls::default()
    }
}

/// A full handshake with a server that shows `pair`, and a word in each direction.
async fn connect(connector: &Connector, host: &str, pair: &Pair) -> Result<(), TlsError> {
    let files = Files::new();
    let acceptor = acceptor_for(files.identity("server", pair));
    let (client, server) = handshake(connector, host, &acceptor).await;
    talk(&mut client?, &mut server.unwrap()).await;
    Ok(())
}

/// A server that shows what [`acceptor`] would refuse to load.
async fn connect_to_odd_server(connector: &Connector, cert: &str, key: &str) -> Outcome {
    let chain = certs(&mut cert.as_bytes()).map(Result::unwrap).collect();
    let key = private_key(&mut key.as_bytes()).unwrap().unwrap();
    let key = provider().key_provider.load_private_key(key).unwrap();
    let resolver = SingleCertAndKey::from(CertifiedKey::new(chain, key));
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions(TlsProtocols::Secure))
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    let (near, far) = pipe();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::join!(connector.connect(near, "localhost"), acceptor.accept(far)).0
}

#[tokio::test]
async fn every_mode_against_every_certificate() {
    let ca = Authority::new("ca");
    let good = ca.issue(&server_leaf(&["db.example"]));
    let foreign = Authority::new("another ca").issue(&server_leaf(&["db.example"]));
    // A CA that was made anew under its old name.
    let namesake = Authority::new("ca").issue(&server_leaf(&["db.example"]));
    let misnamed = ca.issue(&server_leaf(&["other.example"]));
    let old = ca.issue(&expired(server_leaf(&["db.example"])));
    let purpose = ca.issue(&client_leaf("app"));
    let files = Files::new();
    for mode in UNVERIFIED {
        let connector = verifying(mode, &files, &ca.pem());
        assert_eq!(connector.mode(), mode);
        for pair in [&good, &foreign, &namesake, &misnamed, &old, &purpose] {
            connect(&connector, "db.example", pair).await.unwrap();
        }
    }
    for mode in [TlsMode::VerifyCa, TlsMode::VerifyFull] {
        let connector = verifying(mode, &files, &ca.pem());
        let connect = async |pair| connect(&connector, "db.example", pair).await;
        connect(&good).await.unwrap();
        for pair in [&foreign, &namesake] {
            assert!(matches!(connect(pair).await, Err(TlsError::UnknownServerIssuer)));
        }
        assert!(matches!(connect(&old).await, Err(TlsError::Handshake(_))));
        assert!(matches!(connect(&purpose).await, Err(TlsError::Handshake(_))));
        match connect(&misnamed).await {
            Ok(()) => assert_eq!(mode, TlsMode::VerifyCa),
            Err(error) => {
                assert_eq!(mode, TlsMode::VerifyFull);
                let expected = "the server's certificate is for other.example, not for \"db.example\"";
                assert_eq!(error.to_string(), expected);
            }
        }
    }
}

#[tokio::test]
async fn verify_full_knows_every_form_of_name() {
    let ca = Authority::new("ca");
    let files = Files::new();
    let connector = verifying(TlsMode::VerifyFull, &files, &ca.pem());
    let matching = [
        ("cluster-rw", "cluster-rw"),
        ("cluster-rw.ns.svc", "cluster-rw.ns.svc"),
        ("CLUSTER-RW", "cluster-rw"),
        ("db_1.example", "db_1.example"),
        ("db.example.", "db.example"),
        ("a.db.example", "*.db.example"),
        ("10.0.0.1", "10.0.0.1"),
        ("fd00::1", "fd00::1"),
    ];
    for (host, name) in matching {
        let pair = ca.issue(&server_leaf(&["first.example", name]));
        connect(&connector, host, &pair).await.expect(host);
    }
    let differing = [
        ("cluster-rw", "cluster-ro"),
        ("a.b.db.example", "*.db.example"),
        ("a.example", "*.example"),
        ("10.0.0.1", "10.0.0.2"),
        ("10.0.0.1", "db.example"),
    ];
    for (host, name) in differing {
        let pair = ca.issue(&server_leaf(&["first.example", name]));
        let error = connect(&connector, host, &pair).await.unwrap_err();
        assert!(matches!(error, TlsError::WrongName { .. }), "{error:?}");
        let names = format!("first.example, {name}");
        assert!(error.to_string().contains(&names), "{error}");
    }
}

#[tokio::test]
async fn an_empty_subject_is_as_good_as_any() {
    let ca = Authority::new("ca");
    let files = Files::new();
    let mut params = server_leaf(&["db.example"]);
    params.distinguished_name = DistinguishedName::new();
    let pair = ca.issue(&params);
    for mode in [TlsMode::Require, TlsMode::VerifyCa, TlsMode::VerifyFull] {
        let connector = verifying(mode, &files, &ca.pem());
        connect(&connector, "db.example", &pair).await.unwrap();
    }
}

#[tokio::test]
async fn a_name_only_in_the_subject_does_not_count() {
    let ca = Authority::new("ca");
    let files = Files::new();
    let connector = verifying(TlsMode::VerifyFull, &files, &ca.pem());
    let error = connect(&connector, "a server", &ca.issue(&server_leaf(&[]))).await;
    assert!(matches!(error, Err(TlsError::NotAName { .. })));
    let error = connect(&connector, "db.example", &ca.issue(&server_leaf(&[]))).await;
    assert_eq!(
        error.unwrap_err().to_string(),
        "the server's certificate is for no name at all (only subjectAltName counts), not for \"db.example\""
    );
}

#[tokio::test]
async fn an_intermediate_ca_is_followed_when_the_server_shows_it() {
    let root = Authority::new("root");
    let middle = root.intermediate("middle");
    let files = Files::new();
    let leaf = middle.issue(&server_leaf(&["localhost"]));
    let chain = Pair {
        cert: leaf.cert.clone() + &middle.pem(),
        key: leaf.key.clone(),
    };
    for mode in [TlsMode::VerifyCa, TlsMode::VerifyFull] {
        let connector = verifying(mode, &files, &root.pem());
        connect(&connector, "localhost", &chain).await.unwrap();
        let alone = connect(&connector, "localhost", &leaf).await;
        assert!(matches!(alone, Err(TlsError::UnknownServerIssuer)));
    }
}

#[tokio::test]
async fn several_cas_may_be_trusted() {
    let (old, new) = (Authority::new("old ca"), Authority::new("new ca"));
    let files = Files::new();
    let connector = verifying(TlsMode::VerifyFull, &files, &(old.pem() + &new.pem()));
    for ca in [old, new] {
        let pair = ca.issue(&server_leaf(&["localhost"]));
        connect(&connector, "localhost", &pair).await.unwrap();
    }
}

#[tokio::test]
async fn a_self_signed_certificate_can_be_its_own_ca_file() {
    let key = KeyPair::generate().unwrap();
    let cert = server_leaf(&["localhost"]).self_signed(&key).unwrap().pem();
    let files = Files::new();
    let connector = verifying(TlsMode::VerifyFull, &files, &cert);
    let key = key.serialize_pem();
    connect(&connector, "localhost", &Pair { cert, key })
        .await
        .unwrap();
}

#[tokio::test]
async fn a_ca_is_no_server_even_if_it_is_trusted() {
    let key = KeyPair::generate().unwrap();
    let mut params = server_leaf(&["localhost"]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let cert = params.self_signed(&key).unwrap().pem();
    let files = Files::new();
    let pair = Pair {
        key: key.serialize_pem(),
        cert: cert.clone(),
    };
    for mode in [TlsMode::VerifyCa, TlsMode::VerifyFull] {
        let refused = connect(&verifying(mode, &files, &cert), "localhost", &pair).await;
        assert!(matches!(refused, Err(TlsError::Handshake(_))), "{refused:?}");
    }
    let unverified = verifying(TlsMode::Require, &files, &cert);
    connect(&unverified, "localhost", &pair).await.unwrap();
}

#[tokio::test]
async fn an_rsa_server_is_verified() {
    let ca = Authority::new("ca");
    let files = Files::new();
    let key = KeyPair::from_pem(RSA_PKCS8).unwrap();
    let pair = ca.issue_for(&server_leaf(&["localhost"]), &key);
    let connector = verifying(TlsMode::VerifyFull, &files, &ca.pem());
    connect(&connector, "localhost", &pair).await.unwrap();
}

#[tokio::test]
async fn a_version_1_certificate_passes_only_unverified() {
    let files = Files::new();
    for mode in UNVERIFIED {
        let connector = verifying(mode, &files, P256_VERSION1);
        let stream = connect_to_odd_server(&connector, P256_VERSION1, P256_SEC1).await;
        assert!(stream.unwrap().peer_certificate().is_some());
    }
    for mode in [TlsMode::VerifyCa, TlsMode::VerifyFull] {
        let connector = verifying(mode, &files, P256_VERSION1);
        connect_to_odd_server(&connector, P256_VERSION1, P256_SEC1)
            .await
            .unwrap_err();
    }
}

#[tokio::test]
async fn a_server_without_the_certificates_key_is_refused_in_every_mode() {
    let ca = Authority::new("ca");
    let files = Files::new();
    let (stolen, own) = (
        ca.issue(&server_leaf(&["localhost"])),
        ca.issue(&server_leaf(&["localhost"])),
    );
    for mode in [TlsMode::Require, TlsMode::VerifyCa, TlsMode::VerifyFull] {
        let connector = verifying(mode, &files, &ca.pem());
        connect_to_odd_server(&connector, &stolen.cert, &own.key)
            .await
            .unwrap_err();
    }
}

#[tokio::test]
async fn server_name_takes_the_hosts_place() {
    let ca = Authority::new("ca");
    let files = Files::new();
    let named = ServerTls {
        server_name: Some("cluster-rw".to_owned()),
        ..settings(TlsMode::VerifyFull, &files, &ca.pem())
    };
    let connector = connector(&named).unwrap();
    let pair = ca.issue(&server_leaf(&["cluster-rw"]));
    connect(&connector, "10.1.2.3", &pair).await.unwrap();
    let host = ca.issue(&server_leaf(&["10.1.2.3"]));
    assert!(matches!(
        connect(&connector, "10.1.2.3", &host).await,
        Err(TlsError::WrongName { .. })
    ));
}

#[tokio::test]
async fn a_host_that_is_no_name_matters_only_to_verify_full() {
    let ca = Authority::new("ca");
    let files = Files::new();
    let pair = ca.issue(&server_leaf(&["localhost"]));
    for mode in [TlsMode::Require, TlsMode::VerifyCa] {
        let connector = verifying(mode, &files, &ca.pem());
        connect(&connector, "fe80::1%eth0", &pair).await.unwrap();
    }
    let (near, _far) = pipe();
    let full = verifying(TlsMode::VerifyFull, &files, &ca.pem());
    let error = full.connect(near, "fe80::1%eth0").await.unwrap_err();
    assert!(matches!(error, TlsError::NotAName { .. }));

    let named = ServerTls {
        server_name: Some("not a name".to_owned()),
        ..settings(TlsMode::VerifyFull, &files, &ca.pem())
    };
    assert!(matches!(connector(&named), Err(TlsError::NotAName { .. })));
}

#[tokio::test]
async fn disable_reads_no_file_and_leaves_the_socket_alone() {
    let nowhere = || PathBuf::from("/nonexistent");
    let settings = ServerTls {
        mode: TlsMode::Disable,
        ca_file: Some(nowhere()),
        identity: Some(Identity {
            cert_file: nowhere(),
            key_file: nowhere(),
        }),
        ..ServerTls::default()
    };
    let connector = connector(&settings).unwrap();
    let (near, far) = pipe();
    let mut stream = connector.connect(near, "localhost").await.unwrap();
    assert!(matches!(stream, Stream::Plain(_)));
    assert!(!stream.is_tls() && stream.tls_version().is_none());
    talk(&mut stream, &mut Stream::Plain(far)).await;
}

#[test]
fn the_verifying_modes_need_a_ca_file() {
    for mode in [TlsMode::VerifyCa, TlsMode::VerifyFull] {
        let settings = ServerTls {
            mode,
            ..ServerTls::default()
        };
        let error = connector(&settings).unwrap_err();
        assert_eq!(error.to_string(), "this tls mode needs server_tls.ca_file");
    }
}

#[tokio::test]
async fn the_servers_version_must_be_among_the_protocols() {
    let files = Files::new();
    let pair = Authority::new("ca").issue(&server_leaf(&["localhost"]));
    let settings = ServerTls {
        mode: TlsMode::Require,
        protocols: TlsProtocols::Tls13,
        ..ServerTls::default()
    };
    let only_tls13 = connector(&settings).unwrap();
    let chain = certs(&mut pair.cert.as_bytes()).map(Result::unwrap).collect();
    let key = private_key(&mut pair.key.as_bytes()).unwrap().unwrap();
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let old_server = TlsAcceptor::from(Arc::new(config));
    let (near, far) = pipe();
    let (client, _) = tokio::join!(only_tls13.connect(near, "localhost"), old_server.accept(far));
    assert!(matches!(client, Err(TlsError::Handshake(_))));

    let acceptor = acceptor_for(files.identity("server", &pair));
    let (client, _) = handshake(&only_tls13, "localhost", &acceptor).await;
    assert_eq!(client.unwrap().tls_version(), Some("TLSv1.3"));
    let (near, far) = pipe();
    let secure = plain_connector(None);
    let (client, _) = tokio::join!(secure.connect(near, "localhost"), old_server.accept(far));
    assert_eq!(client.unwrap().tls_version(), Some("TLSv1.2"));
}

#[tokio::test]
async fn the_client_certificate_is_shown_to_a_server_that_asks() {
    let files = Files::new();
    let ca = Authority::new("ca");
    let shown = files.identity("client", &ca.issue(&client_leaf("pooler")));
    let settings = ClientTls {
        mode: TlsMode::VerifyFull,
        identity: Some(files.identity("server", &ca.issue(&server_leaf(&["localhost"])))),
        client_ca_file: Some(files.write("client-ca.crt", &ca.pem())),
        ..ClientTls::default()
    };
    let acceptor = acceptor(&settings).unwrap().unwrap();
    let (client, server) = handshake(&plain_connector(Some(shown.clone())), "localhost", &acceptor).await;
    let (mut client, mut server) = (client.unwrap(), server.unwrap());
    talk(&mut client, &mut server).await;
    let pem = std::fs::read(shown.cert_file).unwrap();
    let certificate = certs(&mut pem.as_slice()).next().unwrap().unwrap();
    assert_eq!(server.peer_certificate(), Some(certificate.as_ref()));
}
