//! The four SCRAM messages as text: checked decoders, each with a bound, and nothing of their meaning.

use std::num::NonZeroU32;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use thiserror::Error;

/// The longest message that is read. Real ones have less than 200 bytes; a user name may be in one.
pub const MAX_MESSAGE: usize = 4096;
/// The longest nonce that is read. Real ones have 24 to 64 bytes.
pub const MAX_NONCE: usize = 512;
const MAX_SALT: usize = 256;

/// Why bytes are not the SCRAM message that was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MessageError {
    /// Longer than [`MAX_MESSAGE`].
    #[error("the message is longer than {MAX_MESSAGE} bytes")]
    TooLong,
    /// Not `x=value`, or another attribute than the one that belongs here.
    #[error("attribute \"{}\" was expected", char::from(*.0))]
    Attribute(u8),
    /// Something follows the last attribute, or an attribute has no name.
    #[error("the message has something behind its end")]
    Trailing,
    /// The GS2 header begins with none of `n,`, `y,` and `p=type,`.
    #[error("the channel binding flag is none of n, y and p")]
    ChannelBindingFlag,
    /// `a=...`: the client wants to act for somebody else.
    #[error("an authorization identity was given, which is not supported")]
    AuthorizationIdentity,
    /// `m=...`: an extension that must not be ignored.
    #[error("a mandatory extension was asked for, and none is known")]
    MandatoryExtension,
    /// A nonce that is empty, too long or not printable ASCII.
    #[error("the nonce is not printable ASCII of 1 to {MAX_NONCE} characters")]
    Nonce,
    /// A value that is not base64 of the right length.
    #[error("attribute \"{}\" is not base64 of the right length", char::from(*.0))]
    Base64(u8),
    /// An iteration count that is no positive number.
    #[error("the iteration count is not a positive number")]
    Iterations,
}

/// What a client says of channel binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BindingFlag<'a> {
    /// `n`: it does without.
    Unsupported,
    /// `y`: it could, and believes that the server cannot.
    NotOffered,
    /// `p=type`: it does.
    Bound(&'a [u8]),
}

/// `n,,n=user,r=nonce`
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ClientFirst<'a> {
    /// `n,,`, `y,,` or `p=type,,`, which the client repeats in its final message.
    pub(super) gs2_header: &'a [u8],
    pub(super) flag: BindingFlag<'a>,
    /// All behind the header.
    pub(super) bare: &'a [u8],
    pub(super) nonce: &'a [u8],
}

/// `r=nonce,s=salt,i=iterations`
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ServerFirst<'a> {
    pub(super) nonce: &'a [u8],
    pub(super) salt: Vec<u8>,
    pub(super) iterations: NonZeroU32,
}

/// `c=binding,r=nonce,p=proof`
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ClientFinal<'a> {
    pub(super) channel_binding: &'a [u8],
    pub(super) nonce: &'a [u8],
    /// All before `,p=`.
    pub(super) without_proof: &'a [u8],
    pub(super) proof: [u8; 32],
}

/// `v=signature` or `e=error`
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ServerFinal {
    Signature([u8; 32]),
    Refused,
}

impl<'a> ClientFirst<'a> {
    pub(super) fn decode(message: &'a [u8]) -> Result<Self, MessageError> {
        check_length(message)?;
        let (flag, rest) = split_at_comma(message).ok_or(MessageError::ChannelBindingFlag)?;
        let flag = match flag {
            b"n" => BindingFlag::Unsupported,
            b"y" => BindingFlag::NotOffered,
            [b'p', b'=', name @ ..] if !name.is_empty() => BindingFlag::Bound(name),
            _ => return Err(MessageError::ChannelBindingFlag),
        };
        let (identity, bare) = split_at_comma(rest).ok_or(MessageError::AuthorizationIdentity)?;
        if !identity.is_empty() {
            return Err(MessageError::AuthorizationIdentity);
        }
        let mut attributes = Attributes::of(bare);
        attributes.take(b'n')?;
        let nonce = check_nonce(attributes.take(b'r')?)?;
        while attributes.optional()?.is_some() {}
        let header = message.len().saturating_sub(bare.len());
        Ok(Self {
            gs2_header: message.get(..header).ok_or(MessageError::ChannelBindingFlag)?,
            flag,
            bare,
            nonce,
        })
    }
}

