//! sqlx: it prepares and caches whatever has parameters, closes what it evicts, and keeps a pool of its own.

use std::{process::ExitCode, time::Duration};

use futures_util::TryStreamExt;
use pgweir_drivers::{Outcome, checks, fails, run, same, together, variable};
use sqlx::{
    AssertSqlSafe, Connection, Executor, PgConnection, Postgres, Row,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgListener, PgPool, PgPoolOptions},
};

const CHECKS: &[pgweir_drivers::Check] = checks![
    named_statements,
    evicted_statements,
    unnamed_statements,
    stale_plan,
    table_made_again,
    failed_statements,
    deallocate,
    savepoints,
    settings_are_kept,
    startup_options,
    search_path_of_each,
    temporary_tables,
    listener,
    migration_lock,
    rows_one_by_one,
    copy_in_and_out,
    large_values,
    many_rows,
    killed_in_mid_transaction,
    pool,
    pool_in_mid_query,
];

#[tokio::main]
async fn main() -> ExitCode {
    run(CHECKS).await
}

fn options() -> PgConnectOptions {
    PgConnectOptions::new()
        .host(&variable("PGHOST"))
        .port(variable("PGPORT").parse().unwrap_or(0))
        .username(&variable("PGUSER"))
        .password(&variable("PGPASSWORD"))
        .database(&variable("PGDATABASE"))
}

async fn connect() -> Outcome<PgConnection> {
    Ok(PgConnection::connect_with(&options()).await?)
}

/// Keeps the server connection that was used last busy until it is dropped, so that a pool has to use another one.
async fn elsewhere() -> Outcome<PgConnection> {
    let mut other = connect().await?;
    other.execute("BEGIN; SELECT 1").await?;
    Ok(other)
}

async fn execute(connection: &mut PgConnection, sql: impl Into<String>) -> Outcome {
    connection.execute(AssertSqlSafe(sql.into())).await?;
    Ok(())
}

/// By a prepared statement, with `number` as parameter.
async fn sum(connection: &mut PgConnection, sql: impl Into<String>, number: i32) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar(AssertSqlSafe(sql.into()))
        .bind(number)
        .fetch_one(connection)
        .await
}

/// By a prepared statement without parameters.
async fn text(connection: &mut PgConnection, sql: impl Into<String>) -> Result<String, sqlx::Error> {
    sqlx::query_scalar(AssertSqlSafe(sql.into()))
        .fetch_one(connection)
        .await
}

fn refused<T>(result: Result<T, sqlx::Error>, sqlstate: &str) -> Outcome {
    fails(result, sqlstate, |error| {
        let code = error.as_database_error().and_then(|error| error.code());
        code.map(|code| code.into_owned())
    })
}

async fn named_statements() -> Outcome {
    together(|number| async move {
        let mut connection = connect().await?;
        for turn in 0..25 {
            let sql = format!("SELECT {number} * 1000 + $1");
            same(sum(&mut connection, sql, turn).await?, number * 1000 + turn)?;
            let mut transaction = connection.begin().await?;
            let sql = format!("SELECT {number} + $1");
            same(sum(&mut transaction, sql, turn).await?, number + turn)?;
            transaction.commit().await?;
        }
        Ok(())
    })
    .await
}

async fn evicted_statements() -> Outcome {
    together(|number| async move {
        let options = options().statement_cache_capacity(3);
        let mut connection = PgConnection::connect_with(&options).await?;
        for turn in 0..40 {
            let sql = format!("SELECT {} + $1", turn % 7);
            same(sum(&mut connection, sql, number).await?, turn % 7 + number)?;
        }
        connection.clear_cached_statements().await?;
        same(sum(&mut connection, "SELECT 1 + $1", number).await?, number + 1)
    })
    .await
}

/// Parsed and described in one batch, bound in the next.
async fn unnamed_statements() -> Outcome {
    together(|number| async move {
        let mut connection = connect().await?;
        for turn in 0..25 {
            let query = sqlx::query_scalar(AssertSqlSafe(format!("SELECT {number} + $1")));
            let found: i32 = query
                .bind(turn)
                .persistent(false)
                .fetch_one(&mut connection)
                .await?;
            same(found, number + turn)?;
        }
        Ok(())
    })
    .await
}

