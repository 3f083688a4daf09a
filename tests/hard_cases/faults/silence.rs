//! A network that has gone silent: nothing is refused, nothing arrives.
//!
//! In network namespaces of the test's own where it may make them, so that the kernels at both ends see what they see
//! when a network goes: no answer to a SYN, no ACK. Elsewhere a link that holds everything back stands for it.

use std::{thread, time::Duration};

use crate::{
    checks::{assert_error, field, log_in, refused_log_in, wait_for_metric},
    support::{Link, Namespaces, Pooler, Postgres, frames, in_thread, postgres, postgres_with},
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