impl<'a> ServerFirst<'a> {
    pub(super) fn decode(message: &'a [u8]) -> Result<Self, MessageError> {
        check_length(message)?;
        let mut attributes = Attributes::of(message);
        let nonce = check_nonce(attributes.take(b'r')?)?;
        let salt = decode_base64(b's', attributes.take(b's')?)?;
        let iterations = attributes.take(b'i')?;
        while attributes.optional()?.is_some() {}
        if salt.is_empty() || salt.len() > MAX_SALT {
            return Err(MessageError::Base64(b's'));
        }
        Ok(Self {
            nonce,
            salt,
            iterations: decode_iterations(iterations)?,
        })
    }
}

impl<'a> ClientFinal<'a> {
    pub(super) fn decode(message: &'a [u8]) -> Result<Self, MessageError> {
        check_length(message)?;
        let mut attributes = Attributes::of(message);
        let channel_binding = attributes.take(b'c')?;
        let nonce = attributes.take(b'r')?;
        let proof = loop {
            match attributes.optional()? {
                Some((b'p', proof)) => break proof,
                Some(_) => {}
                None => return Err(MessageError::Attribute(b'p')),
            }
        };
        attributes.end()?;
        let before_proof = message.len().saturating_sub(proof.len() + ",p=".len());
        Ok(Self {
            channel_binding,
            nonce,
            without_proof: message.get(..before_proof).ok_or(MessageError::Attribute(b'p'))?,
            proof: decode_key(b'p', proof)?,
        })
    }
}

impl ServerFinal {
    pub(super) fn decode(message: &[u8]) -> Result<Self, MessageError> {
        check_length(message)?;
        let mut attributes = Attributes::of(message);
        match attributes.optional()? {
            Some((b'v', signature)) => {
                while attributes.optional()?.is_some() {}
                Ok(Self::Signature(decode_key(b'v', signature)?))
            }
            Some((b'e', _)) => Ok(Self::Refused),
            _ => Err(MessageError::Attribute(b'v')),
        }
    }
}

/// The attributes of one message, in order.
struct Attributes<'a> {
    /// `None` once the last one was taken.
    rest: Option<&'a [u8]>,
}

impl<'a> Attributes<'a> {
    fn of(message: &'a [u8]) -> Self {
        Self { rest: Some(message) }
    }

    /// The next attribute, which has to be `name`.
    fn take(&mut self, name: u8) -> Result<&'a [u8], MessageError> {
        match self.optional() {
            Ok(Some((found, value))) if found == name => Ok(value),
            Err(MessageError::MandatoryExtension) => Err(MessageError::MandatoryExtension),
            _ => Err(MessageError::Attribute(name)),
        }
    }

    /// The next attribute, if there is one.
    fn optional(&mut self) -> Result<Option<(u8, &'a [u8])>, MessageError> {
        let Some(rest) = self.rest else {
            return Ok(None);
        };
        let (attribute, rest) = match split_at_comma(rest) {
            Some((attribute, rest)) => (attribute, Some(rest)),
            None => (rest, None),
        };
        self.rest = rest;
        match attribute {
            [b'm', b'=', ..] => Err(MessageError::MandatoryExtension),
            [name, b'=', value @ ..] if name.is_ascii_alphabetic() => Ok(Some((*name, value))),
            _ => Err(MessageError::Trailing),
        }
    }

    fn end(&self) -> Result<(), MessageError> {
        if self.rest.is_some() {
            return Err(MessageError::Trailing);
        }
        Ok(())
    }
}

fn split_at_comma(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let comma = bytes.iter().position(|&byte| byte == b',')?;
    let (before, rest) = bytes.split_at_checked(comma)?;
    Some((before, rest.get(1..)?))
}

fn check_length(message: &[u8]) -> Result<(), MessageError> {
    if message.len() > MAX_MESSAGE {
        return Err(MessageError::TooLong);
    }
    Ok(())
}

