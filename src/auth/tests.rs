//! Whole logins: our client's side ([`ServerLogin`]) against our server's side ([`flow`]), as bytes.

use std::{num::NonZeroU32, sync::Arc};

use proptest::prelude::*;

use super::{
    access::Method,
    error::{AuthError, Guess, Refusal},
    flow::{self, Account, Attempt, Awaiting, Challenge, Channel, Flow, Learned, Rules},
    mock::MockSecrets,
    request::AuthRequest,
    response::ResponseError,
    scram::{ScramClientError, ScramServerError, ScramVerifier},
    secret::{Password, Secret},
    server_login::{Asked, Held, Progress, ServerCredential, ServerLogin, ServerLoginError},
    usual::Usual,
};
use crate::{fault::Fault, types::EndPointHash};

const USER: &str = "alice";
const METHODS: [Method; 3] = [Method::Password, Method::Md5, Method::ScramSha256];

fn plain(password: &str) -> Secret {
    Secret::Plain(Password::new(password.as_bytes()))
}

fn md5(password: &str) -> Secret {
    Secret::Md5(super::md5::Md5Hash::from_password(password.as_bytes(), USER))
}

fn scram(password: &str, salt: &[u8], iterations: u32) -> Secret {
    let iterations = NonZeroU32::new(iterations).unwrap();
    Secret::Scram(Arc::new(ScramVerifier::from_password(
        password.as_bytes(),
        salt,
        iterations,
    )))
}

fn start_with(method: Method, account: Account<'_>) -> Result<Flow, AuthError> {
    start_over(None, method, account)
}

/// As [`start_with`], over a connection that can be bound to a certificate.
fn start_over(
    end_point: Option<&EndPointHash>,
    method: Method,
    account: Account<'_>,
) -> Result<Flow, AuthError> {
    start_among(Usual::Md5, end_point, method, account)
}

/// As [`start_over`], where the secrets of others are like that.
fn start_among(
    usual: Usual,
    end_point: Option<&EndPointHash>,
    method: Method,
    account: Account<'_>,
) -> Result<Flow, AuthError> {
    let mocks = MockSecrets::from_key(&[7; 32]);
    let rules = Rules {
        method,
        allow_plaintext_password: false,
        mocks: &mocks,
        usual,
    };
    let attempt = Attempt {
        user: USER,
        account,
        channel: Channel::Protected,
        end_point,
    };
    flow::start(&rules, &attempt)
}

fn ask(method: Method, account: Account<'_>) -> (Challenge, Awaiting) {
    match start_with(method, account).unwrap() {
        Flow::Ask(challenge, awaiting) => (challenge, awaiting),
        other => panic!("{method:?} asks the client nothing: {other:?}"),
    }
}

/// The body of the `R` message that carries a challenge.
fn request_body(challenge: &Challenge) -> Vec<u8> {
    let (code, data): (i32, Vec<u8>) = match challenge {
        Challenge::CleartextPassword => (3, Vec::new()),
        Challenge::Md5 { salt } => (5, salt.to_vec()),
        Challenge::Sasl { mechanisms } => (10, format!("{}\0\0", mechanisms.join("\0")).into_bytes()),
        Challenge::SaslContinue(data) => (11, data.clone()),
    };
    [code.to_be_bytes().as_slice(), &data].concat()
}

#[derive(Debug)]
enum Failure {
    Client(ServerLoginError),
    Server(AuthError),
}

fn on_body(login: ServerLogin, body: &[u8]) -> Result<Progress, Failure> {
    login
        .on_request(AuthRequest::decode(body).unwrap())
        .map_err(Failure::Client)
}

