//! What the kernel is asked for the process as a whole: its limits, and how its memory is kept.
//!
//! It does not know how many connections the configuration asks for.

use std::io;

use nix::sys::{
    prctl,
    resource::{Resource, getrlimit, setrlimit},
};

/// Raises the soft limit of open files to the hard limit and returns the limit that now holds.
///
/// Every client and every server connection is a descriptor, and the usual soft limit of 1024 is kept low
/// only for programs that use `select(2)`.
///
/// # Errors
/// Those of `getrlimit(2)` and `setrlimit(2)`; the limit is unchanged then.
pub fn raise_open_files() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

/// Has the kernel keep the process's memory in pages of the usual size from now on.
///
/// The allocator asks for huge ones, so that memory would grow by 2 MB at a time: more than a thousand clients need.
///
/// # Errors
/// Those of `prctl(2)`; huge pages are used as before then.
pub fn refuse_huge_pages() -> io::Result<()> {
    Ok(prctl::set_thp_disable(true)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_reaches_the_hard_one_and_stays_there() {
        let limit = raise_open_files().unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (limit, limit));
        assert_eq!(raise_open_files().unwrap(), limit);
    }

    #[test]
    fn huge_pages_are_off_when_they_have_been_refused() {
        refuse_huge_pages().unwrap();
        assert!(prctl::get_thp_disable().unwrap());
    }
}
