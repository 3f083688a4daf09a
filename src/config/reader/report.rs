//! What came to light while a file was read: its problems and the files it names.
//!
//! It knows lines and dotted paths, but no tree of values.

use std::{
    cell::RefCell,
    fmt::Display,
    path::{Path, PathBuf},
};

use crate::config::{files::ReferencedFile, problem::Problem};

/// The problems and named files of one configuration file.
pub(crate) struct Report<'a> {
    base: &'a Path,
    /// Where each line ends.
    line_ends: Vec<usize>,
    syntax: Vec<Problem>,
    problems: RefCell<Vec<Problem>>,
    files: RefCell<Vec<ReferencedFile>>,
}

impl<'a> Report<'a> {
    pub(crate) fn new(text: &str, base: &'a Path, errors: &[toml::de::Error]) -> Self {
        let line_ends = text.match_indices('\n').map(|(offset, _)| offset).collect();
        let mut report = Self {
            base,
            line_ends,
            syntax: Vec::new(),
            problems: RefCell::default(),
            files: RefCell::default(),
        };
        report.syntax = errors.iter().map(|error| report.syntax_problem(error)).collect();
        // One slip can upset the parser several times; the first complaint about a line is the true one.
        report.syntax.sort_by_key(|problem| problem.line);
        report.syntax.dedup_by_key(|problem| problem.line);
        report
    }

    /// Directory at which relative paths start.
    pub(crate) fn base(&self) -> &'a Path {
        self.base
    }

    pub(crate) fn add(&self, line: usize, key: &str, message: impl Display, hint: Option<String>) {
        self.problems.borrow_mut().push(Problem {
            file: None,
            line,
            key: key.to_owned(),
            message: one_line(&message.to_string()),
            hint,
        });
    }

    /// Notes that `key` names a file that has to be there; returns where it is.
    pub(super) fn file(&self, line: usize, key: String, path: &str) -> PathBuf {
        let path = self.base.join(path);
        let file = ReferencedFile {
            line,
            key,
            path: path.clone(),
        };
        self.files.borrow_mut().push(file);
        path
    }

    /// Whether the tree is all that the file says: what seems to be missing is then really missing.
    pub(super) fn is_complete(&self) -> bool {
        self.syntax.is_empty()
    }

    /// Whether the values at these paths are what the file means, so that they can be held against each other.
    pub(crate) fn is_sound(&self, paths: &[&str]) -> bool {
        let problems = self.problems.borrow();
        self.is_complete()
            && !problems
                .iter()
                .any(|problem| paths.contains(&problem.key.as_str()))
    }

    /// Everything by line. On a line with a syntax error only that counts: the value was never read right.
    pub(crate) fn finish(self) -> (Vec<Problem>, Vec<ReferencedFile>) {
        let mut problems = self.problems.into_inner();
        problems.retain(|problem| self.syntax.iter().all(|syntax| syntax.line != problem.line));
        problems.extend(self.syntax);
        problems.sort_by_key(|problem| problem.line);
        (problems, self.files.into_inner())
    }

    pub(super) fn line(&self, offset: usize) -> usize {
        1 + self.line_ends.partition_point(|end| *end < offset)
    }

    fn syntax_problem(&self, error: &toml::de::Error) -> Problem {
        let offset = error.span().map_or(0, |span| span.start);
        Problem {
            file: None,
            line: self.line(offset),
            key: String::new(),
            message: one_line(error.message()),
            hint: None,
        }
    }
}

/// Keeps a value quoted in a message from breaking the line or the terminal.
fn one_line(message: &str) -> String {
    let mut line = String::with_capacity(message.len());
    for character in message.chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}
