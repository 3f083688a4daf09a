//! tokio-postgres: statements with names of its own (s0, s1, ...) that it describes once, pipelining, portals, COPY.

use std::{process::ExitCode, sync::Arc};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, TryStreamExt, future::try_join_all, pin_mut};
use pgweir_drivers::{Outcome, checks, eventually, is_direct, run, same, together, variable};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_postgres::{
    AsyncMessage, Client, Config, Error, NoTls, Row,
    types::{IsNull, ToSql, Type, to_sql_checked},
};

const CHECKS: &[pgweir_drivers::Check] = checks![
    named_statements,
    statements_come_and_go,
    pipelined,
    pipelined_errors,
    unnamed_statements,
    stale_plan,
    stale_plan_of_another_type,
    stale_plan_in_transaction,
    table_made_again,
    failed_parse,
    deallocate,
    own_types,
    savepoints,
    portals,
    row_streams,
    settings_are_kept,
    set_role,
    search_path_of_each,
    startup_options,
    temporary_tables,
    listen_and_notify,
    advisory_locks,
    copy_in_and_out,
    large_values,
    many_rows,
    cancel,
    killed_in_mid_transaction,
    notices,
    transaction_that_is_dropped,
];

#[tokio::main]
async fn main() -> ExitCode {
    run(CHECKS).await
}

type Messages = UnboundedReceiver<AsyncMessage>;

fn config() -> Config {
    let mut config = Config::new();
    config
        .host(variable("PGHOST"))
        .port(variable("PGPORT").parse().unwrap_or(0))
        .user(variable("PGUSER"))
        .password(variable("PGPASSWORD"))
        .dbname(variable("PGDATABASE"));
    config
}

async fn connect() -> Outcome<Client> {
    Ok(connect_with(&config()).await?.0)
}

async fn connect_with(config: &Config) -> Outcome<(Client, Messages)> {
    let (client, mut connection) = config.connect(NoTls).await?;
    let (sender, messages) = unbounded_channel();
    let mut stream = futures_util::stream::poll_fn(move |context| connection.poll_message(context));
    tokio::spawn(async move {
        while let Some(Ok(message)) = stream.next().await {
            // Most checks do not listen.
            let _ = sender.send(message);
        }
    });
    Ok((client, messages))
}

/// Keeps the server connection that was used last busy until it is dropped, so that a pool has to use another one.
async fn elsewhere() -> Outcome<Client> {
    let other = connect().await?;
    other.batch_execute("BEGIN; SELECT 1").await?;
    Ok(other)
}

async fn value(client: &Client, sql: &str) -> Outcome<String> {
    let messages = client.simple_query(sql).await?;
    let rows = messages.into_iter().filter_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let row = rows.last().ok_or("no row")?;
    Ok(row.get(0).unwrap_or_default().to_owned())
}

fn fails<T>(result: Result<T, Error>, sqlstate: &str) -> Outcome {
    pgweir_drivers::fails(result, sqlstate, |error| {
        error.code().map(|code| code.code().to_owned())
    })
}

async fn named_statements() -> Outcome {
    together(|number| async move {
        let mut client = connect().await?;
        let sum = client.prepare(&format!("SELECT {number} + $1::int4")).await?;
        let text = client.prepare(&format!("SELECT '{number} ' || $1")).await?;
        for turn in 0..25 {
            same(
                client.query_one(&sum, &[&turn]).await?.get::<_, i32>(0),
                number + turn,
            )?;
            let transaction = client.transaction().await?;
            let row = transaction.query_one(&text, &[&turn.to_string()]).await?;
            same(row.get::<_, String>(0), format!("{number} {turn}"))?;
            transaction.commit().await?;
        }
        Ok(())
    })
    .await
}

/// A statement that is dropped is closed, whenever the next message goes out.
async fn statements_come_and_go() -> Outcome {
    together(|number| async move {
        let client = connect().await?;
        for turn in 0..40 {
            let row = client
                .query_one(&format!("SELECT {number} + $1::int4"), &[&turn])
                .await?;
            same(row.get::<_, i32>(0), number + turn)?;
        }
        Ok(())
    })
    .await
}

async fn pipelined() -> Outcome {
    together(|number| async move {
        let client = connect().await?;
        let statement = client.prepare("SELECT $1::int4 + $2::int4").await?;
        for _ in 0..5 {
            let parameters: Vec<[i32; 2]> = (0..40).map(|turn| [number, turn]).collect();
            let queries = parameters
                .iter()
                .map(|[a, b]| async { client.query_one(&statement, &[a, b]).await });
            for (row, [a, b]) in try_join_all(queries).await?.iter().zip(&parameters) {
                same(row.get::<_, i32>(0), a + b)?;
            }
        }
        Ok(())
    })
    .await
}

