//! Cases 26 to 28: bytes in both directions at once, messages larger than any buffer, COPY.

use std::{
    io::{self, ErrorKind, Read, Write},
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    FakeServer, LIMIT, Link, Pooler, RawClient, eventually,
    frames::{self, INT4PL, call, copy_data, copy_done, copy_fail, run},
    postgres, read_ready, sqlstates, stage, tags, values,
};

const MIB: u64 = 1 << 20;

/// The largest message that PostgreSQL accepts, as its length says it.
const LARGEST: u32 = 0x3fff_ffff;

fn log_in(pooler: &Pooler) -> RawClient {
    RawClient::log_in(pooler.address(), "app", "secret", "app")
}

// --- 26: both directions at once ---

/// A client that sends and reads at the same time, and a server that does: a pooler that finishes writing to one
/// before it reads from it stands still with full buffers on all sides.
#[test]
fn case_26_neither_direction_waits_for_the_other() {
    // Everything that goes up comes down while more goes up: neither direction may wait for the other.
    let stage = stage(1);
    let stream = stage.client().into_stream();
    let mut up = stream.try_clone().unwrap();
    let writer = thread::spawn(move || {
        let batch = frames::extended("SELECT $1::text", &[Some(&"z".repeat(400_000))]);
        for _ in 0..200 {
            up.write_all(&batch).unwrap();
        }
    });
    let mut down = RawClient::over(stream);
    for _ in 0..200 {
        assert_eq!(tags(&down.read_until_ready()), "12TDCZ");
    }
    writer.join().unwrap();
    stage.is_whole(&mut down);
}