/// Lets `login` talk to `flow` to the end.
fn converse(mut flow: Flow, mut login: ServerLogin) -> Result<Learned, Failure> {
    loop {
        match flow {
            Flow::Ask(challenge, awaiting) => match on_body(login, &request_body(&challenge))? {
                Progress::Send { body, next } => {
                    login = next;
                    flow = awaiting.answer(&body).map_err(Failure::Server)?;
                }
                other => panic!("{challenge:?} got {other:?}"),
            },
            Flow::Accepted { sasl_final, learned } => {
                if let Some(data) = sasl_final {
                    let body = [12_i32.to_be_bytes().as_slice(), &data].concat();
                    match on_body(login, &body)? {
                        Progress::Wait(next) => login = next,
                        other => panic!("SASLFinal got {other:?}"),
                    }
                }
                assert!(matches!(on_body(login, &[0; 4])?, Progress::LoggedIn));
                return Ok(learned);
            }
            Flow::AskDirectory(_) => panic!("no directory is asked"),
        }
    }
}

fn with_password(password: &str) -> ServerCredential {
    ServerCredential {
        secret: Some(plain(password)),
        learned: Learned::Nothing,
    }
}

fn log_in(method: Method, account: Account<'_>, credential: ServerCredential) -> Result<Learned, Failure> {
    converse(
        start_with(method, account).unwrap(),
        ServerLogin::new(USER, credential),
    )
}

fn refusal(result: Result<Learned, Failure>) -> Refusal {
    match result {
        Err(Failure::Server(AuthError::Refused { reason, user })) => {
            assert_eq!(&*user, USER);
            reason
        }
        other => panic!("{other:?} is no refusal"),
    }
}

#[test]
fn a_directory_is_asked_for_a_password_that_is_there() {
    let known = plain("x");
    let ask = |account| match start_with(Method::Ldap, account).unwrap() {
        Flow::Ask(Challenge::CleartextPassword, awaiting) => awaiting,
        other => panic!("{other:?}"),
    };
    for account in [Account::Unknown, Account::WithoutSecret, Account::Known(&known)] {
        let awaiting = ask(account);
        assert!(awaiting.again().is_none());
        match awaiting.answer(b"secret\0") {
            Ok(Flow::AskDirectory(password)) => assert_eq!(password.as_bytes(), b"secret"),
            other => panic!("{other:?}"),
        }
    }
    // A bind without a password succeeds.
    let empty = ask(Account::Unknown).answer(b"\0").unwrap_err();
    assert_eq!(
        empty.client_message(),
        format!("LDAP authentication failed for user \"{USER}\"")
    );
    assert_eq!(
        (empty.sqlstate().as_str(), empty.guess()),
        ("28000", Some(Guess::WrongPassword))
    );
    assert!(matches!(
        ask(Account::Unknown).answer(b"a\0b\0"),
        Err(AuthError::Response(_))
    ));
}

#[test]
fn right_password_logs_in_with_every_method_and_secret() {
    for method in METHODS {
        for secret in [plain("secret"), md5("secret"), scram("secret", b"salt", 10)] {
            if (method, matches!(secret, Secret::Md5(_))) == (Method::ScramSha256, true) {
                continue;
            }
            let login = log_in(method, Account::Known(&secret), with_password("secret"));
            assert!(login.is_ok(), "{method:?} {secret:?} {login:?}");
            let refused = log_in(method, Account::Known(&secret), with_password("Secret"));
            assert_eq!(refusal(refused), Refusal::WrongPassword, "{method:?} {secret:?}");
        }
    }
}

#[test]
fn login_teaches_what_it_can() {
    let secret = scram("secret", b"salt", 10);
    let learned = |method| log_in(method, Account::Known(&secret), with_password("secret")).unwrap();
    assert_eq!(
        learned(Method::Password),
        Learned::Password(Password::new(b"secret"))
    );
    assert!(matches!(learned(Method::ScramSha256), Learned::ClientKey(_)));
    assert!(matches!(learned(Method::Md5), Learned::ClientKey(_)));
    let hash = md5("secret");
    let login = log_in(Method::Md5, Account::Known(&hash), with_password("secret"));
    assert_eq!(login.unwrap(), Learned::Nothing);
}

