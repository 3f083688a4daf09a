//! Until when the certificates and CRLs in force are good: metrics, and warnings where one is not.
//!
//! What a part of the configuration was made of is read with it and kept with it: what the files have by now may be bad,
//! and is then not in force.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use prometheus::{IntGaugeVec, Opts, Registry};

use super::prepare::Prepared;
use crate::{
    admin::CertificateView,
    config::{ClientTls, Identity, ServerTls},
    status::document::Certificate,
    tls::{self, TlsError, Validity},
    types::TlsMode,
};

const LABELS: [&str; 2] = ["setting", "subject"];

/// The metrics of everything that expires.
#[derive(Debug)]
pub(super) struct Expiries {
    certificates: Family,
    crls: Family,
    list: Arc<ArcSwap<Vec<Certificate>>>,
}

/// A metric, and the labels that it is shown for.
#[derive(Debug)]
struct Family {
    gauge: IntGaugeVec,
    shown: BTreeSet<[String; 2]>,
}

/// A certificate or a CRL, and the setting that has brought it here.
#[derive(Debug)]
struct Named {
    setting: String,
    kind: Kind,
    validity: Validity,
}

/// What a part was made with, of one of its files.
#[derive(Debug, Clone)]
pub(super) struct Held {
    key: &'static str,
    path: PathBuf,
    kind: Kind,
    validity: Validity,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Certificate,
    Crl,
}

impl Expiries {
    /// Registers the metrics.
    ///
    /// # Errors
    /// One of that name is registered already.
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let family = |name: &str, help: &str| {
            let gauge = IntGaugeVec::new(Opts::new(name, help), &LABELS)?;
            registry.register(Box::new(gauge.clone()))?;
            let shown = BTreeSet::new();
            Ok::<_, prometheus::Error>(Family { gauge, shown })
        };
        Ok(Self {
            certificates: family(
                "tls_certificate_not_after_seconds",
                "Until when a certificate in force is valid, in seconds since 1970.",
            )?,
            crls: family(
                "tls_crl_next_update_seconds",
                "Until when a CRL in force is valid, in seconds since 1970.",
            )?,
            list: Arc::default(),
        })
    }

    /// What is in force, those that end first first; kept up to date.
    pub(super) fn list(&self) -> Arc<ArcSwap<Vec<Certificate>>> {
        self.list.clone()
    }

    /// Shows what is in force, and logs what of it is not valid. To be called whenever something else is.
    pub(super) fn update(&mut self, in_force: &Prepared) {
        let all = all(in_force);
        self.certificates.show(&all, Kind::Certificate);
        self.crls.show(&all, Kind::Crl);
        self.list.store(Arc::new(list(&all)));
        for warning in warnings(&all, SystemTime::now()) {
            tracing::warn!("{warning}");
        }
    }
}

/// What is not valid now, of what is in force.
pub(super) fn certificate_warnings(in_force: &Prepared) -> Vec<String> {
    warnings(&all(in_force), SystemTime::now())
}

/// Everything in force, for the console.
pub(super) fn views(in_force: &Prepared) -> Vec<CertificateView> {
    let view = |named: Named| CertificateView {
        setting: named.setting,
        kind: match named.kind {
            Kind::Certificate => "certificate",
            Kind::Crl => "crl",
        },
        subject: named.validity.subject,
        not_before: named.validity.not_before,
        not_after: named.validity.not_after,
    };
    all(in_force).into_iter().map(view).collect()
}

impl Family {
    fn show(&mut self, all: &[Named], kind: Kind) {
        let mut latest = BTreeMap::new();
        for named in all.iter().filter(|named| named.kind == kind) {
            let labels = [named.setting.clone(), named.validity.subject.clone()];
            // Of two with one name, such as a CA and its successor, either will do.
            let not_after = latest.entry(labels).or_insert(i64::MIN);
            *not_after = named.validity.not_after.max(*not_after);
        }
        for ([setting, subject], not_after) in &latest {
            self.gauge.with_label_values(&[setting, subject]).set(*not_after);
        }
        let shown: BTreeSet<_> = latest.into_keys().collect();
        for [setting, subject] in self.shown.difference(&shown) {
            // It is there: it was set.
            let _ = self.gauge.remove_label_values(&[setting, subject]);
        }
        self.shown = shown;
    }
}

fn list(all: &[Named]) -> Vec<Certificate> {
    let mut list: Vec<_> = all
        .iter()
        .map(|named| Certificate {
            setting: named.setting.clone(),
            subject: named.validity.subject.clone(),
            kind: match named.kind {
                Kind::Certificate => "certificate".to_owned(),
                Kind::Crl => "crl".to_owned(),
            },
            not_after: named.validity.not_after,
        })
        .collect();
    list.sort_by_key(|certificate| certificate.not_after);
    list.dedup();
    list
}

fn warnings(all: &[Named], now: SystemTime) -> Vec<String> {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    all.iter().filter_map(|named| named.warning(now)).collect()
}

impl Named {
    fn warning(&self, now: i64) -> Option<String> {
        let Validity {
            subject,
            not_before,
            not_after,
        } = &self.validity;
        let what = match self.kind {
            Kind::Certificate => "certificate",
            Kind::Crl => "crl of",
        };
        let ago = |then: i64| rough(now.abs_diff(then));
        let problem = if *not_after < now {
            format!("has expired {} ago", ago(*not_after))
        } else if now < *not_before {
            format!("is not valid yet, but in {}", ago(*not_before))
        } else {
            return None;
        };
        Some(format!("{}: the {what} {subject} {problem}", self.setting))
    }
}