async fn pipelined_errors() -> Outcome {
    together(|number| async move {
        let client = connect().await?;
        let divided = client.prepare("SELECT 12 / $1::int4").await?;
        for turn in 0..15 {
            let sum: [&(dyn ToSql + Sync); 1] = [&(number + turn)];
            let (good, bad, unknown, after) = tokio::join!(
                client.query_one(&divided, &[&3]),
                client.query_one(&divided, &[&0]),
                client.prepare("SELECT nothing FROM nowhere"),
                client.query_one("SELECT $1::int4", &sum),
            );
            same(good?.get::<_, i32>(0), 4)?;
            fails(bad, "22012")?;
            fails(unknown, "42P01")?;
            same(after?.get::<_, i32>(0), number + turn)?;
        }
        Ok(())
    })
    .await
}

async fn unnamed_statements() -> Outcome {
    together(|number| async move {
        let client = connect().await?;
        for turn in 0..25 {
            let rows = client
                .query_typed("SELECT $1 + $2", &[(&number, Type::INT4), (&turn, Type::INT4)])
                .await?;
            same(rows[0].get::<_, i32>(0), number + turn)?;
        }
        Ok(())
    })
    .await
}

/// PostgreSQL refuses a plan whose rows have another shape than those that this driver was told of, once.
async fn stale_plan() -> Outcome {
    let (client, owner) = (connect().await?, connect().await?);
    owner
        .batch_execute("DROP TABLE IF EXISTS stale; CREATE TABLE stale AS SELECT 1 AS id")
        .await?;
    let statement = client.prepare("SELECT * FROM stale").await?;
    same(client.query_one(&statement, &[]).await?.get::<_, i32>(0), 1)?;
    owner
        .batch_execute("ALTER TABLE stale ADD COLUMN word text DEFAULT 'new'")
        .await?;
    match client.query_one(&statement, &[]).await {
        Ok(row) if !is_direct() => same(row.get::<_, i32>(0), 1)?,
        refused => fails(refused, "0A000")?,
    }
    let row = client.query_one("SELECT * FROM stale", &[]).await?;
    same((row.get(0), row.get(1)), (1, "new"))
}

/// An int4 that became a float4 is as long in binary: rows must not come unannounced.
async fn stale_plan_of_another_type() -> Outcome {
    let (client, owner) = (connect().await?, connect().await?);
    owner
        .batch_execute("DROP TABLE IF EXISTS retyped; CREATE TABLE retyped AS SELECT 1 AS id")
        .await?;
    let statement = client.prepare("SELECT * FROM retyped").await?;
    same(client.query_one(&statement, &[]).await?.get::<_, i32>(0), 1)?;
    owner
        .batch_execute("ALTER TABLE retyped ALTER COLUMN id TYPE float4 USING id + 0.5")
        .await?;
    fails(client.query_one(&statement, &[]).await, "0A000")?;
    let again = client.prepare("SELECT * FROM retyped").await?;
    let _other = elsewhere().await?;
    same(client.query_one(&again, &[]).await?.get::<_, f32>(0), 1.5)
}

async fn stale_plan_in_transaction() -> Outcome {
    let (mut client, owner) = (connect().await?, connect().await?);
    owner
        .batch_execute("DROP TABLE IF EXISTS stale_inside; CREATE TABLE stale_inside AS SELECT 1 AS id")
        .await?;
    let statement = client.prepare("SELECT * FROM stale_inside").await?;
    client.query_one(&statement, &[]).await?;
    owner
        .batch_execute("ALTER TABLE stale_inside ALTER COLUMN id TYPE text")
        .await?;
    let transaction = client.transaction().await?;
    fails(transaction.query_one(&statement, &[]).await, "0A000")?;
    fails(transaction.simple_query("SELECT 1").await, "25P02")?;
    transaction.rollback().await?;
    let row = client.query_one("SELECT * FROM stale_inside", &[]).await?;
    same(row.get::<_, String>(0), "1")
}

