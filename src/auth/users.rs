//! PgBouncer's `auth_file`: one `"user" "secret"` per line.
//!
//! It reads the file when told to; when to read it again is somebody else's business.

use std::{collections::HashMap, fs, io, path::Path, str};

use thiserror::Error;

use super::{scram::VerifierError, secret::Secret, usual::Usual};

/// The users of one file.
#[derive(Debug, Clone, Default)]
pub struct Users {
    entries: HashMap<Box<str>, Secret>,
    usual: Option<Usual>,
}

/// A line that is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("line {line}: {reason}")]
pub struct UsersError {
    /// Counted from one.
    pub line: usize,
    /// What is wrong with it.
    pub reason: LineError,
}

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LineError {
    /// Bytes that are not UTF-8.
    #[error("not UTF-8")]
    NotUtf8,
    /// No opening quote where a user belongs.
    #[error("a line is \"user\" \"secret\", and there is no quoted user")]
    User,
    /// No opening quote where a secret belongs.
    #[error("a line is \"user\" \"secret\", and there is no quoted secret")]
    Secret,
    /// No closing quote.
    #[error("a quote is not closed on its line")]
    Unclosed,
    /// `""` for a user.
    #[error("the user is empty")]
    EmptyUser,
    /// A zero byte, which no message can carry.
    #[error("a zero byte in a user or a secret")]
    ZeroByte,
    /// A SCRAM verifier that cannot be read.
    #[error(transparent)]
    Verifier(#[from] VerifierError),
}

/// Why a users file was not loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read the users file")]
    Read(#[from] io::Error),
    /// The file says something wrong.
    #[error(transparent)]
    Line(#[from] UsersError),
}

impl Users {
    /// Reads a users file.
    ///
    /// # Errors
    /// When it cannot be read or a line is wrong.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        Ok(Self::parse(&fs::read(path)?)?)
    }

    /// Reads the text of a users file. Blank lines and lines that begin with `;` or `#` are skipped, what
    /// follows the secret is ignored, a quote within quotes is doubled, and the last line of a user counts.
    ///
    /// # Errors
    /// At the first line that is wrong.
    pub fn parse(text: &[u8]) -> Result<Self, UsersError> {
        let mut users = HashMap::new();
        for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
            let entry = parse_line(line).map_err(|reason| UsersError {
                line: index + 1,
                reason,
            })?;
            users.extend(entry);
        }
        let usual = Usual::of_all(users.values());
        Ok(Self {
            entries: users,
            usual,
        })
    }

    /// The secret of a user.
    pub fn get(&self, user: &str) -> Option<&Secret> {
        self.entries.get(user)
    }

    /// The users' names and secrets, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Secret)> {
        self.entries.iter().map(|(user, secret)| (&**user, secret))
    }

    /// What their secrets are like; `None` if there are none.
    pub fn usual(&self) -> Option<Usual> {
        self.usual
    }

    /// How many users there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

fn parse_line(line: &[u8]) -> Result<Option<(Box<str>, Secret)>, LineError> {
    let line = str::from_utf8(line).map_err(|_| LineError::NotUtf8)?.trim_start();
    if line.is_empty() || line.starts_with([';', '#']) {
        return Ok(None);
    }
    let (user, rest) = quoted(line, LineError::User)?;
    let (secret, _) = quoted(rest.trim_start(), LineError::Secret)?;
    if user.is_empty() {
        return Err(LineError::EmptyUser);
    }
    if user.contains('\0') || secret.contains('\0') {
        return Err(LineError::ZeroByte);
    }
    Ok(Some((user.into(), Secret::parse(&secret)?)))
}

/// Takes one quoted string off the front of `text`.
fn quoted(text: &str, missing: LineError) -> Result<(String, &str), LineError> {
    let mut rest = text.strip_prefix('"').ok_or(missing)?;
    let mut value = String::new();
    loop {
        let (part, behind) = rest.split_once('"').ok_or(LineError::Unclosed)?;
        value.push_str(part);
        let Some(more) = behind.strip_prefix('"') else {
            return Ok((value, behind));
        };
        value.push('"');
        rest = more;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;
    use crate::auth::secret::Password;

    fn plain(text: &str) -> Secret {
        Secret::Plain(Password::new(text.as_bytes()))
    }

    #[test]
    fn reads_pgbouncers_format() {
        let text = "; comment\n# comment\n\n  \r\n\
            \"alice\" \"secret\"\r\n\
            \t\"bob\"   \"pass \"\"word\"\"\" ignored \"rest\"\n\
            \"we\"\"ird\"\"\" \"\"\n\
            \"carol\"\"\" \"x\"\n\
            \"dave\" \"md54a0a68b43b6cd5cf266fa02f196e2371\"\n\
            \"jürgen\" \"first\"\n\"jürgen\" \"schön\"";
        let users = Users::parse(text.as_bytes()).unwrap();
        assert_eq!(users.len(), 6);
        assert_eq!(users.get("alice"), Some(&plain("secret")));
        assert_eq!(users.get("bob"), Some(&plain("pass \"word\"")));
        assert_eq!(users.get("we\"ird\""), Some(&plain("")));
        assert_eq!(users.get("carol\""), Some(&plain("x")));
        assert!(matches!(users.get("dave"), Some(Secret::Md5(_))));
        assert_eq!(users.get("jürgen"), Some(&plain("schön")));
        assert_eq!(users.get("nobody"), None);
        assert!(!format!("{users:?}").contains("secret"));
    }

    #[test]
    fn names_the_line_and_what_is_wrong() {
        let cases: [(&[u8], LineError); 9] = [
            (b"alice secret", LineError::User),
            (b"\"alice\"", LineError::Secret),
            (b"\"alice\" secret", LineError::Secret),
            (b"\"alice", LineError::Unclosed),
            (b"\"alice\" \"sec\"\"", LineError::Unclosed),
            (b"\"\" \"secret\"", LineError::EmptyUser),
            (b"\"alice\" \"a\0b\"", LineError::ZeroByte),
            (b"\"alice\" \"\xff\"", LineError::NotUtf8),
            (
                b"\"alice\" \"SCRAM-SHA-256$x\"",
                LineError::Verifier(VerifierError::Shape),
            ),
        ];
        for (line, reason) in cases {
            let text = [b"\"first\" \"line\"\n\n".as_slice(), line].concat();
            assert_eq!(Users::parse(&text).unwrap_err(), UsersError { line: 3, reason });
        }
    }

    #[test]
    fn loads_a_file_or_says_why_not() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"\"alice\" \"secret\"\n").unwrap();
        assert_eq!(Users::load(file.path()).unwrap().len(), 1);
        file.write_all(b"x").unwrap();
        let error = Users::load(file.path()).unwrap_err();
        assert!(matches!(error, LoadError::Line(UsersError { line: 2, .. })));
        let missing = Users::load(&file.path().join("missing")).unwrap_err();
        assert!(matches!(missing, LoadError::Read(_)));
    }

    proptest! {
        #[test]
        fn every_name_and_password_survives_quoting(user in "[^\0\n]{1,20}", secret in "[^\0\n]{0,20}") {
            let line = format!("\"{}\" \"{}\"", user.replace('"', "\"\""), secret.replace('"', "\"\""));
            let users = Users::parse(line.as_bytes()).unwrap();
            prop_assert_eq!(users.get(&user), Some(&Secret::parse(&secret).unwrap()));
        }

        #[test]
        fn no_bytes_make_it_panic(text in "[\"\\\\; #ab\0\n\r\u{e4}]{0,40}") {
            let _ = Users::parse(text.as_bytes());
        }
    }
}
