//! The few messages of RFC 4511 that a log-in needs, from values to bytes and back.

use std::fmt;

use super::ber::{
    BOOLEAN, ENUMERATED, INTEGER, Malformed, OCTET_STRING, Reader, SEQUENCE, constructed, element, header,
};
use crate::auth::secret::Password;

/// The longest message that is read. Entries come without their attributes.
const MAX_MESSAGE: usize = 64 * 1024;
/// How much of a server's explanation goes to the log.
const MAX_DIAGNOSTIC: usize = 200;
/// RFC 4511, 4.14.1
const START_TLS: &[u8] = b"1.3.6.1.4.1.1466.20037";
/// RFC 4511, 4.5.1.8: an entry without its attributes.
const NO_ATTRIBUTES: &[u8] = b"1.1";

/// How far down a search goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The entry itself.
    Base,
    /// What is directly below it.
    One,
    /// It and everything below.
    Subtree,
}

/// What a server is asked.
#[derive(Debug, Clone, Copy)]
pub enum Operation<'a> {
    /// Whether this is the password of that name.
    Bind {
        /// The distinguished name, or what the server takes for one.
        name: &'a [u8],
        /// The password.
        password: &'a Password,
    },
    /// Which entries there are.
    Search {
        /// Below which.
        base: &'a str,
        /// How far.
        scope: Scope,
        /// A compiled filter.
        filter: &'a [u8],
        /// How long the server may look.
        seconds: u8,
    },
    /// Encryption.
    StartTls,
    /// Nothing more.
    Unbind,
}

/// What a server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// To a bind, to StartTLS, or at the end of a search.
    Done(Outcome),
    /// An entry that was found, by its distinguished name.
    Entry(Box<[u8]>),
    /// Another server might know more.
    Reference,
}

/// How an operation went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The result code (RFC 4511, appendix A).
    pub code: u32,
    /// What the server says about it.
    pub diagnostic: String,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "result {}", self.code)?;
        let name = match self.code {
            1 => "operationsError",
            2 => "protocolError",
            3 => "timeLimitExceeded",
            4 => "sizeLimitExceeded",
            8 => "strongerAuthRequired",
            10 => "referral",
            11 => "adminLimitExceeded",
            13 => "confidentialityRequired",
            19 => "constraintViolation",
            32 => "noSuchObject",
            34 => "invalidDNSyntax",
            48 => "inappropriateAuthentication",
            49 => "invalidCredentials",
            50 => "insufficientAccessRights",
            51 => "busy",
            52 => "unavailable",
            53 => "unwillingToPerform",
            _ => "",
        };
        if !name.is_empty() {
            write!(f, " ({name})")?;
        }
        if !self.diagnostic.is_empty() {
            write!(f, ": {}", self.diagnostic)?;
        }
        Ok(())
    }
}

/// The bytes of a request.
pub fn request(id: u8, operation: &Operation<'_>) -> Vec<u8> {
    let operation = match *operation {
        Operation::Bind { name, password } => constructed(
            0x60,
            &[
                element(INTEGER, &[3]),
                element(OCTET_STRING, name),
                element(0x80, password.as_bytes()),
            ],
        ),
        Operation::Search {
            base,
            scope,
            filter,
            seconds,
        } => constructed(
            0x63,
            &[
                element(OCTET_STRING, base.as_bytes()),
                element(ENUMERATED, &[scope as u8]),
                // Aliases are not followed.
                element(ENUMERATED, &[0]),
                // Two are as bad as many.
                element(INTEGER, &[2]),
                element(INTEGER, &[seconds & 0x7f]),
                element(BOOLEAN, &[0]),
                filter.to_vec(),
                constructed(SEQUENCE, &[element(OCTET_STRING, NO_ATTRIBUTES)]),
            ],
        ),
        Operation::StartTls => constructed(0x77, &[element(0x80, START_TLS)]),
        Operation::Unbind => element(0x42, &[]),
    };
    constructed(SEQUENCE, &[element(INTEGER, &[id & 0x7f]), operation])
}

