//! Files that change while the process runs: the configuration and what it names are looked at from time to time.
//!
//! Looking works on every mount, also where notifications do not, and sees what a path leads to: Kubernetes changes a
//! mounted secret by pointing a symbolic link of its directory elsewhere. What has changed is used when two looks in a
//! row have seen the same, so that a key that is written after its certificate is waited for.

mod look;
mod metrics;

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use self::look::{Look, Stamps};
use super::{
    prepare::Part,
    reload::{InForce, Reload},
    serve::Reception,
};
use crate::config::{Settings, Source};

pub(super) use self::metrics::FileMetrics;

/// What is looked at, and used, as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Watched {
    /// The configuration file. It is used with all that it names, or not at all.
    Configuration,
    /// The files of a part of it.
    Part(Part),
}

/// What has been seen, and what is wrong with it.
#[derive(Debug)]
pub(super) struct Watch {
    configuration: Source,
    seen: HashMap<Watched, Stamps>,
    unsettled: HashSet<Watched>,
    complaints: HashMap<Watched, Vec<String>>,
    /// A reload that was asked for has failed, perhaps at a file that the configuration names: it is tried again as a
    /// whole.
    retry: bool,
    metrics: FileMetrics,
}

impl Watched {
    pub(super) const ALL: [Self; 5] = [
        Self::Configuration,
        Self::Part(Part::ClientTls),
        Self::Part(Part::ServerTls),
        Self::Part(Part::Users),
        Self::Part(Part::Access),
    ];

    /// The word used in metrics and logs.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Part(part) => part.as_str(),
        }
    }
}

impl Watch {
    /// Nothing seen yet: what is in force was made of what the files have.
    pub(super) fn new(configuration: Source, metrics: FileMetrics) -> Self {
        Self {
            configuration,
            seen: HashMap::new(),
            unsettled: HashSet::new(),
            complaints: HashMap::new(),
            retry: false,
            metrics,
        }
    }

    /// The next look at the files, when it is time for it. Cancel-safe.
    pub(super) async fn next_look(&self, settings: &Arc<Settings>) -> Look {
        match settings.process.file_check_interval {
            Duration::ZERO => std::future::pending().await,
            interval => tokio::time::sleep(interval).await,
        }
        let (configuration, settings) = (self.configuration.clone(), settings.clone());
        // A mount may take its time, and which files there are is in some of them.
        let look = tokio::task::spawn_blocking(move || Look::at(files(&configuration, &settings)));
        look.await.unwrap_or_default()
    }

    /// Uses what has changed and is settled.
    pub(super) async fn follow(&mut self, look: Look, in_force: &mut InForce, reception: &Reception) {
        for watched in self.settled(look) {
            let source = &self.configuration;
            let outcome = match watched {
                Watched::Configuration if self.retry => in_force.reload(source, reception).await,
                Watched::Configuration => in_force.follow_configuration(source, reception).await,
                Watched::Part(part) => in_force.renew(part, reception).await,
            };
            self.note(watched, outcome);
        }
    }

    /// Notes what a reload that was asked for has come to.
    pub(super) fn note_reload(&mut self, outcome: Reload) {
        self.retry = matches!(outcome, Reload::Failed(_));
        // Said again each time that it is asked for.
        self.complaints.remove(&Watched::Configuration);
        self.note(Watched::Configuration, outcome);
    }

    /// What is to be used, or tried once more.
    fn settled(&mut self, look: Look) -> Vec<Watched> {
        let mut settled = Vec::new();
        for (watched, stamps) in look.0 {
            if self.seen.get(&watched) != Some(&stamps) {
                self.seen.insert(watched, stamps);
                self.unsettled.insert(watched);
            } else if self.unsettled.remove(&watched) || self.complaints.contains_key(&watched) {
                settled.push(watched);
            }
        }
        settled
    }

    #[allow(
        clippy::cognitive_complexity,
        reason = "the branches are those of the macros that log"
    )]
    fn note(&mut self, watched: Watched, outcome: Reload) {
        let what = watched.as_str();
        match outcome {
            Reload::Unchanged => {
                if self.complaints.remove(&watched).is_some() {
                    self.metrics.good(watched);
                    tracing::info!(what, "the files are again what is in force");
                }
            }
            Reload::Done => {
                self.complaints.remove(&watched);
                if watched == Watched::Configuration {
                    // Everything has been read.
                    self.retry = false;
                    for watched in std::mem::take(&mut self.complaints).into_keys() {
                        self.metrics.good(watched);
                    }
                }
                self.metrics.done(watched, SystemTime::now());
                tracing::info!(what, "{what} reloaded");
            }
            Reload::Failed(problems) => {
                if self.complaints.get(&watched) == Some(&problems) {
                    return;
                }
                self.metrics.failed(watched);
                for error in &problems {
                    tracing::error!(what, error, "{what} not reloaded");
                }
                self.complaints.insert(watched, problems);
            }
        }
    }
}

