//! Fuzzing of log-ins in both directions, of stored secrets, and of the files that say who may come in.

pub use super::scram::fuzzing::scram;
use super::{
    access::{Method, Origin, Replication, Visit},
    authfile::{Problems, fake::Fake},
    flow::{self, Account, Attempt, Channel, Flow, Rules},
    hba::{Hba, Interface},
    ident::IdentMaps,
    mock::MockSecrets,
    request::AuthRequest,
    response,
    secret::{Password, Secret},
    server_login::{Progress, ServerCredential, ServerLogin},
    users::Users,
    usual::Usual,
};
use crate::wire::fuzzing::Input;

/// A client that does not know the secret is asked at most a few questions and not let in.
pub fn client_login(data: &[u8]) {
    let mut input = Input(data);
    let method = input.one_of(&[Method::ScramSha256, Method::Md5]);
    let secret = Secret::parse("md54a0a68b43b6cd5cf266fa02f196e2371").expect("it is an md5 hash");
    let account = input.one_of(&[Account::Unknown, Account::Known(&secret), Account::WithoutSecret]);
    let rules = Rules {
        method,
        allow_plaintext_password: false,
        mocks: &MockSecrets::from_key(&[7; 32]),
        usual: input.one_of(&[Usual::default(), Usual::Md5]),
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
            Ok(Flow::AskDirectory(password)) => {
                assert!(!password.is_empty());
                return;
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

/// Any two texts, which may include each other, are read as HBA lines or refused with what is wrong and where; what
/// has been read decides the same each time it is asked.
pub fn hba_file(data: &[u8]) {
    let mut input = Input(data);
    let (user, database) = (input.counted(), input.counted());
    let (user, database) = (String::from_utf8_lossy(user), String::from_utf8_lossy(database));
    let peer = input.take(4);
    let peer: [u8; 4] = peer.try_into().unwrap_or([127, 0, 0, 1]);
    let replication = input.one_of(&[Replication::No, Replication::Physical, Replication::Logical]);
    let tls = input.byte() & 1 == 1;
    let files = Fake::new(&[("g", input.counted()), ("f", input.0)]);
    let hba = match Hba::read(&files, "f".as_ref()) {
        Ok(hba) => hba,
        Err(problems) => return check_problems(&problems),
    };
    let interface = Interface {
        address: [127, 0, 0, 1].into(),
        mask: [255, 0, 0, 0].into(),
    };
    for origin in [Origin::Local, Origin::Ip(peer.into())] {
        let visit = Visit {
            origin,
            tls: tls && origin != Origin::Local,
            database: &database,
            user: &user,
            replication,
        };
        let access = hba.access(&visit, &[interface]);
        assert_eq!(access, hba.access(&visit, &[interface]));
        match access {
            Ok(access) if access.method == Method::Peer => assert_eq!(origin, Origin::Local),
            // Otherwise nobody would be asked, or somebody for nothing.
            Ok(access) if access.method == Method::Ldap => assert!(access.directory.is_some()),
            Ok(access) if access.directory.is_some() => unreachable!("only ldap has a directory"),
            Ok(access) if access.method == Method::Cert => assert!(visit.tls),
            Ok(_) => {}
            Err(denial) => assert!(denial.to_string().contains("pg_hba.conf")),
        }
    }
}

/// Any text is maps or refused with what is wrong and where; without a map only the same name will do.
pub fn ident_file(data: &[u8]) {
    let mut input = Input(data);
    let (name, user) = (input.counted(), input.counted());
    let (name, user) = (String::from_utf8_lossy(name), String::from_utf8_lossy(user));
    match IdentMaps::read(&Fake::new(&[("f", input.0)]), "f".as_ref()) {
        Ok(maps) => {
            for map in [None, Some(""), Some("m")] {
                let checked = maps.check(map, &name, &user);
                assert!(map == Some("m") || checked.is_ok() == (name == user));
            }
        }
        Err(problems) => check_problems(&problems),
    }
}

fn check_problems(Problems(problems): &Problems) {
    assert!(!problems.is_empty());
    for problem in problems {
        assert!(!problem.message.is_empty(), "{}", problem.place);
    }
}
