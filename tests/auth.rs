//! Who is let in: every method with every kind of secret, from clients and to servers.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a helper fails the test"
)]

mod support;

use support::{
    Authority, FakeConnection, FakeServer, Frame, Pooler, PoolerBuilder, Postgres, RawClient, eventually,
    frames, postgres_with,
};
use tokio_postgres::{Config, NoTls};

const PASSWORD: &str = "sécret \" words";
const METHODS: [&str; 4] = ["trust", "password", "md5", "scram-sha-256"];

/// An ErrorResponse as a driver sees it.
#[derive(Debug, PartialEq, Eq)]
struct Refused {
    code: String,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
}

/// Logs in with a driver and asks who it is.
fn log_in(address: &str, user: &str, password: &str) -> Result<String, Refused> {
    let (host, port) = address.split_once(':').unwrap();
    let mut config = Config::new();
    config
        .host(host)
        .port(port.parse().unwrap())
        .user(user)
        .password(password)
        .dbname("app");
    let session = async {
        let (client, connection) = config.connect(NoTls).await?;
        tokio::select! {
            row = client.query_one("SELECT session_user::text", &[]) => row.map(|row| row.get(0)),
            end = connection => Err(end.unwrap_err()),
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(session).map_err(|error| {
        let Some(error) = error.as_db_error() else {
            panic!("{user} got no answer: {error:?}");
        };
        Refused {
            code: error.code().code().to_owned(),
            message: error.message().to_owned(),
            detail: error.detail().map(str::to_owned),
            hint: error.hint().map(str::to_owned),
        }
    })
}

#[track_caller]
fn assert_wrong_password(outcome: Result<String, Refused>, user: &str) {
    let expected = Refused {
        code: "28P01".to_owned(),
        message: format!("password authentication failed for user \"{user}\""),
        detail: None,
        hint: None,
    };
    assert_eq!(outcome.unwrap_err(), expected);
}

/// Makes roles that log in with [`PASSWORD`], stored as `password_encryption` says.
fn make_roles(pg: &Postgres, password_encryption: &str, roles: &[&str]) {
    let mut sql = format!("SET password_encryption = '{password_encryption}';");
    for role in roles {
        sql.push_str(&format!("CREATE ROLE \"{role}\" LOGIN PASSWORD '{PASSWORD}';"));
    }
    pg.psql(&sql).unwrap();
}

/// What the server has stored for a role.
fn stored(pg: &Postgres, role: &str) -> String {
    pg.psql(&format!(
        "SELECT rolpassword FROM pg_authid WHERE rolname = '{role}'"
    ))
    .unwrap()
}

fn md5_hash(pg: &Postgres, role: &str) -> String {
    pg.psql(&format!("SELECT 'md5' || md5('{PASSWORD}{role}')"))
        .unwrap()
}

fn in_front_of(address: &str, method: &str) -> PoolerBuilder {
    Pooler::builder(address)
        .set("auth.auth_type", format!("'{method}'"))
        .set("auth.allow_plaintext_password", "true")
}

// --- clients ---

#[test]
fn every_method_takes_the_right_password_for_every_kind_of_secret() {
    let pg = postgres_with(|builder| builder.hba(&["host all all all trust"]));
    make_roles(&pg, "scram-sha-256", &["plain", "hashed", "verified", "unlisted"]);
    for method in METHODS {
        let pooler = in_front_of(&pg.address(), method)
            .user("plain", PASSWORD)
            .user("hashed", &md5_hash(&pg, "hashed"))
            .user("verified", &stored(&pg, "verified"))
            .user("empty", "")
            .start();
        for user in ["plain", "hashed", "verified"] {
            let right = log_in(pooler.address(), user, PASSWORD);
            // An md5 hash proves nothing in SCRAM.
            if (method, user) == ("scram-sha-256", "hashed") {
                assert_wrong_password(right, user);
                continue;
            }
            assert_eq!(right, Ok(user.to_owned()), "{method}");
            for wrong in ["wrong", "sécret", ""] {
                let wrong = log_in(pooler.address(), user, wrong);
                match method {
                    "trust" => assert_eq!(wrong, Ok(user.to_owned())),
                    _ => assert_wrong_password(wrong, user),
                }
            }
        }
        for nobody in ["unlisted", "empty"] {
            for password in [PASSWORD, ""] {
                let outcome = log_in(pooler.address(), nobody, password);
                match method {
                    // "empty" is let in here, and turned away by the server: it has no such role.
                    "trust" => assert_eq!(outcome.unwrap_err().code, "28000"),
                    _ => assert_wrong_password(outcome, nobody),
                }
            }
        }
    }
}

/// A log-in that fails, as an onlooker without a secret sees it: the messages, the name taken out.
fn transcript(pooler: &Pooler, user: &str) -> Vec<String> {
    let mut client = RawClient::connect(pooler.address());
    client.send(frames::startup(
        frames::PROTOCOL_3_0,
        &[("user", user), ("database", "app")],
    ));
    let mut seen = Vec::new();
    loop {
        let message = client.read();
        let fields = [b'S', b'V', b'C', b'M', b'D', b'H'].map(|field| message.field(field));
        seen.push(match message.tag {
            b'E' => format!("{fields:?}").replace(user, "USER"),
            _ => format!(
                "{}[{}] {:?}",
                char::from(message.tag),
                message.body.len(),
                &message.body[..4]
            ),
        });
        match message.body.get(..4) {
            _ if message.tag == b'E' => break,
            Some([0, 0, 0, 3 | 5]) => client.send(frames::frame(b'p', frames::text("md5wrong"))),
            Some([0, 0, 0, 10]) => client.send(scram_first()),
            Some([0, 0, 0, 11]) => {
                let first = String::from_utf8(message.body[4..].to_vec()).unwrap();
                // The length of the salt and the iterations tell no more than the length of the message.
                seen.push(first.rsplit(',').next().unwrap().to_owned());
                let nonce = first.split(',').next().unwrap();
                let proof = format!("{}=", "A".repeat(43));
                client.send(frames::frame(b'p', format!("c=biws,{nonce},p={proof}")));
            }
            _ => panic!("unexpected: {message:?}"),
        }
    }
    assert!(client.read_to_end().is_empty());
    seen
}

fn scram_first() -> Vec<u8> {
    let message = "n,,n=,r=rOprNGfwEbeRWgbNEkqO";
    let length = i32::try_from(message.len()).unwrap().to_be_bytes();
    frames::frame(
        b'p',
        [b"SCRAM-SHA-256\0", &length[..], message.as_bytes()].concat(),
    )
}

#[test]
fn an_unknown_user_looks_like_a_wrong_password() {
    let server = FakeServer::answering(|_| Vec::new());
    let verifier = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUjjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
    for (method, known) in [
        ("password", &["plain", "hashed", "verified"][..]),
        ("md5", &["plain", "hashed"]),
        ("scram-sha-256", &["plain", "hashed", "verified"]),
    ] {
        let pooler = in_front_of(&server.address(), method)
            .user("plain", PASSWORD)
            .user("hashed", "md55f4dcc3b5aa765d61d8327deb882cf99")
            .user("verified", verifier)
            .start();
        let unknown = transcript(&pooler, "nobody");
        assert!(
            unknown.len() >= 2 && unknown.last().unwrap().contains("28P01"),
            "{unknown:?}"
        );
        for user in known {
            assert_eq!(transcript(&pooler, user), unknown, "{method} {user}");
        }
    }
    assert_eq!(server.accepted(), 0, "nobody was let in");
}

/// The salt that a SCRAM log-in is shown.
fn salt(pooler: &Pooler, user: &str) -> String {
    let mut client = RawClient::connect(pooler.address());
    client.send(frames::startup(frames::PROTOCOL_3_0, &[("user", user)]));
    client.read();
    client.send(scram_first());
    let first = String::from_utf8(client.read().body[4..].to_vec()).unwrap();
    first.split(',').nth(1).unwrap().to_owned()
}

#[test]
fn an_unknown_user_has_one_salt_as_real_users_have() {
    let server = FakeServer::answering(|_| Vec::new());
    let pooler = in_front_of(&server.address(), "scram-sha-256").start();
    assert_eq!(salt(&pooler, "nobody"), salt(&pooler, "nobody"));
    assert_ne!(salt(&pooler, "nobody"), salt(&pooler, "noone"));
    assert_eq!(salt(&pooler, "app"), salt(&pooler, "app"));
}

#[test]
fn a_password_in_clear_needs_tls_or_leave_to_do_without() {
    let pg = postgres_with(|builder| builder.hba(&["host all all all trust"]));
    let authority = Authority::new("CA").unwrap();
    let pooler = Pooler::builder(&pg.address())
        .set("auth.auth_type", "'password'")
        .client_tls("prefer", &authority.server(&["localhost"]).unwrap())
        .start();
    let refused = log_in(pooler.address(), "app", "secret").unwrap_err();
    assert_eq!(refused.code, "28000");
    assert!(refused.hint.unwrap().contains("allow_plaintext_password"));
    let psql = |password: &str| {
        let mut command = pg.programs().command("psql");
        command.env("PGPASSWORD", password);
        let target = format!(
            "host=127.0.0.1 port={} user=app dbname=app sslmode=require",
            pooler.port()
        );
        command.args(["-XAtc", "SELECT 1", &target]).output().unwrap()
    };
    assert_eq!(psql("secret").stdout, b"1\n");
    assert!(String::from_utf8_lossy(&psql("wrong").stderr).contains("password authentication failed"));
    let allowing = in_front_of(&pg.address(), "password").start();
    assert_eq!(log_in(allowing.address(), "app", "secret"), Ok("app".to_owned()));
}

#[test]
fn broken_answers_are_refused_and_the_next_client_is_served() {
    let pg = postgres_with(|builder| builder.hba(&["host all all all trust"]));
    let mut pooler = in_front_of(&pg.address(), "scram-sha-256").start();
    let sasl = |mechanism: &str, length: i32, data: &str| {
        let length = length.to_be_bytes();
        [mechanism.as_bytes(), b"\0", &length[..], data.as_bytes()].concat()
    };
    let long = format!("n,,n=,r={}", "r".repeat(5000));
    let answers = [
        Vec::new(),
        b"no mechanism".to_vec(),
        sasl("SCRAM-SHA-256-PLUS", 8, "p=tls-un"),
        sasl("SCRAM-SHA-256", i32::MAX, "n,,n=,r=x"),
        sasl("SCRAM-SHA-256", -2, "n,,n=,r=x"),
        sasl("SCRAM-SHA-256", 0, ""),
        sasl("SCRAM-SHA-256", 6, "n,,r=x"),
        sasl("SCRAM-SHA-256", 8, "n,,n=,r="),
        sasl("SCRAM-SHA-256", i32::try_from(long.len()).unwrap(), &long),
        sasl("SCRAM-SHA-256", 13, "n,,n=,m=1,r=x"),
        vec![b'x'; 60_000],
    ];
    for answer in answers {
        let mut client = RawClient::connect(pooler.address());
        client.send(frames::startup(frames::PROTOCOL_3_0, &[("user", "app")]));
        assert_eq!(client.read().tag, b'R');
        client.send(frames::frame(b'p', &answer));
        let messages = client.read_to_end();
        let shown = answer[..answer.len().min(40)].escape_ascii();
        assert_eq!(support::tags(&messages), "E", "{shown}");
        assert_eq!(messages[0].field(b'C').as_deref(), Some("08P01"), "{shown}");
    }
    // A query is no answer.
    let mut client = RawClient::connect(pooler.address());
    client.send(frames::startup(frames::PROTOCOL_3_0, &[("user", "app")]));
    client.send(frames::query("SELECT 1"));
    assert_eq!(support::tags(&client.read_to_end()), "RE");
    assert!(pooler.is_running());
    assert_eq!(log_in(pooler.address(), "app", "secret"), Ok("app".to_owned()));
}

// --- servers ---

/// What the users file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Md5,
    Verifier,
}

/// Whether a client of `method` can reach a server that asks `role` for its password in the way of its name.
fn reaches(method: &str, kind: Kind, role: &str) -> bool {
    if role == "trusted" || kind == Kind::Plain {
        return true;
    }
    match (role, kind) {
        // The password itself was in the client's answer.
        _ if method == "password" => true,
        ("md5", Kind::Md5) => true,
        // The client's proof is passed through. `md5` asks for SCRAM where there is a verifier.
        ("scram", Kind::Verifier) => method != "trust",
        _ => false,
    }
}

#[test]
fn servers_are_logged_in_to_with_what_is_known() {
    let pg = postgres_with(|builder| {
        builder.hba(&[
            "host all trusted all trust",
            "host all clear all password",
            "host all md5 all md5",
            "host all scram all scram-sha-256",
        ])
    });
    make_roles(&pg, "md5", &["md5"]);
    make_roles(&pg, "scram-sha-256", &["trusted", "clear", "scram", "other"]);
    let roles = ["trusted", "clear", "md5", "scram"];
    let verifier = |role: &str| match role {
        "md5" => stored(&pg, "other"),
        _ => stored(&pg, role),
    };
    for method in METHODS {
        for kind in [Kind::Plain, Kind::Md5, Kind::Verifier] {
            let secret = |role: &str| match kind {
                Kind::Plain => PASSWORD.to_owned(),
                Kind::Md5 => md5_hash(&pg, role),
                Kind::Verifier => verifier(role),
            };
            let pooler = roles
                .iter()
                .fold(in_front_of(&pg.address(), method), |builder, role| {
                    builder.user(role, &secret(role))
                })
                .start();
            for role in roles {
                let outcome = log_in(pooler.address(), role, PASSWORD);
                let case = format!("{method} {kind:?} {role}");
                if (method, kind) == ("scram-sha-256", Kind::Md5) {
                    assert_wrong_password(outcome, role);
                } else if reaches(method, kind, role) {
                    assert_eq!(outcome, Ok(role.to_owned()), "{case}");
                } else {
                    let refused = outcome.expect_err(&case);
                    assert_eq!(refused.code, "28000", "{case}");
                    assert_eq!(refused.message, "pgweir cannot log in to the PostgreSQL server");
                    let detail = refused.detail.unwrap();
                    assert!(
                        detail.contains(&format!("for user \"{role}\"")),
                        "{case}: {detail}"
                    );
                    assert!(detail.starts_with("the server asks for "), "{case}: {detail}");
                    assert!(refused.hint.is_some(), "{case}");
                }
            }
        }
    }
    assert!(
        !pg.log().contains("password authentication failed"),
        "{}",
        pg.log()
    );
}

/// Ends every server connection of `app`, and waits until the pooler knows.
fn end_server_connections(pg: &Postgres, pooler: &Pooler) {
    let terminate = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = 'app'";
    assert_eq!(pg.psql(terminate).unwrap(), "t");
    eventually("the pooler has no server connection", || {
        pooler.metric(r#"pgweir_servers{user="app"}"#) == 0.0
    });
}

#[test]
fn a_verifier_alone_serves_every_later_server_connection_too() {
    let pg = postgres_with(|builder| builder);
    let pooler = in_front_of(&pg.address(), "scram-sha-256")
        .user("app", &stored(&pg, "app"))
        .start();
    // No client has proved anything yet.
    assert_wrong_password(log_in(pooler.address(), "app", "wrong"), "app");
    assert_eq!(log_in(pooler.address(), "app", "secret"), Ok("app".to_owned()));
    for _ in 0..2 {
        end_server_connections(&pg, &pooler);
        assert_eq!(log_in(pooler.address(), "app", "secret"), Ok("app".to_owned()));
    }
}

#[test]
fn a_changed_verifier_is_said_and_a_new_users_file_mends_it() {
    let pg = postgres_with(|builder| builder);
    let old = stored(&pg, "app");
    let mut pooler = in_front_of(&pg.address(), "scram-sha-256")
        .user("app", &old)
        .start();
    assert_eq!(log_in(pooler.address(), "app", "secret"), Ok("app".to_owned()));
    pg.psql("ALTER ROLE app PASSWORD 'changed'").unwrap();
    end_server_connections(&pg, &pooler);
    let refused = log_in(pooler.address(), "app", "secret").unwrap_err();
    assert_eq!(refused.code, "28000");
    assert!(refused.detail.unwrap().contains("different secret"));
    assert!(refused.hint.unwrap().contains("pg_authid"));

    let position = pooler.log_position();
    pooler.reconfigure(|builder| builder.user("app", &stored(&pg, "app")));
    pooler.reload();
    pooler.wait_for_log(position, "configuration reloaded");
    assert_wrong_password(log_in(pooler.address(), "app", "secret"), "app");
    assert_eq!(log_in(pooler.address(), "app", "changed"), Ok("app".to_owned()));
}

#[test]
fn a_wrong_password_at_the_server_is_told_in_its_words_once_per_client() {
    let pg = postgres_with(|builder| {
        builder.hba(&["host all clear all password", "host all all all scram-sha-256"])
    });
    make_roles(&pg, "scram-sha-256", &["clear"]);
    let attempts = || pg.log().matches("FATAL:  password authentication failed").count();
    for mode in ["disable", "allow", "prefer"] {
        for user in ["app", "clear"] {
            let before = attempts();
            let pooler = in_front_of(&pg.address(), "scram-sha-256")
                .user(user, "stale")
                .set("server_tls.mode", format!("'{mode}'"))
                .start();
            for _ in 0..3 {
                assert_wrong_password(log_in(pooler.address(), user, "stale"), user);
            }
            // Nothing is under way any more: whoever tries again by itself stays in this state.
            eventually("nothing is being connected", || {
                pooler.metric(&format!("pgweir_servers{{user=\"{user}\",state=\"connecting\"}}")) == 0.0
            });
            assert_eq!(pooler.metric("pgweir_server_connect_failures_total"), 3.0);
            assert_eq!(attempts() - before, 3, "{mode} {user}");
            // Put right on the server, it works at once: the refusal is not remembered.
            pg.psql(&format!("ALTER ROLE {user} PASSWORD 'stale'")).unwrap();
            assert_eq!(log_in(pooler.address(), user, "stale"), Ok(user.to_owned()));
            pg.psql(&format!("ALTER ROLE {user} PASSWORD 'other'")).unwrap();
        }
    }
}

#[test]
fn a_user_who_cannot_log_in_does_not_hold_up_others() {
    let pg = postgres_with(|builder| builder);
    make_roles(&pg, "scram-sha-256", &["stale"]);
    let pooler = in_front_of(&pg.address(), "trust")
        .user("stale", "wrong")
        .set("pool.min_pool_size", "1")
        .start();
    for _ in 0..3 {
        assert_wrong_password(log_in(pooler.address(), "stale", ""), "stale");
        assert_eq!(log_in(pooler.address(), "app", ""), Ok("app".to_owned()));
    }
}

// --- hostile and odd servers ---

/// A server that asks for SCRAM and then does as `script` says with the client's nonce.
fn scram_server(
    script: impl Fn(&mut FakeConnection, &str) -> std::io::Result<()> + Send + Sync + 'static,
) -> FakeServer {
    FakeServer::start(move |connection| {
        connection.read_startup()?;
        connection.send(frames::frame(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0"))?;
        let first = connection.expect(b'p')?;
        let text = String::from_utf8_lossy(&first.body).into_owned();
        let nonce = text.rsplit_once("r=").unwrap().1.to_owned();
        script(connection, &nonce)?;
        // Whatever it is taken for, it must not be a server.
        connection.send(greeting())?;
        connection.read_to_end().map(drop)
    })
}

/// AuthenticationOk, a key and ReadyForQuery.
fn greeting() -> Vec<u8> {
    [
        frames::frame(b'R', [0; 4]),
        frames::frame(b'K', [0, 0, 0, 1, 0, 0, 0, 2]),
        frames::ready_for_query(b'I'),
    ]
    .concat()
}

fn sasl_continue(text: &str) -> Vec<u8> {
    frames::frame(b'R', [&[0, 0, 0, 11], text.as_bytes()].concat())
}

fn first_answer(nonce: &str) -> Vec<u8> {
    sasl_continue(&format!("r={nonce}more,s=W22ZaJ0SNY7soEsUjjb6gQ==,i=4096"))
}

/// The error that a client of a pooler in front of this server gets.
fn refusal(server: &FakeServer) -> Frame {
    let pooler = Pooler::builder(&server.address())
        .user("app", "hunter2")
        .set("pool.query_wait_timeout", "'500ms'")
        .start();
    let mut client = RawClient::connect(pooler.address());
    client.send(frames::startup(
        frames::PROTOCOL_3_0,
        &[("user", "app"), ("database", "app")],
    ));
    let error = client.read_until(b'E').pop().unwrap();
    assert_eq!(error.field(b'V').as_deref(), Some("FATAL"), "{error:?}");
    assert!(client.read_to_end().is_empty());
    assert!(!pooler.logs().contains("hunter2"));
    error
}

#[test]
fn a_server_that_cheats_in_scram_is_no_server() {
    let cheats = [
        scram_server(|_, _| Ok(())),
        scram_server(|connection, _| connection.send(first_answer("not-the-clients-nonce"))),
        scram_server(|connection, nonce| {
            connection.send(sasl_continue(&format!(
                "r={nonce},s=W22ZaJ0SNY7soEsUjjb6gQ==,i=4096"
            )))
        }),
        scram_server(|connection, nonce| {
            connection.send(sasl_continue(&format!("r={nonce}more,s=W22Z,i=2000000000")))
        }),
        scram_server(|connection, nonce| connection.send(sasl_continue(&format!("r={nonce}more,s=,i=4096")))),
        scram_server(|connection, nonce| {
            let endless = "x".repeat(5000);
            connection.send(sasl_continue(&format!("r={nonce}{endless},s=W22Z,i=4096")))
        }),
        // It lets everybody in without knowing the password.
        scram_server(|connection, nonce| {
            connection.send(first_answer(nonce))?;
            connection.expect(b'p').map(drop)
        }),
        scram_server(|connection, nonce| {
            connection.send(first_answer(nonce))?;
            connection.expect(b'p')?;
            let signature = format!("v={}=", "A".repeat(43));
            connection.send(frames::frame(
                b'R',
                [&[0, 0, 0, 12], signature.as_bytes()].concat(),
            ))
        }),
    ];
    for (index, server) in cheats.iter().enumerate() {
        let error = refusal(server);
        let message = error.field(b'M').unwrap();
        assert_eq!(
            message, "pgweir cannot log in to the PostgreSQL server",
            "{index}: {error:?}"
        );
        assert_eq!(server.accepted(), 1, "{index}: not tried again");
    }
}

#[test]
fn what_is_no_log_in_ends_it() {
    let says = |bytes: Vec<u8>| {
        FakeServer::start(move |connection| {
            connection.read_startup()?;
            connection.send(&bytes)?;
            connection.read_to_end().map(drop)
        })
    };
    let oddities = [
        // Methods that are not spoken, and SASL without SCRAM-SHA-256.
        frames::frame(b'R', [0, 0, 0, 7]),
        frames::frame(b'R', [0, 0, 0, 99]),
        frames::frame(b'R', b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0\0"),
        // Truncated and endless messages.
        frames::frame(b'R', [0, 0]),
        frames::frame(b'R', [0, 0, 0, 5, 1]),
        vec![b'R', 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0],
        vec![b'R', 0, 0, 0, 2],
        frames::frame(b'S', b"no end"),
        // A result before the log-in, and an error without a single field.
        frames::data_row(&["surprise"]),
        frames::ready_for_query(b'I'),
        frames::frame(b'E', [0]),
        frames::frame(b'E', []),
    ];
    for bytes in oddities {
        let shown = bytes.escape_ascii().to_string();
        let server = says(bytes);
        let code = refusal(&server).field(b'C').unwrap();
        assert!(
            ["08006", "28000", "53300"].contains(&code.as_str()),
            "{shown}: {code}"
        );
    }
}

#[test]
fn notices_and_parameters_may_come_before_the_log_in_is_done() {
    let server = FakeServer::start(|connection| {
        connection.read_startup()?;
        let mut notice = frames::error_response("WARNING", "01000", "the certificate expires soon");
        notice[0] = b'N';
        let early = [notice.clone(), frames::parameter_status("early", "1")].concat();
        connection.send_bytewise([early.clone(), frames::frame(b'R', [0, 0, 0, 3])].concat())?;
        assert_eq!(connection.expect(b'p')?.strings(), ["secret"]);
        connection.send([early, frames::frame(b'N', [0]), greeting()].concat())?;
        connection.expect(b'Q')?;
        connection.send(
            [
                frames::command_complete("SELECT 0"),
                frames::ready_for_query(b'I'),
            ]
            .concat(),
        )?;
        connection.read_to_end().map(drop)
    });
    let pooler = Pooler::builder(&server.address()).start();
    let mut client = RawClient::log_in(pooler.address(), "app", "", "app");
    assert_eq!(frames::parameter(&client.parameters, "early"), Some("1"));
    assert_eq!(support::tags(&client.query("SELECT")), "CZ");
}
