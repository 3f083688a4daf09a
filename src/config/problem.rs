//! What is wrong with a configuration file, for the person who wrote it.
//!
//! It knows neither TOML nor any setting.

use std::{fmt, io, path::PathBuf};

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// `None` is the configuration file itself.
    pub file: Option<PathBuf>,
    /// Counted from 1.
    pub line: usize,
    /// Dotted path such as `pool.default_pool_size`; empty when the mistake is one of syntax.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// `line: key: message`, and the hint on a line of its own.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.line)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file itself cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The configuration file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file can be read; this is everything that is wrong in it.
    #[error("{}", Listing { path, problems })]
    Invalid {
        /// The configuration file.
        path: PathBuf,
        /// At least one, by line.
        problems: Vec<Problem>,
    },
}

impl ConfigError {
    /// The mistakes in the file; none when the file could not be read.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Read { .. } => &[],
            Self::Invalid { problems, .. } => problems,
        }
    }
}

/// The problems as compilers print them, `file:line: key: message`.
struct Listing<'a> {
    path: &'a PathBuf,
    problems: &'a [Problem],
}

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            let file = problem.file.as_ref().unwrap_or(self.path);
            write!(f, "{separator}{}:{problem}", file.display())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_listed_like_a_compiler_does() {
        let problem = |line, key: &str, hint: Option<&str>| Problem {
            file: (line == 9).then(|| PathBuf::from("b.ini")),
            line,
            key: key.to_owned(),
            message: "is wrong".to_owned(),
            hint: hint.map(str::to_owned),
        };
        let error = ConfigError::Invalid {
            path: PathBuf::from("a/b.toml"),
            problems: vec![
                problem(3, "", None),
                problem(7, "pool.mode", Some("fix it")),
                problem(9, "", None),
            ],
        };
        assert_eq!(
            error.to_string(),
            "a/b.toml:3: is wrong\na/b.toml:7: pool.mode: is wrong\n  hint: fix it\nb.ini:9: is wrong"
        );
    }
}
