//! The syntax of a `pgbouncer.ini`: sections, keys, values and `%include`, each with its place.
//!
//! It goes on after a mistake, where PgBouncer stops, and knows no setting.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::super::problem::Problem;

/// As PgBouncer's `MAX_INCLUDE`.
const DEPTH: usize = 10;
/// How many files one file may take in, counting each time.
const MAX_FILES: usize = 1_000;

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file.
    pub file: Arc<Path>,
    /// Counted from one; zero is the file as a whole.
    pub line: usize,
}

impl Place {
    pub(super) fn problem(&self, key: &str, message: impl Into<String>, hint: Option<&str>) -> Problem {
        Problem {
            file: Some(self.file.to_path_buf()),
            line: self.line,
            key: key.to_owned(),
            message: one_line(&message.into()),
            hint: hint.map(one_line),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        match self.line {
            0 => Ok(()),
            line => write!(f, ":{line}"),
        }
    }
}

/// A value that is not to break a line of what quotes it, or a terminal.
pub(super) fn one_line(text: &str) -> String {
    let escaped = |character: char| match character.is_control() {
        true => character.escape_default().collect::<String>(),
        false => character.to_string(),
    };
    text.chars().map(escaped).collect()
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) place: Place,
    pub(super) what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// `[name]`
    Section(String),
    /// `key = value`
    Value(String, String),
}

/// A `pgbouncer.ini` with everything that it includes.
#[derive(Debug, Clone)]
pub struct Ini {
    pub(super) file: Arc<Path>,
    pub(super) said: Vec<Said>,
    pub(super) problems: Vec<Problem>,
    /// All files, those that cannot be read among them.
    pub(super) files: Vec<PathBuf>,
}

impl Ini {
    /// The file at `path` and what it includes, the contents of each by `read`.
    ///
    /// # Errors
    /// The file itself cannot be read.
    pub(in crate::config) fn read(
        path: &Path,
        read: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
    ) -> io::Result<Self> {
        let content = read(path)?;
        let mut ini = Self {
            file: path.into(),
            said: Vec::new(),
            problems: Vec::new(),
            files: vec![path.to_owned()],
        };
        ini.take_in(path, &content, 0, read);
        Ok(ini)
    }

    /// Settings that are said elsewhere than in a file of their own, each with its line there.
    pub(super) fn of_settings(
        file: &Path,
        settings: impl IntoIterator<Item = (usize, String, String)>,
    ) -> Self {
        let file: Arc<Path> = file.into();
        let said = |line, what| Said {
            place: Place {
                file: file.clone(),
                line,
            },
            what,
        };
        let values = settings
            .into_iter()
            .map(|(line, key, value)| said(line, What::Value(key, value)));
        let section = said(0, What::Section("pgbouncer".to_owned()));
        Self {
            said: std::iter::once(section).chain(values).collect(),
            problems: Vec::new(),
            files: Vec::new(),
            file,
        }
    }

    fn take_in(
        &mut self,
        path: &Path,
        content: &[u8],
        depth: usize,
        read: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
    ) {
        let file: Arc<Path> = path.into();
        for (index, line) in content.split(|byte| *byte == b'\n').enumerate() {
            let place = Place {
                file: file.clone(),
                line: index + 1,
            };
            let text = match std::str::from_utf8(line) {
                Ok(text) if text.contains('\0') => Err("a zero character"),
                Ok(text) => Ok(text.trim()),
                Err(_) => Err("the line is not UTF-8 text"),
            };
            match text {
                Ok(text) => match text
                    .strip_prefix("%include")
                    .filter(|rest| rest.starts_with([' ', '\t']))
                {
                    Some(named) => self.include(&place, named.trim(), depth, read),
                    None => self.line(&place, text),
                },
                Err(message) => self.problems.push(place.problem("", message, None)),
            }
        }
    }

    fn include(
        &mut self,
        place: &Place,
        named: &str,
        depth: usize,
        read: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
    ) {
        let path = Path::new(named);
        if depth >= DEPTH || self.files.len() >= MAX_FILES {
            let hint = "does a file include itself?";
            self.problems
                .push(place.problem("%include", "too many files inside each other", Some(hint)));
            return;
        }
        self.files.push(path.to_owned());
        match read(path) {
            Ok(content) => self.take_in(path, &content, depth + 1, read),
            Err(error) => {
                let hint = path
                    .is_relative()
                    .then_some("relative paths start in the working directory, as in PgBouncer");
                let message = format!("cannot read {named}: {error}");
                self.problems.push(place.problem("%include", message, hint));
            }
        }
    }

