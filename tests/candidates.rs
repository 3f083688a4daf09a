//! Opening a connection where several servers may do, and asking a server what it is. On a real PostgreSQL, which may
//! be of any release (`./dev versions --test candidates`).

mod support;

use std::{
    fs,
    net::{IpAddr, TcpListener},
    num::NonZeroUsize,
    path::Path,
    process::Command,
    sync::{Arc, Mutex, atomic::AtomicUsize},
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, unshare};
use pgweir::{
    auth::{flow::Learned, server_login::ServerCredential},
    config::{LoadBalance, ServerTls, Tcp},
    routing::Wish,
    server::{self, Candidates, ConnectError, ConnectOptions, Connection, Logins, Names, Proof, Target},
    tls,
    topology::{Cluster, Failure, Observation, Seen, Timeline, TimelineAsked},
    types::{Endpoint, Role, TlsMode},
};
use support::{
    FakeServer, Pooler, Postgres, RawClient, Stop,
    api_server::{ApiServer, EndpointSpec, Service},
    eventually, frames, in_thread, postgres_with, tags,
};

const PRIMARY: Seen = Seen::Primary { timeline: None };

fn endpoint(address: &str) -> Endpoint {
    let (host, port) = address.rsplit_once(':').expect("HOST:PORT");
    Endpoint::Tcp {
        host: host.to_owned(),
        port: port.parse().expect("a port"),
    }
}

fn target(role: Role, endpoint: &Endpoint) -> Target {
    let plain = ServerTls {
        mode: TlsMode::Disable,
        ..ServerTls::default()
    };
    Target {
        cluster: Cluster::only(endpoint, Instant::now()),
        wish: Wish {
            role,
            ..Wish::default()
        },
        user: "app".to_owned(),
        database: "app".to_owned(),
        startup: Vec::new(),
        connect_query: None,
        connector: Arc::new(tls::connector(&plain).expect("nothing can be wrong without TLS")),
        server_name: None,
        options: ConnectOptions {
            timeout: Duration::from_secs(20),
            tcp: Tcp::default(),
            load_balance: LoadBalance::Disable,
            max_packet_size: u32::MAX,
        },
        logins: Arc::new(Logins::new(NonZeroUsize::MIN.saturating_add(7))),
        names: Arc::new(Names::system()),
        begun: AtomicUsize::default(),
    }
}

/// A race, and what was observed in it.
async fn race(
    role: Role,
    addresses: &[&str],
    proof: Proof,
) -> (Result<Connection, ConnectError>, Vec<Observation>) {
    let target = target(role, &endpoint(addresses[0]));
    race_of(target, addresses, proof, &|_| true).await
}

/// The same for a target, with those who speak for all.
async fn race_of(
    target: Target,
    addresses: &[&str],
    proof: Proof,
    has_last_word: &(dyn Fn(&Endpoint) -> bool + Sync),
) -> (Result<Connection, ConnectError>, Vec<Observation>) {
    let endpoints: Vec<_> = addresses.iter().map(|address| endpoint(address)).collect();
    let credential = ServerCredential {
        secret: None,
        learned: Learned::Nothing,
    };
    let seen: Mutex<Vec<_>> = Mutex::default();
    let observe = |observation| seen.lock().expect("nobody panics").push(observation);
    let candidates = Candidates {
        endpoints: &endpoints,
        role: target.wish.role,
        proof,
        primary: None,
        has_last_word,
        observe: &observe,
    };
    let outcome = server::race(&Arc::new(target), candidates, &credential).await;
    (outcome, seen.into_inner().expect("nobody panics"))
}

fn opened(address: &str, seen: Seen) -> Observation {
    Observation::Opened {
        endpoint: endpoint(address),
        seen,
    }
}

fn failed(address: &str, failure: Failure) -> Observation {
    Observation::Failed {
        endpoint: endpoint(address),
        failure,
    }
}

fn trusting_postgres() -> Postgres {
    postgres_with(|builder| builder.hba(&["host all all all trust"]))
}