#[test]
fn an_answer_is_judged_by_a_changed_secret_where_the_question_does_not_change() {
    let secrets = [plain("new"), md5("new"), scram("new", b"salt", 4096)];
    let accounts = secrets.iter().map(Account::Known);
    for now in accounts.chain([Account::Unknown, Account::WithoutSecret]) {
        for method in METHODS {
            let old = plain("old");
            let (challenge, awaiting) = ask(method, Account::Known(&old));
            let again = awaiting.again();
            let (body, is_same_question) = match challenge {
                Challenge::CleartextPassword => (b"new\0".to_vec(), true),
                Challenge::Md5 { salt } => {
                    let mut body = super::md5::Md5Hash::from_password(b"new", USER).response(salt);
                    body.push(0);
                    (body, !matches!(now, Account::Known(Secret::Scram(_))))
                }
                _ => {
                    assert!(again.is_none(), "{method:?}");
                    continue;
                }
            };
            assert!(awaiting.answer(&body).is_err(), "{method:?}");
            match again.unwrap().answer(now, &body) {
                Ok(Flow::Accepted { .. }) => assert!(is_same_question && matches!(now, Account::Known(_))),
                Err(AuthError::Refused { reason, .. }) => match now {
                    Account::Known(_) => assert!(!is_same_question, "{method:?}: {reason}"),
                    Account::WithoutSecret => assert_eq!(reason, Refusal::NoSecret),
                    Account::Unknown => assert_eq!(reason, Refusal::UnknownUser),
                },
                other => panic!("{method:?}: {other:?}"),
            }
        }
    }
}

#[test]
fn log_gets_the_true_reason() {
    let empty = plain("");
    let hash = md5("secret");
    for method in METHODS {
        let login = |account| refusal(log_in(method, account, with_password("secret")));
        assert_eq!(login(Account::Unknown), Refusal::UnknownUser);
        assert_eq!(login(Account::WithoutSecret), Refusal::NoSecret);
        assert_eq!(login(Account::Known(&empty)), Refusal::NoSecret);
    }
    let login = log_in(
        Method::ScramSha256,
        Account::Known(&hash),
        with_password("secret"),
    );
    assert_eq!(refusal(login), Refusal::Md5HashUnderScram);
}

#[test]
fn empty_password_never_logs_in() {
    let secrets = [plain(""), md5(""), scram("", b"salt", 10)];
    for secret in &secrets {
        let (_, awaiting) = ask(Method::Password, Account::Known(secret));
        assert!(matches!(awaiting.answer(b"\0"), Err(AuthError::Refused { .. })));
    }
}

/// The answers with everything removed that is random or the user's own.
fn shape(challenge: &Challenge) -> String {
    match challenge {
        Challenge::CleartextPassword => "cleartext".to_owned(),
        Challenge::Md5 { .. } => "md5".to_owned(),
        Challenge::Sasl { mechanisms } => format!("sasl {mechanisms:?}"),
        Challenge::SaslContinue(data) => {
            let text = String::from_utf8(data.clone()).unwrap();
            let lengths: Vec<_> = text.split(',').map(str::len).collect();
            format!("continue {lengths:?} {}", text.rsplit(',').next().unwrap())
        }
    }
}

fn steps_of_a_failure(method: Method, account: Account<'_>) -> (Vec<String>, AuthError) {
    let mut login = ServerLogin::new(USER, with_password("wrong"));
    let mut steps = Vec::new();
    let (mut challenge, mut awaiting) = ask(method, account);
    loop {
        steps.push(shape(&challenge));
        let Progress::Send { body, next } = on_body(login, &request_body(&challenge)).unwrap() else {
            panic!("a challenge is answered");
        };
        login = next;
        match awaiting.answer(&body) {
            Ok(Flow::Ask(next, state)) => (challenge, awaiting) = (next, state),
            Ok(other) => panic!("a wrong password was accepted: {other:?}"),
            Err(error) => return (steps, error),
        }
    }
}

