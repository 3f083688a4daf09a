//! `[listen.tls]` and `[server_tls]`: which files and modes go together.
//!
//! It reads no certificate.

use crate::{
    config::{
        reader::Table,
        settings::{ClientTls, Identity, ServerTls},
    },
    types::TlsMode,
};

pub(super) fn client(table: &Table<'_>) -> ClientTls {
    let identity = identity(table);
    let client_ca_file = table.file("client_ca_file");
    let default = match identity {
        Some(_) => TlsMode::Prefer,
        None => TlsMode::Disable,
    };
    let mode = table.word("mode").unwrap_or(default);
    crls(table, "client_ca_file");
    let has_identity = table.has("cert_file") || table.has("key_file");
    if mode != TlsMode::Disable && !has_identity {
        let hint = "set cert_file and key_file, or mode = \"disable\"";
        table.missing("mode", "needs a certificate to show to clients", hint);
    }
    if verifies(mode) && !table.has("client_ca_file") {
        let hint = "set client_ca_file to the CA that signs client certificates";
        table.missing("mode", "needs client_ca_file to verify against", hint);
    }
    ClientTls {
        mode,
        identity,
        client_ca_file,
        crl_file: table.file("crl_file"),
        protocols: table.word("protocols").unwrap_or_default(),
    }
}

pub(super) fn server(table: &Table<'_>) -> ServerTls {
    let mode = table.word("mode").unwrap_or_default();
    if verifies(mode) && !table.has("ca_file") {
        let hint = "set ca_file to the CA that signs server certificates";
        table.missing("mode", "needs ca_file to verify against", hint);
    }
    crls(table, "ca_file");
    ServerTls {
        mode,
        ca_file: table.file("ca_file"),
        identity: identity(table),
        crl_file: table.file("crl_file"),
        server_name: table.nonempty_string("server_name"),
        protocols: table.word("protocols").unwrap_or_default(),
    }
}

/// What one user's connections to servers have, if anything else than `shared`.
pub(super) fn server_of_user(table: &Table<'_>, shared: &ServerTls) -> Option<ServerTls> {
    if !table.is_present() {
        return None;
    }
    let mode = table.word("mode");
    let ca_file = table.file("ca_file").or_else(|| shared.ca_file.clone());
    let has_ca = table.has("ca_file") || shared.ca_file.is_some();
    if mode.is_some_and(verifies) && !has_ca {
        let hint = "set ca_file here or in [server_tls] to the CA that signs server certificates";
        table.missing("mode", "needs ca_file to verify against", hint);
    }
    if shared.ca_file.is_none() {
        crls(table, "ca_file");
    }
    Some(ServerTls {
        mode: mode.unwrap_or(shared.mode),
        ca_file,
        identity: identity(table).or_else(|| shared.identity.clone()),
        crl_file: table.file("crl_file").or_else(|| shared.crl_file.clone()),
        server_name: table
            .nonempty_string("server_name")
            .or_else(|| shared.server_name.clone()),
        protocols: table.word("protocols").unwrap_or(shared.protocols),
    })
}

fn verifies(mode: TlsMode) -> bool {
    matches!(mode, TlsMode::VerifyCa | TlsMode::VerifyFull)
}

/// What is revoked is said by a CA.
fn crls(table: &Table<'_>, ca_key: &str) {
    if table.has("crl_file") && !table.has(ca_key) {
        let problem = format_args!("needs {ca_key} as well");
        let hint = "without a ca no certificate is verified, and none is looked up in the crl";
        table.missing("crl_file", problem, hint);
    }
}

/// `cert_file` and `key_file`: both or none.
fn identity(table: &Table<'_>) -> Option<Identity> {
    let cert_file = table.file("cert_file");
    let key_file = table.file("key_file");
    match (table.has("cert_file"), table.has("key_file")) {
        (true, false) => table.missing(
            "cert_file",
            "needs key_file as well",
            "a certificate is of no use without its key",
        ),
        (false, true) => table.missing(
            "key_file",
            "needs cert_file as well",
            "a key is of no use without its certificate",
        ),
        _ => {}
    }
    Some(Identity {
        cert_file: cert_file?,
        key_file: key_file?,
    })
}