#[tokio::test]
async fn a_silent_host_costs_a_quarter_of_a_second() {
    let postgres = trusting_postgres();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap().to_string();
    let start = Instant::now();
    let addresses = ["127.0.0.1:1", &silent, &postgres.address()];
    let (connection, seen) = race(Role::ReadWrite, &addresses, Proof::Role).await;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let connection = connection.unwrap();
    assert_eq!(connection.endpoint(), &endpoint(&postgres.address()));
    let at = connection.address().at.map(|at| at.to_string());
    assert_eq!(at, Some(postgres.address()));
    assert_eq!(
        seen,
        [
            failed("127.0.0.1:1", Failure::Unreachable),
            opened(&postgres.address(), PRIMARY)
        ]
    );
}

#[tokio::test]
async fn each_address_of_a_name_is_a_candidate() {
    // `localhost` is 127.0.0.1 and, on most machines, ::1, where nobody listens.
    let postgres = trusting_postgres();
    let name = format!("localhost:{}", postgres.port());
    let (connection, seen) = race(Role::ReadWrite, &[&name], Proof::Role).await;
    let connection = connection.unwrap();
    assert_eq!(connection.endpoint(), &endpoint(&name));
    let at = connection.address().at.map(|at| at.to_string());
    assert_eq!(at, Some(postgres.address()));
    assert_eq!(seen.last(), Some(&opened(&name, PRIMARY)));
}

#[tokio::test]
async fn a_server_proves_its_role_and_its_timeline() {
    let mut postgres = trusting_postgres();
    let address = postgres.address();
    let system = postgres
        .psql("SELECT system_identifier FROM pg_control_system()")
        .unwrap();
    let system: u64 = system.trim().parse().unwrap();
    let timeline = |number| Some(Timeline { system, number });
    let on = |number| Seen::Primary {
        timeline: timeline(number),
    };
    let any = Proof::Timeline(TimelineAsked { at_least: None });
    let (connection, seen) = race(Role::ReadWrite, &[&address], any).await;
    assert!(connection.is_ok());
    assert_eq!(seen, [opened(&address, on(1))]);
    // There is a primary on timeline 2, so this one is not it.
    let newer = Proof::Timeline(TimelineAsked {
        at_least: timeline(2),
    });
    let (connection, seen) = race(Role::ReadWrite, &[&address], newer).await;
    assert!(matches!(
        connection,
        Err(ConnectError::Superseded {
            timeline: 1,
            newest: 2,
            ..
        })
    ));
    assert_eq!(seen, [opened(&address, on(1))]);
    // What another system had come to, such as the one before an upgrade, is no measure.
    let other = Proof::Timeline(TimelineAsked {
        at_least: Some(Timeline {
            system: system + 1,
            number: 9,
        }),
    });
    let (connection, _) = race(Role::ReadWrite, &[&address], other).await;
    assert!(connection.is_ok());

    let directory = postgres.psql("SHOW data_directory").unwrap();
    fs::write(format!("{}/standby.signal", directory.trim()), "").unwrap();
    postgres.restart().unwrap();
    for proof in [Proof::Role, any] {
        let (connection, seen) = race(Role::ReadWrite, &[&address], proof).await;
        assert!(matches!(connection, Err(ConnectError::WrongRole { .. })));
        assert_eq!(seen, [opened(&address, Seen::Standby)]);
    }
    let (connection, _) = race(Role::ReadOnly, &[&address], Proof::Role).await;
    let mut connection = connection.unwrap();
    assert_eq!(connection.prove_role().await.unwrap(), Seen::Standby);
    assert!(!connection.doubts_role());

    postgres.psql("SELECT pg_promote()").unwrap();
    assert_eq!(connection.prove_role().await.unwrap(), on(2));
    let (connection, seen) = race(Role::ReadWrite, &[&address], newer).await;
    assert!(connection.is_ok());
    assert_eq!(seen, [opened(&address, on(2))]);
}