#[test]
fn unknown_user_sees_what_a_known_one_sees() {
    let secrets = [plain("secret"), md5("secret"), scram("secret", &[1; 16], 4096)];
    for method in METHODS {
        let (unknown_steps, unknown_error) = steps_of_a_failure(method, Account::Unknown);
        for secret in &secrets {
            if method == Method::Md5 && matches!(secret, Secret::Scram(_)) {
                continue;
            }
            let (steps, error) = steps_of_a_failure(method, Account::Known(secret));
            assert_eq!(steps, unknown_steps, "{method:?} {secret:?}");
            assert_eq!(error.client_message(), unknown_error.client_message());
            assert_eq!(error.sqlstate(), unknown_error.sqlstate());
            assert_eq!(error.detail(), unknown_error.detail());
        }
    }
}

/// The salt part of the server-first message that the next login of `account` gets.
fn salt_shown(account: Account<'_>) -> String {
    let (_, awaiting) = ask(Method::ScramSha256, account);
    let Ok(Flow::Ask(Challenge::SaslContinue(data), _)) = awaiting.answer(&sasl_initial("n,,n=,r=abc"))
    else {
        panic!("a first message is answered");
    };
    String::from_utf8(data)
        .unwrap()
        .split(',')
        .nth(1)
        .unwrap()
        .to_owned()
}

#[test]
fn unknown_user_sees_what_users_with_verifiers_see() {
    // Under `md5` whoever had a verifier was asked for SCRAM and whoever did not exist for an md5 hash; and the
    // iteration count that was pretended was PostgreSQL's default whatever the server's was.
    let iterations = NonZeroU32::new(5000).unwrap();
    let verifier = scram("secret", &[1; 16], 5000);
    let count = |method, account| {
        let asked = start_among(Usual::Scram(iterations), None, method, account);
        let Ok(Flow::Ask(Challenge::Sasl { .. }, awaiting)) = asked else {
            panic!("{method:?} {account:?}: {asked:?}");
        };
        let answered = awaiting.answer(&sasl_initial("n,,n=,r=abc"));
        let Ok(Flow::Ask(Challenge::SaslContinue(data), _)) = answered else {
            panic!("a first message is answered");
        };
        let message = String::from_utf8(data).unwrap();
        (message.len(), message.split(',').nth(2).unwrap().to_owned())
    };
    for method in [Method::Md5, Method::ScramSha256] {
        let known = count(method, Account::Known(&verifier));
        assert_eq!(known.1, "i=5000");
        for account in [Account::Unknown, Account::WithoutSecret] {
            assert_eq!(count(method, account), known, "{method:?} {account:?}");
        }
    }
}

#[test]
fn salt_does_not_change_between_logins_or_when_a_user_is_added() {
    let unknown = salt_shown(Account::Unknown);
    assert_eq!(unknown, salt_shown(Account::Unknown));
    assert_eq!(unknown, salt_shown(Account::Known(&plain("secret"))));
    assert_eq!(unknown, salt_shown(Account::Known(&md5("secret"))));
}

#[test]
fn trust_asks_nothing_of_known_users() {
    for account in [Account::Known(&plain("x")), Account::WithoutSecret] {
        let flow = start_with(Method::Trust, account).unwrap();
        assert!(matches!(
            flow,
            Flow::Accepted {
                sasl_final: None,
                learned: Learned::Nothing
            }
        ));
    }
    let error = start_with(Method::Trust, Account::Unknown).unwrap_err();
    assert_eq!(error.sqlstate().as_str(), "28000");
}

