//! How the kernel schedules the threads that relay.
//!
//! It does not know what they do.

use std::io;

use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

/// A niceness of zero on the library's scale from 0 to 99.
const NICENESS_0: u8 = 48;

/// Why a thread is scheduled as before.
#[derive(Debug, thiserror::Error)]
pub enum SchedulingError {
    /// Somebody has chosen a niceness, which is not touched.
    #[error("the process has a niceness of {0}")]
    Niceness(i32),
    /// It cannot be found out.
    #[error("cannot read the thread's niceness")]
    Unknown(#[source] io::Error),
    /// The kernel refused, or its filter of system calls.
    #[error("the kernel refused: {0}")]
    Refused(thread_priority::Error),
}

/// Puts the calling thread under `SCHED_BATCH` (sched(7)): it does not interrupt others when it is woken, so that
/// it finds more to do at once and is woken less often. Its share of the CPU stays the same.
///
/// # Errors
/// See [`SchedulingError`]; the thread goes on as before.
pub fn batch_this_thread() -> Result<(), SchedulingError> {
    // The library sets a niceness with every policy.
    let niceness = niceness().map_err(SchedulingError::Unknown)?;
    let Ok(unchanged) = ThreadPriorityValue::try_from(NICENESS_0) else {
        return Ok(());
    };
    if niceness != 0 {
        return Err(SchedulingError::Niceness(niceness));
    }
    set_thread_priority_and_policy(
        thread_native_id(),
        ThreadPriority::Crossplatform(unchanged),
        ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Batch),
    )
    .map_err(SchedulingError::Refused)
}

/// The 19th field of `/proc/thread-self/stat`; the second is a name in parentheses that may hold anything.
fn niceness() -> io::Result<i32> {
    let stat = std::fs::read_to_string("/proc/thread-self/stat")?;
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let niceness = fields
        .split_whitespace()
        .nth(16)
        .and_then(|field| field.parse().ok());
    niceness.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_may_give_way_and_keeps_its_niceness() {
        let before = niceness().unwrap();
        let thread = std::thread::spawn(|| {
            let outcome = batch_this_thread();
            let policy = thread_priority::thread_schedule_policy().unwrap();
            (outcome.is_ok(), policy, niceness().unwrap())
        });
        let (batched, policy, after) = thread.join().unwrap();
        let batch = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Batch);
        assert_eq!((batched, policy == batch), (before == 0, before == 0));
        assert_eq!(before, after);
    }
}