/// A server that reports nothing, as those before PostgreSQL 14, and answers every question in the same way.
fn old(answer: Vec<u8>) -> FakeServer {
    FakeServer::start(move |connection| {
        connection.read_startup()?;
        let key = frames::frame(b'K', [0, 0, 0, 1, 0, 0, 0, 1]);
        let greeting = [frames::frame(b'R', [0; 4]), key, frames::ready_for_query(b'I')];
        connection.send(greeting.concat())?;
        while connection.read()?.tag == b'Q' {
            connection.send([&answer[..], &frames::ready_for_query(b'I')].concat())?;
        }
        Ok(())
    })
}

#[tokio::test]
async fn a_server_that_does_not_report_its_role_is_asked() {
    let row = |value| [frames::data_row(&[value]), frames::command_complete("SELECT 1")].concat();
    let (primary, standby) = (old(row("f")), old(row("t")));
    let both = [standby.address(), primary.address()];
    let both = both.each_ref().map(String::as_str);
    let (connection, seen) = race(Role::ReadWrite, &both, Proof::Role).await;
    assert_eq!(connection.unwrap().endpoint(), &endpoint(both[1]));
    let standby_first = [opened(both[0], Seen::Standby), opened(both[1], PRIMARY)];
    assert_eq!(seen, standby_first);
    // Where it does not matter nobody asks.
    let (connection, seen) = race(Role::Any, &both, Proof::Role).await;
    assert_eq!(connection.unwrap().endpoint(), &endpoint(both[0]));
    assert_eq!(seen, []);

    // What only looks like PostgreSQL is taken at its word.
    let other = old(frames::frame(b'E', b"SERROR\0C42883\0Mno such function\0\0"));
    let (connection, seen) = race(Role::ReadWrite, &[&other.address()], Proof::Role).await;
    assert!(connection.is_ok());
    assert_eq!(seen, []);
}

/// A standby that is behind does not know a database that was just made, or a password that was just changed; and an address
/// may have been given to another pod. One such refusal ended the search, and everybody who waited was told of it.
#[tokio::test]
async fn a_refusal_for_good_is_one_servers_own() {
    let refusing = |code: &'static str| {
        FakeServer::start(move |connection| {
            connection.read_startup()?;
            let error = format!("SFATAL\0C{code}\0Mno\0\0");
            connection.send(frames::frame(b'E', error))
        })
    };
    let (behind, rotated, primary) = (
        refusing("3D000"),
        refusing("28P01"),
        FakeServer::answering(|_| Vec::new()),
    );
    let nobody = |_: &Endpoint| false;
    let look = async |addresses: &[&str]| {
        let target = target(Role::ReadWrite, &endpoint(addresses[0]));
        race_of(target, addresses, Proof::Role, &nobody).await.0
    };
    let (behind, rotated, primary) = (behind.address(), rotated.address(), primary.address());
    let found = look(&[&behind, &rotated, &primary]).await;
    assert_eq!(found.unwrap().endpoint(), &endpoint(&primary));
    // When all have refused that is what is told, and when one is away it may yet come.
    let code = |outcome: Result<Connection, ConnectError>| match outcome {
        Err(ConnectError::Server(error)) => error.code.map(|code| code.as_str().to_owned()),
        _ => None,
    };
    assert_eq!(code(look(&[&rotated, &behind]).await).as_deref(), Some("28P01"));
    assert!(
        look(&[&rotated, "127.0.0.1:1"])
            .await
            .is_err_and(|error| error.is_transient())
    );
    // The primary speaks for all.
    let (outcome, _) = race(Role::ReadWrite, &[&behind, &primary], Proof::Role).await;
    assert_eq!(code(outcome).as_deref(), Some("3D000"));
}