#[test]
fn clear_passwords_need_tls_or_permission() {
    let mocks = MockSecrets::random().unwrap();
    let start = |channel, allow_plaintext_password| {
        let rules = Rules {
            method: Method::Password,
            allow_plaintext_password,
            mocks: &mocks,
            usual: Usual::Md5,
        };
        flow::start(
            &rules,
            &Attempt {
                user: USER,
                account: Account::Unknown,
                channel,
                end_point: None,
            },
        )
    };
    assert_eq!(
        start(Channel::Plain, false).unwrap_err(),
        AuthError::PlaintextPassword
    );
    assert!(start(Channel::Plain, true).is_ok());
    assert!(start(Channel::Protected, false).is_ok());
}

fn sasl_initial(message: &str) -> Vec<u8> {
    let length = i32::try_from(message.len()).unwrap();
    [
        b"SCRAM-SHA-256\0",
        length.to_be_bytes().as_slice(),
        message.as_bytes(),
    ]
    .concat()
}

#[test]
fn malformed_answers_are_protocol_violations_for_everyone() {
    let secret = scram("secret", b"salt", 10);
    for account in [Account::Known(&secret), Account::Unknown] {
        let answer = |method, body: &[u8]| ask(method, account).1.answer(body).unwrap_err();
        let cases = [
            (
                answer(Method::Password, b"secret"),
                AuthError::Response(ResponseError::Password),
            ),
            (
                answer(Method::ScramSha256, b"secret\0"),
                AuthError::Response(ResponseError::Length),
            ),
            (
                answer(Method::ScramSha256, b"SCRAM-SHA-1\0\0\0\0\0"),
                AuthError::Mechanism,
            ),
            (
                answer(
                    Method::ScramSha256,
                    &sasl_initial("p=tls-server-end-point,,n=,r=abc"),
                ),
                AuthError::Scram(ScramServerError::BindingUnasked),
            ),
        ];
        for (error, expected) in cases {
            assert_eq!(error, expected);
            assert_eq!(error.sqlstate().as_str(), "08P01");
        }
    }
}

#[test]
fn client_may_wait_for_an_empty_challenge() {
    let secret = scram("secret", b"salt", 10);
    let (_, awaiting) = ask(Method::ScramSha256, Account::Known(&secret));
    let Ok(Flow::Ask(challenge, awaiting)) = awaiting.answer(b"SCRAM-SHA-256\0\xff\xff\xff\xff") else {
        panic!("no data is an empty challenge");
    };
    assert_eq!(challenge, Challenge::SaslContinue(Vec::new()));
    let flow = awaiting.answer(b"n,,n=,r=abc").unwrap();
    assert!(matches!(flow, Flow::Ask(Challenge::SaslContinue(data), _) if data.starts_with(b"r=abc")));
}

#[test]
fn scram_login_passes_through_to_a_server_with_the_same_verifier() {
    let secret = scram("sécret", b"salt", 10);
    let learned = log_in(
        Method::ScramSha256,
        Account::Known(&secret),
        with_password("sécret"),
    )
    .unwrap();
    let credential = |secret: &Secret| ServerCredential {
        secret: Some(secret.clone()),
        learned: learned.clone(),
    };
    let again = log_in(Method::ScramSha256, Account::Known(&secret), credential(&secret));
    assert_eq!(again.unwrap(), learned);

    let changed = scram("sécret", b"other", 10);
    let error = log_in(Method::ScramSha256, Account::Known(&changed), credential(&secret)).unwrap_err();
    assert!(matches!(
        error,
        Failure::Client(ServerLoginError::Scram(ScramClientError::SecretDiffers))
    ));
    let other_password = scram("other", b"salt", 10);
    let login = log_in(
        Method::ScramSha256,
        Account::Known(&other_password),
        credential(&secret),
    );
    assert_eq!(refusal(login), Refusal::WrongPassword);
}