/// How long the message is that `input` begins with; `None` as long as that cannot be said.
///
/// # Errors
/// It is no message, or too long.
pub fn length(input: &[u8]) -> Result<Option<usize>, Malformed> {
    match header(input)? {
        None => Ok(None),
        Some((SEQUENCE, length, start)) if length <= MAX_MESSAGE => Ok(Some(start + length)),
        Some(_) => Err(Malformed),
    }
}

/// The answer to the request of this number.
///
/// # Errors
/// It is none.
pub fn reply(id: u8, message: &[u8]) -> Result<Reply, Malformed> {
    let mut message = Reader(Reader(message).expect(SEQUENCE)?);
    // Number zero is the server's own: it says good-bye.
    if message.number(INTEGER)? != u32::from(id) {
        return Err(Malformed);
    }
    let (tag, content) = message.next()?;
    let mut content = Reader(content);
    match tag {
        0x61 | 0x65 | 0x78 => {
            let code = content.number(ENUMERATED)?;
            content.expect(OCTET_STRING)?;
            let diagnostic = printable(content.expect(OCTET_STRING)?);
            Ok(Reply::Done(Outcome { code, diagnostic }))
        }
        0x64 => Ok(Reply::Entry(content.expect(OCTET_STRING)?.into())),
        0x73 => Ok(Reply::Reference),
        _ => Err(Malformed),
    }
}

/// One line of a server's text, not too long. Active Directory ends its own with a zero byte.
fn printable(text: &[u8]) -> String {
    String::from_utf8_lossy(text)
        .trim_end_matches(['\0', '\n', ' '])
        .chars()
        .take(MAX_DIAGNOSTIC)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn requests_are_what_rfc_4511_says() {
        let password = Password::new(b"pw");
        let bind = Operation::Bind {
            name: b"cn=a",
            password: &password,
        };
        let expected = [
            &[0x30, 18, 2, 1, 1, 0x60, 13, 2, 1, 3, 4, 4][..],
            b"cn=a",
            &[0x80, 2],
            b"pw",
        ];
        assert_eq!(request(1, &bind), expected.concat());
        assert_eq!(request(2, &Operation::Unbind), [0x30, 5, 2, 1, 2, 0x42, 0]);
        let start_tls = [&[0x30, 29, 2, 1, 1, 0x77, 24, 0x80, 22][..], START_TLS].concat();
        assert_eq!(request(1, &Operation::StartTls), start_tls);
        assert!(!format!("{bind:?}").contains("pw"));
    }

    #[test]
    fn replies_are_read() {
        let done = |tag| {
            let parts = [
                element(ENUMERATED, &[49]),
                element(4, b""),
                element(4, b"no\nway\0"),
            ];
            constructed(SEQUENCE, &[element(INTEGER, &[7]), constructed(tag, &parts)])
        };
        let outcome = Outcome {
            code: 49,
            diagnostic: "no way".to_owned(),
        };
        assert_eq!(outcome.to_string(), "result 49 (invalidCredentials): no way");
        for tag in [0x61, 0x65, 0x78] {
            assert_eq!(reply(7, &done(tag)), Ok(Reply::Done(outcome.clone())));
            assert_eq!(length(&done(tag)), Ok(Some(done(tag).len())));
            assert_eq!(reply(8, &done(tag)), Err(Malformed), "another's answer");
        }
        let entry = constructed(0x64, &[element(4, b"cn=a"), element(SEQUENCE, b"")]);
        let entry = constructed(SEQUENCE, &[element(INTEGER, &[1]), entry]);
        assert_eq!(reply(1, &entry), Ok(Reply::Entry((*b"cn=a").into())));
    }

    #[test]
    fn no_length_makes_us_wait_for_more_than_a_message() {
        for input in [
            &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff][..],
            &[0x30, 0x83, 1, 0, 1],
            &[0x04, 1],
            b"HTTP",
        ] {
            assert_eq!(length(input), Err(Malformed), "{input:?}");
        }
        assert_eq!(length(&[0x30]), Ok(None));
    }

    proptest! {
        #[test]
        fn nothing_that_a_server_sends_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..200), nest in any::<bool>()) {
            if nest {
                bytes = (0..1000).fold(bytes, |inner, _| element(SEQUENCE, &inner));
            }
            let _ = (length(&bytes), reply(1, &bytes));
        }
    }
}
