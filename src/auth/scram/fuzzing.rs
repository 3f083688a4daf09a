//! Fuzzing of SCRAM: a peer that does not know the secret gets through on neither side.

use std::{num::NonZeroU32, sync::Arc};

use super::{
    ClientBinding, ClientKey, Mode, ScramClient, ScramCredential, ScramServer, ScramVerifier, ServerBinding,
    message::{ClientFinal, ClientFirst, ServerFinal, ServerFirst},
};

/// What the other side adds to a nonce of ours is for the input to say.
const CLIENT_NONCE: &[u8] = b"rOprNGfwEbeRWgbNEkqO";
const SERVER_NONCE: &[u8] = b"%hvYDpWUa2RaTCAfuxFIlj";

/// Two messages, separated by a line feed, to both sides.
pub fn scram(data: &[u8]) {
    let middle = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (first, last) = data.split_at(middle);
    let last = last.get(1..).unwrap_or_default();
    decode(first);
    decode(last);
    as_server(first, last);
    as_client(first, last);
}

fn decode(message: &[u8]) {
    if let Ok(first) = ClientFirst::decode(message) {
        assert_eq!([first.gs2_header, first.bare].concat(), message);
    }
    if let Ok(last) = ClientFinal::decode(message) {
        assert!(message.starts_with(last.without_proof));
    }
    let _ = ServerFirst::decode(message);
    let _ = ServerFinal::decode(message);
}

/// Keys that nobody can make a proof or a signature for: no value is known that they are hashes of.
fn verifier() -> Arc<ScramVerifier> {
    Arc::new(ScramVerifier {
        iterations: NonZeroU32::MIN,
        salt: b"salt".as_slice().into(),
        stored_key: [1; 32],
        server_key: [2; 32],
    })
}

fn as_server(first: &[u8], last: &[u8]) {
    let chosen = ServerBinding::Chosen([4; 32].as_slice().into());
    for binding in [chosen, ServerBinding::Declined, ServerBinding::NotOffered] {
        let server = ScramServer::new(verifier(), Mode::Genuine, binding);
        if let Ok((_, awaiting)) = server.client_first_with_nonce(first, SERVER_NONCE) {
            assert!(awaiting.client_final(last).is_err(), "let in without a proof");
        }
    }
}

fn as_client(first: &[u8], last: &[u8]) {
    let credential = ScramCredential::PassThrough {
        client_key: ClientKey([3; 32]),
        verifier: verifier(),
    };
    let client = ScramClient::new(credential, ClientBinding::NotOffered);
    let (_, awaiting) = client.client_first_with_nonce(CLIENT_NONCE);
    if let Ok((answer, awaiting)) = awaiting.server_first(first) {
        assert!(ClientFinal::decode(&answer).is_ok());
        assert!(
            awaiting.server_final(last).is_err(),
            "took a server without a signature"
        );
    }
}