#[test]
fn client_key_of_an_older_secret_is_not_sent() {
    let old = plain("secret");
    let learned = log_in(Method::ScramSha256, Account::Known(&old), with_password("secret")).unwrap();
    let new = scram("secret", b"salt", 10);
    let credential = ServerCredential {
        secret: Some(new.clone()),
        learned,
    };
    let error = log_in(Method::ScramSha256, Account::Known(&new), credential).unwrap_err();
    let Failure::Client(ServerLoginError::MissingCredential { held, .. }) = error else {
        panic!("{error:?}");
    };
    assert_eq!(held, Held::Verifier);
}

#[test]
fn missing_credentials_are_named() {
    let verifier = scram("secret", b"salt", 10);
    let learned = log_in(
        Method::ScramSha256,
        Account::Known(&verifier),
        with_password("secret"),
    )
    .unwrap();
    let cases = [
        (Method::Md5, None, Learned::Nothing, Asked::Md5, Held::Nothing),
        (
            Method::Md5,
            Some(plain("")),
            Learned::Nothing,
            Asked::Md5,
            Held::Nothing,
        ),
        (
            Method::Md5,
            Some(verifier.clone()),
            learned,
            Asked::Md5,
            Held::VerifierAndClientKey,
        ),
        (
            Method::ScramSha256,
            Some(verifier),
            Learned::Nothing,
            Asked::Scram,
            Held::Verifier,
        ),
        (
            Method::ScramSha256,
            Some(md5("secret")),
            Learned::Nothing,
            Asked::Scram,
            Held::Md5Hash,
        ),
        (
            Method::Password,
            Some(md5("secret")),
            Learned::Nothing,
            Asked::CleartextPassword,
            Held::Md5Hash,
        ),
    ];
    for (method, secret, learned, asked, held) in cases {
        let credential = ServerCredential { secret, learned };
        let Err(Failure::Client(error)) = log_in(method, Account::Unknown, credential) else {
            panic!("{asked:?} cannot be answered with {held:?}");
        };
        let user = USER.into();
        assert_eq!(error, ServerLoginError::MissingCredential { user, asked, held });
    }
}

#[test]
fn learned_password_and_md5_hash_log_in_to_servers() {
    let learned = ServerCredential {
        secret: Some(scram("secret", b"salt", 10)),
        learned: Learned::Password(Password::new(b"secret")),
    };
    for method in METHODS {
        assert!(log_in(method, Account::Known(&plain("secret")), learned.clone()).is_ok());
    }
    let hash = ServerCredential {
        secret: Some(md5("secret")),
        learned: Learned::Nothing,
    };
    assert!(log_in(Method::Md5, Account::Known(&plain("secret")), hash).is_ok());
}

fn scram_under_way() -> ServerLogin {
    let login = ServerLogin::new(USER, with_password("secret"));
    match on_body(login, b"\0\0\0\x0aSCRAM-SHA-256\0\0").unwrap() {
        Progress::Send { next, .. } => next,
        other => panic!("{other:?}"),
    }
}

#[test]
fn server_that_skips_or_repeats_steps_is_refused() {
    let is_out_of_order = |login, body: &[u8]| {
        matches!(
            on_body(login, body),
            Err(Failure::Client(ServerLoginError::OutOfOrder))
        )
    };
    assert!(is_out_of_order(scram_under_way(), &[0; 4]));
    assert!(is_out_of_order(scram_under_way(), b"\0\0\0\x03"));
    assert!(is_out_of_order(scram_under_way(), b"\0\0\0\x0cv=AAEC"));
    let fresh = || ServerLogin::new(USER, with_password("secret"));
    assert!(is_out_of_order(fresh(), b"\0\0\0\x0br=abc"));
    let Ok(Progress::Send { next, .. }) = on_body(fresh(), b"\0\0\0\x03") else {
        panic!("a password is sent");
    };
    assert!(is_out_of_order(next, b"\0\0\0\x03"));
}