    fn line(&mut self, place: &Place, line: &str) {
        let mut rest = line;
        // PgBouncer goes on behind a section's name.
        while let Some(section) = rest.strip_prefix('[') {
            let Some((name, after)) = section.split_once(']') else {
                let problem = place.problem("", "a section's name is not closed with ]", None);
                return self.problems.push(problem);
            };
            self.push(place, What::Section(name.to_owned()));
            rest = after.trim_start();
        }
        if rest.is_empty() || rest.starts_with(['#', ';']) {
            return;
        }
        match key_and_value(rest) {
            Ok((key, value)) => self.push(place, What::Value(key, value)),
            Err(message) => {
                let hint = "a line is `key = value`, `[section]`, `%include FILE`, or begins with ; or #";
                self.problems.push(place.problem("", message, Some(hint)));
            }
        }
    }

    fn push(&mut self, place: &Place, what: What) {
        self.said.push(Said {
            place: place.clone(),
            what,
        });
    }
}

/// What is wrong never quotes the value, which may be a secret.
fn key_and_value(line: &str) -> Result<(String, String), &'static str> {
    let (key, rest) = match line.chars().next() {
        Some(quote @ ('\'' | '"')) => quoted(line, quote)?,
        _ => {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-*".contains(&byte);
            let length = line.bytes().take_while(|byte| allowed(*byte)).count();
            let (key, rest) = line.split_at(length);
            (key.to_owned(), rest)
        }
    };
    let value = rest.trim_start_matches([' ', '\t']).strip_prefix('=');
    let value = value.ok_or(
        "there is no = behind a name of letters, digits, _ . - and *; other names are quoted: '...'",
    )?;
    if key.is_empty() {
        return Err("there is no name before the =");
    }
    Ok((key, value.trim().to_owned()))
}

/// PgBouncer reads `'...'`; its documentation has `"..."` with a quote inside doubled.
fn quoted(line: &str, quote: char) -> Result<(String, &str), &'static str> {
    let mut name = String::new();
    let mut rest = line.get(1..).unwrap_or_default();
    loop {
        let (before, after) = rest.split_once(quote).ok_or("a quote is not closed")?;
        name.push_str(before);
        match after.strip_prefix(quote).filter(|_| quote == '"') {
            Some(after) => {
                name.push(quote);
                rest = after;
            }
            None if name.is_empty() => return Err("a name is empty"),
            None => return Ok((name, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read(files: &[(&str, &str)]) -> Ini {
        let files: BTreeMap<_, _> = files.iter().copied().collect();
        let read = |path: &Path| {
            let text = files.get(path.to_str().unwrap_or_default());
            text.map(|text| text.as_bytes().to_vec())
                .ok_or_else(|| io::ErrorKind::NotFound.into())
        };
        Ini::read(Path::new("a.ini"), &read).unwrap()
    }

    fn said(ini: &Ini) -> Vec<String> {
        let show = |said: &Said| match &said.what {
            What::Section(name) => format!("{} [{name}]", said.place),
            What::Value(key, value) => format!("{} {key}={value}", said.place),
        };
        ini.said.iter().map(show).collect()
    }

    #[test]
    fn lines_are_read_as_pgbouncer_does() {
        let ini = read(&[(
            "a.ini",
            "; comment\n# another\n\n [databases] \n  a =host=b  ; no comment\r\n* = \n'x y'\t=\tz\n\"q\"\"r\" = 1\n[s] k=v\n",
        )]);
        assert_eq!(ini.problems, []);
        assert_eq!(
            said(&ini),
            [
                "a.ini:4 [databases]",
                "a.ini:5 a=host=b  ; no comment",
                "a.ini:6 *=",
                "a.ini:7 x y=z",
                "a.ini:8 q\"r=1",
                "a.ini:9 [s]",
                "a.ini:9 k=v"
            ]
        );
    }

    #[test]
    fn includes_stand_in_their_place() {
        let ini = read(&[
            (
                "a.ini",
                "[s]\n%include b.ini\nx = 3\n%include nowhere.ini\n%included = 4\n",
            ),
            ("b.ini", "x = 1\n[t]\n"),
        ]);
        assert_eq!(
            said(&ini),
            ["a.ini:1 [s]", "b.ini:1 x=1", "b.ini:2 [t]", "a.ini:3 x=3"]
        );
        let problems: Vec<_> = ini.problems.iter().map(|problem| problem.line).collect();
        assert_eq!(problems, [4, 5]);
        assert_eq!(ini.files.len(), 3);
    }

    #[test]
    fn a_file_that_includes_itself_comes_to_an_end() {
        let ini = read(&[("a.ini", "%include a.ini\n%include a.ini\n%include a.ini\n")]);
        assert!(ini.files.len() <= MAX_FILES && !ini.problems.is_empty());
    }

    #[test]
    fn mistakes_have_a_line_and_no_value() {
        for text in [
            "[open",
            "'open = 1",
            "'' = 1",
            "secret",
            "a b = secret",
            "= secret",
        ] {
            let ini = read(&[("a.ini", &format!("\n{text}\n"))]);
            let [problem] = &ini.problems[..] else {
                panic!("{text}: {:?}", ini.problems)
            };
            assert_eq!(problem.line, 2, "{text}");
            assert!(!problem.to_string().contains("secret"), "{text}");
        }
    }
}
