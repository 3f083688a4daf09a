//! The configuration of a pgweir under test, and the files beside it.

use std::{collections::BTreeMap, fmt::Write, path::Path};

use pgweir::cli::demo::authority::{Certificate, write_private};

use super::Pooler;

/// The configuration file's name.
pub(super) const CONFIG: &str = "pgweir.toml";

/// A configuration by sections, with defaults for everything that a test does not care for: free ports,
/// JSON logs, no drain delay, `trust`, and pools of two server connections for any database.
#[derive(Debug, Clone, Default)]
pub struct PoolerBuilder {
    /// Section, then key, then value as TOML.
    sections: BTreeMap<String, BTreeMap<String, String>>,
    users: Vec<(String, String)>,
    files: BTreeMap<String, String>,
}

impl PoolerBuilder {
    /// The defaults; [`Pooler::builder`].
    pub(super) fn in_front_of(host: &str) -> Self {
        Self::default()
            .user("app", "secret")
            .set("listen.address", "'127.0.0.1:0'")
            .set("http.address", "'127.0.0.1:0'")
            .set("auth.auth_type", "'trust'")
            .set("auth.users_file", "'users.txt'")
            .set("pool.default_pool_size", "2")
            // A scripted server answers no question of the pooler's own.
            .set("pool.function_scan_interval", "'0'")
            // And counts the connections that clients need.
            .set("pool.primary_check_interval", "'0'")
            .set(r#"databases."*".hosts"#, format!("['{host}']"))
            .set("log.format", "'json'")
            .set("log.level", "'info,pgweir=debug'")
            .set("shutdown.drain_delay", "'0s'")
            // A test says when its files are read.
            .set("process.file_check_interval", "'0'")
    }

    /// Sets `SECTION.KEY` to a value in TOML: `.set("pool.mode", "'session'")`, `.set("users.app.pool_size", "1")`.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl Into<String>) -> Self {
        let (section, key) = key.rsplit_once('.').expect("a key has a section");
        let section = self.sections.entry(section.to_owned()).or_default();
        section.insert(key.to_owned(), value.into());
        self
    }

    /// Removes a section, such as a default one.
    #[must_use]
    pub fn without(mut self, section: &str) -> Self {
        self.sections.remove(section);
        self
    }

    /// A line of the users file; the secret is a password, an md5 hash or a SCRAM verifier.
    #[must_use]
    pub fn user(mut self, name: &str, secret: &str) -> Self {
        self.users.retain(|(existing, _)| existing != name);
        self.users.push((name.to_owned(), secret.to_owned()));
        self
    }

    /// A file beside the configuration, which may name it without a directory.
    #[must_use]
    pub fn file(mut self, name: &str, contents: impl Into<String>) -> Self {
        self.files.insert(name.to_owned(), contents.into());
        self
    }

    /// TLS for clients in this mode (`require`, ...).
    #[must_use]
    pub fn client_tls(self, mode: &str, certificate: &Certificate) -> Self {
        let tls = format!("{{ mode = '{mode}', cert_file = 'server.crt', key_file = 'server.key' }}");
        self.file("server.crt", &certificate.certificate_pem)
            .file("server.key", &certificate.key_pem)
            .set("listen.tls", tls)
    }

    /// Starts pgweir and waits until its listeners are bound.
    pub fn start(self) -> Pooler {
        let directory = tempfile::Builder::new()
            .prefix("pgweir-test-")
            .tempdir()
            .expect("a directory is made");
        self.write_to(directory.path());
        Pooler::launch(directory, self)
    }

    pub(super) fn write_to(&self, directory: &Path) {
        let write = |name: &str, contents: &str| {
            // As Kubernetes and careful people do: never half a file.
            let unfinished = directory.join(format!("{name}.new"));
            // libpq insists on it for keys.
            write_private(&unfinished, contents).expect("a file is written");
            std::fs::rename(&unfinished, directory.join(name)).expect("a file is renamed");
        };
        for (name, contents) in &self.files {
            write(name, contents);
        }
        write("users.txt", &self.users_file());
        if !self.files.contains_key(CONFIG) {
            write(CONFIG, &self.toml());
        }
    }

    fn users_file(&self) -> String {
        let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
        let lines = self
            .users
            .iter()
            .map(|(name, secret)| format!("{} {}\n", quoted(name), quoted(secret)));
        lines.collect()
    }

    fn toml(&self) -> String {
        let mut text = String::new();
        for (section, keys) in &self.sections {
            writeln!(text, "[{section}]").expect("a string can be written");
            for (key, value) in keys {
                writeln!(text, "{key} = {value}").expect("a string can be written");
            }
        }
        text
    }
}