/// One role is checked by something that hangs (LDAP, PAM). The primary was taken for silent, and the connections of every
/// other pool had to look for it one after the other.
#[tokio::test]
async fn a_log_in_that_hangs_says_nothing_of_the_server() {
    let hanging = |first: Vec<u8>| {
        FakeServer::start(move |connection| {
            connection.read_startup()?;
            connection.send(&first)?;
            connection.read_to_end().map(drop)
        })
    };
    for (first, expected) in [
        (frames::frame(b'R', [0; 4]), None),
        (Vec::new(), Some(Failure::Silent)),
    ] {
        let server = hanging(first);
        let mut target = target(Role::ReadWrite, &endpoint(&server.address()));
        target.options.timeout = Duration::from_millis(300);
        let (outcome, seen) = race_of(target, &[&server.address()], Proof::Role, &|_| true).await;
        assert!(matches!(outcome, Err(ConnectError::Timeout { .. })));
        let expected: Vec<_> = expected
            .map(|failure| failed(&server.address(), failure))
            .into_iter()
            .collect();
        assert_eq!(seen, expected);
    }
}

/// Servers that take connections and never say a word.
fn silent() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    (listener, address)
}

/// Both nodes of a cluster hang, and the configuration is changed to another: connections that were being opened went on
/// at the old ones, for as long as `server_connect_timeout` or for ever, and nothing was opened in their place.
#[test]
fn a_reload_reaches_connections_that_are_being_opened() {
    let (server, [first, second]) = (FakeServer::answering(|_| one_row()), [(); 2].map(|()| silent()));
    let mut pooler = Pooler::builder(&first.1)
        .set(
            r#"databases."*".hosts"#,
            format!("['{}', '{}']", first.1, second.1),
        )
        .start();
    let mut client = RawClient::connect(pooler.address());
    client.send(frames::startup(
        frames::PROTOCOL_3_0,
        &[("user", "app"), ("database", "app")],
    ));
    let _opening = first.0.accept().unwrap();
    let hosts = format!("['{}']", server.address());
    pooler.reconfigure(|builder| builder.set(r#"databases."*".hosts"#, hosts));
    let start = Instant::now();
    pooler.reload();
    client.read_until_ready();
    assert_eq!(client.value("SELECT 1"), "1");
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
}

/// The primary hangs, Kubernetes has appointed another within seconds, and those who waited for log-ins at the first had to
/// wait until `server_connect_timeout` was over.
#[test]
fn another_primary_is_dialled_while_connections_to_the_first_are_being_opened() {
    let (server, (listener, first)) = (FakeServer::answering(|_| one_row()), silent());
    let api = ApiServer::start();
    let pod = |name: &str, address: &str| {
        let (host, port) = address.rsplit_once(':').unwrap();
        EndpointSpec::ready(name, host.parse::<IpAddr>().unwrap(), port.parse().unwrap())
    };
    let announce = |primary: &str, pods: &[EndpointSpec]| {
        api.cluster("pg", |spec| {
            spec.current_primary = primary.to_owned();
            spec.target_primary = primary.to_owned();
        });
        api.slice("pg", Service::R, pods);
    };
    announce("pg-1", &[pod("pg-1", &first)]);
    let builder = api.settings().iter().fold(
        Pooler::builder("nowhere").without(r#"databases."*""#),
        |builder, (key, value)| builder.set(key, value),
    );
    let pooler = builder.set("databases.app.cluster", "'pg'").start();
    let mut client = RawClient::connect(pooler.address());
    client.send(frames::startup(
        frames::PROTOCOL_3_0,
        &[("user", "app"), ("database", "app")],
    ));
    let _opening = listener.accept().unwrap();
    let start = Instant::now();
    announce("pg-2", &[pod("pg-1", &first), pod("pg-2", &server.address())]);
    client.read_until_ready();
    assert_eq!(client.value("SELECT 1"), "1");
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
}

fn one_row() -> Vec<u8> {
    [
        frames::data_row(&["1"]),
        frames::command_complete("SELECT 1"),
        frames::ready_for_query(b'I'),
    ]
    .concat()
}

/// PostgreSQL is restarted at night for longer than requests wait, and nobody asks for anything. In the morning the first
/// request of every client was refused, although the primary had been back for hours; and all the time metrics said that
/// there was none.
#[test]
fn nobody_is_refused_because_nobody_has_asked_for_long() {
    for interval in ["'0'", "'500ms'"] {
        let mut postgres = trusting_postgres();
        let pooler = Pooler::builder(&postgres.address())
            .set("pool.hold_timeout", "'300ms'")
            .set("pool.primary_check_interval", interval)
            .start();
        let log_in = || RawClient::log_in(pooler.address(), "app", "secret", "app");
        let (mut client, mut other) = (log_in(), log_in());
        client.query("SELECT 1");
        postgres.stop(Stop::Fast).unwrap();
        assert_eq!(
            tags(&other.query("SELECT 1")),
            "EZ",
            "it asks while there is none"
        );
        let cluster = postgres.address();
        let is_in = |phase: &str| {
            let sample = format!(r#"pgweir_topology_phase{{cluster="{cluster}",phase="{phase}"}}"#);
            pooler.metric(&sample) == 1.0
        };
        eventually("the primary is given up", || is_in("degraded"));
        postgres.start().unwrap();
        if interval != "'0'" {
            eventually("it is found although nobody asks", || is_in("serving"));
        }
        assert_eq!(tags(&client.query("SELECT 1")), "TDCZ");
        assert!(is_in("serving"));
    }
}

/// Has the calling thread, and the processes that it starts, find host names in the file `hosts` of this directory and
/// nowhere else; false where it may not.
fn own_hosts(directory: &Path) -> bool {
    let mount = |arguments: &[&str]| {
        let done = Command::new("mount").args(arguments).status();
        done.is_ok_and(|status| status.success())
    };
    let replace = |name: &str| {
        let file = directory.join(name).display().to_string();
        mount(&["--bind", &file, &format!("/etc/{name}")])
    };
    fs::write(directory.join("nsswitch.conf"), "hosts: files\n").is_ok()
        && unshare(CloneFlags::CLONE_NEWNS).is_ok()
        && mount(&["--make-rprivate", "/"])
        && replace("hosts")
        && replace("nsswitch.conf")
}

#[test]
fn connections_follow_the_name_of_their_host() {
    in_thread(|| {
        let directory = tempfile::tempdir().unwrap();
        let hosts = directory.path().join("hosts");
        fs::write(&hosts, "127.0.0.1 db.test\n").unwrap();
        // One server with two addresses stands for two.
        let postgres = postgres_with(|builder| {
            builder
                .setting("listen_addresses", "*")
                .hba(&["host all all all trust"])
        });
        if !own_hosts(directory.path()) {
            println!("no mount namespaces here (they take root): names keep their addresses");
            return;
        }
        let pooler = Pooler::builder(&format!("db.test:{}", postgres.port()))
            .set("pool.dns_max_ttl", "'100ms'")
            .start();
        let log_in = || RawClient::log_in(pooler.address(), "app", "secret", "app");
        let (mut idle, mut busy) = (log_in(), log_in());
        let address = "SELECT host(inet_server_addr())";
        busy.query("BEGIN");
        let busy_at = busy.value("SELECT pg_backend_pid()");
        assert_eq!(idle.value(address), "127.0.0.1");

        // A name that cannot be found is no news.
        fs::write(&hosts, "").unwrap();
        pooler.wait_for_log(0, "cannot look a host name up again");
        assert_eq!(idle.value(address), "127.0.0.1");

        fs::write(&hosts, "127.0.0.2 db.test\n").unwrap();
        pooler.wait_for_log(0, "a host name stands for other addresses");
        eventually("connections lead to the other address", || {
            idle.value(address) == "127.0.0.2"
        });
        assert_eq!(busy.value("SELECT pg_backend_pid()"), busy_at);
        busy.query("COMMIT");
        eventually("the busy one has ended as well", || {
            let left = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {busy_at}");
            postgres.psql(&left).unwrap().trim() == "0"
        });
        assert_eq!(busy.value(address), "127.0.0.2");
        drop((pooler, postgres));
    });
}