/// An int4 that became a float4 is as long in binary: rows must not come unannounced.
async fn stale_plan() -> Outcome {
    let (mut connection, mut owner) = (connect().await?, connect().await?);
    execute(
        &mut owner,
        "DROP TABLE IF EXISTS stale; CREATE TABLE stale AS SELECT 1 AS id",
    )
    .await?;
    let sql = "SELECT * FROM stale";
    same(
        sqlx::query(sql)
            .fetch_one(&mut connection)
            .await?
            .get::<i32, _>(0),
        1,
    )?;
    execute(
        &mut owner,
        "ALTER TABLE stale ALTER COLUMN id TYPE float4 USING id + 0.5",
    )
    .await?;
    match sqlx::query(sql).fetch_one(&mut connection).await {
        Ok(row) => same(row.try_get::<f32, _>(0)?, 1.5)?,
        error => refused(error, "0A000")?,
    }
    connection.clear_cached_statements().await?;
    let _other = elsewhere().await?;
    same(
        sqlx::query(sql)
            .fetch_one(&mut connection)
            .await?
            .get::<f32, _>(0),
        1.5,
    )
}

async fn table_made_again() -> Outcome {
    let (mut connection, mut owner) = (connect().await?, connect().await?);
    for content in 0..4 {
        let sql = format!("DROP TABLE IF EXISTS again; CREATE TABLE again AS SELECT {content} AS id");
        execute(&mut owner, sql).await?;
        same(
            sum(&mut connection, "SELECT id FROM again WHERE id >= $1", 0).await?,
            content,
        )?;
    }
    Ok(())
}

async fn failed_statements() -> Outcome {
    together(|number| async move {
        let mut connection = connect().await?;
        for turn in 0..10 {
            refused(sum(&mut connection, "SELECT FROM WHERE $1", turn).await, "42601")?;
            refused(sum(&mut connection, "SELECT 1 / ($1 - $1)", turn).await, "22012")?;
            let sql = format!("SELECT {number} + $1");
            same(sum(&mut connection, sql, turn).await?, number + turn)?;
        }
        Ok(())
    })
    .await
}

async fn deallocate() -> Outcome {
    for word in ["DEALLOCATE ALL", "DISCARD ALL"] {
        let mut connection = connect().await?;
        same(sum(&mut connection, "SELECT $1", 1).await?, 1)?;
        execute(&mut connection, word).await?;
        refused(sum(&mut connection, "SELECT $1", 1).await, "26000")?;
        let _other = elsewhere().await?;
        refused(sum(&mut connection, "SELECT $1", 1).await, "26000")?;
        same(sum(&mut connection, "SELECT 1 + $1", 1).await?, 2)?;
    }
    Ok(())
}

async fn savepoints() -> Outcome {
    together(|number| async move {
        let mut connection = connect().await?;
        for _ in 0..5 {
            let mut outer = connection.begin().await?;
            let mut inner = outer.begin().await?;
            refused(sum(&mut inner, "SELECT 1 / $1", 0).await, "22012")?;
            inner.rollback().await?;
            same(sum(&mut outer, "SELECT $1", number).await?, number)?;
            // Dropped, it is rolled back with whatever comes next.
            drop(outer.begin().await?);
            same(sum(&mut outer, "SELECT $1", number).await?, number)?;
            outer.commit().await?;
        }
        Ok(())
    })
    .await
}

async fn settings_are_kept() -> Outcome {
    together(|number| async move {
        let mut connection = connect().await?;
        let mine = number % 3 == 0;
        let expected = if mine {
            format!("{}MB", number + 64)
        } else {
            "4MB".into()
        };
        if mine {
            execute(&mut connection, format!("SET work_mem = '{expected}'")).await?;
        }
        for _ in 0..10 {
            same(text(&mut connection, "SHOW work_mem").await?, expected.as_str())?;
            let mut transaction = connection.begin().await?;
            execute(
                &mut transaction,
                "SET work_mem = '1MB'; SET LOCAL lock_timeout = 7",
            )
            .await?;
            transaction.rollback().await?;
            same(text(&mut connection, "SHOW lock_timeout").await?, "0")?;
        }
        Ok(())
    })
    .await
}