fn files(configuration: &Source, settings: &Settings) -> Vec<(Watched, Vec<PathBuf>)> {
    let files = |watched| match watched {
        Watched::Configuration => configuration.files(),
        Watched::Part(part) => part.files(settings),
    };
    Watched::ALL.map(|watched| (watched, files(watched))).to_vec()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const USERS: Watched = Watched::Part(Part::Users);

    fn watch() -> (Watch, prometheus::Registry) {
        let registry = prometheus::Registry::new();
        let metrics = FileMetrics::new(&registry, SystemTime::UNIX_EPOCH).unwrap();
        (Watch::new(Source::Toml("pgweir.toml".into()), metrics), registry)
    }

    fn sample(registry: &prometheus::Registry, name: &str) -> f64 {
        let families = registry.gather();
        let family = families.iter().find(|family| family.name() == name).unwrap();
        let is_users =
            |metric: &&prometheus::proto::Metric| metric.get_label()[0].value() == "auth.users_file";
        let metrics = family.get_metric().iter().filter(is_users);
        metrics
            .map(|metric| metric.get_gauge().get_value() + metric.get_counter().get_value())
            .sum()
    }

    #[test]
    fn a_change_is_used_when_it_has_been_seen_twice() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users.txt");
        let look = || Look::at(vec![(USERS, vec![path.clone()])]);
        let (mut watch, _) = watch();
        let mut settled = || !watch.settled(look()).is_empty();
        let told: Vec<_> = (0..3).map(|_| settled()).collect();
        assert_eq!(
            told,
            [false, true, false],
            "a file that is missing is one state of several"
        );
        fs::write(&path, "a").unwrap();
        assert!(!settled());
        fs::write(&path, "ab").unwrap();
        assert!(!settled(), "still being written");
        assert!(settled() && !settled());
        fs::remove_file(&path).unwrap();
        assert!(!settled() && settled());
    }

    #[test]
    fn a_mounted_secret_that_is_swapped_is_a_change() {
        let directory = tempfile::tempdir().unwrap();
        let in_directory = |name: &str| directory.path().join(name);
        for version in ["..1", "..2"] {
            fs::create_dir(in_directory(version)).unwrap();
            fs::write(in_directory(version).join("tls.crt"), version).unwrap();
        }
        let point = |version: &str| {
            std::os::unix::fs::symlink(version, in_directory("..tmp")).unwrap();
            fs::rename(in_directory("..tmp"), in_directory("..data")).unwrap();
        };
        point("..1");
        std::os::unix::fs::symlink("..data/tls.crt", in_directory("tls.crt")).unwrap();
        let look = || Look::at(vec![(USERS, vec![in_directory("tls.crt")])]);
        let (mut watch, _) = watch();
        let mut settled = || !watch.settled(look()).is_empty();
        assert!(!settled() && settled());
        point("..2");
        assert!(!settled() && settled());
    }

    #[test]
    fn what_is_wrong_is_said_once_and_tried_until_it_is_right() {
        let (mut watch, registry) = watch();
        let look = || Look::at(vec![(USERS, Vec::new())]);
        watch.settled(look());
        watch.settled(look());
        let bad = || Reload::Failed(vec!["line 1".to_owned()]);
        watch.note(USERS, bad());
        for _ in 0..3 {
            assert_eq!(watch.settled(look()), [USERS]);
            watch.note(USERS, bad());
        }
        assert_eq!(sample(&registry, "file_reload_failed"), 1.0);
        assert_eq!(sample(&registry, "file_reloads_total"), 1.0);
        watch.note(USERS, Reload::Done);
        assert!(watch.settled(look()).is_empty());
        assert_eq!(sample(&registry, "file_reload_failed"), 0.0);
        assert_eq!(sample(&registry, "file_reloads_total"), 2.0);
        assert!(sample(&registry, "file_reload_success_timestamp_seconds") > 1e9);
        watch.note(USERS, bad());
        watch.note(USERS, Reload::Unchanged);
        assert_eq!(sample(&registry, "file_reload_failed"), 0.0);
        watch.note(USERS, bad());
        watch.note_reload(Reload::Done);
        assert_eq!(sample(&registry, "file_reload_failed"), 0.0);
    }
}
