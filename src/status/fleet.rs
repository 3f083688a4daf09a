//! What the other replicas say of themselves, in short.

use super::document::{Replica, Status};

impl Replica {
    /// A replica by its own `/status.json`, or by the reason why there is none.
    pub fn new(name: &str, is_own: bool, said: Result<&[u8], String>) -> Self {
        let status = said.and_then(|text| {
            serde_json::from_slice::<Status>(text)
                .map_err(|_| "its status is that of another version".to_owned())
        });
        let mut replica = Self {
            name: name.to_owned(),
            own: is_own,
            error: None,
            version: None,
            phase: None,
            clients: 0,
            waiting: 0,
            active: 0,
            budget: None,
            transactions_per_second: 0.0,
        };
        match status {
            Err(error) => replica.error = Some(error),
            Ok(status) => {
                replica.version = Some(status.process.version);
                replica.phase = Some(status.process.phase);
                replica.clients = status.clients.connected;
                replica.waiting = status.clients.waiting;
                replica.active = status.servers.active;
                replica.budget = status.budget;
                replica.transactions_per_second = status.minute.transactions_per_second;
            }
        }
        replica
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::document::sample;

    #[test]
    fn a_replica_is_what_it_says_or_why_it_says_nothing() {
        let text = serde_json::to_vec(&sample()).unwrap();
        let replica = Replica::new("a", true, Ok(&text));
        assert_eq!((replica.clients, replica.active), (66, 12));
        assert_eq!(replica.phase.as_deref(), Some("running"));
        let silent = Replica::new("b", false, Err("no answer in time".to_owned()));
        assert_eq!(silent.error.as_deref(), Some("no answer in time"));
        let foreign = Replica::new("c", false, Ok(b"{}"));
        assert!(foreign.error.unwrap().contains("version"));
    }
}