async fn startup_options() -> Outcome {
    together(|number| async move {
        let settings = [
            ("work_mem", format!("{}MB", number + 64)),
            ("search_path", format!("s{number}")),
        ];
        let options = options()
            .options(settings.clone())
            .application_name(&format!("app {number}"))
            .extra_float_digits(Some(1));
        let mut connection = PgConnection::connect_with(&options).await?;
        for _ in 0..8 {
            for (name, value) in &settings {
                same(&text(&mut connection, format!("SHOW {name}")).await?, value)?;
            }
            same(
                text(&mut connection, "SHOW application_name").await?,
                format!("app {number}"),
            )?;
            same(text(&mut connection, "SHOW extra_float_digits").await?, "1")?;
            // sqlx asks for it at each connect.
            same(text(&mut connection, "SHOW TimeZone").await?, "UTC")?;
        }
        Ok(())
    })
    .await
}

async fn search_path_of_each() -> Outcome {
    let mut owner = connect().await?;
    for number in 0..4 {
        let sql = format!(
            "DROP SCHEMA IF EXISTS of{number} CASCADE; CREATE SCHEMA of{number};
             CREATE TABLE of{number}.place AS SELECT {number} AS number"
        );
        execute(&mut owner, sql).await?;
    }
    together(|number| async move {
        let mut connection = connect().await?;
        execute(&mut connection, format!("SET search_path = of{}", number % 4)).await?;
        for _ in 0..20 {
            same(
                sum(&mut connection, "SELECT number + $1 FROM place", 0).await?,
                number % 4,
            )?;
        }
        Ok(())
    })
    .await
}

async fn temporary_tables() -> Outcome {
    let (mut connection, mut other) = (connect().await?, connect().await?);
    execute(&mut connection, "CREATE TEMP TABLE scratch (id int4)").await?;
    for turn in 0..5 {
        let insert = sqlx::query("INSERT INTO scratch VALUES ($1)").bind(turn);
        same(insert.execute(&mut connection).await?.rows_affected(), 1)?;
        refused(sum(&mut other, "SELECT id + $1 FROM scratch", 0).await, "42P01")?;
    }
    same(
        sum(&mut connection, "SELECT count(*)::int4 + $1 FROM scratch", 0).await?,
        5,
    )
}

/// It holds a connection of the pool for itself and listens on many channels.
async fn listener() -> Outcome {
    let pool = PgPoolOptions::new()
        .max_connections(2)
        .connect_with(options())
        .await?;
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.listen_all(["news", "weather"]).await?;
    for turn in 0..3 {
        let notify = sqlx::query("SELECT pg_notify('weather', $1)").bind(turn.to_string());
        notify.execute(&pool).await?;
        same(listener.recv().await?.payload(), turn.to_string().as_str())?;
    }
    listener.unlisten_all().await?;
    drop(listener);
    pool.close().await;
    Ok(())
}

/// What `sqlx migrate` does: a session lock over many transactions.
async fn migration_lock() -> Outcome {
    let (mut migrator, mut other) = (connect().await?, connect().await?);
    let held = "SELECT pg_try_advisory_lock(1234)::text";
    execute(&mut migrator, "SELECT pg_advisory_lock(1234)").await?;
    for _ in 0..4 {
        same(text(&mut other, held).await?, "false")?;
        let mut transaction = migrator.begin().await?;
        execute(
            &mut transaction,
            "CREATE TABLE IF NOT EXISTS migrations (id int4)",
        )
        .await?;
        transaction.commit().await?;
    }
    same(
        text(&mut migrator, "SELECT pg_advisory_unlock(1234)::text").await?,
        "true",
    )?;
    same(text(&mut other, held).await?, "true")
}

async fn rows_one_by_one() -> Outcome {
    together(|number| async move {
        let mut connection = connect().await?;
        let sql = "SELECT i + $1 FROM generate_series(1, 500) i";
        let mut rows = sqlx::query_scalar::<_, i32>(sql)
            .bind(number)
            .fetch(&mut connection);
        let mut total = 0;
        while let Some(value) = rows.try_next().await? {
            total += value;
        }
        drop(rows);
        same(total, 125_250 + 500 * number)?;
        // One row of many: a portal with a limit.
        let first = sqlx::query_scalar::<_, i32>(sql).bind(number);
        same(first.fetch_optional(&mut connection).await?, Some(number + 1))
    })
    .await
}

