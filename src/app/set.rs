//! The console's SET: the configuration as it is, with another value for one setting.

use super::{
    reload::{InForce, Reload},
    serve::Reception,
};
use crate::{
    admin::SetError,
    config::{self, ConfigError, Key, NoKey, Overlay, Source},
    fault::chain,
};

impl Reload {
    /// What is wrong with what was to be read.
    pub(super) fn problems(&self) -> Result<(), Vec<String>> {
        match self {
            Self::Unchanged | Self::Done => Ok(()),
            Self::Failed(problems) => Err(problems.clone()),
        }
    }
}

impl InForce {
    /// Gives a setting another value until the configuration is read again.
    pub(super) async fn set(
        &mut self,
        name: &str,
        value: &str,
        source: &Source,
        reception: &Reception,
    ) -> Result<(), SetError> {
        let key = config::find_key(name).map_err(no_key)?;
        let (file, overlay, value) = (source.clone(), self.overlay.clone(), value.to_owned());
        let trying = tokio::task::spawn_blocking(move || try_values(&file, &overlay, key, &value));
        let overlay = trying
            .await
            .map_err(|_| SetError::File(vec!["it was not read".to_owned()]))??;
        match self.reload_with(source, overlay, reception).await {
            Reload::Failed(problems) => Err(SetError::File(problems)),
            Reload::Done | Reload::Unchanged => Ok(()),
        }
    }
}

fn no_key(error: NoKey) -> SetError {
    match error {
        NoKey::Unknown(near) => SetError::Unknown(near),
        NoKey::Fixed => SetError::Fixed,
        NoKey::Ambiguous(paths) => SetError::Unknown(Some(paths.join(" or "))),
    }
}

/// The first reading of the value that the setting takes.
fn try_values(source: &Source, overlay: &Overlay, key: &Key, value: &str) -> Result<Overlay, SetError> {
    let mut refused = None;
    for literal in config::literals(value) {
        let overlay = overlay.with(key, literal);
        match source.load(&overlay) {
            Ok(_) => return Ok(overlay),
            // What is said of the value as it was typed is what its user understands; it is tried last but for flags.
            Err(error) => refused = Some(error),
        }
    }
    let own = source.load(overlay).err();
    Err(match (own, refused) {
        (None, Some(ConfigError::Invalid { problems, .. })) => {
            let problem = problems.into_iter().next();
            SetError::Value {
                message: problem
                    .as_ref()
                    .map(|problem| format!("{}: {}", problem.key, problem.message))
                    .unwrap_or_default(),
                hint: problem.and_then(|problem| problem.hint),
            }
        }
        (own, refused) => {
            let error = own.or(refused);
            SetError::File(error.iter().map(|error| chain(error)).collect())
        }
    })
}
