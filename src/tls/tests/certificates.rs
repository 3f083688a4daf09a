//! What the files may hold, and what is said when they do not.

use std::{error::Error, path::PathBuf};

use rcgen::KeyPair;

use super::fixtures::{
    Authority, Files, P256_SEC1, P256_VERSION1, Pair, RSA_PKCS1, RSA_PKCS8, acceptor_for, handshake,
    plain_connector, server_leaf, talk,
};
use crate::{
    config::{ClientTls, Identity, ServerTls},
    tls::{TlsError, acceptor, connector},
    types::TlsMode,
};

const ENCRYPTED_KEY: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAgAAAAAAAAAAAICCAAw
-----END ENCRYPTED PRIVATE KEY-----
";

fn build(identity: Identity) -> Result<(), TlsError> {
    let settings = ClientTls {
        mode: TlsMode::Require,
        identity: Some(identity),
        ..ClientTls::default()
    };
    acceptor(&settings).map(drop)
}

fn good_pair() -> Pair {
    Authority::new("ca").issue(&server_leaf(&["localhost"]))
}

/// The error for a key file with these contents, beside a good certificate.
fn key_file_error(contents: &str) -> TlsError {
    let files = Files::new();
    let cert_file = files.write("tls.crt", &good_pair().cert);
    let key_file = files.write("tls.key", contents);
    build(Identity { cert_file, key_file }).unwrap_err()
}

fn ca_file_error(contents: &str) -> TlsError {
    let files = Files::new();
    let settings = ServerTls {
        mode: TlsMode::VerifyFull,
        ca_file: Some(files.write("ca.crt", contents)),
        ..ServerTls::default()
    };
    connector(&settings).unwrap_err()
}

#[tokio::test]
async fn every_key_format_serves() {
    let ca = Authority::new("ca");
    let rsa = ca.issue_for(
        &server_leaf(&["localhost"]),
        &KeyPair::from_pem(RSA_PKCS8).unwrap(),
    );
    let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let pairs = [
        Pair {
            cert: rsa.cert.clone(),
            key: RSA_PKCS1.to_owned(),
        },
        rsa,
        ca.issue(&server_leaf(&["localhost"])),
        ca.issue_for(&server_leaf(&["localhost"]), &p384),
        ca.issue_for(&server_leaf(&["localhost"]), &ed25519),
    ];
    for pair in pairs {
        let files = Files::new();
        let acceptor = acceptor_for(files.identity("tls", &pair));
        let (client, server) = handshake(&plain_connector(None), "localhost", &acceptor).await;
        talk(&mut client.unwrap(), &mut server.unwrap()).await;
    }
}

#[test]
fn a_sec1_key_is_read_past_its_parameters() {
    // The pair does not match, which is noticed only after the key was read.
    assert!(matches!(key_file_error(P256_SEC1), TlsError::KeyMismatch { .. }));
}

#[test]
fn certificate_and_key_may_share_a_file() {
    let files = Files::new();
    let pair = good_pair();
    let both = files.write("tls.pem", &(pair.key + &pair.cert));
    build(Identity {
        cert_file: both.clone(),
        key_file: both,
    })
    .unwrap();
}

#[test]
fn a_key_of_another_certificate_is_refused_with_both_names() {
    let error = key_file_error(&good_pair().key);
    assert!(matches!(error, TlsError::KeyMismatch { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("tls.key") && text.contains("tls.crt"), "{text}");
}

#[test]
fn what_a_file_has_instead_is_said() {
    let cert = good_pair().cert;
    for (contents, found) in [
        ("", "it has no PEM section"),
        ("not PEM at all\n", "it has no PEM section"),
        (cert.as_str(), "it has CERTIFICATE"),
        (ENCRYPTED_KEY, "it has ENCRYPTED PRIVATE KEY"),
    ] {
        let text = key_file_error(contents).to_string();
        assert!(text.starts_with("no private key in "), "{text}");
        assert!(text.ends_with(&format!("tls.key: {found}")), "{text}");
    }
    let text = ca_file_error(RSA_PKCS8).to_string();
    assert!(text.starts_with("no ca certificate in "), "{text}");
    assert!(text.ends_with("ca.crt: it has PRIVATE KEY"), "{text}");
}

#[test]
fn broken_pem_names_the_file() {
    for contents in [
        "-----BEGIN PRIVATE KEY-----\nMIIE",
        "-----BEGIN PRIVATE KEY-----\n!!!!\n-----END PRIVATE KEY-----\n",
    ] {
        let error = key_file_error(contents);
        assert!(matches!(error, TlsError::NotPem { .. }), "{error:?}");
        assert!(error.to_string().ends_with("tls.key is not valid PEM"), "{error}");
    }
}

#[test]
fn well_formed_pem_around_nonsense_is_unusable() {
    let key = key_file_error("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    assert!(matches!(key, TlsError::Unusable { .. }), "{key:?}");
    let ca = ca_file_error("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    assert!(matches!(ca, TlsError::Unusable { .. }), "{ca:?}");
    assert!(ca.source().is_some());
}

#[test]
fn a_version_1_certificate_cannot_be_served() {
    let files = Files::new();
    let pair = Pair {
        cert: P256_VERSION1.to_owned(),
        key: P256_SEC1.to_owned(),
    };
    let error = build(files.identity("old", &pair)).unwrap_err();
    assert!(matches!(error, TlsError::Unusable { .. }), "{error:?}");
    assert!(error.to_string().contains("old.crt"), "{error}");
}

#[test]
fn a_missing_file_is_named() {
    let nowhere = PathBuf::from("/nonexistent/tls.crt");
    let error = build(Identity {
        cert_file: nowhere.clone(),
        key_file: nowhere,
    })
    .unwrap_err();
    assert_eq!(error.to_string(), "cannot read /nonexistent/tls.crt");
}

#[test]
fn no_error_shows_a_secret() {
    let key = good_pair().key;
    let body: Vec<&str> = key.lines().filter(|line| !line.starts_with('-')).collect();
    let cut = key.replace("-----END PRIVATE KEY-----", "");
    for error in [key_file_error(&key), key_file_error(&cut)] {
        let shown = format!("{error:?} {error}");
        assert!(body.iter().all(|line| !shown.contains(line)), "{shown}");
    }
}
