//! Files that exist only in a test.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use super::Files;

/// Texts by path. A listing does not look at the names' endings.
#[derive(Debug, Default)]
pub(in crate::auth) struct Fake(BTreeMap<PathBuf, Vec<u8>>);

impl Fake {
    pub(in crate::auth) fn new<T: AsRef<[u8]>>(files: &[(&str, T)]) -> Self {
        let file = |(path, text): &(&str, T)| (path.into(), text.as_ref().to_vec());
        Self(files.iter().map(file).collect())
    }
}

impl Files for Fake {
    fn read(&self, path: &Path, _: usize) -> io::Result<Vec<u8>> {
        self.0
            .get(path)
            .cloned()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let inside: Vec<_> = self
            .0
            .keys()
            .filter(|path| path.parent() == Some(directory))
            .cloned()
            .collect();
        if inside.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(inside)
    }
}
