//! What the kernel says that a process has used: CPU time, context switches, resident memory.
//!
//! It knows nothing of what the process is.

use std::{collections::BTreeMap, fs, io, ops::AddAssign, time::Duration};

use super::statistics::as_f64;

/// What `/proc` counts CPU time in (`USER_HZ`, the same on every Linux).
const TICK: Duration = Duration::from_millis(10);
/// User and system time are each rounded down at both ends.
const ROUNDING: u64 = 2;

/// What a process has used up to now.
#[derive(Debug, Clone, Default)]
pub(crate) struct Usage {
    threads: BTreeMap<String, Thread>,
    /// Of the process with its threads that have ended.
    user_ticks: u64,
    system_ticks: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Thread {
    nanoseconds: u64,
    switches: u64,
}

/// What a process used between two moments.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Spent {
    pub(crate) user: Duration,
    pub(crate) system: Duration,
    pub(crate) switches: u64,
}

impl Usage {
    /// Reads it.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let directory = format!("/proc/{pid}");
        let (user_ticks, system_ticks) = parse_ticks(&fs::read_to_string(format!("{directory}/stat"))?)
            .ok_or(io::ErrorKind::InvalidData)?;
        let mut threads = BTreeMap::new();
        for entry in fs::read_dir(format!("{directory}/task"))? {
            let entry = entry?;
            // A thread may end meanwhile.
            let read = |file: &str| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
            let thread = Thread {
                nanoseconds: first_number(&read("schedstat")),
                switches: parse_switches(&read("status")),
            };
            threads.insert(entry.file_name().to_string_lossy().into_owned(), thread);
        }
        Ok(Self {
            threads,
            user_ticks,
            system_ticks,
        })
    }

    /// The difference to an earlier moment of the same process.
    pub(crate) fn since(&self, earlier: &Self) -> Spent {
        let (mut nanoseconds, mut switches) = (0, 0);
        for (id, now) in &self.threads {
            let then = earlier.threads.get(id).copied().unwrap_or_default();
            nanoseconds += now.nanoseconds.saturating_sub(then.nanoseconds);
            switches += now.switches.saturating_sub(then.switches);
        }
        let user = self.user_ticks.saturating_sub(earlier.user_ticks);
        let system = self.system_ticks.saturating_sub(earlier.system_ticks);
        let ticks = user + system;
        // The threads' times are exact, but a thread that has ended took its own along; and there is no
        // schedstat in some kernels.
        let at_least = as_f64(ticks.saturating_sub(ROUNDING)) * TICK.as_secs_f64();
        let total = Duration::from_nanos(nanoseconds).as_secs_f64().max(at_least);
        let user_share = if ticks == 0 {
            0.0
        } else {
            as_f64(user) / as_f64(ticks)
        };
        Spent {
            user: Duration::from_secs_f64(total * user_share),
            system: Duration::from_secs_f64(total * (1.0 - user_share)),
            switches,
        }
    }
}

impl Spent {
    pub(crate) fn cpu(&self) -> Duration {
        self.user + self.system
    }
}

impl AddAssign for Spent {
    fn add_assign(&mut self, other: Self) {
        self.user += other.user;
        self.system += other.system;
        self.switches += other.switches;
    }
}

/// Resident bytes of a process.
pub(crate) fn resident(pid: u32) -> io::Result<u64> {
    // Unlike VmRSS of `status` it is counted when it is read, to the page.
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let kilobytes = text
        .lines()
        .find_map(|line| line.strip_prefix("Rss:"))
        .map(first_number)
        .ok_or(io::ErrorKind::InvalidData)?;
    Ok(kilobytes * 1024)
}

/// User and system time of `/proc/PID/stat` (`proc(5)`: fields 14 and 15).
fn parse_ticks(stat: &str) -> Option<(u64, u64)> {
    // The second field is the program's name, with whatever it likes to have in it.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn parse_switches(status: &str) -> u64 {
    status
        .lines()
        .filter_map(|line| line.split_once("voluntary_ctxt_switches:"))
        .map(|(_, number)| first_number(number))
        .sum()
}

fn first_number(text: &str) -> u64 {
    let first = text.split_ascii_whitespace().next();
    first.and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_program_may_look_like_fields() {
        let stat = "7 (a) b 1 2) S 1 7 7 0 -1 4194560 1 2 3 4 21 34 0 0 20 0 1 0 5";
        assert_eq!(parse_ticks(stat), Some((21, 34)));
        assert_eq!(parse_ticks("7 (a) S 1"), None);
    }

    #[test]
    fn both_kinds_of_switches_count() {
        let status = "Threads:\t1\nvoluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t30\n";
        assert_eq!(parse_switches(status), 42);
    }

    #[test]
    fn a_thread_that_ended_is_not_forgotten() {
        let thread = |nanoseconds| Thread {
            nanoseconds,
            switches: 0,
        };
        let before = Usage {
            threads: BTreeMap::from([("1".into(), thread(0)), ("2".into(), thread(0))]),
            ..Usage::default()
        };
        let after = Usage {
            threads: BTreeMap::from([("1".into(), thread(1_000_000_000))]),
            user_ticks: 100,
            system_ticks: 302,
        };
        assert_eq!(after.since(&before).cpu(), Duration::from_secs(4));
    }

    #[test]
    fn this_process_has_memory() {
        assert!(resident(std::process::id()).unwrap() > 4096);
    }
}
