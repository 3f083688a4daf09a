//! What SCRAM is bound to: the certificate's hash by the hash function of its signature.

use rcgen::{
    CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
    PKCS_RSA_SHA256, PKCS_RSA_SHA512, SignatureAlgorithm,
};
use ring::digest::{Algorithm, SHA256, SHA384, SHA512, digest};
use rustls_pemfile::certs;

use super::fixtures::{
    Authority, Files, P256_VERSION1, Pair, RSA_PKCS8, acceptor_for, handshake, plain_acceptor,
    plain_connector, server_leaf,
};
use crate::tls::end_point::hash;

const RSA_PSS_SHA384: &str = include_str!("rsa2048.pss-sha384.pem");
const RSA_SHA1: &str = include_str!("rsa2048.sha1.pem");

fn der(pem: &str) -> Vec<u8> {
    certs(&mut pem.as_bytes()).next().unwrap().unwrap().to_vec()
}

fn self_signed(algorithm: &'static SignatureAlgorithm) -> String {
    let rsa = [&PKCS_RSA_SHA256, &PKCS_RSA_SHA512].contains(&algorithm);
    let key = if rsa {
        KeyPair::from_pem_and_sign_algo(RSA_PKCS8, algorithm).unwrap()
    } else {
        KeyPair::generate_for(algorithm).unwrap()
    };
    CertificateParams::default().self_signed(&key).unwrap().pem()
}

#[test]
fn the_signature_says_which_hash() {
    let cases: [(String, Option<&Algorithm>); 8] = [
        (self_signed(&PKCS_ECDSA_P256_SHA256), Some(&SHA256)),
        (self_signed(&PKCS_ECDSA_P384_SHA384), Some(&SHA384)),
        (self_signed(&PKCS_RSA_SHA256), Some(&SHA256)),
        (self_signed(&PKCS_RSA_SHA512), Some(&SHA512)),
        (RSA_PSS_SHA384.to_owned(), Some(&SHA384)),
        (RSA_SHA1.to_owned(), Some(&SHA256)),
        (P256_VERSION1.to_owned(), Some(&SHA256)),
        (self_signed(&PKCS_ED25519), None),
    ];
    for (pem, algorithm) in cases {
        let der = der(&pem);
        let expected = algorithm.map(|algorithm| digest(algorithm, &der).as_ref().into());
        assert_eq!(hash(&der), expected, "{algorithm:?}");
    }
    assert_eq!(hash(b"no certificate"), None);
}

#[tokio::test]
async fn both_ends_of_a_connection_have_the_same() {
    let (files, ca) = (Files::new(), Authority::new("ca"));
    let connector = plain_connector(None);
    let acceptor = plain_acceptor(&files, &ca);
    let (client, server) = handshake(&connector, "localhost", &acceptor).await;
    let (client, server) = (client.unwrap(), server.unwrap());
    assert_eq!(client.end_point().as_ref(), acceptor.end_point());
    assert!(client.end_point().is_some());
    assert_eq!(server.end_point(), None, "it is about the server's certificate");
}

#[tokio::test]
async fn ed25519_has_none() {
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let pair = Pair {
        cert: server_leaf(&["localhost"]).self_signed(&key).unwrap().pem(),
        key: key.serialize_pem(),
    };
    let acceptor = acceptor_for(Files::new().identity("ed25519", &pair));
    let (client, _server) = handshake(&plain_connector(None), "localhost", &acceptor).await;
    assert_eq!((client.unwrap().end_point(), acceptor.end_point()), (None, None));
}
