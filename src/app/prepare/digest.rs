//! What files have in them, in few bytes: equal digests, equal contents. No secret can be read from it.

use std::path::PathBuf;

use ring::digest::{Context, SHA256};

use crate::auth::authfile::{Disk, Files};

/// Lists of users and of revoked certificates are long; more than this is a mistake.
const MOST: usize = 256 << 20;

/// The digest of some files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Digest(Vec<u8>);

impl Digest {
    /// Reads the files. One that cannot be read is different from any that can, and a pipe or a file that is far too long
    /// is none.
    pub fn of(files: &[PathBuf]) -> Self {
        let mut context = Context::new(&SHA256);
        for file in files {
            match Disk.read(file, MOST) {
                Ok(contents) if contents.len() <= MOST => {
                    context.update(&[1]);
                    context.update(&(contents.len() as u64).to_be_bytes());
                    context.update(&contents);
                }
                _ => context.update(&[0]),
            }
        }
        Self(context.finish().as_ref().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use super::*;

    /// Somebody names a pipe, which would keep whoever opens it waiting.
    #[test]
    fn a_pipe_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        let made = Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        assert_eq!(
            Digest::of(&[path]),
            Digest::of(&[directory.path().join("missing")])
        );
    }

    #[test]
    fn it_tells_contents_apart_and_not_names() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, contents: &str| {
            let path = directory.path().join(name);
            fs::write(&path, contents).unwrap();
            path
        };
        let (a, same, b, empty) = (
            file("a", "1"),
            file("same", "1"),
            file("b", "2"),
            file("empty", ""),
        );
        let missing = directory.path().join("missing");
        let of = |files: &[&PathBuf]| Digest::of(&files.iter().map(|&file| file.clone()).collect::<Vec<_>>());
        assert_eq!(of(&[&a]), of(&[&same]));
        let different = [
            of(&[&a]),
            of(&[&b]),
            of(&[&a, &b]),
            of(&[&empty]),
            of(&[&missing]),
            of(&[]),
        ];
        for (index, one) in different.iter().enumerate() {
            assert!(
                different.iter().skip(index + 1).all(|other| other != one),
                "{index}"
            );
        }
    }
}