/// `3 days`, `5 hours`, `7 minutes`
fn rough(seconds: u64) -> String {
    let minutes = Duration::from_secs(seconds).as_secs() / 60;
    match (minutes / 60 / 24, minutes / 60) {
        (days @ 2.., _) => format!("{days} days"),
        (_, hours @ 2..) => format!("{hours} hours"),
        _ => format!("{minutes} minutes"),
    }
}

/// Everything in force. What a role has from the shared settings is there once.
fn all(in_force: &Prepared) -> Vec<Named> {
    let mut found = Vec::new();
    let mut add = |section: &str, held: &Held| {
        found.push(Named {
            setting: format!("{section}.{}", held.key),
            kind: held.kind,
            validity: held.validity.clone(),
        });
    };
    let shared = in_force.server_tls.shared_held();
    in_force.held.iter().for_each(|held| add("listen.tls", held));
    shared.iter().for_each(|held| add("server_tls", held));
    for (user, own) in in_force.server_tls.held_by_role() {
        let is_shared = |held: &&Held| {
            let same = |other: &Held| (other.key, &other.path) == (held.key, &held.path);
            shared.iter().any(same)
        };
        let section = format!("users.{user}.server_tls");
        let own = own.iter().filter(|held| !is_shared(held));
        own.for_each(|held| add(&section, held));
    }
    found
}

/// What the files of `[listen.tls]` have. One that cannot be read is left out: nothing is made of it.
pub(super) fn of_clients(settings: &ClientTls) -> Vec<Held> {
    let mut found = Vec::new();
    if let (Some(identity), true) = (&settings.identity, settings.mode != TlsMode::Disable) {
        certificates("cert_file", Some(&identity.cert_file), &mut found);
        certificates("client_ca_file", settings.client_ca_file.as_deref(), &mut found);
        crls(settings.crl_file.as_deref(), &mut found);
    }
    found
}

/// The same of `[server_tls]`, or of a role's.
pub(super) fn of_servers(settings: &ServerTls) -> Vec<Held> {
    let mut found = Vec::new();
    if settings.mode == TlsMode::Disable {
        return found;
    }
    let identity = settings.identity.as_ref();
    let cert_file = identity.map(|Identity { cert_file, .. }| cert_file.as_path());
    certificates("cert_file", cert_file, &mut found);
    if matches!(settings.mode, TlsMode::VerifyCa | TlsMode::VerifyFull) {
        certificates("ca_file", settings.ca_file.as_deref(), &mut found);
        crls(settings.crl_file.as_deref(), &mut found);
    }
    found
}

fn certificates(key: &'static str, path: Option<&Path>, found: &mut Vec<Held>) {
    collect(key, path, Kind::Certificate, tls::certificate_validity, found);
}

fn crls(path: Option<&Path>, found: &mut Vec<Held>) {
    collect("crl_file", path, Kind::Crl, tls::crl_validity, found);
}

fn collect(
    key: &'static str,
    path: Option<&Path>,
    kind: Kind,
    read: fn(&Path) -> Result<Vec<Validity>, TlsError>,
    found: &mut Vec<Held>,
) {
    let Some(path) = path else { return };
    let read = read(path).unwrap_or_default().into_iter();
    found.extend(read.map(|validity| Held {
        key,
        path: path.to_owned(),
        kind,
        validity,
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 60 * 60;

    fn named(setting: &str, subject: &str, not_before: i64, not_after: i64) -> Named {
        Named {
            setting: setting.to_owned(),
            kind: Kind::Certificate,
            validity: Validity {
                subject: subject.to_owned(),
                not_before,
                not_after,
            },
        }
    }

    #[test]
    fn only_what_is_not_valid_now_is_warned_of() {
        let all = [
            named("a", "CN=old", 0, 7 * DAY),
            named("b", "CN=good", 0, 99 * DAY),
            named("c", "CN=early", 10 * DAY + 3 * 3600, 99 * DAY),
        ];
        let now = UNIX_EPOCH + Duration::from_secs(10 * 24 * 60 * 60);
        assert_eq!(
            warnings(&all, now),
            [
                "a: the certificate CN=old has expired 3 days ago",
                "c: the certificate CN=early is not valid yet, but in 3 hours",
            ]
        );
    }

    #[test]
    fn the_latest_of_one_name_is_shown_and_what_is_gone_is_not() {
        let registry = Registry::new();
        let mut family = Expiries::new(&registry).unwrap().certificates;
        let ca = |not_after| named("ca", "CN=ca", 0, not_after);
        family.show(&[ca(2), ca(3), named("leaf", "CN=db", 0, 1)], Kind::Certificate);
        assert_eq!(family.gauge.with_label_values(&["ca", "CN=ca"]).get(), 3);
        family.show(&[ca(4)], Kind::Certificate);
        assert_eq!(family.gauge.with_label_values(&["ca", "CN=ca"]).get(), 4);
        assert_eq!(registry.gather().len(), 1);
        assert_eq!(registry.gather()[0].get_metric().len(), 1);
    }
}
