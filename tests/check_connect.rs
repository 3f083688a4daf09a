//! `pgweir check --connect`: what it tries, and that what it proposes mends what is wrong.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use support::{Authority, Pooler, PoolerBuilder, cluster::Cluster};

/// What is said on both streams, and whether all is well.
fn check(builder: &PoolerBuilder, more: &[&str]) -> (String, bool) {
    let arguments = [&["check", "--connect", "--config"], &["CONFIG"][..], more].concat();
    let (out, err, status) = Pooler::run_command(builder, &arguments);
    (format!("{out}{err}"), status.success())
}

#[track_caller]
fn assert_has(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "{part:?} is not in:\n{said}");
    }
}

#[test]
fn what_works_is_said_for_each_server_and_role() {
    let cluster = Cluster::start("myappdb");
    let builder = cluster.pooler_with_certificates(&["myappuser", "postgres"]);
    let (said, good) = check(&builder, &["--database", "myappdb", "--user", "reader"]);
    assert!(good, "{said}");
    assert_has(
        &said,
        &[
            "answers, TLSv1.3, its certificate is valid for its name",
            "database \"myappdb\" as \"myappuser\": logs in",
            "database \"myappdb\" as \"postgres\": logs in",
            "works; \"reader\" has a SCRAM verifier",
        ],
    );
    let (said, _) = check(&builder, &["--database", "myappdb", "--user", "nobody"]);
    assert_has(&said, &["\"nobody\" is not known"]);
    let (said, _) = check(&builder, &["--database", "myappdb"]);
    assert_has(&said, &["\"cnpg_pooler_pgbouncer\" has no password"]);
}

#[test]
fn what_is_missing_is_said_with_the_sql_that_makes_it() {
    let cluster = Cluster::start("myappdb");
    let builder = cluster.pooler().set("auth.auth_database", "'postgres'");
    let (said, good) = check(&builder, &[]);
    assert!(!good, "{said}");
    assert_has(
        &said,
        &[
            "auth_query failed",
            "user_search",
            "CREATE FUNCTION public.user_search",
        ],
    );
    let sql = said
        .split_once("as a superuser in database \"postgres\": ")
        .unwrap()
        .1;
    cluster
        .postgres
        .psql_in("postgres", sql.lines().next().unwrap())
        .unwrap();
    let (said, good) = check(&builder, &["--user", "reader"]);
    assert!(good, "{said}");
    assert_has(&said, &["works; \"reader\" has a SCRAM verifier"]);

    cluster
        .postgres
        .psql_in(
            "postgres",
            "REVOKE EXECUTE ON FUNCTION public.user_search(text) FROM cnpg_pooler_pgbouncer",
        )
        .unwrap();
    let (said, good) = check(&builder, &[]);
    assert!(!good);
    assert_has(
        &said,
        &[
            "permission denied",
            "GRANT EXECUTE ON FUNCTION public.user_search(text)",
        ],
    );
}

#[test]
fn a_certificate_for_other_names_or_of_another_ca_is_explained() {
    let cluster = Cluster::start("myappdb");
    let on = ["--database", "myappdb"];
    let builder = cluster.pooler().set("server_tls.server_name", "'elsewhere'");
    let (said, good) = check(&builder, &on);
    assert!(!good);
    assert_has(
        &said,
        &["mypg-yc-rw", "not for \"elsewhere\"", "server_tls.server_name"],
    );

    let other = Authority::new("another").unwrap();
    let builder = cluster.pooler().file("ca.crt", other.certificate_pem());
    let (said, good) = check(&builder, &on);
    assert!(!good);
    assert_has(&said, &["not signed by a ca in server_tls.ca_file"]);

    let builder = cluster
        .pooler()
        .set("server_tls.mode", "'require'")
        .set("server_tls.server_name", "'elsewhere'");
    let (said, good) = check(&builder, &on);
    assert!(good, "{said}");
    assert_has(&said, &["\"verify-full\" would fail", "not for \"elsewhere\""]);
    let builder = cluster.pooler().set("server_tls.mode", "'verify-ca'");
    assert_has(
        &check(&builder, &on).0,
        &["server_tls.mode could be \"verify-full\""],
    );
}

#[test]
fn a_server_that_is_not_there_and_a_role_that_may_not_log_in_are_named() {
    let cluster = Cluster::start("myappdb");
    let builder = cluster.pooler().set(r#"databases."*".hosts"#, "['127.0.0.1:1']");
    let (said, good) = check(&builder, &[]);
    assert!(!good);
    assert_has(&said, &["127.0.0.1:1: cannot connect to 127.0.0.1:1", "refused"]);

    let sql = "ALTER ROLE cnpg_pooler_pgbouncer NOLOGIN";
    cluster.postgres.psql(sql).unwrap();
    let (said, good) = check(&cluster.pooler(), &["--database", "myappdb"]);
    assert!(!good);
    assert_has(&said, &["ALTER ROLE \"cnpg_pooler_pgbouncer\" LOGIN"]);
}
