//! Who may see the pages: whoever shows a password or a token.
//!
//! The secrets stay in their files: they are read for every question, so that a new one is good at once. They are
//! compared in a time that does not depend on where they differ.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use base64::{Engine, engine::general_purpose::STANDARD};
use ring::hmac;

use crate::config::HttpAuth;

const BASIC: &str = r#"Basic realm="pgweir", charset="UTF-8""#;
const BEARER: &str = r#"Bearer realm="pgweir""#;
/// A longer file is not a password.
const LONGEST: usize = 4096;

/// A secret cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {source}", path.display())]
pub struct GuardError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// What is asked for, and what this process itself shows to other replicas, which have the same.
#[derive(Debug)]
pub struct Guard(ArcSwap<HttpAuth>);

/// Whether somebody may see a page.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Admitted,
    /// By what they may try again.
    Refused {
        challenges: Vec<&'static str>,
    },
}

impl Guard {
    /// Asks for this.
    pub fn new(auth: HttpAuth) -> Self {
        Self(ArcSwap::from_pointee(auth))
    }

    /// Asks for this from now on.
    pub fn set(&self, auth: HttpAuth) {
        self.0.store(Arc::new(auth));
    }

    /// What is shown to a guard that asks for the same: the value of an `Authorization` header.
    ///
    /// # Errors
    /// The secret cannot be read.
    pub async fn credentials(&self) -> Result<Option<String>, GuardError> {
        let auth = self.0.load_full();
        if let Some(path) = &auth.token_file {
            return Ok(Some(format!("Bearer {}", read(path).await?)));
        }
        let Some(basic) = &auth.basic else { return Ok(None) };
        let password = read(&basic.password_file).await?;
        let encoded = STANDARD.encode(format!("{}:{password}", basic.user));
        Ok(Some(format!("Basic {encoded}")))
    }

    pub(super) async fn look_at(&self, shown: Option<&str>) -> Verdict {
        let auth = self.0.load_full();
        if !auth.is_asked() || matches_any(&auth, shown).await {
            return Verdict::Admitted;
        }
        let challenges = [
            auth.basic.as_ref().map(|_| BASIC),
            auth.token_file.as_ref().map(|_| BEARER),
        ];
        Verdict::Refused {
            challenges: challenges.into_iter().flatten().collect(),
        }
    }
}

async fn matches_any(auth: &HttpAuth, shown: Option<&str>) -> bool {
    let Some((scheme, shown)) = shown.and_then(|shown| shown.trim().split_once(' ')) else {
        return false;
    };
    let wanted = match (&auth.basic, &auth.token_file) {
        (Some(basic), _) if scheme.eq_ignore_ascii_case("basic") => {
            let password = read(&basic.password_file).await;
            password.map(|password| STANDARD.encode(format!("{}:{password}", basic.user)))
        }
        (_, Some(path)) if scheme.eq_ignore_ascii_case("bearer") => read(path).await,
        _ => return false,
    };
    match wanted {
        Ok(wanted) => is_equal(wanted.as_bytes(), shown.trim().as_bytes()),
        Err(error) => {
            tracing::error!(%error, "nobody is shown anything over HTTP");
            false
        }
    }
}

/// Finds out whether all secrets can be read. It may block.
///
/// # Errors
/// One cannot.
pub fn check(auth: &HttpAuth) -> Result<(), GuardError> {
    let password_file = auth.basic.as_ref().map(|basic| &basic.password_file);
    for path in password_file.into_iter().chain(&auth.token_file) {
        secret(path, std::fs::read_to_string(path))?;
    }
    Ok(())
}

async fn read(path: &Path) -> Result<String, GuardError> {
    secret(path, tokio::fs::read_to_string(path).await)
}

/// What is in the file, without the line break at its end. An empty secret would be everybody's.
fn secret(path: &Path, text: io::Result<String>) -> Result<String, GuardError> {
    let failed = |source| GuardError {
        path: path.to_owned(),
        source,
    };
    let text = text.map_err(failed)?;
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() || secret.len() > LONGEST {
        let what = format!("it is empty, or longer than {LONGEST} bytes");
        return Err(failed(io::Error::new(io::ErrorKind::InvalidData, what)));
    }
    Ok(secret.to_owned())
}

/// ring's own comparison is deprecated; verifying a MAC is its one comparison with a promise.
fn is_equal(a: &[u8], b: &[u8]) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"compare");
    hmac::verify(&key, a, hmac::sign(&key, b).as_ref()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BasicAuth;

    struct Files(tempfile::TempDir);

    impl Files {
        fn new(password: &str, token: &str) -> Self {
            let files = Self(tempfile::tempdir().unwrap());
            files.write("password", password);
            files.write("token", token);
            files
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.0.path().join(name), text).unwrap();
        }

        fn basic(&self) -> BasicAuth {
            BasicAuth {
                user: "scraper".to_owned(),
                password_file: self.0.path().join("password"),
            }
        }

        fn guard(&self) -> Guard {
            Guard::new(HttpAuth {
                basic: Some(self.basic()),
                token_file: Some(self.0.path().join("token")),
            })
        }
    }

    async fn admits(guard: &Guard, shown: &str) -> bool {
        guard.look_at(Some(shown)).await == Verdict::Admitted
    }

    fn basic(text: &str) -> String {
        format!("Basic {}", STANDARD.encode(text))
    }

    #[tokio::test]
    async fn a_password_and_a_token_admit_and_nothing_else_does() {
        let files = Files::new("s3cret\n", "t0ken\r\n");
        let guard = files.guard();
        for shown in [
            &basic("scraper:s3cret"),
            "Bearer t0ken",
            "bearer  t0ken ",
            &basic("scraper:s3cret").replace("Basic", "BASIC"),
        ] {
            assert!(admits(&guard, shown).await, "{shown}");
        }
        for shown in [
            &basic("scraper:s3cre"),
            &basic("scraper:s3cret\n"),
            &basic("other:s3cret"),
            "Bearer s3cret",
            "Bearer t0kenn",
            "Bearer ",
            "Bearer",
            "t0ken",
            "",
        ] {
            assert!(!admits(&guard, shown).await, "{shown:?}");
        }
        let nothing = guard.look_at(None).await;
        let challenges = vec![BASIC, BEARER];
        assert_eq!(nothing, Verdict::Refused { challenges });
    }

    #[tokio::test]
    async fn nothing_is_asked_where_nothing_is_set() {
        let guard = Guard::new(HttpAuth::default());
        assert_eq!(guard.look_at(None).await, Verdict::Admitted);
        assert_eq!(guard.credentials().await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_is_in_the_file_now_counts() {
        let files = Files::new("old", "old");
        let guard = files.guard();
        files.write("token", "new");
        assert!(!admits(&guard, "Bearer old").await);
        assert!(admits(&guard, "Bearer new").await);
        // A secret that is being written is nobody's.
        files.write("token", "\n");
        assert!(!admits(&guard, "Bearer ").await && !admits(&guard, "Bearer \n").await);
        assert!(guard.credentials().await.is_err());
    }

    #[tokio::test]
    async fn what_is_shown_to_others_admits() {
        let files = Files::new("s3cret", "t0ken");
        let guard = files.guard();
        assert!(admits(&guard, &guard.credentials().await.unwrap().unwrap()).await);
        guard.set(HttpAuth {
            basic: Some(files.basic()),
            token_file: None,
        });
        assert!(admits(&guard, &guard.credentials().await.unwrap().unwrap()).await);
        assert!(!admits(&guard, "Bearer t0ken").await);
    }
}
