//! Asking a pool whether it still has all its places.

use std::{collections::HashSet, time::Duration};

use super::{Pooler, RawClient, eventually};

impl Pooler {
    /// Waits until no server connection is lent or being opened and nobody waits.
    #[track_caller]
    pub fn wait_until_quiet(&self) {
        eventually("every server connection is idle and nobody waits", || {
            let metrics = self.metrics();
            let states = [
                "servers{state=\"active\"}",
                "servers{state=\"connecting\"}",
                "waiting_clients",
            ];
            states.iter().all(|name| {
                let count = super::sum_of_samples(&metrics, &format!("pgweir_{name}"));
                // There may be no pool yet.
                count.is_nan() || count == 0.0
            })
        });
    }

    /// Waits until the pools are quiet, and then has `size` clients of `app` in transactions at the same time: a
    /// pool that has lost a place, or gives one to two clients, fails the test.
    #[track_caller]
    pub fn assert_all_places(&self, size: usize) {
        self.wait_until_quiet();
        let mut clients: Vec<_> = (0..size)
            .map(|_| RawClient::log_in(self.address(), "app", "secret", "app"))
            .collect();
        let pids: HashSet<String> = clients
            .iter_mut()
            .map(|client| {
                client.query("BEGIN");
                client.value("SELECT pg_backend_pid()")
            })
            .collect();
        assert_eq!(pids.len(), size);
        for client in &mut clients {
            let end = client.query("ROLLBACK");
            assert_eq!(super::tags(&end), "CZ", "{end:?}");
        }
        drop(clients);
        self.wait_until_quiet();
    }

    /// The most memory that the process has ever had resident, in bytes.
    pub fn peak_memory(&self) -> u64 {
        self.memory("VmHWM")
    }

    /// The most address space that the process has ever had, in bytes: what was reserved and never touched too.
    pub fn peak_address_space(&self) -> u64 {
        self.memory("VmPeak")
    }

    /// The CPU time that the process has used so far.
    pub fn cpu_time(&self) -> Duration {
        let path = format!("/proc/{}/stat", self.pid());
        let stat = std::fs::read_to_string(path).expect("the process runs");
        // Fields 14 and 15, in hundredths of a second; the second one is a name that may contain anything.
        let (_, fields) = stat.rsplit_once(") ").expect("the name ends");
        let ticks = fields.split(' ').skip(11).take(2);
        let ticks: u64 = ticks.map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
        Duration::from_millis(ticks * 10)
    }

    fn memory(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let status = std::fs::read_to_string(path).expect("the process runs");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
        let kibibytes: u64 = kibibytes
            .and_then(|number| number.parse().ok())
            .expect("Linux says it in kB");
        kibibytes << 10
    }
}
