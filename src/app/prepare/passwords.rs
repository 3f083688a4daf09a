//! What databases' users log in to servers with (`password_file`).

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    str,
};

use super::PrepareError;
use crate::{
    auth::{
        authfile::{Disk, Files},
        secret::Secret,
    },
    config::{ServerPassword, Settings},
};

/// Longer ones are no passwords.
const MOST: usize = 64 << 10;

/// The secrets by the names that databases have in the configuration.
pub(super) type Passwords = BTreeMap<String, Secret>;

/// The files that they are in.
pub(super) fn files(settings: &Settings) -> impl Iterator<Item = &PathBuf> {
    let passwords = settings.databases.values().map(|database| &database.password);
    passwords.filter_map(|password| match password {
        Some(ServerPassword::File(path)) => Some(path),
        _ => None,
    })
}

/// Reads them.
pub(super) fn read(settings: &Settings) -> Result<Passwords, PrepareError> {
    let mut passwords = Passwords::new();
    for (name, database) in &settings.databases {
        let secret = match &database.password {
            None => continue,
            Some(ServerPassword::Written(password)) => secret(password),
            Some(ServerPassword::File(path)) => contents(path),
        };
        let secret = secret.map_err(|reason| PrepareError::Password {
            database: name.clone(),
            reason,
        })?;
        passwords.insert(name.clone(), secret);
    }
    Ok(passwords)
}

fn contents(path: &Path) -> Result<Secret, String> {
    let bytes = Disk.read(path, MOST).map_err(|error| error.to_string())?;
    if bytes.len() > MOST {
        return Err(format!("it has more than {MOST} bytes"));
    }
    let text = str::from_utf8(&bytes).map_err(|_| "it is not UTF-8".to_owned())?;
    secret(text.trim_end_matches(['\r', '\n']))
}

fn secret(text: &str) -> Result<Secret, String> {
    match text {
        "" => Err("it is empty".to_owned()),
        text if text.contains('\0') => Err("it has a zero byte".to_owned()),
        text => Secret::parse(text).map_err(|error| error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config;

    #[test]
    fn a_line_break_at_the_end_does_not_count_and_nothing_else_is_forgiven() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.password");
        let settings = config::parse(
            "[auth]\nauth_type = \"trust\"\n[databases.app]\nhosts = \"h\"\nuser = \"app\"\npassword_file = \"app.password\"",
            directory.path(),
        )
        .unwrap();
        assert_eq!(files(&settings).collect::<Vec<_>>(), [&path]);
        for (contents, expected) in [
            ("secret\r\n", true),
            ("se cret", true),
            ("\n", false),
            ("a\0b", false),
        ] {
            fs::write(&path, contents).unwrap();
            assert_eq!(read(&settings).is_ok(), expected, "{contents:?}");
        }
        fs::remove_file(&path).unwrap();
        assert!(read(&settings).unwrap_err().to_string().contains("databases.app"));
    }
}