async fn table_made_again() -> Outcome {
    let (client, owner) = (connect().await?, connect().await?);
    let mut statement = None;
    for content in 0..4 {
        let sql = format!("DROP TABLE IF EXISTS again; CREATE TABLE again AS SELECT {content} AS id");
        owner.batch_execute(&sql).await?;
        let statement = match &mut statement {
            Some(statement) => statement,
            none => none.insert(client.prepare("SELECT * FROM again").await?),
        };
        same(
            client.query_one(&*statement, &[]).await?.get::<_, i32>(0),
            content,
        )?;
    }
    Ok(())
}

async fn failed_parse() -> Outcome {
    let client = connect().await?;
    for turn in 0..5 {
        fails(client.prepare("SELECT FROM WHERE").await, "42601")?;
        let _other = elsewhere().await?;
        same(
            client
                .query_one("SELECT $1::int4", &[&turn])
                .await?
                .get::<_, i32>(0),
            turn,
        )?;
    }
    Ok(())
}

async fn deallocate() -> Outcome {
    for word in ["DEALLOCATE ALL", "DISCARD ALL"] {
        let client = connect().await?;
        let statement = client.prepare("SELECT 1").await?;
        client.batch_execute(word).await?;
        fails(client.query(&statement, &[]).await, "26000")?;
        let _other = elsewhere().await?;
        fails(client.query(&statement, &[]).await, "26000")?;
        same(client.query_one("SELECT 2", &[]).await?.get::<_, i32>(0), 2)?;
    }
    Ok(())
}

/// The driver asks for what it does not know with statements of its own, in the middle of a prepare.
async fn own_types() -> Outcome {
    let owner = connect().await?;
    let sql = "DROP TYPE IF EXISTS mood; CREATE TYPE mood AS ENUM ('fine', 'bad')";
    owner.batch_execute(sql).await?;
    together(|_| async {
        let client = connect().await?;
        let statement = client
            .prepare("SELECT ARRAY['fine'::mood, $1], 'bad'::mood")
            .await?;
        same(statement.params()[0].name(), "mood")?;
        same(statement.columns()[0].type_().name(), "_mood")?;
        same(client.query(&statement, &[&None::<Mood>]).await?.len(), 1)
    })
    .await
}

#[derive(Debug)]
struct Mood;

impl ToSql for Mood {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut bytes::BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(b"fine");
        Ok(IsNull::No)
    }

    fn accepts(of: &Type) -> bool {
        of.name() == "mood"
    }

    to_sql_checked!();
}

async fn savepoints() -> Outcome {
    together(|number| async move {
        let mut client = connect().await?;
        for _ in 0..5 {
            let mut outer = client.transaction().await?;
            let inner = outer.transaction().await?;
            fails(inner.query_one("SELECT 1 / $1::int4", &[&0]).await, "22012")?;
            inner.rollback().await?;
            same(
                outer
                    .query_one("SELECT $1::int4", &[&number])
                    .await?
                    .get::<_, i32>(0),
                number,
            )?;
            outer.commit().await?;
        }
        Ok(())
    })
    .await
}

/// Execute with a limit, PortalSuspended, Sync, and Execute again in the same transaction.
async fn portals() -> Outcome {
    together(|number| async move {
        let mut client = connect().await?;
        let transaction = client.transaction().await?;
        let sql = "SELECT i + $1::int4 FROM generate_series(1, 25) i";
        let portal = transaction.bind(sql, &[&number]).await?;
        let other = transaction.bind(sql, &[&0]).await?;
        for expected in [10, 10, 5, 0] {
            same(transaction.query_portal(&portal, 10).await?.len(), expected)?;
        }
        same(transaction.query_portal(&other, 0).await?.len(), 25)?;
        transaction.commit().await?;
        Ok(())
    })
    .await
}

/// A stream that is dropped before its end: the rest is still to come.
async fn row_streams() -> Outcome {
    together(|number| async move {
        let client = connect().await?;
        let sql = "SELECT i + $1::int4 FROM generate_series(1, 5000) i";
        {
            let stream = client.query_raw(sql, [number]).await?;
            pin_mut!(stream);
            let row: Option<Row> = stream.try_next().await?;
            same(row.map(|row| row.get::<_, i32>(0)), Some(number + 1))?;
        }
        same(client.query(sql, &[&number]).await?.len(), 5000)
    })
    .await
}

