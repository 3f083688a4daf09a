//! Requests of every kind through a transaction pool, and what they leave behind: nothing.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use support::{
    frames::{self, copy_data, copy_done, run},
    read_ready, sqlstates, stage, tags, values,
};

#[test]
fn extended_queries_and_unnamed_statements() {
    let stage = stage(1);
    let (mut one, mut other) = (stage.client(), stage.client());
    one.send(frames::extended(
        "SELECT $1::text || '!', $2::text",
        &[Some("hi"), None],
    ));
    let answer = one.read_until_ready();
    assert_eq!(tags(&answer), "12TDCZ");
    assert_eq!(answer[3].columns(), [Some("hi!".into()), None]);

    one.send(
        [
            frames::parse("", "SELECT $1::int"),
            frames::describe(b'S', ""),
            frames::close(b'S', ""),
            frames::close(b'P', "never opened"),
            frames::sync(),
        ]
        .concat(),
    );
    assert_eq!(tags(&one.read_until_ready()), "1tT33Z");
    one.send([run(""), frames::sync()].concat());
    assert_eq!(tags(&one.read_until_ready()), "12IZ");

    // Within a transaction the unnamed statement stays from batch to batch.
    one.query("BEGIN");
    one.send([frames::parse("", "SELECT 'mine ' || $1"), frames::sync()].concat());
    one.read_until_ready();
    other.send(frames::extended("SELECT 'theirs'", &[]));
    stage.waits(1);
    for turn in ["1", "2"] {
        one.send(
            [
                frames::bind("", "", &[Some(turn)]),
                frames::execute(""),
                frames::sync(),
            ]
            .concat(),
        );
        assert_eq!(values(&one.read_until_ready()), [format!("mine {turn}")]);
    }
    one.query("COMMIT");
    assert_eq!(values(&other.read_until_ready()), ["theirs"]);
    stage.is_whole(&mut one);
}

#[test]
fn a_pipeline_of_many_batches() {
    let stage = stage(1);
    let mut client = stage.client();
    let numbers: Vec<String> = (0..2000).map(|number| number.to_string()).collect();
    let batches = numbers
        .iter()
        .flat_map(|number| frames::extended("SELECT $1::text", &[Some(number)]));
    client.send(batches.collect::<Vec<u8>>());
    let answers = read_ready(&mut client, numbers.len());
    assert_eq!(values(&answers), numbers);
    assert_eq!(tags(&answers), "12TDCZ".repeat(numbers.len()));
    stage.is_whole(&mut client);
}

#[test]
fn a_deferred_error_comes_with_the_sync() {
    let stage = stage(1);
    let mut client = stage.client();
    client.query("CREATE TABLE t (a int UNIQUE DEFERRABLE INITIALLY DEFERRED)");
    client.send(
        [
            run("INSERT INTO t VALUES (1), (1)"),
            frames::sync(),
            frames::query("SELECT 1"),
        ]
        .concat(),
    );
    let answers = read_ready(&mut client, 2);
    assert_eq!(tags(&answers), "12CEZTDCZ");
    assert_eq!(sqlstates(&answers), ["23505"]);
    stage.is_whole(&mut client);
}

#[test]
fn tokio_postgres_copies() {
    let stage = stage(1);
    let url = format!(
        "postgresql://app:secret@{}/app?sslmode=disable",
        stage.pooler.address()
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
            .await
            .unwrap();
        let work = async move {
            client.batch_execute("CREATE TABLE t (a int)").await.unwrap();
            for _ in 0..3 {
                let sink = client.copy_in::<_, &[u8]>("COPY t FROM STDIN").await.unwrap();
                assert_eq!(std::pin::pin!(sink).finish().await.unwrap(), 0);
                // Dropped: the driver says CopyFail.
                drop(client.copy_in::<_, &[u8]>("COPY t FROM STDIN").await.unwrap());
                let rows = client.query_typed("SELECT count(*) FROM t", &[]).await.unwrap();
                assert_eq!(rows[0].get::<_, i64>(0), 0);
            }
        };
        let (connection, ()) = tokio::join!(connection, work);
        connection.unwrap();
    });
    stage.is_whole(&mut stage.client());
}

#[test]
fn copy_in_as_every_driver_does_it() {
    let stage = stage(1);
    let mut client = stage.client();
    client.query("CREATE TABLE t (a int)");
    let sql = "COPY t FROM STDIN";
    // Waiting for CopyInResponse, by a simple query (libpq) ...
    client.send(frames::query(sql));
    assert_eq!(tags(&client.read_until(b'G')), "G");
    client.send([copy_data("1\n2"), copy_data("\n"), copy_done()].concat());
    assert_eq!(tags(&client.read_until_ready()), "CZ");
    // ... by an extended query, with the Sync at the end only ...
    client.send([run(sql), frames::flush()].concat());
    assert_eq!(tags(&client.read_until(b'G')), "12G");
    client.send([copy_data("3\n"), copy_done(), frames::sync()].concat());
    assert_eq!(tags(&client.read_until_ready()), "CZ");
    // ... with a Sync before the data too, which the server ignores (tokio-postgres, libpq's PQsendQueryParams) ...
    client.send([run(sql), frames::sync()].concat());
    assert_eq!(tags(&client.read_until(b'G')), "12G");
    client.send(
        [
            frames::sync(),
            copy_data("4\n"),
            frames::flush(),
            copy_done(),
            frames::sync(),
        ]
        .concat(),
    );
    assert_eq!(tags(&client.read_until_ready()), "CZ");
    // ... without waiting for anything ...
    let pieces = [
        run(sql),
        frames::sync(),
        copy_data("5\n"),
        copy_done(),
        frames::sync(),
        frames::query(""),
    ];
    client.send(pieces.concat());
    assert_eq!(tags(&read_ready(&mut client, 2)), "12GCZIZ");
    // ... and two of them in one query.
    let twice = frames::query(&format!("{sql}; {sql}; SELECT 1"));
    client.send(
        [
            twice,
            copy_data("6\n"),
            copy_done(),
            copy_data("7\n"),
            copy_done(),
        ]
        .concat(),
    );
    assert_eq!(tags(&client.read_until_ready()), "GCGCTDCZ");
    assert_eq!(
        client.value("SELECT string_agg(a::text, '' ORDER BY a) FROM t"),
        "1234567"
    );
    stage.is_whole(&mut client);
}

#[test]
fn goodbye_after_a_request_lets_it_finish() {
    let stage = stage(1);
    let mut client = stage.client();
    client.query("CREATE TABLE t (a int)");
    client.send([frames::query("INSERT INTO t VALUES (1)"), frames::terminate()].concat());
    let rest = client.read_to_end();
    assert_eq!(tags(&rest), "CZ");
    let mut other = stage.client();
    assert_eq!(other.value("SELECT count(*) FROM t"), "1");
    stage.is_whole(&mut other);
}
