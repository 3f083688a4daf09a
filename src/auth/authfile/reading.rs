//! Reading a file with everything that it takes in: `include`, `include_if_exists`, `include_dir`, `@file`.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    files::{Disk, Files},
    problem::{Place, Problem, Problems},
    tokens::{self, Field},
};

/// As PostgreSQL's `CONF_FILE_MAX_DEPTH`.
const DEPTH: usize = 10;
/// How many files one file may take in, counting each time.
const MAX_FILES: usize = 1_000;
/// How many bytes all of them may have.
const MAX_BYTES: usize = 4 << 20;

/// A line that says something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::auth) struct Line {
    pub(in crate::auth) place: Place,
    /// At least one.
    pub(in crate::auth) fields: Vec<Field>,
}

/// A file that is being read, and what is wrong with it so far.
#[derive(Debug)]
pub(in crate::auth) struct Reading<'a> {
    files: &'a dyn Files,
    files_left: usize,
    bytes_left: usize,
    /// A limit has been met: what has not been read never will be.
    exhausted: bool,
    problems: Vec<Problem>,
    seen: BTreeSet<PathBuf>,
}

/// What to read, and for whom.
struct Wanted<'a> {
    path: &'a Path,
    /// The line that names the file.
    from: &'a Place,
    depth: usize,
    may_be_absent: bool,
}

/// What takes in another file, by its first word.
enum Include {
    File { may_be_absent: bool },
    Directory,
}

/// An authentication file with all files and directories that it takes in, or would if they were there. Reads them.
pub fn taken_in(path: &Path) -> Vec<PathBuf> {
    let mut reading = Reading::new(&Disk);
    reading.lines(path);
    reading.seen.into_iter().collect()
}

impl<'a> Reading<'a> {
    pub(in crate::auth) fn new(files: &'a dyn Files) -> Self {
        Self {
            files,
            files_left: MAX_FILES,
            bytes_left: MAX_BYTES,
            exhausted: false,
            problems: Vec::new(),
            seen: BTreeSet::new(),
        }
    }

    /// The lines of the file, those of included files in the place of their includes.
    pub(in crate::auth) fn lines(&mut self, path: &Path) -> Vec<Line> {
        let from = Place {
            file: path.into(),
            line: 0,
        };
        self.file(&Wanted {
            path,
            from: &from,
            depth: 0,
            may_be_absent: false,
        })
    }

    pub(in crate::auth) fn problem(&mut self, place: &Place, message: String, hint: Option<&'static str>) {
        self.problems.push(Problem {
            place: place.clone(),
            message,
            hint,
        });
    }

    /// `value`, if nothing was wrong.
    pub(in crate::auth) fn finish<T>(mut self, value: T) -> Result<T, Problems> {
        self.problems
            .sort_by(|a, b| (&a.place.file, a.place.line).cmp(&(&b.place.file, b.place.line)));
        // A file may be taken in more than once.
        self.problems.dedup();
        if self.problems.is_empty() {
            Ok(value)
        } else {
            Err(Problems(self.problems))
        }
    }

    fn file(&mut self, wanted: &Wanted<'_>) -> Vec<Line> {
        let Some(text) = self.text(wanted) else {
            return Vec::new();
        };
        let (file, mut lines) = (Arc::<Path>::from(wanted.path), Vec::new());
        for (number, line) in tokens::lines(&text) {
            let place = Place {
                file: file.clone(),
                line: number,
            };
            match tokens::fields(&line) {
                Ok(fields) if fields.is_empty() => {}
                Ok(fields) => self.line(place, fields, wanted.depth, &mut lines),
                Err(tokens::Unclosed) => {
                    self.problem(&place, "a quote is not closed on its line".to_owned(), None);
                }
            }
        }
        lines
    }

    fn text(&mut self, wanted: &Wanted<'_>) -> Option<String> {
        let path = wanted.path.display();
        if self.exhausted {
            return None;
        }
        if wanted.depth > DEPTH {
            let message = format!("could not open file \"{path}\": maximum nesting depth exceeded");
            self.problem(wanted.from, message, Some("does a file take in itself?"));
            return None;
        }
        self.seen.insert(wanted.path.to_path_buf());
        let bytes = match self.files.read(wanted.path, self.bytes_left) {
            Ok(bytes) => bytes,
            Err(error) if wanted.may_be_absent && error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                self.problem(
                    wanted.from,
                    format!("could not open file \"{path}\": {error}"),
                    None,
                );
                return None;
            }
        };
        if self.files_left == 0 || bytes.len() > self.bytes_left {
            let message = format!(
                "more than {MAX_FILES} files or {} MB with \"{path}\"",
                MAX_BYTES >> 20
            );
            self.problem(wanted.from, message, None);
            self.exhausted = true;
            return None;
        }
        self.files_left -= 1;
        self.bytes_left -= bytes.len();
        let text = String::from_utf8(bytes);
        text.map_err(|error| self.not_utf8(wanted.path, &error)).ok()
    }

    fn not_utf8(&mut self, path: &Path, error: &std::string::FromUtf8Error) {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let place = Place {
            file: path.into(),
            line: before.iter().filter(|byte| **byte == b'\n').count() + 1,
        };
        self.problem(&place, "not UTF-8".to_owned(), None);
    }

    fn line(&mut self, place: Place, fields: Vec<Field>, depth: usize, lines: &mut Vec<Line>) {
        let Some((include, named)) = include(&fields) else {
            let fields = fields
                .into_iter()
                .map(|field| self.expand(field, &place, depth))
                .collect();
            return lines.push(Line { place, fields });
        };
        let path = beside(&place, named);
        let (paths, may_be_absent) = match include {
            Include::File { may_be_absent } => (vec![path], may_be_absent),
            Include::Directory => match self.directory(&path) {
                Ok(paths) => (paths, false),
                Err(error) => {
                    let message = format!("could not open directory \"{}\": {error}", path.display());
                    return self.problem(&place, message, None);
                }
            },
        };
        for path in paths {
            lines.extend(self.file(&Wanted {
                path: &path,
                from: &place,
                depth: depth + 1,
                may_be_absent,
            }));
        }
    }

    fn directory(&mut self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.seen.insert(path.to_path_buf());
        self.files.list(path)
    }

    /// The field with the words of a file in the place of its `@file`.
    fn expand(&mut self, field: Field, place: &Place, depth: usize) -> Field {
        let mut expanded = Field::with_capacity(field.len());
        for token in field {
            match token.after('@').filter(|name| !name.is_empty()) {
                Some(name) => expanded.extend(
                    self.file(&Wanted {
                        path: &beside(place, name),
                        from: place,
                        depth: depth + 1,
                        may_be_absent: false,
                    })
                    .into_iter()
                    .flat_map(|line| line.fields)
                    .flatten(),
                ),
                None => expanded.push(token),
            }
        }
        expanded
    }
}

/// An include has one word and one file. Anything longer is a record, as in PostgreSQL.
fn include(fields: &[Field]) -> Option<(Include, &str)> {
    let [directive, named] = fields else { return None };
    let ([directive], [named]) = (&directive[..], &named[..]) else {
        return None;
    };
    let include = match &*directive.text {
        "include" => Include::File { may_be_absent: false },
        "include_if_exists" => Include::File { may_be_absent: true },
        "include_dir" => Include::Directory,
        _ => return None,
    };
    Some((include, &named.text))
}

/// A path is relative to the file that it stands in.
fn beside(place: &Place, path: &str) -> PathBuf {
    place.file.parent().unwrap_or(Path::new("")).join(path)
}