async fn copy_in_and_out() -> Outcome {
    let mut owner = connect().await?;
    execute(
        &mut owner,
        "DROP TABLE IF EXISTS copied; CREATE TABLE copied (client int4)",
    )
    .await?;
    together(|number| async move {
        let mut connection = connect().await?;
        let mut copy = connection.copy_in_raw("COPY copied FROM STDIN").await?;
        copy.send(format!("{number}\n").repeat(100).into_bytes()).await?;
        same(copy.finish().await?, 100)?;
        let mut copy = connection.copy_in_raw("COPY copied FROM STDIN").await?;
        copy.send(b"no number\n".as_slice()).await?;
        refused(copy.finish().await, "22P02")?;
        let copy = connection.copy_in_raw("COPY copied FROM STDIN").await?;
        copy.abort("given up").await?;
        let sql = format!("COPY (SELECT 1 FROM copied WHERE client = {number}) TO STDOUT");
        let rows: Vec<_> = connection.copy_out_raw(&sql).await?.try_collect().await?;
        same(rows.len(), 100)
    })
    .await
}

async fn large_values() -> Outcome {
    together(|_| async move {
        let mut connection = connect().await?;
        let bytes = b"0123456789abcdef".repeat(256 * 1024);
        let query = sqlx::query_scalar("SELECT $1::bytea").bind(&bytes);
        let found: Vec<u8> = query.fetch_one(&mut connection).await?;
        same(found == bytes, true)
    })
    .await
}

async fn many_rows() -> Outcome {
    together(|number| async move {
        let mut connection = connect().await?;
        let query = sqlx::query("SELECT i, 'row ' || i FROM generate_series(1, $1) i").bind(10_000 + number);
        let rows = query.fetch_all(&mut connection).await?;
        let last = rows.last().ok_or("no rows")?;
        same((last.get::<i32, _>(0), rows.len()), (10_000 + number, rows.len()))
    })
    .await
}

async fn killed_in_mid_transaction() -> Outcome {
    let mut owner = connect().await?;
    execute(
        &mut owner,
        "DROP TABLE IF EXISTS killed; CREATE TABLE killed (id int4 PRIMARY KEY)",
    )
    .await?;
    together(|number| async move {
        let mut connection = connect().await?;
        execute(&mut connection, "BEGIN; INSERT INTO killed VALUES (0)").await?;
        drop(connection);
        same(sum(&mut connect().await?, "SELECT $1", number).await?, number)
    })
    .await?;
    execute(&mut owner, "INSERT INTO killed VALUES (0)").await
}

async fn pool() -> Outcome {
    let pool = PgPoolOptions::new()
        .max_connections(8)
        .test_before_acquire(true)
        .connect_with(options())
        .await?;
    let shared = pool.clone();
    together(move |number| {
        let pool: PgPool = shared.clone();
        async move {
            for turn in 0..20 {
                let mut connection: PoolConnection<Postgres> = pool.acquire().await?;
                let sql = format!("SELECT {turn} + $1");
                same(sum(&mut connection, sql, number).await?, turn + number)?;
            }
            Ok(())
        }
    })
    .await?;
    pool.close().await;
    Ok(())
}

/// A query that is given up leaves its answer on the way; the pool's next user must not get it.
async fn pool_in_mid_query() -> Outcome {
    let options = PgPoolOptions::new().max_connections(2).connect_with(options());
    let pool = options.await?;
    for turn in 0..3 {
        let slow = sqlx::query_scalar::<_, i32>("SELECT 7 FROM pg_sleep(0.4)").fetch_one(&pool);
        let given_up = tokio::time::timeout(Duration::from_millis(10), slow).await;
        same(given_up.is_err(), true)?;
        let query = sqlx::query_scalar::<_, i32>("SELECT $1").bind(turn);
        same(query.fetch_one(&pool).await?, turn)?;
    }
    pool.close().await;
    Ok(())
}
