//! What the scenarios in Rust share: named checks, each with a limit, one line of output for each.

use std::{
    env,
    error::Error,
    fmt::{Debug, Display},
    future::Future,
    pin::Pin,
    process::ExitCode,
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

/// How a check ends.
pub type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;
/// A check and its name.
pub type Check = (
    &'static str,
    fn() -> Pin<Box<dyn Future<Output = Outcome> + Send>>,
);

const CLIENTS: i32 = 12;
const LIMIT: Duration = Duration::from_secs(20);

/// Functions as checks of their names.
#[macro_export]
macro_rules! checks {
    ($($name:ident),* $(,)?) => {
        &[$((stringify!($name), || Box::pin($name()))),*]
    };
}

/// Makes all checks, or those named on the command line.
pub async fn run(checks: &[Check]) -> ExitCode {
    let wanted: Vec<String> = env::args().skip(1).collect();
    let (mut made, mut failed) = (0, 0);
    for (name, check) in checks {
        if !wanted.is_empty() && !wanted.iter().any(|other| other == name) {
            continue;
        }
        made += 1;
        // In a task, so that a panic is a failure too.
        let why = match timeout(LIMIT, tokio::spawn(check())).await {
            Ok(Ok(Ok(()))) => {
                println!("ok {name}");
                continue;
            }
            Ok(Ok(Err(error))) => describe(error.as_ref()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("not done within {} s", LIMIT.as_secs()),
        };
        failed += 1;
        println!("not ok {name} - {}", why.replace('\n', " "));
    }
    println!("1..{made}");
    ExitCode::from(u8::from(failed > 0))
}

fn describe(error: &(dyn Error + Send + Sync)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Whether this is PostgreSQL itself.
pub fn is_direct() -> bool {
    env::var("DRIVERS_WAY").is_ok_and(|way| way == "direct")
}

/// A variable of the environment that is always set here.
pub fn variable(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

/// Fails unless both are equal.
pub fn same<T: PartialEq<U> + Debug, U: Debug>(found: T, expected: U) -> Outcome {
    if found == expected {
        return Ok(());
    }
    Err(format!("{found:.200?} is not {expected:.200?}").into())
}

/// Fails unless it is an error with this SQLSTATE.
pub fn fails<T, E: Display>(
    result: Result<T, E>,
    sqlstate: &str,
    read: impl Fn(&E) -> Option<String>,
) -> Outcome {
    match result {
        Ok(_) => Err(format!("no error {sqlstate}").into()),
        Err(error) if read(&error).as_deref() == Some(sqlstate) => Ok(()),
        Err(error) => Err(format!("another error than {sqlstate}: {error} {:?}", read(&error)).into()),
    }
}

/// Runs `client(number)` for many clients at once.
pub async fn together<F>(client: impl Fn(i32) -> F) -> Outcome
where
    F: Future<Output = Outcome> + Send + 'static,
{
    let mut clients: JoinSet<Outcome> = (0..CLIENTS).map(client).collect();
    while let Some(outcome) = clients.join_next().await {
        outcome??;
    }
    Ok(())
}

/// Waits until the condition holds.
pub async fn eventually<F>(what: &str, condition: impl Fn() -> F) -> Outcome
where
    F: Future<Output = Outcome<bool>>,
{
    let deadline = Instant::now() + LIMIT;
    while !condition().await? {
        if Instant::now() > deadline {
            return Err(format!("never: {what}").into());
        }
        sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}
