//! A server that goes away and comes back, under load.

use std::{
    io::ErrorKind,
    process::Stdio,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    checks::{assert_settled, field, knock},
    support::{Frame, Pooler, RawClient, Stop, eventually, frames, postgres},
};

/// What a client that asks all the time has met.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    answers: AtomicUsize,
    /// When the last answer came.
    last: Mutex<Option<Instant>>,
}

impl Load {
    /// Asks until told to stop, on a new connection after each error; the errors.
    fn run(&self, pooler: &Pooler, in_block: bool) -> Vec<Frame> {
        let mut errors = Vec::new();
        let statements: &[&str] = if in_block {
            &["BEGIN", "SELECT pg_sleep(0.001)", "COMMIT"]
        } else {
            &["SELECT pg_sleep(0.001)"]
        };
        while !self.stop.load(Ordering::Relaxed) {
            let mut client = knock(pooler, &[]);
            let mut alive = Self::ask(&mut client, None, &mut errors);
            while alive && !self.stop.load(Ordering::Relaxed) {
                for statement in statements {
                    alive = alive && Self::ask(&mut client, Some(statement), &mut errors);
                }
                if alive {
                    self.answers.fetch_add(1, Ordering::Relaxed);
                    *self.last.lock().unwrap() = Some(Instant::now());
                }
            }
        }
        errors
    }

    /// Sends a query, if any, and reads up to ReadyForQuery. An error must be the only one and the last word.
    fn ask(client: &mut RawClient, sql: Option<&str>, errors: &mut Vec<Frame>) -> bool {
        if let Some(sql) = sql {
            // Whoever cannot send may still read why.
            let _ = client.try_send(frames::query(sql));
        }
        let (mut failed, mut messages) = (false, Vec::new());
        loop {
            match client.try_read() {
                Ok(message) if message.tag == b'Z' => return !failed,
                Ok(message) => {
                    if message.tag == b'E' {
                        assert!(!failed, "a second error: {message:?} after {messages:?}");
                        failed = true;
                        errors.push(message.clone());
                    }
                    messages.push(message);
                }
                Err(error) => {
                    assert_ne!(error.kind(), ErrorKind::WouldBlock, "no answer to {sql:?}");
                    assert!(failed, "closed without a word: {error} after {messages:?}");
                    return false;
                }
            }
        }
    }

    fn served_since(&self, moment: Instant) -> bool {
        self.last.lock().unwrap().is_some_and(|last| last > moment)
    }
}

/// Thirty clients on five server connections while the server stops in this way and comes back.
fn survive(how: Stop) {
    const CLIENTS: usize = 30;
    let mut postgres = postgres();
    let pooler = Pooler::builder(&postgres.address())
        .set("pool.default_pool_size", "5")
        .set("log.level", "'info'")
        .start();
    let load = Load::default();
    let errors: Vec<Frame> = thread::scope(|scope| {
        let (load, pooler) = (&load, &pooler);
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| scope.spawn(move || load.run(pooler, number % 2 == 0)))
            .collect();
        // Whatever fails here, the clients have to end.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually("the load is under way", || {
                load.answers.load(Ordering::Relaxed) > 500
            });
            postgres.stop(how).unwrap();
            eventually("clients wait for the server", || {
                pooler.metric("pgweir_waiting_clients") > 0.0
            });
            postgres.start().unwrap();
            let back = Instant::now();
            eventually("the pool serves again", || load.served_since(back));
            assert!(back.elapsed() < Duration::from_secs(1), "{:?}", back.elapsed());
            let before = load.answers.load(Ordering::Relaxed);
            eventually("and goes on", || {
                load.answers.load(Ordering::Relaxed) > before + 500
            });
        }));
        load.stop.store(true, Ordering::Relaxed);
        let errors = clients
            .into_iter()
            .flat_map(|client| client.join().unwrap())
            .collect();
        outcome
            .map(|()| errors)
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    for error in &errors {
        let sqlstate = field(error, b'C');
        assert!(
            matches!(sqlstate.as_str(), "57P01" | "57P02" | "57P03" | "08006"),
            "{error:?}"
        );
    }
    // Five transactions at most were open; whoever waited has waited on.
    assert!(
        (1..=5).contains(&errors.len()),
        "{} errors: {errors:?}",
        errors.len()
    );
    assert_settled(&pooler);
    pooler.assert_all_places(5);
}

#[test]
fn fault_killed_server_is_survived() {
    // SIGKILL of the postmaster under load: no word to anybody.
    survive(Stop::Kill);
}

#[test]
fn fault_crashed_server_is_survived() {
    // An immediate stop under load, with recovery afterwards: 57P02 to some, 57P03 to who comes back.
    survive(Stop::Immediate);
}

#[test]
fn fault_restart_under_load_is_survived() {
    // A restart under load: 57P01 to who is in a transaction, nothing to anybody else.
    survive(Stop::Fast);
}

#[test]
fn fault_restart_between_transactions_is_not_noticed() {
    // A restart that finds nobody in a transaction is nobody's error.
    let mut postgres = postgres();
    postgres.initialise_pgbench("app", "secret", "app").unwrap();
    let pooler = Pooler::builder(&postgres.address())
        .set("log.level", "'info'")
        .start();
    // One statement a transaction, with pauses: the restart finds nobody in one.
    let script = pooler.file("script.sql");
    std::fs::write(&script, "SELECT 1;\n\\sleep 400 ms\n").unwrap();
    let mut command = postgres.programs().command("pgbench");
    command.args(["-n", "-c", "4", "-t", "4", "-f"]).arg(&script);
    command.arg(format!("postgresql://app@{}/app", pooler.address()));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let pgbench = command.spawn().unwrap();
    eventually("the first transactions are done", || {
        pooler.metric("pgweir_transactions_total") >= 4.0
    });
    postgres.restart().unwrap();
    let output = pgbench.wait_with_output().unwrap();
    let summary = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    assert!(
        summary.contains("number of transactions actually processed: 16/16"),
        "{summary}"
    );
    assert_settled(&pooler);
    pooler.assert_all_places(2);
}
