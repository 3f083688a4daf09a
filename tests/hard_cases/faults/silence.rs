//! A network that has gone silent: nothing is refused, nothing arrives.
//!
//! In network namespaces of the test's own where it may make them, so that the kernels at both ends see what they see
//! when a network goes: no answer to a SYN, no ACK. Elsewhere a link that holds everything back stands for it.

use std::{
    io,
    sync::{Mutex, mpsc::channel},
    thread,
    time::{Duration, Instant},
};

use crate::{
    checks::{assert_error, field, knock, log_in, refused_log_in, wait_for_metric},
    support::{
        FakeServer, LIMIT, Link, Namespaces, Pooler, Postgres, frames, in_thread, postgres, postgres_with,
        tags,
    },
};

/// A PostgreSQL behind a network that can go silent.
struct Remote {
    postgres: Postgres,
    address: String,
    network: Network,
}

enum Network {
    Namespaces(Namespaces),
    Link(Link),
}

impl Remote {
    /// Leaves the calling thread in the pooler's namespace.
    fn new() -> Self {
        match Namespaces::new() {
            Some(namespaces) => Self::in_namespaces(namespaces),
            None => {
                println!("no network namespaces here (they take root and ip): a link stands for the network");
                let postgres = postgres();
                let link = Link::to(postgres.address());
                Self {
                    postgres,
                    address: link.address(),
                    network: Network::Link(link),
                }
            }
        }
    }

    fn in_namespaces(namespaces: Namespaces) -> Self {
        let postgres = namespaces.at_far(|| {
            postgres_with(|builder| {
                builder
                    .setting("listen_addresses", "*")
                    .hba(&["host all all all trust"])
            })
        });
        Self {
            address: format!("{}:{}", Namespaces::FAR, postgres.port()),
            postgres,
            network: Network::Namespaces(namespaces),
        }
    }

    fn go_silent(&self) {
        match &self.network {
            Network::Namespaces(namespaces) => namespaces.go_silent(),
            Network::Link(link) => link.freeze(),
        }
    }

    fn come_back(&self) {
        match &self.network {
            Network::Namespaces(namespaces) => namespaces.come_back(),
            Network::Link(link) => link.thaw(),
        }
    }
}

#[test]
fn fault_silent_network_costs_a_timeout_and_no_place() {
    // Packets are dropped: while pgweir connects, and while a client is in a transaction, who then leaves. Neither the
    // cancel nor the end of the connection can be told to the server.
    in_thread(|| {
        let remote = Remote::new();
        let pooler = Pooler::builder(&remote.address)
            .set("pool.default_pool_size", "1")
            .set("pool.server_connect_timeout", "'300ms'")
            .set("pool.query_wait_timeout", "'1s'")
            .start();
        remote.go_silent();
        let error = refused_log_in(&pooler, &[]);
        assert_error(&error, "FATAL", "08006");
        assert_eq!(field(&error, b'D'), "no log-in within 300ms");

        remote.come_back();
        let mut client = log_in(&pooler);
        client.query("CREATE TABLE t (a int)");
        client.query("BEGIN; INSERT INTO t VALUES (1)");
        remote.go_silent();
        drop(client);
        wait_for_metric(&pooler, "pgweir_clients", 0.0);
        wait_for_metric(&pooler, "pgweir_servers", 0.0);

        remote.come_back();
        assert_eq!(log_in(&pooler).value("SELECT count(*) FROM t"), "0");
        pooler.assert_all_places(1);
        drop(pooler);
        drop(remote.postgres);
    });
}

#[test]
fn fault_silent_host_is_missed_within_seconds() {
    // The server of a query vanishes, as its node does when it loses power: packets are dropped. The kernel by itself waits
    // for a quarter of an hour.
    in_thread(|| {
        let remote = Remote::new();
        if let Network::Link(_) = remote.network {
            return;
        }
        let pooler = Pooler::builder(&remote.address)
            .set("pool.query_wait_timeout", "'1s'")
            .start();
        // One waits for an answer, the other's request has never arrived.
        let (mut asked, mut asking) = (log_in(&pooler), log_in(&pooler));
        asking.query("BEGIN");
        asked.send(frames::query("SELECT pg_sleep(600)"));
        wait_for_metric(&pooler, "pgweir_servers{state=\"active\"}", 2.0);
        let start = Instant::now();
        remote.go_silent();
        asking.send(frames::query("SELECT 1"));
        for mut client in [asked, asking] {
            let end = client.read_to_end();
            assert_error(end.last().expect("an error"), "FATAL", "08006");
        }
        let noticed = start.elapsed();
        assert!(noticed < Duration::from_secs(14), "{noticed:?}");
        println!("noticed after {noticed:?}");
        drop(pooler);
        drop(remote.postgres);
    });
}

