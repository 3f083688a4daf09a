//! Where the texts come from: the disk, or what a test puts in its place.

use std::{
    ffi::OsStr,
    fmt, fs, io,
    io::Read,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// What an authentication file and its includes are read from.
pub trait Files: fmt::Debug {
    /// The file's content, of which more than `limit` bytes need not be read.
    ///
    /// # Errors
    /// Those of reading it.
    fn read(&self, path: &Path, limit: usize) -> io::Result<Vec<u8>>;

    /// What `include_dir` takes in: the files of a directory that end in `.conf` and do not begin with a dot,
    /// by name.
    ///
    /// # Errors
    /// Those of listing it.
    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>>;
}

/// The files of this machine.
#[derive(Debug, Clone, Copy)]
pub struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path, limit: usize) -> io::Result<Vec<u8>> {
        // Opening a pipe would wait for its writer.
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let mut content = Vec::new();
        let limit = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        fs::File::open(path)?.take(limit).read_to_end(&mut content)?;
        Ok(content)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.file_name().is_some_and(is_included) && !path.is_dir() {
                paths.push(path);
            }
        }
        paths.sort();
        Ok(paths)
    }
}

fn is_included(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name.ends_with(b".conf") && !name.starts_with(b".")
}
