//! Asking a pool whether it still has all its places.

use std::collections::HashSet;

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
        let path = format!("/proc/{}/status", self.pid());
        let status = std::fs::read_to_string(path).expect("the process runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
        let kibibytes: u64 = kibibytes
            .and_then(|number| number.parse().ok())
            .expect("Linux says it in kB");
        kibibytes << 10
    }
}
