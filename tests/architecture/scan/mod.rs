//! A source file as the rules see it: paths, statics and where they stand, without comments and literals.
//!
//! It reads tokens, not syntax; what it cannot see is a name that a macro makes or that `use … as` hides.

mod tokens;

use tokens::{Token, tokenize};

/// The name of the library in the binary.
const LIBRARY: &str = "pgweir";

/// One file under `src`.
pub(crate) struct Source {
    /// Its module path with slashes: `net/socket` for `net/socket.rs`, `net` for `net/mod.rs`.
    pub(crate) place: String,
    first_line: String,
    tokens: Vec<Token>,
    paths: Vec<NamedPath>,
}

/// A path such as `crate::net::Socket`; a `use` with braces makes one for each name in it.
struct NamedPath {
    segments: Vec<String>,
    /// The index of its last segment's token.
    at: usize,
    /// Written as `use x` or `extern crate x`, so that even a single segment is no variable.
    declared: bool,
}

impl Source {
    /// Reads a file's text; `file` is its path under `src`.
    pub(crate) fn new(file: &str, text: &str) -> Self {
        let stem = file.strip_suffix(".rs").unwrap_or(file);
        let place = stem.strip_suffix("/mod").unwrap_or(stem);
        let tokens = tokenize(text);
        Self {
            place: place.to_owned(),
            first_line: text.lines().next().unwrap_or_default().to_owned(),
            paths: paths(&tokens),
            tokens,
        }
    }

    /// The top-level module that the file belongs to.
    pub(crate) fn module(&self) -> &str {
        self.place.split('/').next().unwrap_or_default()
    }

    /// Whether the file is `place` or below it.
    pub(crate) fn is_in(&self, place: &str) -> bool {
        self.place
            .strip_prefix(place)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Whether the first line is module documentation.
    pub(crate) fn opens_with_docs(&self) -> bool {
        let text = self.first_line.strip_prefix("//!");
        text.is_some_and(|text| !text.trim().is_empty())
            || self.first_line.starts_with("#![doc = include_str!(")
    }

    /// The top-level modules that are named, with their lines.
    pub(crate) fn imports(&self) -> Vec<(usize, String)> {
        let named = |path: &NamedPath| {
            let depth = self.depth() + self.tokens[path.at].modules;
            let supers = path.segments.iter().take_while(|it| *it == "super").count();
            let root = match path.segments[0].as_str() {
                "crate" | LIBRARY => 1,
                "super" if supers == depth => supers,
                _ => return None,
            };
            let to = path.segments.get(root)?;
            Some((self.tokens[path.at].line, to.clone()))
        };
        self.paths.iter().filter_map(named).collect()
    }

    /// The lines whose paths begin with `name` (`tokio::net`).
    pub(crate) fn lines_naming(&self, name: &str) -> Vec<usize> {
        let name: Vec<_> = name.split("::").collect();
        let names_it = |path: &&NamedPath| {
            path.segments.iter().take(name.len()).eq(name.iter())
                && (path.segments.len() > 1 || path.declared)
        };
        let paths = self.paths.iter().filter(names_it);
        paths.map(|path| self.tokens[path.at].line).collect()
    }

    /// The lines outside of tests whose paths end with one of `calls` (`Instant::now`).
    pub(crate) fn lines_calling(&self, calls: &[&str]) -> Vec<usize> {
        let calls_one = |path: &&NamedPath| {
            let path = path.segments.join("::");
            calls.iter().any(|call| {
                path.strip_suffix(call)
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with("::"))
            })
        };
        let tests = self.place.split('/').any(|part| part == "tests");
        let paths = self
            .paths
            .iter()
            .filter(|path| !tests && !self.tokens[path.at].test);
        paths
            .filter(calls_one)
            .map(|path| self.tokens[path.at].line)
            .collect()
    }

    /// The statics: their lines and the words between `static` and the value.
    pub(crate) fn statics(&self) -> Vec<(usize, Vec<&str>)> {
        let starts = self
            .tokens
            .iter()
            .enumerate()
            .filter(|(_, it)| it.text == "static");
        starts
            .map(|(index, start)| {
                let rest = self.tokens[index + 1..].iter().map(|it| it.text.as_str());
                (
                    start.line,
                    rest.take_while(|it| !matches!(*it, "=" | ";")).collect(),
                )
            })
            .collect()
    }

    /// How many `super`s lead from the file's own module to the crate's root.
    fn depth(&self) -> usize {
        match self.place.as_str() {
            "lib" | "main" => 0,
            place => place.split('/').count(),
        }
    }
}

fn paths(tokens: &[Token]) -> Vec<NamedPath> {
    let mut reader = PathReader {
        tokens,
        declared: false,
        found: Vec::new(),
    };
    let mut at = 0;
    while at < tokens.len() {
        if !tokens[at].is_word() {
            at += 1;
            continue;
        }
        let before = tokens[..at].iter().rev().find(|it| it.text != "::");
        reader.declared = before.is_some_and(|it| matches!(it.text.as_str(), "use" | "crate"));
        at = reader.path(at, Vec::new());
    }
    reader.found
}

struct PathReader<'a> {
    tokens: &'a [Token],
    declared: bool,
    found: Vec<NamedPath>,
}

impl PathReader<'_> {
    /// Reads the path whose next segment is at `at`, after `segments`; returns where it ends.
    fn path(&mut self, mut at: usize, mut segments: Vec<String>) -> usize {
        loop {
            segments.push(self.text(at).to_owned());
            if self.text(at + 1) != "::" {
                break;
            }
            match self.tokens.get(at + 2) {
                Some(next) if next.text == "{" => return self.group(at + 3, &segments),
                Some(next) if next.is_word() || next.text == "*" => at += 2,
                // `Vec::<u8>::new`: the rest is no path of ours.
                _ => break,
            }
        }
        self.found.push(NamedPath {
            segments,
            at,
            declared: self.declared,
        });
        at + 1
    }

    /// Reads `a, b::{c, d}, *}`, each after `prefix`; returns where it ends.
    fn group(&mut self, mut at: usize, prefix: &[String]) -> usize {
        while let Some(token) = self.tokens.get(at) {
            if token.text == "}" {
                return at + 1;
            }
            if token.text == "as" {
                at += 2;
            } else if token.is_word() || token.text == "*" {
                at = self.path(at, prefix.to_vec());
            } else {
                at += 1;
            }
        }
        at
    }

    fn text(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |token| token.text.as_str())
    }
}
