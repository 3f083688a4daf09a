//! Until when the certificates and CRLs in force are good: metrics, and warnings where one is not.
//!
//! It reads the files that the settings name and are looked at; whether they can be used is told by `prepare`.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prometheus::{IntGaugeVec, Opts, Registry};

use crate::{
    config::{Identity, ServerTls, Settings},
    tls::{self, TlsError, Validity},
    types::TlsMode,
};

const LABELS: [&str; 2] = ["setting", "subject"];

/// The metrics of everything that expires.
#[derive(Debug)]
pub(super) struct Expiries {
    certificates: Family,
    crls: Family,
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
        })
    }

    /// Shows what the files have now, and logs what is not valid. To be called whenever they have been read.
    pub(super) fn update(&mut self, settings: &Settings) {
        let all = all(settings);
        self.certificates.show(&all, Kind::Certificate);
        self.crls.show(&all, Kind::Crl);
        for warning in warnings(&all, SystemTime::now()) {
            tracing::warn!("{warning}");
        }
    }
}

/// What is not valid now, of what the settings name.
pub(super) fn certificate_warnings(settings: &Settings) -> Vec<String> {
    warnings(&all(settings), SystemTime::now())
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

/// Everything in the files that are looked at. One that cannot be read any more is left out.
fn all(settings: &Settings) -> Vec<Named> {
    let mut found = Vec::new();
    let clients = &settings.listen.tls;
    if let (Some(identity), true) = (&clients.identity, clients.mode != TlsMode::Disable) {
        certificates("listen.tls.cert_file", Some(&identity.cert_file), &mut found);
        certificates(
            "listen.tls.client_ca_file",
            clients.client_ca_file.as_ref(),
            &mut found,
        );
        crls("listen.tls.crl_file", clients.crl_file.as_ref(), &mut found);
    }
    let shared = &settings.server_tls;
    servers("server_tls", shared, &ServerTls::default(), &mut found);
    for (user, own) in &settings.users {
        if let Some(own) = &own.server_tls {
            servers(&format!("users.{user}.server_tls"), own, shared, &mut found);
        }
    }
    found
}

/// What a section names that `but` does not.
fn servers(section: &str, settings: &ServerTls, but: &ServerTls, found: &mut Vec<Named>) {
    if settings.mode == TlsMode::Disable {
        return;
    }
    let cert_file = |tls: &ServerTls| {
        tls.identity
            .as_ref()
            .map(|Identity { cert_file, .. }| cert_file.clone())
    };
    let own =
        |path: Option<PathBuf>, other: Option<PathBuf>| path.filter(|path| other.as_ref() != Some(path));
    let path = own(cert_file(settings), cert_file(but));
    certificates(&format!("{section}.cert_file"), path.as_ref(), found);
    if matches!(settings.mode, TlsMode::VerifyCa | TlsMode::VerifyFull) {
        let path = own(settings.ca_file.clone(), but.ca_file.clone());
        certificates(&format!("{section}.ca_file"), path.as_ref(), found);
        let path = own(settings.crl_file.clone(), but.crl_file.clone());
        crls(&format!("{section}.crl_file"), path.as_ref(), found);
    }
}

fn certificates(setting: &str, path: Option<&PathBuf>, found: &mut Vec<Named>) {
    let read = path.map(|path| tls::certificate_validity(path));
    collect(setting, Kind::Certificate, read, found);
}

fn crls(setting: &str, path: Option<&PathBuf>, found: &mut Vec<Named>) {
    let read = path.map(|path| tls::crl_validity(path));
    collect(setting, Kind::Crl, read, found);
}

fn collect(setting: &str, kind: Kind, read: Option<Result<Vec<Validity>, TlsError>>, found: &mut Vec<Named>) {
    let read = read.into_iter().flat_map(Result::unwrap_or_default);
    found.extend(read.map(|validity| Named {
        setting: setting.to_owned(),
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