async fn settings_are_kept() -> Outcome {
    together(|number| async move {
        let mut client = connect().await?;
        let mine = number % 3 == 0;
        let expected = if mine {
            format!("{}MB", number + 64)
        } else {
            "4MB".into()
        };
        if mine {
            client
                .batch_execute(&format!("SET work_mem = '{expected}'"))
                .await?;
        }
        for _ in 0..10 {
            same(value(&client, "SHOW work_mem").await?, expected.as_str())?;
            let transaction = client.transaction().await?;
            transaction
                .batch_execute("SET work_mem = '1MB'; SET LOCAL lock_timeout = 7")
                .await?;
            if mine {
                transaction.batch_execute("SET LOCAL work_mem = '2MB'").await?;
            }
            transaction.rollback().await?;
            same(value(&client, "SHOW lock_timeout").await?, "0")?;
        }
        Ok(())
    })
    .await
}

async fn set_role() -> Outcome {
    together(|number| async move {
        let client = connect().await?;
        let role = if number % 2 == 0 { "app" } else { "visitor" };
        client.batch_execute(&format!("SET ROLE {role}")).await?;
        for _ in 0..10 {
            let row = client.query_one("SELECT current_user::text", &[]).await?;
            same(row.get::<_, String>(0), role)?;
        }
        Ok(())
    })
    .await
}

async fn search_path_of_each() -> Outcome {
    let owner = connect().await?;
    for number in 0..4 {
        let schema = format!("tenant{number}");
        let sql = format!(
            "DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema};
             CREATE TABLE {schema}.place AS SELECT '{schema}' AS name"
        );
        owner.batch_execute(&sql).await?;
    }
    together(|number| async move {
        let client = connect().await?;
        let schema = format!("tenant{}", number % 4);
        client
            .batch_execute(&format!("SET search_path = {schema}"))
            .await?;
        let statement = client.prepare("SELECT name FROM place").await?;
        for _ in 0..20 {
            same(
                client.query_one(&statement, &[]).await?.get::<_, String>(0),
                schema.as_str(),
            )?;
        }
        Ok(())
    })
    .await
}

async fn startup_options() -> Outcome {
    together(|number| async move {
        let options = format!("-c work_mem={}MB -c search_path=s{number}", number + 64);
        let mut config = config();
        config.options(options).application_name(format!("app {number}"));
        let (client, _messages) = connect_with(&config).await?;
        for _ in 0..8 {
            same(
                value(&client, "SHOW work_mem").await?,
                format!("{}MB", number + 64),
            )?;
            same(value(&client, "SHOW search_path").await?, format!("s{number}"))?;
            same(
                value(&client, "SHOW application_name").await?,
                format!("app {number}"),
            )?;
        }
        Ok(())
    })
    .await
}

async fn temporary_tables() -> Outcome {
    let (client, other) = (connect().await?, connect().await?);
    client
        .batch_execute("CREATE TEMP TABLE scratch (id int4)")
        .await?;
    let insert = client.prepare("INSERT INTO scratch VALUES ($1)").await?;
    for turn in 0..5 {
        same(client.execute(&insert, &[&turn]).await?, 1)?;
        fails(other.query("SELECT * FROM scratch", &[]).await, "42P01")?;
    }
    same(value(&client, "SELECT count(*) FROM scratch").await?, "5")
}

async fn listen_and_notify() -> Outcome {
    let ((listener, mut messages), sender) = (connect_with(&config()).await?, connect().await?);
    listener.batch_execute("LISTEN news").await?;
    for turn in 0..3 {
        let payload = turn.to_string();
        sender
            .execute("SELECT pg_notify('news', $1)", &[&payload])
            .await?;
        match messages.recv().await {
            Some(AsyncMessage::Notification(note)) => same(note.payload(), payload.as_str())?,
            other => return Err(format!("no notification: {other:?}").into()),
        }
    }
    listener.batch_execute("UNLISTEN *").await?;
    Ok(())
}

async fn advisory_locks() -> Outcome {
    let (holder, other) = (connect().await?, connect().await?);
    holder.query("SELECT pg_advisory_lock($1)", &[&42_i64]).await?;
    for _ in 0..4 {
        same(value(&other, "SELECT pg_try_advisory_lock(42)").await?, "f")?;
        same(value(&holder, "SELECT 1").await?, "1")?;
    }
    same(value(&holder, "SELECT pg_advisory_unlock(42)").await?, "t")?;
    same(value(&other, "SELECT pg_try_advisory_lock(42)").await?, "t")?;
    same(value(&other, "SELECT pg_advisory_unlock(42)").await?, "t")
}

