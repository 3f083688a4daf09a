//! Where PostgreSQL's own programs are: the server's, psql and pgbench.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

use nix::sys::signal::Signal;

use super::error::{PostgresError, run};
use crate::cli::demo::child::{find_in_path, is_executable, tied};

/// Names the directory with PostgreSQL's server programs.
pub const BIN_VARIABLE: &str = "PGWEIR_POSTGRES_BIN";
/// Where `./dev` unpacks PostgreSQL for people who cannot install packages.
const UNPACKED: &str = ".dev";
const PACKAGED: &str = "/usr/lib/postgresql";

/// One installation of PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    bin: PathBuf,
}

impl Programs {
    /// Looks at `$PGWEIR_POSTGRES_BIN`, then `PATH`, then the newest version that a distribution's packages
    /// put beside it, then `.dev` of `checkout`.
    ///
    /// # Errors
    /// [`PostgresError::NotFound`].
    pub fn find(checkout: &Path) -> Result<Self, PostgresError> {
        if let Some(bin) = std::env::var_os(BIN_VARIABLE) {
            let bin = PathBuf::from(bin);
            return Self::in_directory(&bin).ok_or(PostgresError::NotFound { looked: bin });
        }
        find_in_path("postgres")
            .and_then(|program| program.canonicalize().ok())
            .and_then(|program| Self::in_directory(program.parent()?))
            .or_else(|| newest(Path::new(PACKAGED), ""))
            .or_else(|| newest(&checkout.join(UNPACKED), "postgresql"))
            .ok_or(PostgresError::NotFound {
                looked: PACKAGED.into(),
            })
    }

    /// The installation whose server programs are in `bin`.
    pub fn in_directory(bin: &Path) -> Option<Self> {
        let complete = ["postgres", "initdb"]
            .iter()
            .all(|name| is_executable(&bin.join(name)));
        complete.then(|| Self {
            bin: bin.to_path_buf(),
        })
    }

    /// The file of a program: this installation's, or the bare name for `PATH` to find.
    pub fn path(&self, name: &str) -> PathBuf {
        let own = self.bin.join(name);
        if is_executable(&own) { own } else { name.into() }
    }

    /// A command for a program, with no setting of the caller's environment that libpq would heed.
    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.path(name));
        self.set_environment(&mut command);
        command
    }

    /// As [`Programs::command`]; the process gets `on_death` when this process dies.
    pub fn tied_command(&self, name: &str, on_death: Signal) -> Command {
        let mut command = tied(self.path(name), on_death);
        self.set_environment(&mut command);
        command
    }

    /// How a person runs the program in a shell: its name if `PATH` has it, or its file, with its libraries
    /// when the installation is not the system's.
    pub fn shell(&self, name: &str) -> String {
        let program = self.path(name);
        match self.libraries() {
            Some(libraries) if program.is_absolute() => {
                format!(
                    "LD_LIBRARY_PATH='{}' '{}'",
                    libraries.display(),
                    program.display()
                )
            }
            _ if find_in_path(name).is_some() => name.to_owned(),
            _ => format!("'{}'", program.display()),
        }
    }

    /// What `postgres --version` prints.
    ///
    /// # Errors
    /// The program cannot be run.
    pub fn version(&self) -> Result<String, PostgresError> {
        let output = run(self.command("postgres").arg("--version"))?;
        Ok(output.trim().to_owned())
    }

    /// The libraries of an installation that is not the system's.
    fn libraries(&self) -> Option<PathBuf> {
        let libraries = self.bin.parent()?.join("lib");
        libraries.join("libpq.so.5").exists().then_some(libraries)
    }

    fn set_environment(&self, command: &mut Command) {
        for (name, _) in std::env::vars_os() {
            if is_libpq_variable(&name) {
                command.env_remove(name);
            }
        }
        // Messages are looked for in the server's log.
        command.env("LC_ALL", "C");
        if let Some(libraries) = self.libraries() {
            command.env("LD_LIBRARY_PATH", libraries);
        }
    }
}

fn is_libpq_variable(name: &OsStr) -> bool {
    name.to_str()
        .is_some_and(|name| name.starts_with("PG") && !name.starts_with("PGWEIR_"))
}

/// The newest `DIRECTORY/PREFIX*/bin` that is complete.
fn newest(directory: &Path, prefix: &str) -> Option<Programs> {
    let entries = directory.read_dir().ok()?;
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .filter_map(|entry| {
            let programs = Programs::in_directory(&entry.path().join("bin"))?;
            Some((version_key(&entry.file_name().to_string_lossy()), programs))
        })
        .max_by(|(one, _), (other, _)| one.cmp(other))
        .map(|(_, programs)| programs)
}

/// The numbers in a directory name, so that 16.15 is newer than 16.9 and 9.6.
fn version_key(name: &str) -> Vec<u32> {
    name.split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn install(directory: &Path) -> PathBuf {
        let bin = directory.join("bin");
        std::fs::create_dir_all(&bin).unwrap();
        for name in ["postgres", "initdb"] {
            let file = bin.join(name);
            std::fs::write(&file, "").unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        bin
    }

    #[test]
    fn the_newest_complete_version_wins() {
        let directory = tempfile::tempdir().unwrap();
        install(&directory.path().join("postgresql-9.6.1"));
        install(&directory.path().join("postgresql-16.9.0"));
        let newest_bin = install(&directory.path().join("postgresql-16.15.0"));
        install(&directory.path().join("tools-99"));
        std::fs::create_dir_all(directory.path().join("postgresql-17.0.0/bin")).unwrap();
        let found = newest(directory.path(), "postgresql").unwrap();
        assert_eq!(found, Programs { bin: newest_bin });
    }

    #[test]
    fn an_own_program_goes_before_the_path() {
        let directory = tempfile::tempdir().unwrap();
        let bin = install(directory.path());
        let programs = Programs::in_directory(&bin).unwrap();
        assert_eq!(programs.path("initdb"), bin.join("initdb"));
        assert_eq!(programs.path("psql"), PathBuf::from("psql"));
    }

    #[test]
    fn libraries_of_an_unpacked_installation_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let bin = install(directory.path());
        let programs = Programs::in_directory(&bin).unwrap();
        assert_eq!(programs.libraries(), None);
        let libraries = directory.path().join("lib");
        std::fs::create_dir(&libraries).unwrap();
        std::fs::write(libraries.join("libpq.so.5"), "").unwrap();
        let command = programs.command("initdb");
        let set = command.get_envs().find(|(name, _)| *name == "LD_LIBRARY_PATH");
        assert_eq!(set.unwrap().1.unwrap(), libraries.as_os_str());
        let expected = format!(
            "LD_LIBRARY_PATH='{}' '{}/initdb'",
            libraries.display(),
            bin.display()
        );
        assert_eq!(programs.shell("initdb"), expected);
    }

    #[test]
    fn only_libpq_variables_are_hidden() {
        assert!(is_libpq_variable(OsStr::new("PGSSLMODE")));
        assert!(!is_libpq_variable(OsStr::new("PGWEIR_POSTGRES_BIN")));
        assert!(!is_libpq_variable(OsStr::new("HOME")));
    }
}
