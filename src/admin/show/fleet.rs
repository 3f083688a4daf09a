//! SHOW FLEET: a row for each replica.

use super::{bigint, text, text_column};
use crate::{
    admin::premises::ReplicaView,
    wire::rows::{Column, Row},
};

pub(super) const COLUMNS: &[Column] = &[
    text_column("replica"),
    text_column("own"),
    text_column("version"),
    text_column("phase"),
    bigint("clients"),
    bigint("waiting"),
    bigint("servers_active"),
    bigint("transactions_per_second"),
    text_column("error"),
];

/// What these replicas show. Of one that is silent only the reason is shown.
pub(super) fn fleet(replicas: &[ReplicaView]) -> Vec<Row> {
    replicas.iter().map(row).collect()
}

fn row(replica: &ReplicaView) -> Row {
    let said = |value: String| replica.error.is_none().then_some(value);
    vec![
        text(&replica.name),
        text(if replica.is_own { "yes" } else { "no" }),
        replica.version.clone(),
        replica.phase.clone(),
        said(replica.clients.to_string()),
        said(replica.waiting.to_string()),
        said(replica.active.to_string()),
        said(format!("{:.0}", replica.transactions_per_second)),
        replica.error.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_replica_is_shown_with_the_reason() {
        let here = ReplicaView {
            name: "a".to_owned(),
            is_own: true,
            version: Some("1.0.0".to_owned()),
            phase: Some("running".to_owned()),
            clients: 7,
            waiting: 2,
            active: 5,
            transactions_per_second: 1234.5,
            error: None,
        };
        let silent = ReplicaView {
            name: "b".to_owned(),
            error: Some("no answer in time".to_owned()),
            ..ReplicaView::default()
        };
        let joined = |row: &Row| {
            let values: Vec<_> = row.iter().map(|value| value.as_deref().unwrap_or("-")).collect();
            values.join("|")
        };
        let rows = fleet(&[here, silent]);
        assert_eq!(joined(&rows[0]), "a|yes|1.0.0|running|7|2|5|1234|-");
        assert_eq!(joined(&rows[1]), "b|no|-|-|-|-|-|-|no answer in time");
    }
}