fn check_nonce(nonce: &[u8]) -> Result<&[u8], MessageError> {
    let printable = nonce.iter().all(u8::is_ascii_graphic);
    if nonce.is_empty() || nonce.len() > MAX_NONCE || !printable {
        return Err(MessageError::Nonce);
    }
    Ok(nonce)
}

fn decode_base64(name: u8, text: &[u8]) -> Result<Vec<u8>, MessageError> {
    BASE64.decode(text).map_err(|_| MessageError::Base64(name))
}

fn decode_key(name: u8, text: &[u8]) -> Result<[u8; 32], MessageError> {
    let key = decode_base64(name, text)?;
    key.try_into().map_err(|_| MessageError::Base64(name))
}

fn decode_iterations(text: &[u8]) -> Result<NonZeroU32, MessageError> {
    // `parse` takes a leading plus sign, the RFC does not.
    if !text.iter().all(u8::is_ascii_digit) {
        return Err(MessageError::Iterations);
    }
    std::str::from_utf8(text)
        .ok()
        .and_then(|digits| digits.parse().ok())
        .ok_or(MessageError::Iterations)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PROOF: &str = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    #[test]
    fn client_first_is_taken_apart() {
        let message = ClientFirst::decode(b"y,,n=user,r=abc,x=1").unwrap();
        assert_eq!(message.gs2_header, b"y,,");
        assert_eq!(message.flag, BindingFlag::NotOffered);
        assert_eq!(message.bare, b"n=user,r=abc,x=1");
        assert_eq!(message.nonce, b"abc");
        assert_eq!(ClientFirst::decode(b"n,,n=,r=abc").unwrap().nonce, b"abc");
        let message = ClientFirst::decode(b"p=tls-exporter,,n=,r=abc").unwrap();
        assert_eq!(message.gs2_header, b"p=tls-exporter,,");
        assert_eq!(message.flag, BindingFlag::Bound(b"tls-exporter"));
        assert_eq!(message.bare, b"n=,r=abc");
    }

    #[test]
    fn hostile_client_first_is_refused() {
        let long_nonce = format!("n,,n=,r={}", "x".repeat(MAX_NONCE + 1));
        let long_name = format!("n,,n={},r=abc", "x".repeat(MAX_MESSAGE));
        let cases: [(&[u8], MessageError); 16] = [
            (b"", MessageError::ChannelBindingFlag),
            (b"n", MessageError::ChannelBindingFlag),
            (b"x,,n=,r=abc", MessageError::ChannelBindingFlag),
            (b",,n=,r=abc", MessageError::ChannelBindingFlag),
            (b"n,", MessageError::AuthorizationIdentity),
            (b"n,a=root,n=,r=abc", MessageError::AuthorizationIdentity),
            (b"p=,,n=,r=abc", MessageError::ChannelBindingFlag),
            (b"n,,", MessageError::Attribute(b'n')),
            (b"n,,r=abc", MessageError::Attribute(b'n')),
            (b"n,,n=user", MessageError::Attribute(b'r')),
            (b"n,,m=ext,n=,r=abc", MessageError::MandatoryExtension),
            (b"n,,n=,r=abc,m=ext", MessageError::MandatoryExtension),
            (b"n,,n=,r=", MessageError::Nonce),
            (b"n,,n=,r=a c", MessageError::Nonce),
            (long_nonce.as_bytes(), MessageError::Nonce),
            (long_name.as_bytes(), MessageError::TooLong),
        ];
        for (message, error) in cases {
            assert_eq!(ClientFirst::decode(message), Err(error));
        }
        assert_eq!(ClientFirst::decode(b"n,,n=,r=abc,"), Err(MessageError::Trailing));
    }

    #[test]
    fn server_first_is_taken_apart() {
        let message = ServerFirst::decode(b"r=abc,s=AAEC,i=4096,x=1").unwrap();
        assert_eq!(message.nonce, b"abc");
        assert_eq!(message.salt, [0, 1, 2]);
        assert_eq!(message.iterations.get(), 4096);
    }

    #[test]
    fn hostile_server_first_is_refused() {
        let cases: [(&[u8], MessageError); 11] = [
            (b"", MessageError::Attribute(b'r')),
            (b"m=ext,r=abc,s=AAEC,i=1", MessageError::MandatoryExtension),
            (b"r=abc,i=4096,s=AAEC", MessageError::Attribute(b's')),
            (b"r=abc,s=AAEC", MessageError::Attribute(b'i')),
            (b"r=abc,s=A*EC,i=1", MessageError::Base64(b's')),
            (b"r=abc,s=,i=1", MessageError::Base64(b's')),
            (b"r=abc,s=AAEC,i=0", MessageError::Iterations),
            (b"r=abc,s=AAEC,i=", MessageError::Iterations),
            (b"r=abc,s=AAEC,i=+1", MessageError::Iterations),
            (b"r=abc,s=AAEC,i=99999999999", MessageError::Iterations),
            (b"r=abc,s=AAEC,i=1 ", MessageError::Iterations),
        ];
        for (message, error) in cases {
            assert_eq!(ServerFirst::decode(message), Err(error));
        }
    }

    #[test]
    fn client_final_is_taken_apart() {
        let text = format!("c=biws,r=abc,x=1,p={PROOF}");
        let message = ClientFinal::decode(text.as_bytes()).unwrap();
        assert_eq!(message.channel_binding, b"biws");
        assert_eq!(message.nonce, b"abc");
        assert_eq!(message.without_proof, b"c=biws,r=abc,x=1");
    }

    #[test]
    fn hostile_client_final_is_refused() {
        let cases = [
            (String::new(), MessageError::Attribute(b'c')),
            (format!("r=abc,c=biws,p={PROOF}"), MessageError::Attribute(b'c')),
            (format!("p={PROOF}"), MessageError::Attribute(b'c')),
            (format!("c=biws,p={PROOF}"), MessageError::Attribute(b'r')),
            ("c=biws,r=abc".to_owned(), MessageError::Attribute(b'p')),
            ("c=biws,r=abc,p=".to_owned(), MessageError::Base64(b'p')),
            ("c=biws,r=abc,p=AAEC".to_owned(), MessageError::Base64(b'p')),
            ("c=biws,r=abc,p=!".to_owned(), MessageError::Base64(b'p')),
            (format!("c=biws,r=abc,p={PROOF},"), MessageError::Trailing),
            (
                format!("c=biws,r=abc,m=1,p={PROOF}"),
                MessageError::MandatoryExtension,
            ),
        ];
        for (message, error) in cases {
            assert_eq!(ClientFinal::decode(message.as_bytes()), Err(error), "{message}");
        }
    }

    #[test]
    fn server_final_is_a_signature_or_a_refusal() {
        assert!(matches!(
            ServerFinal::decode(format!("v={PROOF}").as_bytes()),
            Ok(ServerFinal::Signature(_))
        ));
        assert_eq!(ServerFinal::decode(b"e=invalid-proof"), Ok(ServerFinal::Refused));
        assert_eq!(ServerFinal::decode(b"v=AAEC"), Err(MessageError::Base64(b'v')));
        assert_eq!(ServerFinal::decode(b"x=1"), Err(MessageError::Attribute(b'v')));
        assert_eq!(ServerFinal::decode(b""), Err(MessageError::Trailing));
    }

    /// Bytes that are nearly messages: random ones would stop at the first character.
    fn nearly_a_message() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(b"n,,".to_vec()),
            Just(b"c=biws".to_vec()),
            Just(format!("p={PROOF}").into_bytes()),
            Just(b"s=AAEC".to_vec()),
            proptest::collection::vec(proptest::sample::select(b"nyprscivem=,Aa0\xff".to_vec()), 0..6),
            proptest::collection::vec(any::<u8>(), 0..6),
        ];
        proptest::collection::vec(piece, 0..6).prop_map(|pieces| pieces.join(&b','))
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_decoder_panic(message in nearly_a_message()) {
            let _ = ClientFirst::decode(&message);
            let _ = ServerFirst::decode(&message);
            let _ = ServerFinal::decode(&message);
            if let Ok(last) = ClientFinal::decode(&message) {
                prop_assert!(message.starts_with(last.without_proof));
                prop_assert!(message[last.without_proof.len()..].starts_with(b",p="));
            }
        }
    }
}
