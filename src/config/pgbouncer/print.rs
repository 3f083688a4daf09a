//! A translation for people: the TOML with everything that there is to know as comments.

use std::path::Path;

use super::{Remark, Section, Setting, Translation, Value, Weight};

const LEFT: &str = "Where PgBouncer's defaults differ and clients would notice, they are written out. Left as pgweir has them \
    are [tcp] (it notices sooner that a peer has vanished), listen_backlog, auth.max_auth_failures (PgBouncer lets guess) and \
    how failed connections to servers are tried again (pool.server_login_retry, pool.hold_timeout).";
const RELATIVE: &str =
    "Relative paths begin in the directory of this file; PgBouncer's begin in the one that it is started in.";
const HTTP: &str = "Metrics, probes and the status page need a section that PgBouncer has nothing like:";

impl Translation {
    /// The TOML for a file of its own, which holds no secret.
    pub fn to_text(&self, source: &Path) -> String {
        let mut document = self.document.clone();
        document.header = self.header(source);
        for database in self.passwords.keys() {
            let section = document.section(&["databases", database]);
            let file = Value::Text(password_file(database));
            section.set("password_file", file, None).comment = Some(PASSWORD.to_owned());
        }
        document.to_toml().text
    }

    /// What has to be done by hand, beside what the remarks say.
    pub fn chores(&self) -> Vec<String> {
        let chore = |database: &String| {
            let file = password_file(database);
            format!(
                "databases.{database}: password: write it into the file {file}, which only pgweir may read"
            )
        };
        self.passwords.keys().map(chore).collect()
    }

    fn header(&self, source: &Path) -> Vec<String> {
        let mut header = vec![
            format!("{} for pgweir; defaults are those of PgBouncer 1.25.", source.display()),
            "`pgweir check --config FILE` tells whether it can be used, config/pgweir.toml what else there is.".to_owned(),
            String::new(),
            LEFT.to_owned(),
        ];
        if self.document.sections().any(names_relative_file) {
            header.extend([String::new(), RELATIVE.to_owned()]);
        }
        for (weight, title) in [
            (
                Weight::Refusal,
                "What keeps pgweir from taking the place of PgBouncer:",
            ),
            (Weight::Warning, "What is otherwise:"),
            (Weight::Note, "What needs nothing here:"),
        ] {
            let remarks: Vec<_> = self
                .remarks
                .iter()
                .filter(|remark| remark.weight == weight)
                .collect();
            if !remarks.is_empty() {
                header.extend([String::new(), title.to_owned()]);
                header.extend(alike(&remarks).iter().map(|remarks| item(remarks, source)));
            }
        }
        header.extend([String::new(), HTTP.to_owned()]);
        header.extend(["  [http]", "  address = \"0.0.0.0:9127\""].map(str::to_owned));
        header
    }
}

const PASSWORD: &str = "Write the password= of the pgbouncer.ini into this file, which only pgweir may read.";

fn names_relative_file(section: &Section) -> bool {
    let is_file = |setting: &Setting| setting.key.ends_with("_file");
    let is_relative = |value: &Value| matches!(value, Value::Text(path) if !path.starts_with('/'));
    let mut settings = section.settings.iter();
    settings.any(|setting| is_file(setting) && is_relative(&setting.value))
}

/// What is said of several in one.
fn alike<'a>(remarks: &[&'a Remark]) -> Vec<Vec<&'a Remark>> {
    let mut groups: Vec<Vec<&Remark>> = Vec::new();
    for remark in remarks {
        let group = groups
            .iter_mut()
            .find(|group| group.iter().all(|other| other.text == remark.text));
        match group {
            Some(group) => group.push(remark),
            None => groups.push(vec![remark]),
        }
    }
    groups
}

fn item(remarks: &[&Remark], source: &Path) -> String {
    let subjects: Vec<_> = remarks.iter().map(|remark| subject(remark, source)).collect();
    let text = remarks
        .first()
        .map(|remark| remark.text.as_str())
        .unwrap_or_default();
    format!("  {}: {text}", subjects.join(", "))
}

fn subject(remark: &Remark, source: &Path) -> String {
    let named = remark.subject();
    match &remark.place {
        Some(place) if *place.file == *source => format!("line {}: {named}", place.line),
        Some(place) => format!("{place}: {named}"),
        None => named,
    }
}

fn password_file(database: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    match !database.is_empty() && database.bytes().all(is_plain) {
        true => format!("{database}.password"),
        false => "other.password".to_owned(),
    }
}
