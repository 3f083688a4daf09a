//! What a person should know first, in a few sentences. Pure: all of it follows from the rest of the status.

use super::{
    document::{Cluster, Level, Notice, Replica, Status},
    units::{count, many, period, seconds},
};

/// From here on waiting is worth a word: of one in twenty, or of the one that waits.
const LONG_WAIT: f64 = 0.25;
const VERY_LONG_WAIT: f64 = 2.0;
/// The same of the share of places for clients that are taken.
const NEARLY_FULL: f64 = 0.9;
const DAY: f64 = 86_400.0;
/// Certificates are usually renewed before they are good for less than this.
const EXPIRES_SOON: f64 = 14.0 * DAY;

/// The worst first; without any trouble one sentence that says so.
pub(super) fn notices(status: &Status) -> Vec<Notice> {
    let mut found = Vec::new();
    found.extend(of_process(status));
    found.extend(status.clusters.iter().filter_map(of_cluster));
    found.extend(status.clusters.iter().filter_map(of_members));
    found.extend(of_waits(status));
    found.extend(of_places(status));
    found.extend(of_budget(status));
    found.extend(of_certificates(status));
    found.sort_by_key(|notice| std::cmp::Reverse(notice.level));
    if found.is_empty() {
        let pools = status.pools.len() + status.pools_left_out;
        let text = format!(
            "{}, {}, {}.",
            many(status.clusters.len(), "cluster", "clusters"),
            many(pools, "pool", "pools"),
            many(status.clients.connected, "client", "clients"),
        );
        found.push(notice(Level::Good, "serving", text));
    }
    found
}

/// The same, and which replicas say nothing.
pub(super) fn with_fleet(mut notices: Vec<Notice>, fleet: &[Replica]) -> Vec<Notice> {
    let silent = fleet.iter().filter(|replica| replica.error.is_some());
    let names: Vec<_> = silent.map(|replica| replica.name.as_str()).collect();
    if !names.is_empty() {
        notices.retain(|notice| notice.level != Level::Good);
        let text = format!(
            "{} of {} replicas: {}.",
            names.len(),
            fleet.len(),
            names.join(", ")
        );
        notices.push(notice(Level::Warn, "no answer", text));
    }
    notices
}

fn notice(level: Level, title: &str, text: String) -> Notice {
    Notice {
        level,
        title: title.to_owned(),
        text,
    }
}

fn of_process(status: &Status) -> Option<Notice> {
    let text = match &*status.process.phase {
        "running" => return None,
        "draining" => "pgweir is shutting down and lets clients go as their transactions end.",
        _ => "pgweir is not in service.",
    };
    Some(notice(Level::Warn, &status.process.phase, text.to_owned()))
}

fn of_cluster(cluster: &Cluster) -> Option<Notice> {
    let level = match &*cluster.phase {
        "serving" => return None,
        "degraded" => Level::Bad,
        _ => Level::Warn,
    };
    let why = cluster
        .explanation
        .as_deref()
        .unwrap_or("the primary may not be used");
    let mut text = format!("{}: {why}.", cluster.name);
    if cluster.held_clients > 0 {
        let waiting = many(cluster.held_clients, "client waits", "clients wait");
        text.push_str(&format!(" {waiting}."));
    }
    Some(notice(level, &cluster.phase, text))
}

/// A cluster that serves may be short of servers.
fn of_members(cluster: &Cluster) -> Option<Notice> {
    let away = cluster.members.iter().filter(|member| member.state != "ready");
    let away: Vec<_> = away
        .map(|member| format!("{} is {}", member.name, member.state.replace('_', " ")))
        .collect();
    let is_news = cluster.phase == "serving" && !away.is_empty();
    is_news.then(|| {
        let text = format!("{}: {}.", cluster.name, away.join(", "));
        notice(Level::Warn, "server away", text)
    })
}

fn of_waits(status: &Status) -> Option<Notice> {
    let queues = status.queues.iter();
    let longest = queues
        .filter_map(|queue| queue.clients.first())
        .map(|client| client.seconds);
    let longest = longest.fold(0.0, f64::max);
    if longest >= VERY_LONG_WAIT {
        let waiting = many(status.clients.waiting, "client waits", "clients wait");
        let text = format!(
            "{waiting} for a server connection, for up to {}.",
            seconds(longest)
        );
        return Some(notice(Level::Warn, "clients wait", text));
    }
    let wait = status.minute.wait_seconds.p95.filter(|wait| *wait >= LONG_WAIT)?;
    let text = format!(
        "1 of 20 transactions waited {} or longer for a server connection in the last minute.",
        seconds(wait)
    );
    Some(notice(Level::Warn, "clients wait", text))
}