#[test]
fn scram_server_must_prove_itself_before_ok() {
    // A "server" that shows the right challenge, and then says Ok without its signature.
    let secret = scram("secret", b"salt", 10);
    let (challenge, awaiting) = ask(Method::ScramSha256, Account::Known(&secret));
    let login = ServerLogin::new(USER, with_password("secret"));
    let Ok(Progress::Send { body, next }) = on_body(login, &request_body(&challenge)) else {
        panic!("SASL is answered");
    };
    let Ok(Flow::Ask(challenge, _)) = awaiting.answer(&body) else {
        panic!("a first message is answered");
    };
    let Ok(Progress::Send { next, .. }) = on_body(next, &request_body(&challenge)) else {
        panic!("a challenge is answered");
    };
    let error = on_body(next, &[0; 4]).unwrap_err();
    assert!(matches!(error, Failure::Client(ServerLoginError::OutOfOrder)));
}

fn end_point(hash: u8) -> EndPointHash {
    [hash; 32].as_slice().into()
}

/// The mechanisms that are offered, and how a log-in ends that is bound to what the client has seen.
fn bound_login(
    ours: Option<u8>,
    seen: Option<u8>,
    method: Method,
    account: Account<'_>,
    credential: ServerCredential,
) -> (usize, Result<Learned, Failure>) {
    let (ours, seen) = (ours.map(end_point), seen.map(end_point));
    let flow = start_over(ours.as_ref(), method, account).unwrap();
    let offered = match &flow {
        Flow::Ask(Challenge::Sasl { mechanisms }, _) => mechanisms.len(),
        _ => 0,
    };
    let login = ServerLogin::new(USER, credential).bound_to(seen);
    (offered, converse(flow, login))
}

#[test]
fn a_log_in_is_bound_to_the_certificate_where_both_can() {
    let secret = scram("secret", b"salt", 10);
    let log_in =
        |ours, seen, account| bound_login(ours, seen, Method::ScramSha256, account, with_password("secret"));
    let known = Account::Known(&secret);
    for (ours, seen, offered) in [
        (None, None, 1),
        (Some(1), Some(1), 2),
        (Some(1), None, 2),
        (None, Some(1), 1),
    ] {
        let (count, login) = log_in(ours, seen, known);
        assert_eq!(count, offered);
        assert!(login.is_ok(), "{ours:?} {seen:?} {login:?}");
    }
    for account in [known, Account::Unknown] {
        let (_, intercepted) = log_in(Some(1), Some(2), account);
        let Err(Failure::Server(error)) = intercepted else {
            panic!("{intercepted:?}");
        };
        assert_eq!(error, AuthError::Scram(ScramServerError::OtherEndPoint));
        assert_eq!(error.sqlstate().as_str(), "28000");
    }
    let (offered, login) = bound_login(Some(1), Some(1), Method::Md5, known, with_password("secret"));
    assert!(offered == 2 && login.is_ok(), "md5 with a SCRAM secret is SCRAM");
    let (_, unknown) = log_in(Some(1), Some(1), Account::Unknown);
    assert_eq!(refusal(unknown), Refusal::UnknownUser);
}

#[test]
fn pass_through_can_be_bound_although_the_clients_own_log_in_was_not() {
    let secret = scram("secret", b"salt", 10);
    let known = Account::Known(&secret);
    let learned = log_in(Method::ScramSha256, known, with_password("secret")).unwrap();
    let credential = ServerCredential {
        secret: Some(secret.clone()),
        learned,
    };
    let (_, login) = bound_login(Some(1), Some(1), Method::ScramSha256, known, credential);
    assert!(login.is_ok(), "{login:?}");
}

