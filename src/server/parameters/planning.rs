//! Which settings a statement's meaning and plan depend on.

use std::sync::Arc;

use bytes::Bytes;

use super::{Parameter, Parameters, READ_ONLY};

/// The settings that may change what a text means, which types it has and how it is planned: prepared statements are the
/// same only where these are. Equal for equal settings, whether the server reports them or not; cheap to copy and to
/// compare with itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Planning(Arc<[(Box<str>, Bytes)]>);

/// What has nothing to do with it, which is said only of what is surely so. Not among it, for one, are the settings of output
/// (`bytea_output`, `extra_float_digits`, `DateStyle`): what a cast to text gives may be computed when a plan is made.
const UNRELATED: [&str; 12] = [
    // Names and messages.
    "application_name",
    "client_min_messages",
    "lc_messages",
    "cluster_name",
    // What becomes of a transaction and its session.
    "synchronous_commit",
    "commit_delay",
    "commit_siblings",
    "deadlock_timeout",
    "tcp_user_timeout",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "default_transaction_deferrable",
];

impl Parameters {
    /// What plans depend on. To be made once for a set: it allocates.
    pub fn planning(&self) -> Planning {
        let settings = self.iter().filter(|parameter| is_related(&parameter.name)).map(
            |Parameter { name, value, .. }| {
                let name = name.to_ascii_lowercase().into_boxed_str();
                (name, value.clone())
            },
        );
        Planning(settings.collect())
    }
}

fn is_related(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    // Custom settings are the business of extensions and of applications, which look at them when they run.
    !name.contains('.')
        && !READ_ONLY.contains(&&*name)
        && !UNRELATED.contains(&&*name)
        && !name.ends_with("_timeout")
        && ![
            "log_",
            "track_",
            "debug_print_",
            "debug_pretty_",
            "tcp_keepalives_",
        ]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}
