//! `listen_addr`, `listen_port` and `unix_socket_dir`: one list of addresses here.
//!
//! It resolves no name.

use std::net::{IpAddr, SocketAddr};

use super::{
    document::Value,
    draft::{Draft, Subject},
    main_section::Main,
    remark::Weight::{Note, Refusal, Warning},
    values,
};

const DEBIAN: &str = "/tmp is PgBouncer's own default; Debian's package has /var/run/postgresql";
const LOCALHOST: &str =
    "it is 127.0.0.1 here; add \"[::1]:PORT\" to listen.address where clients come by IPv6";
const EVERYWHERE: &str =
    "it is [::] here, which takes IPv4 as well; write 0.0.0.0 on a machine that has no IPv6 at all";
const OWN_USER: &str = "who is the pooler's own user on the machine is not let in as the administrator pgbouncer by its \
    socket: name administrators in admin_users";
const A_NAME: &str = "a name is not looked up to listen on: write the IP addresses";
const ABSTRACT: &str = "sockets without a file are not supported: name a directory";
const NOWHERE: &str = "nothing is listened on: set listen_addr or unix_socket_dir";

pub(super) fn translate(main: &Main, draft: &mut Draft) {
    let port = match values::integer(main.in_force("listen_port")).map(u16::try_from) {
        Ok(Ok(port)) if port != 0 => port,
        _ => {
            draft.problem(main.subject("listen_port"), "is not a port, 1 to 65535", None);
            return;
        }
    };
    let mut addresses = tcp(main, draft, port);
    addresses.extend(unix(main, draft, port));
    let subjects = ["listen_addr", "unix_socket_dir", "listen_port"].map(|name| main.subject(name));
    let subject = subjects.into_iter().find(|subject| subject.given.is_some());
    let subject = subject.unwrap_or(subjects[0]);
    if addresses.is_empty() {
        draft.remark(Refusal, subject, NOWHERE);
        return;
    }
    draft.set("listen", "address", Value::Texts(addresses), subject);
}

fn tcp(main: &Main, draft: &mut Draft, port: u16) -> Vec<String> {
    let subject = main.subject("listen_addr");
    let mut found: Vec<IpAddr> = Vec::new();
    for name in values::names(main.in_force("listen_addr")) {
        let address = address(&name, draft, subject);
        found.extend(address.filter(|address| !found.contains(address)));
    }
    // Here it takes both kinds.
    if found
        .iter()
        .any(|address| address.is_ipv6() && address.is_unspecified())
    {
        found.retain(|address| address.is_ipv6() || !address.is_unspecified());
    }
    let with_port = |address: IpAddr| SocketAddr::new(address, port).to_string();
    found.into_iter().map(with_port).collect()
}

fn address(name: &str, draft: &mut Draft, subject: Subject<'_>) -> Option<IpAddr> {
    match name {
        "*" => {
            draft.remark(Note, subject, EVERYWHERE);
            Some(std::net::Ipv6Addr::UNSPECIFIED.into())
        }
        "localhost" => {
            draft.remark(Note, subject, LOCALHOST);
            Some(std::net::Ipv4Addr::LOCALHOST.into())
        }
        name => {
            let address = name.parse().ok();
            if address.is_none() {
                draft.remark(Refusal, subject, format!("{name}: {A_NAME}"));
            }
            address
        }
    }
}

fn unix(main: &Main, draft: &mut Draft, port: u16) -> Option<String> {
    let subject = main.subject("unix_socket_dir");
    let directory = main.in_force("unix_socket_dir");
    if directory.starts_with('@') {
        draft.remark(Warning, subject, ABSTRACT);
        return None;
    }
    if subject.given.is_none() {
        draft.remark(Note, subject, DEBIAN);
    }
    if !directory.is_empty() {
        let subject = Subject {
            name: "admin_users",
            given: None,
        };
        draft.remark(Note, subject, OWN_USER);
    }
    socket_file(directory, port)
}

/// The socket file of a server in a directory; there is none in no directory.
pub(super) fn socket_file(directory: &str, port: u16) -> Option<String> {
    let directory = directory.strip_suffix('/').unwrap_or(directory);
    (!directory.is_empty()).then(|| format!("unix:{directory}/.s.PGSQL.{port}"))
}
