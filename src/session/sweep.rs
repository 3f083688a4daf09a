//! Setting the sessions' clock, and looking for those that are overdue: one task for the whole process, so that
//! no session has a timer and none reads the clock.

use std::{sync::Arc, time::Duration};

use super::{
    activity::{TICK, Tick},
    control::{Control, Order},
    deadline::Limits,
    table::Table,
};
use crate::pool::Pool;

/// The longest time between two looks at every session; also after how long a shorter limit is noticed.
const LONGEST_PAUSE: u32 = 10;
/// A look for every so many parts of the shortest limit.
const PARTS: u32 = 10;

/// Sets the clock ten times a second, and asks sessions that are overdue to look at it. Never ends.
///
/// How often it looks depends on the shortest limit that holds for anybody: a tenth of it, at most once a second.
pub async fn keep_time(table: Arc<Table>) {
    let mut pause = 0;
    loop {
        tokio::time::sleep(TICK).await;
        let clock = table.clock();
        clock.set();
        pause = match pause {
            0 => sweep(&table, clock.now()),
            more => more - 1,
        };
    }
}

/// One look at every session. Returns how many ticks may be left out.
fn sweep(table: &Table, now: Tick) -> u32 {
    let mut shortest = None;
    let mut overdue: Vec<Arc<Control>> = Vec::new();
    // Neighbours in the table are usually of the same pool.
    let mut known: Option<(*const Pool, Limits)> = None;
    table.for_each_member(|member, control| {
        let pool = Arc::as_ptr(&member.pool);
        let limits = match known {
            Some((same, limits)) if same == pool => limits,
            _ => Limits::of(&member.pool.plan().settings),
        };
        known = Some((pool, limits));
        shortest = shortest.into_iter().chain(limits.shortest()).min();
        if limits
            .due(now, member.activity.snapshot(), member.pinned.since())
            .is_some()
        {
            overdue.push(control.clone());
        }
    });
    for control in overdue {
        control.give(Order::LookAtClock);
    }
    pause(shortest)
}

fn pause(shortest: Option<Duration>) -> u32 {
    let ticks = shortest.map_or(u128::from(LONGEST_PAUSE), |limit| {
        limit.as_millis() / (TICK * PARTS).as_millis()
    });
    let ticks = u32::try_from(ticks).unwrap_or(LONGEST_PAUSE);
    ticks.clamp(1, LONGEST_PAUSE) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_limits_are_looked_after_often_and_long_ones_once_a_second() {
        let after = |millis| pause(Some(Duration::from_millis(millis)));
        assert_eq!(after(1), 0);
        assert_eq!(after(300), 0);
        assert_eq!(after(5_000), 4);
        assert_eq!(after(3_600_000), 9);
        assert_eq!(pause(None), 9);
    }
}