fn of_places(status: &Status) -> Option<Notice> {
    let clients = &status.clients;
    let level = match clients.connected {
        connected if connected >= clients.limit => Level::Bad,
        connected if connected as f64 >= NEARLY_FULL * clients.limit as f64 => Level::Warn,
        _ => return None,
    };
    let text = format!(
        "{} of {} places for clients are taken (max_client_conn).",
        count(clients.connected as u64),
        count(clients.limit as u64)
    );
    let title = if level == Level::Bad {
        "full"
    } else {
        "nearly full"
    };
    Some(notice(level, title, text))
}

/// Who has no part of the budget serves nobody. It is so for some seconds when replicas come and go.
fn of_budget(status: &Status) -> Option<Notice> {
    let budget = status.budget.filter(|budget| budget.allowance == 0)?;
    let text = format!(
        "This replica may have no server connection now: other replicas have the {} of server_connection_budget, or it \
         has not heard from all of them.",
        count(budget.whole as u64)
    );
    Some(notice(Level::Warn, "no part of the budget", text))
}

fn of_certificates(status: &Status) -> impl Iterator<Item = Notice> {
    let now = status.process.now;
    status.certificates.iter().filter_map(move |certificate| {
        let left = certificate.not_after as f64 - now;
        let (level, title, when) = match left {
            left if left < 0.0 => (Level::Bad, "expired", format!("{} ago", period(-left))),
            left if left < DAY => (Level::Bad, "expires soon", format!("in {}", period(left))),
            left if left < EXPIRES_SOON => (Level::Warn, "expires soon", format!("in {}", period(left))),
            _ => return None,
        };
        let text = format!("{}: {}, {when}.", certificate.setting, certificate.subject);
        Some(notice(level, title, text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::document::{Budget, Certificate, Member, sample};

    fn titles(status: &Status) -> Vec<String> {
        let all = notices(status).into_iter();
        all.map(|notice| format!("{:?}: {}", notice.level, notice.title))
            .collect()
    }

    #[test]
    fn no_trouble_is_one_sentence() {
        let said = notices(&sample());
        assert_eq!(said.len(), 1, "{said:?}");
        assert_eq!(said[0].text, "1 cluster, 1 pool, 66 clients.");
    }

    #[test]
    fn every_trouble_is_said_and_the_worst_first() {
        let mut status = sample();
        "draining".clone_into(&mut status.process.phase);
        status.clients.connected = 95;
        status.clients.limit = 100;
        status.minute.wait_seconds.p95 = Some(2.0);
        status.certificates = vec![Certificate {
            setting: "listen.tls.cert_file".to_owned(),
            subject: "CN=db".to_owned(),
            kind: "certificate".to_owned(),
            not_after: 999_000,
        }];
        assert_eq!(
            titles(&status),
            [
                "Bad: expired",
                "Warn: draining",
                "Warn: clients wait",
                "Warn: nearly full"
            ]
        );
    }

    #[test]
    fn a_replica_without_a_part_of_the_budget_says_so() {
        let mut status = sample();
        let budget = |allowance| Budget {
            connections: 0,
            allowance,
            whole: 450,
        };
        status.budget = Some(budget(1));
        assert_eq!(titles(&status), ["Good: serving"]);
        status.budget = Some(budget(0));
        assert_eq!(titles(&status), ["Warn: no part of the budget"]);
        assert!(
            notices(&status)[0]
                .text
                .contains("450 of server_connection_budget")
        );
    }

    #[test]
    fn a_cluster_without_a_primary_says_why_and_who_waits() {
        let mut status = sample();
        let cluster = &mut status.clusters[0];
        "holding".clone_into(&mut cluster.phase);
        cluster.explanation = Some("a switchover is in progress".to_owned());
        cluster.held_clients = 3;
        let said = notices(&status);
        assert_eq!(said[0].text, "mypg: a switchover is in progress. 3 clients wait.");
        assert_eq!(said.len(), 1, "{said:?}");
    }

    #[test]
    fn whoever_waits_and_waits_is_seen_before_the_end() {
        let mut status = sample();
        status.queues[0].clients[0].seconds = 40.1;
        let said = notices(&status);
        assert_eq!(
            said[0].text,
            "2 clients wait for a server connection, for up to 40.1 s."
        );
    }

    #[test]
    fn a_server_that_is_not_ready_is_named() {
        let mut status = sample();
        let other = Member {
            name: "mypg-2".to_owned(),
            state: "not_accepting".to_owned(),
            ..status.clusters[0].members[0].clone()
        };
        status.clusters[0].members.push(other);
        assert_eq!(notices(&status)[0].text, "mypg: mypg-2 is not accepting.");
    }
}
