//! One look at files: what the system says of them, without reading them.

use std::{fs, os::unix::fs::MetadataExt, path::PathBuf};

use super::Watched;

/// What was seen of everything that is watched.
#[derive(Debug, Default)]
pub(in crate::app) struct Look(pub(super) Vec<(Watched, Stamps)>);

/// The files and what they were like; `None` for one that is not there.
pub(super) type Stamps = Vec<(PathBuf, Option<Stamp>)>;

/// What changes when a file, or where its path leads, does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    /// Also when it may be read by others than before.
    changed: (i64, i64),
}

impl Look {
    pub(super) fn at(files: Vec<(Watched, Vec<PathBuf>)>) -> Self {
        let stamps = |files: Vec<PathBuf>| files.into_iter().map(stamp).collect();
        let looks = files.into_iter().map(|(watched, files)| (watched, stamps(files)));
        Self(looks.collect())
    }
}

fn stamp(path: PathBuf) -> (PathBuf, Option<Stamp>) {
    let stamp = fs::metadata(&path).ok().map(|metadata| Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    });
    (path, stamp)
}
