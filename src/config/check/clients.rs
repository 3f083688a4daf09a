//! `[listen]` and `[auth]`: where clients come in and how they prove who they are.
//!
//! It opens no listener and reads no users file.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    time::Duration,
};

use super::tls;
use crate::{
    config::{
        Network, NetworkError, address,
        reader::{Table, Text},
        settings::{Auth, AuthQuery, AuthType, Database, FailureLimits, Listen, ListenAddress},
    },
    types::TlsMode,
};

const DEFAULT_ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), DEFAULT_PORT);
const DEFAULT_PORT: u16 = 6432;
const DEFAULT_BACKLOG: NonZeroU32 = NonZeroU32::new(1024).expect("1024 is not zero");
const DEFAULT_MAX_CLIENTS: NonZeroUsize = NonZeroUsize::new(1000).expect("1000 is not zero");
const MOST_CLIENTS: i64 = 1_000_000;
const DEFAULT_LOGIN_TIMEOUT: Duration = Duration::from_secs(60);
const DEFAULT_PACKET_LIMIT: u32 = 1 << 30;
const DEFAULT_MAX_FAILURES: NonZeroU32 = NonZeroU32::new(10).expect("10 is not zero");
const DEFAULT_FAILURE_BLOCK: Duration = Duration::from_secs(60);
/// Less would refuse what every driver sends.
const SMALLEST_PACKET_LIMIT: u64 = 1 << 10;
/// PgBouncer's default; no message can be longer than PostgreSQL's gigabyte anyhow.
const LARGEST_PACKET_LIMIT: u64 = 0x7fff_ffff;
/// Any local user may connect, as with PostgreSQL; the directory's mode is what restricts them.
const DEFAULT_SOCKET_MODE: u32 = 0o777;

pub(super) fn listen(table: &Table<'_>) -> Listen {
    let max_client_conn = table
        .count("max_client_conn", MOST_CLIENTS)
        .unwrap_or(DEFAULT_MAX_CLIENTS);
    Listen {
        addresses: addresses(table),
        unix_socket_mode: socket_mode(table).unwrap_or(DEFAULT_SOCKET_MODE),
        unix_socket_group: table.nonempty_string("unix_socket_group"),
        listen_backlog: table
            .number("listen_backlog", 1..=65_535)
            .and_then(NonZeroU32::new)
            .unwrap_or(DEFAULT_BACKLOG),
        max_client_conn,
        // Whoever may come may come all at once.
        max_unauthenticated_clients: table
            .count("max_unauthenticated_clients", MOST_CLIENTS)
            .unwrap_or(max_client_conn),
        client_login_timeout: table
            .duration("client_login_timeout")
            .unwrap_or(DEFAULT_LOGIN_TIMEOUT),
        max_packet_size: table
            .size("max_packet_size", SMALLEST_PACKET_LIMIT..=LARGEST_PACKET_LIMIT)
            .and_then(|bytes| u32::try_from(bytes).ok())
            .unwrap_or(DEFAULT_PACKET_LIMIT),
        tls: tls::client(&table.table("tls", "listen.tls")),
    }
}

/// Permissions are written in octal, as everywhere.
fn socket_mode(table: &Table<'_>) -> Option<u32> {
    let text = table.string("unix_socket_mode")?;
    let mode = u32::from_str_radix(&text, 8)
        .ok()
        .filter(|mode| *mode <= 0o777 && text.bytes().all(|digit| digit.is_ascii_digit()));
    if mode.is_none() {
        let hint = "such as \"0770\"".to_owned();
        table.problem(
            "unix_socket_mode",
            format!("{text:?} is no file mode in octal"),
            Some(hint),
        );
    }
    mode
}

fn addresses(table: &Table<'_>) -> Vec<ListenAddress> {
    let Some(texts) = table.strings("address") else {
        return vec![ListenAddress::Tcp(DEFAULT_ADDRESS)];
    };
    let first_port = texts
        .iter()
        .find_map(|address| address.text.parse::<SocketAddr>().ok())
        .map(|address| address.port())
        .filter(|port| *port != 0);
    let base = table.report().base();
    let mut addresses = Vec::with_capacity(texts.len());
    for text in &texts {
        match address::listen_address(&text.text, base, first_port.unwrap_or(DEFAULT_PORT)) {
            Ok(address) if addresses.contains(&address) => {
                table.problem_in("address", text, format!("{:?} is listed twice", text.text), None);
            }
            Ok(address) => addresses.push(address),
            Err(error) => {
                let hint = error.hint().map(str::to_owned);
                table.problem_in("address", text, format!("{:?} {error}", text.text), hint);
            }
        }
    }
    addresses
}

pub(super) fn auth(
    table: &Table<'_>,
    listen: &Listen,
    look_up: AuthQuery,
    databases: &BTreeMap<String, Database>,
) -> Auth {
    let auth = Auth {
        auth_type: auth_type(table),
        hba_file: table.file("hba_file"),
        ident_file: table.file("ident_file"),
        ldap_ca_file: table.file("ldap_ca_file"),
        users_file: table.file("users_file"),
        allow_plaintext_password: table.flag("allow_plaintext_password").unwrap_or(false),
        failures: failures(table),
        admin_users: names(table.strings("admin_users")),
        stats_users: names(table.strings("stats_users")),
        look_up,
    };
    let looked_up = table.has("auth_user") || databases.values().any(|database| database.auth.user.is_some());
    let users_needed = matches!(
        auth.auth_type,
        AuthType::Password | AuthType::Md5 | AuthType::ScramSha256
    );
    if users_needed && table.is_sound(&["auth_type"]) && !looked_up && !table.has("users_file") {
        let hint = "such as users_file = \"users.txt\", in the format of PgBouncer's auth_file";
        table.missing(
            "users_file",
            "is required where passwords are asked for and there is no auth_user",
            hint,
        );
    }
    connections_can_have_it(table, &auth, listen);
    password_can_be_asked_for(table, &auth, listen);
    auth
}

