//! What `fuzz/` runs, and what a unit test runs over its corpus: for each target a function that takes any bytes
//! and panics when something is wrong.
//!
//! The functions stand beside what they examine, which is mostly private. Where the right answer can be known,
//! they check it: another way to compute the same, a model, or what must hold for every input.

pub use crate::{
    auth::fuzzing::{client_login, hba_file, ident_file, scram, server_login, users_file},
    config::fuzzing::{config_file, config_values, pgbouncer_ini},
    server::fuzzing::{ledger, server_stream, statement_hints},
    session::fuzzing::{requests, session},
    startup::fuzzing::{startup_options, startup_packet},
    wire::fuzzing::{backend_messages, framing},
};

/// Takes any bytes, and panics when something is wrong.
pub type Target = fn(&[u8]);

/// The targets, by the names of their corpora.
pub const TARGETS: &[(&str, Target)] = &[
    ("backend_messages", backend_messages),
    ("client_login", client_login),
    ("config_file", config_file),
    ("config_values", config_values),
    ("framing", framing),
    ("hba_file", hba_file),
    ("ident_file", ident_file),
    ("ledger", ledger),
    ("pgbouncer_ini", pgbouncer_ini),
    ("requests", requests),
    ("scram", scram),
    ("server_login", server_login),
    ("server_stream", server_stream),
    ("session", session),
    ("startup_options", startup_options),
    ("startup_packet", startup_packet),
    ("statement_hints", statement_hints),
    ("users_file", users_file),
];

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    fn names(directory: &str) -> BTreeSet<String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(directory);
        let entries = fs::read_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let name = |entry: fs::DirEntry| entry.path().file_stem().unwrap().to_string_lossy().into_owned();
        entries.map(|entry| name(entry.unwrap())).collect()
    }

    #[test]
    fn each_target_has_a_program_and_a_corpus() {
        let targets = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(names("fuzz_targets"), targets);
        assert_eq!(names("corpus"), targets);
    }

    #[test]
    fn nothing_in_the_corpus_is_wrong() {
        for (name, target) in TARGETS {
            let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("fuzz/corpus")
                .join(name);
            for input in fs::read_dir(&corpus).unwrap() {
                let path = input.unwrap().path();
                let input = fs::read(&path).unwrap();
                if let Err(panic) = std::panic::catch_unwind(|| target(&input)) {
                    eprintln!("with {}", path.display());
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }
}
