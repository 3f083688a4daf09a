//! The limits that the kernel puts on the process.
//!
//! It does not know how many connections the configuration asks for.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_reaches_the_hard_one_and_stays_there() {
        let limit = raise_open_files().unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (limit, limit));
        assert_eq!(raise_open_files().unwrap(), limit);
    }
}
