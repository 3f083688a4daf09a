//! pgweir in front of a cluster as CloudNativePG sets one up: who gets in, with no password in the pooler.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a helper fails the test"
)]

mod support;

use std::process::Output;

use support::cluster::Cluster;

#[track_caller]
fn assert_says(output: &Output, expected: &str) {
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!((said.trim(), errors.as_ref()), (expected, ""));
}

#[track_caller]
fn assert_refused(output: &Output, expected: &str) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && errors.contains(expected), "{errors}");
}

const WHO: &str = "SELECT session_user || ' ' || current_database()";

#[test]
fn a_client_that_requires_channel_binding_logs_in() {
    let cluster = Cluster::start("myappdb");
    let pooler = cluster.pooler().start();
    for user in ["myappuser2", "reader"] {
        let one = cluster.psql(&pooler, user, "channel_binding=require", "select 1");
        assert_says(&one, "1");
    }
    let wrong = cluster.psql(&pooler, "nobody", "channel_binding=require", "select 1");
    assert_refused(&wrong, "password authentication failed for user \"nobody\"");
    let pooled = cluster.psql(&pooler, "myappuser2", "", WHO);
    assert_says(&pooled, "myappuser2 myappdb");
    let encrypted = "SELECT client_dn FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert_says(
        &cluster.psql(&pooler, "myappuser2", "", encrypted),
        "/CN=cnpg_pooler_pgbouncer",
    );
}

/// PgBouncer shows one certificate to every server, so that these roles cannot go through it at all.
#[test]
fn roles_that_need_a_certificate_of_their_own_go_through() {
    let cluster = Cluster::start("myappdb");
    let roles = ["myappuser", "postgres"];
    let pooler = cluster.pooler_with_certificates(&roles).start();
    for role in roles {
        let own = Cluster::certificate_of(&pooler, role);
        let who = "SELECT session_user || client_dn FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        let output = cluster.psql(&pooler, role, &own, who);
        assert_says(&output, &format!("{role}/CN={role}"));
    }
    let other = Cluster::certificate_of(&pooler, "myappuser");
    let output = cluster.psql(&pooler, "postgres", &other, "select 1");
    assert_refused(&output, "certificate authentication failed for user \"postgres\"");
    let output = cluster.psql(&pooler, "postgres", "", "select 1");
    assert_refused(&output, "connection requires a valid client certificate");
    assert_says(&cluster.psql(&pooler, "reader", "", WHO), "reader myappdb");
}

/// CloudNativePG 1.28 and later make the function in `postgres`, and look there for it.
#[test]
fn the_function_may_be_in_another_database() {
    let cluster = Cluster::start("postgres");
    let pooler = cluster.pooler().set("auth.auth_database", "'postgres'").start();
    assert_says(&cluster.psql(&pooler, "reader", "", WHO), "reader myappdb");
}
