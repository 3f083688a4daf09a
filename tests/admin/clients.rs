//! What other people's programs make of the console.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use nix::sys::signal::Signal;
use pgweir::cli::demo::{
    child::{OwnedChild, tied},
    ports,
};

use crate::{
    builder, client,
    support::{eventually, postgres},
};

/// The exporter of Debian's package.
const EXPORTER: &str = "/usr/bin/prometheus-pgbouncer-exporter";

/// psycopg and asyncpg prepare what they ask, and asyncpg wants every number in binary.
#[test]
fn drivers_speak_to_it() {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = checkout.join(".dev/drivers/python/bin/python");
    if !python.exists() {
        eprintln!("left out: `./dev drivers` installs the drivers");
        return;
    }
    let postgres = postgres();
    let pooler = builder(&postgres).start();
    let output = Command::new(python)
        .arg(checkout.join("tests/admin/console.py"))
        .env("PGPORT", pooler.port().to_string())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(text(&output.stdout), "good\n", "{}", text(&output.stderr));
}

/// It reads columns that PgBouncer itself has no more (`total_requests`, `reserve_pool`), and ends if one is missing.
#[test]
fn an_exporter_reads_it() {
    if !Path::new(EXPORTER).exists() {
        eprintln!("left out: prometheus-pgbouncer-exporter is not installed");
        return;
    }
    let postgres = postgres();
    let pooler = builder(&postgres).start();
    let mut client = client(&pooler);
    for _ in 0..3 {
        client.query("SELECT 1");
    }
    let port = ports::free(None).unwrap();
    let mut command = tied(EXPORTER, Signal::SIGKILL);
    command
        .args(["--host", "127.0.0.1", "--port", &port.to_string()])
        .args(["--pgbouncer-host", "127.0.0.1", "--pgbouncer-user", "app"])
        .args(["--pgbouncer-port", &pooler.port().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let _exporter = OwnedChild::spawn(command).unwrap();
    let address = format!("127.0.0.1:{port}");
    eventually("it counts what the client has done", || {
        let metrics = get(&address, "/metrics");
        let has = |sample: &str| metrics.lines().any(|line| line == sample);
        has("pgbouncer_requests_total{database=\"app\"} 3.0")
            && has("pgbouncer_active_clients{database=\"app\",user=\"app\"} 1.0")
            && has("pgbouncer_pool_size{database=\"app\"} 2.0")
            && has("pgbouncer_used_clients 2.0")
    });
}

fn get(address: &str, path: &str) -> String {
    use std::io::{Read, Write};
    let mut answer = String::new();
    if let Ok(mut stream) = std::net::TcpStream::connect(address) {
        let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
        if stream.write_all(request.as_bytes()).is_ok() {
            // What is cut off is asked for again.
            let _ = stream.read_to_string(&mut answer);
        }
    }
    answer
}