#[test]
fn fault_silent_host_costs_three_seconds_and_with_another_none() {
    in_thread(|| {
        let remote = Remote::new();
        if let Network::Link(_) = remote.network {
            return;
        }
        remote.go_silent();
        let alone = Pooler::builder(&remote.address).start();
        let start = Instant::now();
        let _waits = knock(&alone, &[("search_path", "x")]);
        wait_for_metric(&alone, "pgweir_server_connect_failures_total", 1.0);
        let refused = start.elapsed();
        assert!(refused < Duration::from_secs(5), "{refused:?}");

        // The standby that is here now, and the host that is not.
        let near = postgres();
        let both = format!("['{}', '{}']", remote.address, near.address());
        let pooler = Pooler::builder(&remote.address)
            .set(r#"databases."*".hosts"#, both)
            .start();
        let start = Instant::now();
        assert_eq!(log_in(&pooler).value("SELECT 1"), "1");
        let served = start.elapsed();
        assert!(served < Duration::from_millis(1500), "{served:?}");
        println!("given up after {refused:?}, served by the next host after {served:?}");
        drop((pooler, alone, near));
        drop(remote.postgres);
    });
}

#[test]
fn fault_server_that_does_not_read_is_not_taken_for_one_that_has_vanished() {
    const PARSES: usize = 40;
    // A statement of a large batch waits for a lock, and the server reads no further. Linux counts that as silence.
    let (go, may_read) = channel::<()>();
    let may_read = Mutex::new(may_read);
    let server = FakeServer::start(move |connection| {
        connection.log_in()?;
        let wait = may_read.lock().expect("nobody panics").recv_timeout(LIMIT);
        wait.map_err(io::Error::other)?;
        while connection.read()?.tag != b'S' {}
        let parsed = frames::frame(b'1', []).repeat(PARSES);
        connection.send([parsed, frames::ready_for_query(b'I')].concat())?;
        connection.read_to_end().map(drop)
    });
    let pooler = Pooler::builder(&server.address())
        .set("tcp.tcp_user_timeout", "'1s'")
        .start();
    let mut client = log_in(&pooler);
    let parse = frames::parse("", &format!("SELECT '{}'", "x".repeat(100_000)));
    thread::scope(|scope| {
        scope.spawn(|| {
            // For longer than a connection lasts whose peer has vanished.
            thread::sleep(Duration::from_secs(4));
            go.send(()).expect("the server waits");
        });
        client.send([parse.repeat(PARSES), frames::sync()].concat());
        assert_eq!(tags(&client.read_until_ready()), "1".repeat(PARSES) + "Z");
    });
}

#[test]
fn fault_silence_in_mid_query_is_borne_until_it_is_over() {
    // A query that takes longer than the network is away is not lost, and a place is not given twice meanwhile.
    in_thread(|| {
        let remote = Remote::new();
        let pooler = Pooler::builder(&remote.address)
            .set("pool.default_pool_size", "1")
            .start();
        let mut client = log_in(&pooler);
        client.send(frames::query("SELECT pg_sleep(0.3), 'borne'"));
        wait_for_metric(&pooler, "pgweir_servers{state=\"active\"}", 1.0);
        remote.go_silent();
        let mut next = log_in(&pooler);
        next.send(frames::query("SELECT 'next'"));
        wait_for_metric(&pooler, "pgweir_waiting_clients", 1.0);
        // How long the outage lasts, beyond the end of the query: nothing can be seen of it meanwhile.
        thread::sleep(Duration::from_millis(500));
        remote.come_back();
        assert_eq!(
            client.read_until_ready()[1].columns()[1].as_deref(),
            Some("borne")
        );
        assert_eq!(next.read_until_ready()[1].columns()[0].as_deref(), Some("next"));
    });
}
