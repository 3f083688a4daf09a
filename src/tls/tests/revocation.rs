//! Certificates that their CA has revoked, on both sides.

use super::fixtures::{
    Authority, Files, Pair, acceptor_for, client_leaf, handshake, numbered, plain_connector, server_leaf,
    talk,
};
use crate::{
    config::{ClientTls, ServerTls},
    tls::{Peer, TlsError, acceptor, connector},
    types::TlsMode,
};

const REVOKED: u64 = 13;
const GOOD: u64 = 14;
const FUTURE: i32 = 2999;
const PAST: i32 = 2002;

fn towards_clients(files: &Files, ca: &Authority, crl: &str) -> ClientTls {
    let own = Authority::new("own ca").issue(&server_leaf(&["localhost"]));
    ClientTls {
        mode: TlsMode::VerifyFull,
        identity: Some(files.identity("server", &own)),
        client_ca_file: Some(files.write("ca.crt", &ca.pem())),
        crl_file: Some(files.write("ca.crl", crl)),
        ..ClientTls::default()
    }
}

fn towards_servers(mode: TlsMode, files: &Files, ca: &Authority, crl: &str) -> ServerTls {
    ServerTls {
        mode,
        ca_file: Some(files.write("ca.crt", &ca.pem())),
        crl_file: Some(files.write("ca.crl", crl)),
        ..ServerTls::default()
    }
}

#[tokio::test]
async fn a_client_is_looked_up() {
    let (files, ca) = (Files::new(), Authority::new("ca"));
    let issuing = ca.intermediate("issuing ca");
    let client = |ca: &Authority, serial| ca.issue(&numbered(client_leaf("app"), serial));
    let (good, revoked) = (client(&ca, GOOD), client(&ca, REVOKED));
    let chain = |serial| {
        let leaf = client(&issuing, serial);
        Pair {
            cert: leaf.cert + &issuing.pem(),
            key: leaf.key,
        }
    };
    let outcome = async |crl: &str, pair: &Pair| {
        let acceptor = acceptor(&towards_clients(&files, &ca, crl)).unwrap().unwrap();
        let connector = plain_connector(Some(files.identity("client", pair)));
        handshake(&connector, "localhost", &acceptor).await.1
    };
    let list = ca.crl(&[1, REVOKED], FUTURE);
    outcome(&list, &good).await.unwrap();
    let peer = Peer::Client;
    assert!(matches!(outcome(&list, &revoked).await, Err(TlsError::Revoked { peer: p }) if p == peer));
    outcome(&ca.crl(&[], FUTURE), &revoked).await.unwrap();
    let old = outcome(&ca.crl(&[], PAST), &good).await.unwrap_err();
    let expected = "whether the client's certificate is revoked is not known: \
        its ca's crl in listen.tls.crl_file has expired";
    assert_eq!(old.to_string(), expected);
    // Each CA of a chain needs a list.
    assert!(matches!(
        outcome(&list, &chain(GOOD)).await,
        Err(TlsError::NoRevocationList { peer: Peer::Client })
    ));
    let both = list + &issuing.crl(&[REVOKED], FUTURE);
    outcome(&both, &chain(GOOD)).await.unwrap();
    assert!(matches!(
        outcome(&both, &chain(REVOKED)).await,
        Err(TlsError::Revoked { .. })
    ));
}

#[tokio::test]
async fn a_server_is_looked_up_where_it_is_verified() {
    let (files, ca) = (Files::new(), Authority::new("ca"));
    let server = |name: &str, serial| ca.issue(&numbered(server_leaf(&[name]), serial));
    let (good, revoked) = (server("localhost", GOOD), server("localhost", REVOKED));
    let (misnamed, both) = (server("elsewhere", GOOD), server("elsewhere", REVOKED));
    let foreign = Authority::new("another ca").issue(&numbered(server_leaf(&["elsewhere"]), GOOD));
    let outcome = async |mode, until, pair: &Pair| {
        let settings = towards_servers(mode, &files, &ca, &ca.crl(&[REVOKED], until));
        let acceptor = acceptor_for(files.identity("server", pair));
        let connector = connector(&settings).unwrap();
        let (client, server) = handshake(&connector, "localhost", &acceptor).await;
        talk(&mut client?, &mut server.unwrap()).await;
        Ok::<(), TlsError>(())
    };
    for mode in [TlsMode::Prefer, TlsMode::Require] {
        outcome(mode, PAST, &revoked).await.unwrap();
    }
    for mode in [TlsMode::VerifyCa, TlsMode::VerifyFull] {
        outcome(mode, FUTURE, &good).await.unwrap();
        for revoked in [&revoked, &both] {
            let error = outcome(mode, FUTURE, revoked).await.unwrap_err();
            assert_eq!(error.to_string(), "the server's certificate is revoked");
        }
        let error = outcome(mode, PAST, &good).await.unwrap_err();
        assert!(matches!(
            error,
            TlsError::ExpiredRevocationList { peer: Peer::Server }
        ));
        let error = outcome(mode, FUTURE, &foreign).await.unwrap_err();
        assert!(matches!(error, TlsError::UnknownServerIssuer));
        assert_eq!(
            outcome(mode, FUTURE, &misnamed).await.is_ok(),
            mode == TlsMode::VerifyCa
        );
    }
}

#[test]
fn a_file_that_is_no_list_is_refused() {
    let (files, ca) = (Files::new(), Authority::new("ca"));
    let garbage = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n";
    for (text, words) in [
        (ca.pem(), "no crl (version 2) in"),
        (garbage.to_owned(), "cannot be used"),
    ] {
        let client = acceptor(&towards_clients(&files, &ca, &text)).unwrap_err();
        let server = connector(&towards_servers(TlsMode::VerifyCa, &files, &ca, &text)).unwrap_err();
        for error in [client, server] {
            let said = error.to_string();
            assert!(said.contains(words) && said.contains("ca.crl"), "{said}");
        }
    }
    let settings = towards_servers(TlsMode::Require, &files, &ca, garbage);
    assert!(connector(&settings).is_ok(), "not looked at where the ca is not");
}
