//! `pgweir healthcheck`: one request for `/readyz`, for containers that have neither a shell nor curl.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    process::ExitCode,
    time::Duration,
};

use crate::{
    config::{Overlay, Source},
    fault::chain,
};

const TIMEOUT: Duration = Duration::from_secs(2);
/// Status line and one line of reason; nothing longer is ever sent.
const ANSWER: u64 = 4096;

pub(super) fn healthcheck(source: &Source) -> ExitCode {
    let path = source.path();
    let settings = match source.load(&Overlay::default()) {
        Ok(loaded) => loaded.settings,
        Err(error) => {
            eprintln!("{}", chain(&error));
            return ExitCode::FAILURE;
        }
    };
    let Some(http) = settings.http else {
        eprintln!(
            "{}: there is no [http] section, so there is nothing to ask",
            path.display()
        );
        return ExitCode::FAILURE;
    };
    match ask(reachable(http.address)) {
        Ok(answer) => {
            let ready = answer.split_whitespace().nth(1) == Some("200");
            let reason = answer.lines().last().unwrap_or_default();
            println!("{reason}");
            if ready {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("{}: {error}", http.address);
            ExitCode::FAILURE
        }
    }
}

/// An address that listens on everything is asked on loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn ask(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(
        stream,
        "GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.take(ANSWER).read_to_string(&mut answer)?;
    Ok(answer)
}