fn failures(table: &Table<'_>) -> FailureLimits {
    FailureLimits {
        max_failures: match table.number("max_auth_failures", 0..=1_000_000) {
            Some(number) => NonZeroU32::new(number),
            None => Some(DEFAULT_MAX_FAILURES),
        },
        block: table
            .duration("auth_failure_block")
            .unwrap_or(DEFAULT_FAILURE_BLOCK),
        trusted: networks(table, "trusted_networks"),
    }
}

fn networks(table: &Table<'_>, key: &str) -> Vec<Network> {
    let mut networks = Vec::new();
    for text in table.strings(key).unwrap_or_default() {
        match text.text.parse() {
            Ok(network) => networks.push(network),
            Err(error) => {
                let error: NetworkError = error;
                let hint = "such as \"10.0.0.0/8\", \"fd00::/8\" or \"192.0.2.1\"".to_owned();
                table.problem_in(key, &text, format!("{:?} {error}", text.text), Some(hint));
            }
        }
    }
    networks
}

/// What to do instead of a method that PgBouncer or PostgreSQL has.
fn elsewhere(method: &str) -> Option<&'static str> {
    Some(match method {
        "ldap" => {
            "set hba_file to a file with a line such as: host all all all ldap ldapserver=... ldapbasedn=..."
        }
        "pam" => {
            "it would take libpam and its modules into the pooler; use ldap in an hba_file, or scram-sha-256"
        }
        "gss" | "sspi" | "oauth" | "radius" | "ident" => "use cert or scram-sha-256",
        _ => return None,
    })
}

/// An HBA file alone says enough, and beside it another `auth_type` would be a contradiction.
fn auth_type(table: &Table<'_>) -> AuthType {
    let (written, has_file) = (table.word_or("auth_type", elsewhere), table.has("hba_file"));
    match written {
        Some(AuthType::Hba) if !has_file => {
            let hint = "such as hba_file = \"pg_hba.conf\"";
            table.missing("hba_file", "is required by auth_type \"hba\"", hint);
        }
        Some(AuthType::Hba) | None => {}
        Some(_) if has_file => table.problem(
            "auth_type",
            "says something else than hba_file, whose lines have a method each",
            Some("leave one of the two out".to_owned()),
        ),
        Some(_) => {}
    }
    if table.has("ident_file") && !has_file {
        let hint = "set hba_file, or leave ident_file out";
        table.missing(
            "ident_file",
            "has maps that only lines of an hba_file can name",
            hint,
        );
    }
    if table.has("ldap_ca_file") && !has_file {
        let hint = "set hba_file, or leave ldap_ca_file out";
        table.missing("ldap_ca_file", "is for ldap lines of an hba_file", hint);
    }
    let default = if has_file {
        AuthType::Hba
    } else {
        AuthType::default()
    };
    written.unwrap_or(default)
}

/// `cert` without certificates and `peer` without unix sockets would refuse everybody.
fn connections_can_have_it(table: &Table<'_>, auth: &Auth, listen: &Listen) {
    let has_unix = listen
        .addresses
        .iter()
        .any(|address| matches!(address, ListenAddress::Unix(_)));
    let sound = |key| table.report().is_sound(&[key]);
    if auth.auth_type == AuthType::Cert
        && listen.tls.client_ca_file.is_none()
        && sound("listen.tls.client_ca_file")
    {
        let hint = "set listen.tls.client_ca_file to the CA that signs client certificates";
        table.missing(
            "auth_type",
            "needs a CA to verify the certificates of clients with",
            hint,
        );
    }
    if auth.auth_type == AuthType::Peer && !has_unix && sound("listen.address") {
        let hint = "add one to listen.address, such as \"unix:/run/pgweir\"";
        table.missing("auth_type", "is for unix sockets, and none is listened on", hint);
    }
}

fn names(texts: Option<Vec<Text>>) -> Vec<String> {
    texts
        .unwrap_or_default()
        .into_iter()
        .map(|text| text.text)
        .collect()
}

/// `auth_type = "password"` without TLS and without leave to do without it would refuse everybody.
fn password_can_be_asked_for(table: &Table<'_>, auth: &Auth, listen: &Listen) {
    let over_tcp = listen
        .addresses
        .iter()
        .any(|address| matches!(address, ListenAddress::Tcp(_)));
    let refuses = auth.auth_type == AuthType::Password
        && !auth.allow_plaintext_password
        && listen.tls.mode == TlsMode::Disable
        && over_tcp;
    let sound =
        table.is_sound(&["allow_plaintext_password"]) && table.report().is_sound(&["listen.tls.mode"]);
    if refuses && sound {
        table.problem(
            "auth_type",
            "passwords would cross the network in clear, because listen.tls is off",
            Some("set up [listen.tls], or set allow_plaintext_password = true".to_owned()),
        );
    }
}
