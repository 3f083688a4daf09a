//! Fuzzing of log-ins in both directions, and of stored secrets.

pub use super::scram::fuzzing::scram;
use super::{
    flow::{self, Account, Attempt, Channel, Flow, Rules},
    mock::MockSecrets,
    request::AuthRequest,
    response,
    secret::{Password, Secret},
    server_login::{Progress, ServerCredential, ServerLogin},
    users::Users,
};
use crate::{config::AuthType, wire::fuzzing::Input};

/// A client that does not know the secret is asked at most a few questions and not let in.
pub fn client_login(data: &[u8]) {
    let mut input = Input(data);
    let method = input.one_of(&[AuthType::ScramSha256, AuthType::Md5]);
    let secret = Secret::parse("md54a0a68b43b6cd5cf266fa02f196e2371").expect("it is an md5 hash");
    let account = input.one_of(&[Account::Unknown, Account::Known(&secret), Account::WithoutSecret]);
    let rules = Rules {
        method,
        allow_plaintext_password: false,
        mocks: &MockSecrets::from_key(&[7; 32]),
    };
    let end_point = [4; 32].as_slice().into();
    let attempt = Attempt {
        user: "alice",
        account,
        channel: Channel::Plain,
        end_point: input.one_of(&[None, Some(&end_point)]),
    };
    let mut flow = flow::start(&rules, &attempt);
    for round in 0.. {
        match flow {
            Ok(Flow::Ask(_, awaiting)) => {
                assert!(round < 4, "it goes on for ever");
                let body = input.counted();
                let _ = response::password(body);
                let _ = response::sasl_initial(body);
                flow = awaiting.answer(body);
            }
            Ok(Flow::Accepted { .. }) => unreachable!("the input cannot know a fresh salt or nonce"),
            Err(_) => return,
        }
    }
}

/// A server that does not know the secret either may ask in any order; in the middle of SCRAM it cannot say
/// that all is well.
pub fn server_login(data: &[u8]) {
    let mut input = Input(data);
    let credential = ServerCredential {
        secret: Some(Secret::Plain(Password::new(b"secret"))),
        ..ServerCredential::default()
    };
    let end_point = input.one_of(&[false, true]).then(|| [4; 32].as_slice().into());
    let login = ServerLogin::new("alice", credential).bound_to(end_point);
    let (mut login, mut in_scram) = (login, false);
    while !input.is_empty() {
        let Ok(request) = AuthRequest::decode(input.counted()) else {
            return;
        };
        if let AuthRequest::Sasl(mechanisms) = &request {
            in_scram = ["SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"]
                .iter()
                .any(|name| mechanisms.contains(name));
        }
        login = match login.on_request(request) {
            Ok(Progress::Send { next, .. } | Progress::Wait(next)) => next,
            Ok(Progress::LoggedIn) => return assert!(!in_scram, "the server has proved nothing"),
            Err(_) => return,
        };
    }
}

/// Any text is users with names and readable secrets, or refused at one of its lines.
pub fn users_file(data: &[u8]) {
    match Users::parse(data) {
        Ok(users) => {
            for (user, secret) in users.iter() {
                assert!(!user.is_empty() && !user.contains('\0'));
                if let Secret::Scram(verifier) = secret {
                    assert_eq!(verifier.to_string().parse().as_ref(), Ok(&**verifier));
                }
            }
        }
        Err(error) => assert!((1..=data.split(|byte| *byte == b'\n').count()).contains(&error.line)),
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = Secret::parse(text);
    }
}
