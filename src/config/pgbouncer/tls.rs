//! `client_tls_*` and `server_tls_*`: modes and versions. Files are taken over as they are.
//!
//! It reads no certificate.

use super::{
    document::Value,
    draft::{Draft, Subject},
    main_section::Main,
    remark::Weight::{Note, Warning},
};

const OF_CLIENTS: [&str; 5] = [
    "client_tls_sslmode",
    "client_tls_protocols",
    "client_tls_cert_file",
    "client_tls_key_file",
    "client_tls_ca_file",
];
const FILES: [&str; 6] = [
    "client_tls_ca_file",
    "client_tls_cert_file",
    "client_tls_key_file",
    "server_tls_ca_file",
    "server_tls_cert_file",
    "server_tls_key_file",
];
const ALLOW: &str = "PgBouncer asks servers for TLS first in this mode too, which is prefer";
const OLD: &str = "TLS 1.0 and 1.1 are not spoken here";
const NO_13_OFF: &str = "TLS 1.3 is always spoken here";
const NEITHER: &str = "only TLS 1.2 and 1.3 are spoken here";

pub(super) fn translate(main: &Main, draft: &mut Draft) {
    if OF_CLIENTS.iter().any(|name| main.subject(name).given.is_some()) {
        let mode = main.in_force("client_tls_sslmode").to_ascii_lowercase();
        // Without the line, a certificate alone would switch TLS on.
        draft.set(
            "listen.tls",
            "mode",
            Value::Text(mode),
            main.subject("client_tls_sslmode"),
        );
    }
    protocols(draft, "listen.tls", main.subject("client_tls_protocols"));
    unused_files(main, draft, "client_tls", "listen.tls");
    let subject = main.subject("server_tls_sslmode");
    if subject.given.is_some() {
        let mut mode = main.in_force("server_tls_sslmode").to_ascii_lowercase();
        if mode == "allow" {
            draft.remark(Note, subject, ALLOW);
            "prefer".clone_into(&mut mode);
        }
        draft.set("server_tls", "mode", Value::Text(mode), subject);
    }
    protocols(draft, "server_tls", main.subject("server_tls_protocols"));
    unused_files(main, draft, "server_tls", "server_tls");
}

/// Files that PgBouncer does not look at need not be there.
fn unused_files(main: &Main, draft: &mut Draft, prefix: &str, section: &str) {
    let mode = format!("{prefix}_sslmode");
    if !main.in_force(&mode).eq_ignore_ascii_case("disable") {
        return;
    }
    let files = FILES.iter().filter(|name| name.starts_with(prefix));
    for name in files.filter(|name| main.text(name).is_some()) {
        draft.remark(
            Note,
            main.subject(name),
            format!("it is not read with {mode} = disable"),
        );
        let path: Vec<_> = section.split('.').collect();
        let settings = &mut draft.section(&path).settings;
        settings.retain(|setting| !setting.key.ends_with("_file"));
    }
}

fn protocols(draft: &mut Draft, section: &str, subject: Subject<'_>) {
    let Some(given) = subject.given.filter(|given| !given.value.is_empty()) else {
        return;
    };
    let Some(versions) = versions(&given.value) else {
        let hint = "versions such as tlsv1.2,tlsv1.3, or secure, or all";
        return draft.problem(
            subject,
            format!("{:?} is no list of TLS versions", given.value),
            Some(hint),
        );
    };
    let remark = match versions {
        Versions {
            new: true,
            old: false,
            ..
        } if !versions.middle => None,
        Versions { new: true, old, .. } => old.then_some(OLD),
        Versions { middle: true, .. } => Some(NO_13_OFF),
        _ => Some(NEITHER),
    };
    if let Some(remark) = remark {
        draft.remark(Warning, subject, remark);
    }
    let only_new = versions.new && !versions.middle;
    let value = if only_new { "tlsv1.3" } else { "secure" };
    draft.set(section, "protocols", Value::Text(value.to_owned()), subject);
}

/// TLS 1.3, 1.2, and those before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Versions {
    new: bool,
    middle: bool,
    old: bool,
}

fn versions(text: &str) -> Option<Versions> {
    let mut versions = Versions::default();
    for word in text.split([',', ':']).map(str::trim) {
        match word.to_ascii_lowercase().as_str() {
            "secure" | "default" => (versions.new, versions.middle) = (true, true),
            "all" | "legacy" | "tlsv1" => {
                versions = Versions {
                    new: true,
                    middle: true,
                    old: true,
                }
            }
            "tlsv1.3" => versions.new = true,
            "tlsv1.2" => versions.middle = true,
            "tlsv1.0" | "tlsv1.1" => versions.old = true,
            _ => return None,
        }
    }
    Some(versions)
}
