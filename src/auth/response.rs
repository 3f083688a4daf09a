//! The bodies of a client's `p` messages: password, SASLInitialResponse, SASLResponse.
//!
//! They share one type byte, so only the state of the exchange says which one it is.

use thiserror::Error;

/// The longest body that is read; access tokens are sent as passwords.
const MAX_BODY: usize = 65_536;

/// Why the body of a `p` message is not what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ResponseError {
    /// Longer than any password or SASL message.
    #[error("the response is longer than {MAX_BODY} bytes")]
    TooLong,
    /// A string without its zero byte, or with one inside.
    #[error("the password is not one string that ends with a zero byte")]
    Password,
    /// No mechanism name.
    #[error("the SASL response names no mechanism")]
    Mechanism,
    /// The length does not fit the body.
    #[error("the length of the initial SASL response does not fit the message")]
    Length,
}

/// The body of a SASLInitialResponse.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SaslInitial<'a> {
    pub(super) mechanism: &'a [u8],
    /// `None` when the client waits for a challenge first.
    pub(super) data: Option<&'a [u8]>,
}

/// A PasswordMessage: the password or the md5 response.
pub(super) fn password(body: &[u8]) -> Result<&[u8], ResponseError> {
    let (password, rest) = split_at_zero(sasl(body)?).ok_or(ResponseError::Password)?;
    if !rest.is_empty() {
        return Err(ResponseError::Password);
    }
    Ok(password)
}

/// A SASLInitialResponse.
pub(super) fn sasl_initial(body: &[u8]) -> Result<SaslInitial<'_>, ResponseError> {
    let (mechanism, rest) = split_at_zero(sasl(body)?).ok_or(ResponseError::Mechanism)?;
    let (length, data) = rest.split_first_chunk().ok_or(ResponseError::Length)?;
    let data = match i32::from_be_bytes(*length) {
        -1 if data.is_empty() => None,
        length if usize::try_from(length) == Ok(data.len()) => Some(data),
        _ => return Err(ResponseError::Length),
    };
    Ok(SaslInitial { mechanism, data })
}

/// A SASLResponse: all of the body.
pub(super) fn sasl(body: &[u8]) -> Result<&[u8], ResponseError> {
    if body.len() > MAX_BODY {
        return Err(ResponseError::TooLong);
    }
    Ok(body)
}

fn split_at_zero(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let zero = bytes.iter().position(|&byte| byte == 0)?;
    let (before, rest) = bytes.split_at_checked(zero)?;
    Some((before, rest.get(1..)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn password_is_one_string() {
        assert_eq!(password(b"secret\0"), Ok(b"secret".as_slice()));
        assert_eq!(password(b"\xff\xfe\0"), Ok(b"\xff\xfe".as_slice()));
        assert_eq!(password(b"\0"), Ok(b"".as_slice()));
        for body in [b"".as_slice(), b"secret", b"sec\0ret\0", b"secret\0\0"] {
            assert_eq!(password(body), Err(ResponseError::Password));
        }
        assert_eq!(password(&[0; MAX_BODY + 1]), Err(ResponseError::TooLong));
    }

    #[test]
    fn sasl_initial_has_name_and_data() {
        let initial = sasl_initial(b"SCRAM-SHA-256\0\0\0\0\x03n,,").unwrap();
        assert_eq!(initial.mechanism, b"SCRAM-SHA-256");
        assert_eq!(initial.data, Some(b"n,,".as_slice()));
        assert_eq!(sasl_initial(b"X\0\xff\xff\xff\xff").unwrap().data, None);
        assert_eq!(sasl_initial(b"X\0\0\0\0\0").unwrap().data, Some(b"".as_slice()));
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        assert_eq!(sasl_initial(b""), Err(ResponseError::Mechanism));
        assert_eq!(sasl_initial(b"SCRAM-SHA-256"), Err(ResponseError::Mechanism));
        let lies: [&[u8]; 7] = [
            b"X\0",
            b"X\0\0\0\0",
            b"X\0\0\0\0\x04n,,",
            b"X\0\0\0\0\x02n,,",
            b"X\0\xff\xff\xff\xffn,,",
            b"X\0\xff\xff\xff\xfe",
            b"X\0\x7f\xff\xff\xffn,,",
        ];
        for body in lies {
            assert_eq!(sasl_initial(body), Err(ResponseError::Length));
        }
    }

    proptest! {
        #[test]
        fn no_body_makes_a_decoder_panic(body in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = password(&body);
            let _ = sasl_initial(&body);
        }
    }
}