/// A client that sends everything before it reads anything: what the pooler has no room for, it must not take.
#[test]
fn case_26_a_client_that_writes_without_reading_is_held_back_and_loses_nothing() {
    const PAD: usize = 50_000;
    let stage = stage(1);
    let mut client = stage.client();
    assert_eq!(client.value("SELECT 1"), "1");
    let before = stage.pooler.peak_memory();
    let mut stream = client.into_stream();
    stream
        .set_write_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let query = |number: usize| {
        frames::query(&format!(
            "SELECT '{number} ' || repeat('x', {PAD}) /* {} */",
            "y".repeat(PAD)
        ))
    };
    // Until no buffer on the way has room: answers are as large as questions.
    let (mut sent, mut pending) = (0, Vec::new());
    loop {
        if pending.is_empty() {
            pending = query(sent);
            sent += 1;
        }
        match stream.write(&pending) {
            Ok(length) => drop(pending.drain(..length)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
        assert!(sent < 4000, "200 MB were taken from a client that does not read");
    }
    let growth = stage.pooler.peak_memory() - before;
    assert!(growth < 8 * MIB, "{growth} bytes more");
    // It reads and goes on writing: everything is answered, in order.
    let mut reading = RawClient::over(stream.try_clone().unwrap());
    let reader = thread::spawn(move || {
        for number in 0..sent {
            let answer = reading.read_until_ready();
            assert_eq!(tags(&answer), "TDCZ");
            let row = &answer[1].columns()[0];
            assert_eq!(
                row.as_ref().unwrap().split_once(' ').unwrap().0,
                number.to_string()
            );
        }
    });
    stream.set_write_timeout(None).unwrap();
    stream.write_all(&pending).unwrap();
    reader.join().unwrap();
    stage.is_whole(&mut RawClient::over(stream));
}

/// Others on the same thread are served while one client's answers go nowhere.
#[test]
fn case_26_a_client_that_never_reads_hurts_nobody_else() {
    let stage = stage(2);
    let (mut stuck, mut other) = (stage.client(), stage.client());
    assert_eq!(other.value("SELECT 1"), "1");
    let before = stage.pooler.peak_memory();
    stuck.send(frames::query(
        "SELECT repeat('x', 1000) FROM generate_series(1, 200000)",
    ));
    let in_write = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite'";
    eventually("the server cannot write any more", || {
        stage.postgres.psql(in_write).unwrap() == "1"
    });
    let begin = Instant::now();
    for number in 0..200 {
        assert_eq!(other.value(&format!("SELECT {number}")), number.to_string());
    }
    assert!(begin.elapsed() < Duration::from_secs(10));
    let growth = stage.pooler.peak_memory() - before;
    assert!(growth < 8 * MIB, "{growth} bytes more");
    // It leaves without having read: the server is not left working for nobody.
    drop(stuck);
    eventually("the query has been cancelled", || {
        stage.postgres.psql(in_write).unwrap() == "0"
    });
    stage.is_whole(&mut other);
}

/// A message that no answer comes for, such as the end of a COPY that there is not, was remembered all the same. A
/// batch that is never flushed kept all of them: memory for as long as the client liked to send.
#[test]
fn case_26_messages_that_nothing_answers_take_no_memory() {
    let stage = stage(1);
    let mut client = stage.client();
    assert_eq!(client.value("SELECT 1"), "1");
    client.send(frames::parse("", "SELECT 1"));
    let before = stage.pooler.peak_memory();
    let ends = [copy_done(), copy_fail("")].concat().repeat(10_000);
    for _ in 0..200 {
        client.send(&ends);
    }
    client.send(frames::sync());
    assert_eq!(tags(&client.read_until_ready()), "1Z");
    let growth = stage.pooler.peak_memory() - before;
    assert!(growth < 4 * MIB, "{growth} bytes more");
    stage.is_whole(&mut client);
}

/// A client that does not read what it is answered and goes on asking: what the server still owes was remembered
/// without bound, because the server took it all.
#[test]
fn case_26_a_client_that_never_reads_cannot_ask_for_ever() {
    let server = FakeServer::start(|connection| {
        connection.log_in()?;
        connection.expect(b'Q')?;
        let mut writer = connection.socket()?;
        let rows = frames::data_row(&["x"]).repeat(10_000);
        thread::spawn(move || while writer.write_all(&rows).is_ok() {});
        let mut reader = connection.socket()?;
        io::copy(&mut reader, &mut io::sink()).map(drop)
    });
    let pooler = Pooler::builder(&server.address()).start();
    let mut client = log_in(&pooler);
    client.send(frames::query("SELECT"));
    let before = pooler.peak_memory();
    let mut stream = client.into_stream();
    stream
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let syncs = frames::sync().repeat(20_000);
    let stopped = (0..600).any(|_| stream.write_all(&syncs).is_err());
    let growth = pooler.peak_memory() - before;
    // A million messages, in a queue that has doubled up to there.
    assert!(
        stopped && growth < 24 * MIB,
        "{growth} bytes more, stopped: {stopped}"
    );
    drop(stream);
    eventually("it is gone", || pooler.metric("pgweir_clients") == 0.0);
    pooler.wait_until_quiet();
}

// --- 27: messages over any buffer ---

/// Reads `count` bytes and keeps none.
fn discard(stream: &mut impl Read, count: u64) {
    let read = io::copy(&mut stream.take(count), &mut io::sink()).unwrap();
    assert_eq!(read, count);
}

/// Writes the header of a message of the largest length and so much that a row or a Bind of one column is sound,
/// then zeros.
fn write_largest(stream: &mut impl Write, tag: u8, beginning: &[u8]) -> io::Result<()> {
    stream.write_all(&[&[tag][..], &LARGEST.to_be_bytes(), beginning].concat())?;
    let rest = u64::from(LARGEST) - 4 - beginning.len() as u64;
    io::copy(&mut io::repeat(0).take(rest), stream).map(drop)
}

/// A message was put together before it was sent on: a value of 1 GB took 1 GB for each client that had one. The
/// largest there is passes in both directions at the same time.
#[test]
fn case_27_the_largest_message_passes_both_ways_in_bounded_memory() {
    let server = FakeServer::start(|connection| {
        connection.log_in()?;
        connection.expect(b'Q')?;
        let mut writer = connection.socket()?;
        let down = thread::spawn(move || write_largest(&mut writer, b'D', &[0, 1]));
        let mut up = connection.socket()?;
        up.set_read_timeout(Some(LIMIT))?;
        discard(&mut up, 1 + u64::from(LARGEST));
        down.join().expect("it writes")?;
        let query = [
            frames::command_complete("SELECT 1"),
            frames::ready_for_query(b'I'),
        ];
        connection.send(query.concat())?;
        connection.expect(b'S')?;
        connection.send([frames::frame(b'2', []), frames::ready_for_query(b'I')].concat())?;
        connection.expect(b'Q')?;
        connection.send([frames::frame(b'I', []), frames::ready_for_query(b'I')].concat())?;
        connection.read_to_end().map(drop)
    });
    let pooler = Pooler::builder(&server.address())
        .set("pool.default_pool_size", "1")
        .start();
    let client = log_in(&pooler);
    let before = pooler.peak_memory();
    let mut stream = client.into_stream();
    let mut up = stream.try_clone().unwrap();
    let writer = thread::spawn(move || {
        up.write_all(&frames::query("SELECT")).unwrap();
        write_largest(&mut up, b'B', &[0, 0]).unwrap();
        up.write_all(&frames::sync()).unwrap();
    });
    discard(&mut stream, 1 + u64::from(LARGEST));
    writer.join().unwrap();
    let mut client = RawClient::over(stream);
    assert_eq!(tags(&read_ready(&mut client, 2)), "CZ2Z");
    // What the kernel says is not exact.
    let growth = pooler.peak_memory().saturating_sub(before);
    assert!(growth < 8 * MIB, "{growth} bytes more");
    assert_eq!(tags(&log_in(&pooler).query("")), "IZ");
    assert_eq!(server.accepted(), 1);
}

/// One byte more than that is a length that cannot be, whoever says it.
#[test]
fn case_27_one_byte_more_than_the_largest_is_refused() {
    let header = |tag: u8| [&[tag][..], &(LARGEST + 1).to_be_bytes()].concat();
    let server = FakeServer::start(move |connection| {
        connection.log_in()?;
        connection.expect(b'Q')?;
        connection.send(header(b'D'))?;
        connection.read_to_end().map(drop)
    });
    let pooler = Pooler::builder(&server.address()).start();
    for request in [header(b'Q'), header(b'B'), frames::query("SELECT")] {
        let mut client = log_in(&pooler);
        client.send(request);
        assert_eq!(tags(&client.read_to_end()), "E");
    }
    pooler.wait_until_quiet();
}

/// The same with a real server, whose value comes back as it was sent.
#[test]
fn case_27_a_value_larger_than_any_buffer_passes_in_bounded_memory() {
    let stage = stage(1);
    let mut client = stage.client();
    assert_eq!(client.value("SELECT 1"), "1");
    let before = stage.pooler.peak_memory();
    let value = "0123456789abcdef".repeat(24 * 65_536);
    client.send(frames::extended("SELECT $1::text", &[Some(&value)]));
    let answer = client.read_until_ready();
    assert_eq!(tags(&answer), "12TDCZ");
    // Not assert_eq, which would print them.
    assert!(answer[3].body[6..] == *value.as_bytes());
    let query = format!("SELECT length('{value}')");
    assert_eq!(client.value(&query), value.len().to_string());
    let growth = stage.pooler.peak_memory() - before;
    assert!(growth < 8 * MIB, "{growth} bytes more");
    stage.is_whole(&mut client);
}

/// Headers in pieces, of messages of every kind: a type byte without its length is not a message yet.
#[test]
fn case_27_byte_by_byte_in_both_directions() {
    let postgres = postgres();
    let far = Link::to(postgres.address());
    let pooler = Pooler::builder(&far.address())
        .set("pool.default_pool_size", "1")
        .start();
    let near = Link::to(pooler.address());
    near.bytewise(true);
    far.bytewise(true);
    let mut client = RawClient::log_in(&near.address(), "app", "secret", "app");
    client.query("CREATE TABLE t (a int); SET application_name TO 'slow'");
    client.send(
        [
            frames::extended("SELECT $1", &[Some("value")]),
            frames::query("SELECT 1/0"),
            run("SELECT 1/0"),
            frames::sync(),
            frames::query("COPY t FROM STDIN"),
            copy_data("1\n2\n3\n"),
            copy_done(),
            frames::query("COPY t TO STDOUT"),
            call(INT4PL, ["1", "2"]),
            frames::query("SHOW application_name"),
        ]
        .concat(),
    );
    let answers = read_ready(&mut client, 7);
    assert_eq!(tags(&answers), "12TDCZEZ1EZGCZHdddcCZVZTDCZ");
    assert_eq!(values(&answers), ["value", "slow"]);
    // The settings of each client travel byte by byte too.
    let mut other = RawClient::log_in(&near.address(), "app", "secret", "app");
    assert_eq!(other.value("SHOW application_name"), "");
    assert_eq!(client.value("SHOW application_name"), "slow");
    drop((client, other));
    near.bytewise(false);
    far.bytewise(false);
    pooler.assert_all_places(1);
}

/// A client on a slow line held a server connection while it was still typing.
#[test]
fn case_27_a_request_in_pieces_takes_no_server_before_it_is_whole() {
    let stage = stage(1);
    let (mut slow, mut quick) = (stage.client(), stage.client());
    let query = frames::query("SELECT 'at last'");
    for piece in query.chunks(3) {
        slow.send(piece);
        if piece.len() == 3 {
            assert_eq!(quick.value("SELECT 'quick'"), "quick");
        }
    }
    assert_eq!(values(&slow.read_until_ready()), ["at last"]);
    stage.is_whole(&mut slow);
}

/// Lengths that cannot be, and types that no client sends.
#[test]
fn case_27_what_is_not_the_protocol_ends_the_client_and_costs_no_place() {
    let stage = stage(1);
    for (bytes, in_transaction) in [
        (&b"\x00\x00\x00\x00\x04"[..], false),
        (b"Q\xff\xff\xff\xff", false),
        (b"Q\x00\x00\x00\x03", true),
        (b"p\x00\x00\x00\x04", true),
    ] {
        let mut client = stage.client();
        if in_transaction {
            client.query("BEGIN");
        }
        client.send(bytes);
        let end = client.read_to_end();
        assert_eq!(
            (tags(&end).as_str(), sqlstates(&end).concat()),
            ("E", "08P01".into()),
            "{bytes:?}"
        );
        stage.is_whole(&mut stage.client());
    }
}

/// The server is ready, in no transaction, and in the middle of a message: the next client's bytes were taken for the
/// rest of it.
#[test]
fn case_27_half_a_message_that_the_server_waits_for_is_not_the_next_clients() {
    let stage = stage(1);
    let mut client = stage.client();
    client.query("CREATE TABLE t (a int)");
    // The first CopyData fails the COPY; the server is ready, and in the middle of the second one.
    let late = copy_data("2\n".repeat(100_000));
    let (first, rest) = late.split_at(30_000);
    client.send([&frames::query("COPY t FROM STDIN"), &copy_data("one\n"), first].concat());
    assert_eq!(tags(&client.read_until_ready()), "GEZ");
    let mut other = stage.client();
    other.send(frames::query("SELECT 'other'"));
    client.send([rest, &copy_done(), &frames::query("SELECT 'mine'")].concat());
    assert_eq!(values(&client.read_until_ready()), ["mine"]);
    assert_eq!(values(&other.read_until_ready()), ["other"]);
    stage.is_whole(&mut client);

    // The same from a client that never sends the rest.
    client.send([&frames::query("COPY t FROM STDIN"), &copy_data("one\n"), first].concat());
    assert_eq!(tags(&client.read_until_ready()), "GEZ");
    drop(client);
    stage.is_whole(&mut stage.client());
}

/// The client's message of no known type ended its session while the server was in the middle of a message that
/// is ignored. Nothing was owed, so the server connection was handed on, and the server took the next client's
/// query for the rest of that message.
#[test]
fn case_27_a_client_that_breaks_the_protocol_in_mid_message_takes_its_server_along() {
    let stage = stage(1);
    let mut client = stage.client();
    let half = [&[b'd'][..], &104u32.to_be_bytes(), &[b'x'; 10]].concat();
    client.send([frames::query("SELECT 1"), half].concat());
    assert_eq!(values(&client.read_until_ready()), ["1"]);
    client.send([&[b'x'; 90][..], &frames::frame(b'z', "")].concat());
    assert_eq!(sqlstates(&client.read_to_end()), ["08P01"]);
    stage.is_whole(&mut stage.client());
}

// --- 28: COPY ---

/// COPY TO STDOUT, and an error after rows have gone out.
#[test]
fn case_28_copy_out_and_its_errors() {
    let stage = stage(1);
    let mut client = stage.client();
    let sql = "COPY (SELECT generate_series(1, 3)) TO STDOUT";
    assert_eq!(tags(&client.query(sql)), "HdddcCZ");
    client.send([run(sql), run("SELECT 1"), frames::sync()].concat());
    assert_eq!(tags(&client.read_until_ready()), "12HdddcC12DCZ");
    // An error after rows have gone out.
    let fails = "COPY (SELECT 10 / (3 - generate_series(1, 3))) TO STDOUT";
    assert_eq!(tags(&client.query(fails)), "HddEZ");
    client.send([run(fails), run("SELECT 1"), frames::sync(), frames::query("")].concat());
    assert_eq!(tags(&read_ready(&mut client, 2)), "12HddEZIZ");
    stage.is_whole(&mut client);
}

/// A COPY by the extended protocol is over when its Sync has been answered, not with CopyDone.
#[test]
fn case_28_copy_in_keeps_the_server_until_its_end() {
    let stage = stage(1);
    let (mut client, mut other) = (stage.client(), stage.client());
    client.query("CREATE TABLE t (a int)");
    client.send([run("COPY t FROM STDIN"), frames::sync()].concat());
    client.read_until(b'G');
    other.send(frames::query("SELECT count(*) FROM t"));
    stage.waits(1);
    client.send(copy_data("1\n"));
    client.send([copy_done(), frames::flush()].concat());
    assert_eq!(tags(&client.read_until(b'C')), "C");
    assert!(
        stage.pooler.metric("pgweir_waiting_clients") == 1.0,
        "there was no ReadyForQuery"
    );
    client.send(frames::sync());
    assert_eq!(tags(&client.read_until_ready()), "Z");
    assert_eq!(values(&other.read_until_ready()), ["1"]);
    stage.is_whole(&mut client);
}

/// The data of a COPY that never began is ignored by the server, and its Syncs are not.
#[test]
fn case_28_copy_that_fails_before_it_begins() {
    let stage = stage(1);
    let mut client = stage.client();
    let sql = "COPY nothing FROM STDIN";
    let data = [copy_data("1\n"), copy_data("2\n"), copy_done()].concat();
    client.send([frames::query(sql), data.clone(), frames::query("SELECT 1")].concat());
    let answers = read_ready(&mut client, 2);
    assert_eq!(
        (tags(&answers).as_str(), sqlstates(&answers).concat()),
        ("EZTDCZ", "42P01".into())
    );
    // Both Syncs count: no COPY was there to ignore the first.
    client.send(
        [
            run(sql),
            frames::sync(),
            data.clone(),
            frames::sync(),
            frames::query(""),
        ]
        .concat(),
    );
    assert_eq!(tags(&read_ready(&mut client, 3)), "12EZZIZ");
    client.send([run(sql), data, frames::sync(), frames::query("")].concat());
    assert_eq!(tags(&read_ready(&mut client, 2)), "12EZIZ");
    stage.is_whole(&mut client);
}

/// The server gives up a COPY while the client still sends: CopyData, CopyDone and Sync come late. Poolers waited for
/// answers that do not come, and the pool ran dry.
#[test]
fn case_28_copy_that_fails_in_the_middle() {
    let stage = stage(1);
    let mut client = stage.client();
    client.query("CREATE TABLE t (a int)");
    let sql = "COPY t FROM STDIN";
    let late = [copy_data("2\n"), copy_done()].concat();
    client.send(frames::query(sql));
    client.read_until(b'G');
    client.send(copy_data("one\n"));
    let answer = client.read_until_ready();
    assert_eq!(
        (tags(&answer).as_str(), sqlstates(&answer).concat()),
        ("EZ", "22P02".into())
    );
    client.send([late.clone(), frames::query("SELECT 1")].concat());
    assert_eq!(tags(&client.read_until_ready()), "TDCZ");
    // In a batch there is no ReadyForQuery before the Sync.
    for early_sync in [Vec::new(), frames::sync()] {
        client.send([run(sql), early_sync, frames::flush()].concat());
        client.read_until(b'G');
        client.send(copy_data("one\n"));
        assert_eq!(tags(&client.read_until(b'E')), "E");
        client.send([late.clone(), frames::sync(), frames::query("SELECT 1")].concat());
        assert_eq!(tags(&read_ready(&mut client, 2)), "ZTDCZ");
    }
    // All in one write.
    client.send(
        [
            run(sql),
            frames::sync(),
            copy_data("one\n"),
            late.clone(),
            frames::sync(),
        ]
        .concat(),
    );
    assert_eq!(tags(&client.read_until_ready()), "12GEZ");
    client.send([frames::query(sql), copy_data("one\n"), late, frames::query("")].concat());
    assert_eq!(tags(&read_ready(&mut client, 2)), "GEZIZ");
    // The client's own wish.
    let fail = copy_fail("changed my mind");
    client.send([frames::query(sql), copy_data("1\n"), fail.clone()].concat());
    let answer = client.read_until_ready();
    assert_eq!(
        (tags(&answer).as_str(), sqlstates(&answer).concat()),
        ("GEZ", "57014".into())
    );
    client.send([run(sql), frames::sync()].concat());
    client.read_until(b'G');
    client.send([fail, frames::sync()].concat());
    assert_eq!(tags(&client.read_until_ready()), "EZ");
    assert_eq!(client.value("SELECT count(*) FROM t"), "0");
    stage.is_whole(&mut client);
}

/// The late data must not reach the server's next client, who may be in a COPY of its own.
#[test]
fn case_28_copy_data_after_the_server_went_to_someone_else() {
    let stage = stage(1);
    let (mut client, mut other) = (stage.client(), stage.client());
    client.query("CREATE TABLE t (a int)");
    client.send([frames::query("COPY t FROM STDIN"), copy_data("one\n")].concat());
    assert_eq!(tags(&client.read_until_ready()), "GEZ");
    other.query("BEGIN; CREATE TABLE u (a int)");
    other.send(frames::query("COPY u FROM STDIN"));
    other.read_until(b'G');
    // Half a message, so that the rest comes later still.
    let late = [copy_data("2\n".repeat(100_000)), copy_done()].concat();
    let (first, rest) = late.split_at(70_000);
    client.send(first);
    other.send([copy_data("1\n"), copy_done()].concat());
    assert_eq!(tags(&other.read_until_ready()), "CZ");
    client.send(rest);
    client.send(frames::query("SELECT count(*) FROM t"));
    stage.waits(1);
    assert_eq!(other.value("SELECT count(*) FROM u"), "1");
    other.query("COMMIT");
    assert_eq!(values(&client.read_until_ready()), ["0"]);
    stage.is_whole(&mut client);
}

/// A driver sends Bind, Execute, Sync and only then the data. A statement trigger failed after CopyInResponse, so
/// the server read that Sync and answered it; pgweir had taken it for one that COPY ignores. The second
/// ReadyForQuery came when the server connection was the next client's, who took it for an answer of its own and
/// was one answer behind from then on.
#[test]
fn case_28_a_copy_that_fails_before_it_reads_answers_every_sync() {
    let stage = stage(1);
    let mut client = stage.client();
    client.query(
        "CREATE TABLE t (a int);
        CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_sleep(0.05); RAISE 'not today'; END $$;
        CREATE TRIGGER g BEFORE INSERT ON t EXECUTE FUNCTION f()",
    );
    let ahead = [
        frames::parse("", "COPY t FROM STDIN"),
        frames::bind("", "", &[]),
        frames::execute(""),
        frames::sync(),
    ];
    for round in 0..20 {
        client.send(ahead.concat());
        client.send([copy_data("1\n"), copy_done(), frames::sync()].concat());
        let mut other = stage.client();
        other.send(frames::query(&format!("SELECT 'other {round}'")));
        assert_eq!(tags(&read_ready(&mut client, 2)), "12GEZZ");
        assert_eq!(values(&other.read_until_ready()), [format!("other {round}")]);
        assert_eq!(client.value(&format!("SELECT {round}")), round.to_string());
    }
    stage.is_whole(&mut client);
}

/// Terminate is allowed at any time. In the middle of a COPY or of a batch the server waits for its client and
/// never owes anything, so pgweir waited too, for ever, and the place was lost.
#[test]
fn case_28_a_client_may_say_goodbye_while_the_server_waits_for_it() {
    let stage = stage(1);
    stage.client().query("CREATE TABLE t (a int)");
    let batch = [
        frames::parse("", "INSERT INTO t VALUES (1)"),
        frames::bind("", "", &[]),
        frames::execute(""),
    ];
    for request in [
        frames::query("COPY t FROM STDIN"),
        [batch.concat(), frames::flush()].concat(),
        [frames::parse("", "SELECT nonsense"), frames::flush()].concat(),
    ] {
        let mut client = stage.client();
        client.send(request);
        client.read();
        client.send(frames::terminate());
        drop(client);
        let mut next = stage.client();
        assert_eq!(next.value("SELECT count(*) FROM t"), "0");
        stage.is_whole(&mut next);
    }
}

/// How a client goes away.
#[derive(Debug, Clone, Copy)]
enum Departure {
    Close,
    Reset,
    HalfClose,
}

fn depart(client: RawClient, how: Departure) {
    let stream = client.into_stream();
    match how {
        Departure::Close => drop(stream),
        Departure::Reset => {
            let none = Some(Duration::ZERO);
            socket2::SockRef::from(&stream).set_linger(none).unwrap();
        }
        Departure::HalfClose => {
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            // Whatever is still said: the connection ends.
            let _ = io::copy(&mut &stream, &mut io::sink());
        }
    }
}

/// A client that vanishes in the middle of a COPY left a server that waited for data for ever, or what it had sent so
/// far was committed.
#[test]
fn case_28_a_client_that_vanishes_in_a_copy_leaves_nothing() {
    let stage = stage(1);
    stage.client().query("CREATE TABLE t (a int)");
    let whole = copy_data("1\n");
    let half = copy_data("2\n".repeat(50_000)).split_at(60_000).0.to_vec();
    let out = "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 1000000)) TO STDOUT";
    for how in [Departure::Close, Departure::Reset, Departure::HalfClose] {
        for (request, data) in [
            (frames::query("COPY t FROM STDIN"), whole.clone()),
            (
                frames::query("COPY t FROM STDIN"),
                [whole.clone(), half.clone()].concat(),
            ),
            ([run("COPY t FROM STDIN"), frames::sync()].concat(), whole.clone()),
            (frames::query(out), Vec::new()),
            (frames::query(out), vec![b'd', 0]),
        ] {
            let mut client = stage.client();
            client.send(request);
            while !b"GH".contains(&client.read().tag) {}
            client.send(data);
            depart(client, how);
            let mut next = stage.client();
            assert_eq!(next.value("SELECT count(*) FROM t"), "0", "{how:?}");
        }
    }
    stage.is_whole(&mut stage.client());
}

/// COPY BOTH is for replication, which is not pooled. A server that begins one all the same is passed through, and
/// nobody else gets it.
#[test]
fn case_28_copy_both_passes_and_its_server_is_not_handed_on() {
    let server = FakeServer::start(|connection| {
        connection.log_in()?;
        loop {
            let message = connection.read()?;
            let ready = frames::ready_for_query(b'I');
            match message.tag {
                b'Q' if message.strings() == ["START"] => {
                    connection.send(frames::frame(b'W', [0, 0, 0]))?;
                    if connection.read()?.body != b"up" {
                        return Ok(());
                    }
                    connection.send(copy_data("down"))?;
                    connection.expect(b'c')?;
                    connection.send([copy_done(), frames::command_complete("COPY 0"), ready].concat())?;
                }
                b'Q' => connection.send([frames::frame(b'I', []), ready].concat())?,
                _ => return Ok(()),
            }
        }
    });
    let pooler = Pooler::builder(&server.address())
        .set("pool.default_pool_size", "1")
        .start();
    let mut client = log_in(&pooler);
    client.send(frames::query("START"));
    assert_eq!(client.read().tag, b'W');
    client.send(copy_data("up"));
    assert_eq!(client.read().body, b"down");
    client.send(copy_done());
    assert_eq!(tags(&client.read_until_ready()), "cCZ");
    assert_eq!(tags(&log_in(&pooler).query("")), "IZ");
    assert_eq!(server.accepted(), 2);
    // And one that is left in the middle of it.
    client.send(frames::query("START"));
    assert_eq!(client.read().tag, b'W');
    drop(client);
    assert_eq!(tags(&log_in(&pooler).query("")), "IZ");
    pooler.wait_until_quiet();
}
