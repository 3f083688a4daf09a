//! The body of a server's `R` message: what it asks of us at log-in.

use thiserror::Error;

/// The longest list of mechanisms that is read.
const MAX_MECHANISMS: usize = 4096;

/// What a server says in an `R` message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthRequest<'a> {
    /// AuthenticationOk
    Ok,
    /// AuthenticationCleartextPassword
    CleartextPassword,
    /// AuthenticationMD5Password
    Md5Password {
        /// Goes into the response.
        salt: [u8; 4],
    },
    /// AuthenticationSASL
    Sasl(Mechanisms<'a>),
    /// AuthenticationSASLContinue
    SaslContinue(&'a [u8]),
    /// AuthenticationSASLFinal
    SaslFinal(&'a [u8]),
    /// Anything else.
    Unsupported(UnsupportedMethod),
}

/// The SASL mechanisms that a server offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mechanisms<'a>(&'a [u8]);

/// A way to log in that we do not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum UnsupportedMethod {
    /// Code 2
    #[error("Kerberos V5")]
    KerberosV5,
    /// Code 6
    #[error("SCM credentials")]
    ScmCredential,
    /// Codes 7 and 8
    #[error("GSSAPI")]
    Gss,
    /// Code 9
    #[error("SSPI")]
    Sspi,
    /// A code that PostgreSQL does not have.
    #[error("authentication method {0}")]
    Unknown(i32),
}

/// The body of an `R` message is malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AuthRequestError {
    /// No code, or no salt behind it.
    #[error("the server's authentication request is too short")]
    TooShort,
    /// Something follows where nothing should.
    #[error("the server's authentication request has something behind its end")]
    Trailing,
    /// The list of mechanisms has no end or is too long.
    #[error("the server's list of SASL mechanisms is malformed")]
    Mechanisms,
}

impl<'a> AuthRequest<'a> {
    /// Reads the body of one `R` message.
    ///
    /// # Errors
    /// When it is malformed. A method that is only unknown is [`AuthRequest::Unsupported`].
    pub fn decode(body: &'a [u8]) -> Result<Self, AuthRequestError> {
        let (code, rest) = body.split_first_chunk().ok_or(AuthRequestError::TooShort)?;
        match i32::from_be_bytes(*code) {
            0 => nothing_more(rest).map(|()| Self::Ok),
            3 => nothing_more(rest).map(|()| Self::CleartextPassword),
            5 => {
                let (salt, rest) = rest.split_first_chunk().ok_or(AuthRequestError::TooShort)?;
                nothing_more(rest).map(|()| Self::Md5Password { salt: *salt })
            }
            10 => Mechanisms::decode(rest).map(Self::Sasl),
            11 => Ok(Self::SaslContinue(rest)),
            12 => Ok(Self::SaslFinal(rest)),
            code => Ok(Self::Unsupported(UnsupportedMethod::from_code(code))),
        }
    }
}

impl<'a> Mechanisms<'a> {
    /// Names that end with a zero byte each, and an empty one at the end.
    fn decode(list: &'a [u8]) -> Result<Self, AuthRequestError> {
        if list.len() > MAX_MECHANISMS {
            return Err(AuthRequestError::Mechanisms);
        }
        match list {
            [0] => Ok(Self(&[])),
            [names @ .., 0, 0] if !names.is_empty() => Ok(Self(names)),
            _ => Err(AuthRequestError::Mechanisms),
        }
    }

    /// Whether the server offers `mechanism`.
    pub fn contains(&self, mechanism: &str) -> bool {
        self.0
            .split(|&byte| byte == 0)
            .any(|name| name == mechanism.as_bytes())
    }
}

impl UnsupportedMethod {
    fn from_code(code: i32) -> Self {
        match code {
            2 => Self::KerberosV5,
            6 => Self::ScmCredential,
            7 | 8 => Self::Gss,
            9 => Self::Sspi,
            code => Self::Unknown(code),
        }
    }
}

fn nothing_more(rest: &[u8]) -> Result<(), AuthRequestError> {
    if rest.is_empty() {
        return Ok(());
    }
    Err(AuthRequestError::Trailing)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_request_is_known() {
        let decode = |body: &'static [u8]| AuthRequest::decode(body).unwrap();
        assert_eq!(decode(b"\0\0\0\0"), AuthRequest::Ok);
        assert_eq!(decode(b"\0\0\0\x03"), AuthRequest::CleartextPassword);
        assert_eq!(
            decode(b"\0\0\0\x05\x01\x02\x03\x04"),
            AuthRequest::Md5Password { salt: [1, 2, 3, 4] }
        );
        assert_eq!(decode(b"\0\0\0\x0babc"), AuthRequest::SaslContinue(b"abc"));
        assert_eq!(decode(b"\0\0\0\x0cabc"), AuthRequest::SaslFinal(b"abc"));
        for (code, name) in [
            (2, "Kerberos V5"),
            (6, "SCM credentials"),
            (7, "GSSAPI"),
            (9, "SSPI"),
        ] {
            let body = [0, 0, 0, code];
            let AuthRequest::Unsupported(method) = AuthRequest::decode(&body).unwrap() else {
                panic!("{name} is not supported");
            };
            assert_eq!(method.to_string(), name);
        }
        assert_eq!(
            decode(b"\xff\xff\xff\xff"),
            AuthRequest::Unsupported(UnsupportedMethod::Unknown(-1))
        );
    }

    #[test]
    fn mechanisms_are_whole_names() {
        let AuthRequest::Sasl(offer) =
            AuthRequest::decode(b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0").unwrap()
        else {
            panic!("this is AuthenticationSASL");
        };
        assert!(offer.contains("SCRAM-SHA-256"));
        assert!(offer.contains("SCRAM-SHA-256-PLUS"));
        assert!(!offer.contains("SCRAM-SHA-1"));
        assert!(!offer.contains("SCRAM-SHA"));
    }

    #[test]
    fn malformed_requests_are_refused() {
        let cases: [(&[u8], AuthRequestError); 8] = [
            (b"", AuthRequestError::TooShort),
            (b"\0\0\0", AuthRequestError::TooShort),
            (b"\0\0\0\0\0", AuthRequestError::Trailing),
            (b"\0\0\0\x05\x01\x02\x03", AuthRequestError::TooShort),
            (b"\0\0\0\x05\x01\x02\x03\x04\x05", AuthRequestError::Trailing),
            (b"\0\0\0\x0a", AuthRequestError::Mechanisms),
            (b"\0\0\0\x0aSCRAM-SHA-256", AuthRequestError::Mechanisms),
            (b"\0\0\0\x0aSCRAM-SHA-256\0", AuthRequestError::Mechanisms),
        ];
        for (body, error) in cases {
            assert_eq!(AuthRequest::decode(body), Err(error));
        }
        let long = [b"\0\0\0\x0a".as_slice(), &[b'x'; MAX_MECHANISMS], b"\0\0"].concat();
        assert_eq!(AuthRequest::decode(&long), Err(AuthRequestError::Mechanisms));
    }

    proptest! {
        #[test]
        fn no_body_makes_it_panic(code in -1..16_i32, rest in proptest::collection::vec(any::<u8>(), 0..32)) {
            let body = [code.to_be_bytes().as_slice(), &rest].concat();
            let _ = AuthRequest::decode(&body);
            let _ = AuthRequest::decode(&rest);
        }
    }
}
