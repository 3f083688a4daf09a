//! What is worth saying of settings that can be used.

use super::{certificates, prepare::Prepared};
use crate::config::{
    Settings,
    pgbouncer::{Remark, Weight},
};

/// Everything that is.
pub fn warnings(settings: &Settings, prepared: &Prepared) -> Vec<String> {
    let mut warnings = certificates::certificate_warnings(prepared);
    warnings.extend(about_look_ups(settings, prepared));
    warnings
}

/// Logs what the metrics of certificates have not said.
pub(super) fn warn(settings: &Settings, prepared: &Prepared) {
    for warning in about_look_ups(settings, prepared) {
        tracing::warn!("{warning}");
    }
}

/// Logs what is otherwise than a `pgbouncer.ini` says it.
pub(super) fn warn_of_remarks(remarks: &[Remark]) {
    for remark in remarks.iter().filter(|remark| remark.weight > Weight::Note) {
        let place = remark.place.as_ref().map(ToString::to_string);
        tracing::warn!(place, "{remark}");
    }
}

/// Roles that nobody can log in as by an answer of `auth_query`, and by nothing else either.
fn about_look_ups(settings: &Settings, prepared: &Prepared) -> Vec<String> {
    let is_listed = |role: &str| {
        prepared
            .users
            .as_ref()
            .is_some_and(|users| users.get(role).is_some())
    };
    let roles = settings.unbelieved_roles().into_iter();
    let stranded = roles.filter(|role| !is_listed(role) && !prepared.access.has_way_without_secret(role));
    let warning = |role| {
        format!(
            "users.{role}.server_tls: nobody is let in as {role:?} by auth_query where the client chooses the database, \
             whose owner decides what is found there: list the role in users_file, use \"cert\" for it in hba_file, or set \
             auth_database"
        )
    };
    stranded.map(warning).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{app::prepare, config};

    const TEXT: &str = r#"
        [auth]
        auth_user = "asker"
        [databases."*"]
        hosts = "localhost"
        [server_tls]
        mode = "require"
        [users.postgres.server_tls]
        server_name = "db"
    "#;

    /// Somebody has set up a role's certificate and finds out why nobody gets in as that role, and what to do.
    #[test]
    fn roles_that_look_ups_do_not_let_in_are_warned_of_until_there_is_another_way() {
        let directory = tempfile::tempdir().unwrap();
        for (name, contents) in [
            ("users.txt", "\"postgres\" \"secret\"\n"),
            ("hba.conf", "local all postgres trust\nhost all all all md5\n"),
            ("other.conf", "local all asker trust\nhost all all all md5\n"),
        ] {
            fs::write(directory.path().join(name), contents).unwrap();
        }
        let said = |more: &str| {
            let text = TEXT.replace("[auth]", &format!("[auth]\n{more}"));
            let settings = config::parse(&text, directory.path()).unwrap();
            about_look_ups(&settings, &prepare(&settings).unwrap()).len()
        };
        assert_eq!(said(""), 1);
        assert_eq!(said("hba_file = \"other.conf\""), 1);
        for mended in [
            "users_file = \"users.txt\"",
            "hba_file = \"hba.conf\"",
            "auth_type = \"trust\"",
            "auth_database = \"postgres\"",
        ] {
            assert_eq!(said(mended), 0, "{mended}");
        }
    }
}