#[test]
fn a_client_that_was_not_shown_the_offer_is_refused() {
    let secret = scram("secret", b"salt", 10);
    let ours = end_point(1);
    for account in [Account::Known(&secret), Account::Unknown] {
        let begin = || match start_over(Some(&ours), Method::ScramSha256, account).unwrap() {
            Flow::Ask(_, awaiting) => awaiting,
            other => panic!("{other:?}"),
        };
        let error = begin().answer(&sasl_initial("y,,n=,r=abc")).unwrap_err();
        assert_eq!(error, AuthError::Scram(ScramServerError::Downgrade));
        assert_eq!(error.sqlstate().as_str(), "28000");
        assert_eq!(error.client_message(), "SCRAM channel binding negotiation error");
        let plus = |message: &str| {
            let body = sasl_initial(message);
            let body = [b"SCRAM-SHA-256-PLUS", &body[b"SCRAM-SHA-256".len()..]].concat();
            begin().answer(&body).map(|_| ())
        };
        assert_eq!(plus("p=tls-server-end-point,,n=,r=abc"), Ok(()));
        for wrong in ["n,,n=,r=abc", "y,,n=,r=abc", "p=tls-unique,,n=,r=abc"] {
            assert_eq!(plus(wrong).unwrap_err().sqlstate().as_str(), "08P01", "{wrong}");
        }
    }
}

#[test]
fn unsupported_requests_are_named() {
    let login = || ServerLogin::new(USER, with_password("secret"));
    let Err(Failure::Client(error)) = on_body(login(), b"\0\0\0\x07") else {
        panic!("GSSAPI is not supported");
    };
    assert_eq!(
        error.detail().unwrap(),
        "the server asks for GSSAPI, which is not supported"
    );
    let plus_only = on_body(login(), b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0\0");
    assert!(matches!(
        plus_only,
        Err(Failure::Client(ServerLoginError::Mechanisms))
    ));
}

#[test]
fn debug_output_has_no_secret() {
    let secret = scram("hunter2", b"salt", 10);
    let learned = log_in(
        Method::Password,
        Account::Known(&secret),
        with_password("hunter2"),
    )
    .unwrap();
    let credential = ServerCredential {
        secret: Some(plain("hunter2")),
        learned,
    };
    let login = ServerLogin::new(USER, credential);
    let flow = start_with(Method::Password, Account::Known(&plain("hunter2")));
    assert!(!format!("{login:?} {flow:?}").contains("hunter2"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_password_logs_in_and_no_other(password in "[^\0]{1,12}", other in "[^\0]{1,12}") {
        let secret = scram(&password, b"0123456789abcdef", 2);
        let login = log_in(Method::ScramSha256, Account::Known(&secret), with_password(&password));
        prop_assert!(login.is_ok());
        let same = secret == scram(&other, b"0123456789abcdef", 2);
        let login = log_in(Method::ScramSha256, Account::Known(&secret), with_password(&other));
        prop_assert_eq!(login.is_ok(), same);
        for method in [Method::Password, Method::Md5] {
            let stored = md5(&password);
            prop_assert!(log_in(method, Account::Known(&stored), with_password(&password)).is_ok());
        }
    }
}

proptest! {
    #[test]
    fn no_answer_makes_a_login_panic(body in proptest::collection::vec(any::<u8>(), 0..48), text in "[nyprc=,a]{0,12}") {
        let secret = scram("secret", b"salt", 1);
        let account = Account::Known(&secret);
        for method in METHODS {
            let (_, awaiting) = ask(method, account);
            let accepted = matches!(awaiting.answer(&body), Ok(Flow::Accepted { .. }));
            prop_assert!(!accepted);
        }
        let (_, awaiting) = ask(Method::ScramSha256, account);
        let _ = awaiting.answer(&sasl_initial(&text));
        let (_, awaiting) = ask(Method::ScramSha256, account);
        if let Ok(Flow::Ask(_, awaiting)) = awaiting.answer(&sasl_initial("n,,n=,r=abc")) {
            prop_assert!(awaiting.answer(&body).is_err());
        }
        if let Ok(request) = AuthRequest::decode(&body) {
            let _ = scram_under_way().on_request(request);
        }
    }
}