async fn copy_in_and_out() -> Outcome {
    let owner = connect().await?;
    let sql = "DROP TABLE IF EXISTS copied; CREATE TABLE copied (client int4, word text)";
    owner.batch_execute(sql).await?;
    together(|number| async move {
        let client = connect().await?;
        let into = "COPY copied FROM STDIN";
        let sink = client.copy_in::<_, Bytes>(into).await?;
        pin_mut!(sink);
        for turn in 0..100 {
            sink.send(format!("{number}\tword {turn}\n").into()).await?;
        }
        same(sink.finish().await?, 100)?;
        let broken = client.copy_in::<_, Bytes>(into).await?;
        pin_mut!(broken);
        broken.send(Bytes::from_static(b"no number\tword\n")).await?;
        fails(broken.finish().await, "22P02")?;
        // Dropped, it fails.
        drop(client.copy_in::<_, Bytes>(into).await?);
        let from = format!("COPY (SELECT word FROM copied WHERE client = {number}) TO STDOUT");
        let rows: Vec<Bytes> = client.copy_out(&from).await?.try_collect().await?;
        same(rows.len(), 100)
    })
    .await
}

async fn large_values() -> Outcome {
    let text = Arc::new("0123456789abcdef".repeat(256 * 1024));
    together(|_| {
        let text = Arc::clone(&text);
        async move {
            let client = connect().await?;
            let row = client
                .query_one("SELECT $1::text, $2::bytea", &[&*text, &text.as_bytes()])
                .await?;
            same(row.get::<_, &str>(0) == text.as_str(), true)?;
            same(row.get::<_, &[u8]>(1) == text.as_bytes(), true)
        }
    })
    .await
}

async fn many_rows() -> Outcome {
    together(|number| async move {
        let client = connect().await?;
        let sql = "SELECT i, 'row ' || i FROM generate_series(1, $1::int4) i";
        let rows = client.query(sql, &[&(10_000 + number)]).await?;
        let last = rows.last().ok_or("no rows")?;
        same(
            (last.get(0), last.get(1)),
            (10_000 + number, format!("row {}", 10_000 + number).as_str()),
        )
    })
    .await
}

async fn cancel() -> Outcome {
    let (client, other) = (connect().await?, connect().await?);
    let running = client.simple_query("/* tokio */ SELECT pg_sleep(15)");
    let stopping = async {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '/* tokio %'";
        let runs = || async { Ok(value(&other, sql).await? == "1") };
        eventually("the query runs", runs).await?;
        Ok(client.cancel_token().cancel_query(NoTls).await?)
    };
    let (stopped, outcome): (_, Outcome) = tokio::join!(running, stopping);
    outcome?;
    fails(stopped, "57014")?;
    same(value(&client, "SELECT 1").await?, "1")
}

async fn killed_in_mid_transaction() -> Outcome {
    let owner = connect().await?;
    let sql = "DROP TABLE IF EXISTS killed; CREATE TABLE killed (id int4 PRIMARY KEY)";
    owner.batch_execute(sql).await?;
    together(|number| async move {
        let (client, connection) = config().connect(NoTls).await?;
        let task = tokio::spawn(connection);
        client
            .batch_execute("BEGIN; INSERT INTO killed VALUES (0)")
            .await?;
        // Without a Terminate.
        task.abort();
        let survivor = connect().await?;
        same(
            survivor
                .query_one("SELECT $1::int4", &[&number])
                .await?
                .get::<_, i32>(0),
            number,
        )
    })
    .await?;
    owner.batch_execute("INSERT INTO killed VALUES (0)").await?;
    Ok(())
}

async fn notices() -> Outcome {
    let (client, mut messages) = connect_with(&config()).await?;
    for turn in 0..3 {
        let _other = elsewhere().await?;
        let sql = format!("DO $$ BEGIN RAISE WARNING 'turn {turn}'; END $$");
        client.batch_execute(&sql).await?;
        match messages.recv().await {
            Some(AsyncMessage::Notice(notice)) => same(notice.message(), format!("turn {turn}"))?,
            other => return Err(format!("no notice: {other:?}").into()),
        }
    }
    Ok(())
}

/// Its ROLLBACK goes out with whatever comes next.
async fn transaction_that_is_dropped() -> Outcome {
    together(|number| async move {
        let mut client = connect().await?;
        for _ in 0..10 {
            let transaction = client.transaction().await?;
            transaction.batch_execute("SET work_mem = '1MB'").await?;
            drop(transaction);
            same(
                client
                    .query_one("SELECT $1::int4", &[&number])
                    .await?
                    .get::<_, i32>(0),
                number,
            )?;
            same(value(&client, "SHOW work_mem").await?, "4MB")?;
        }
        Ok(())
    })
    .await
}
