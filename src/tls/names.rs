//! Who a certificate is for: its subject, as PostgreSQL compares and prints it.
//!
//! Parsing alone; whether the certificate may be believed was settled by the handshake.

use x509_parser::{
    asn1_rs::{Any, Tag, ToDer},
    prelude::{AttributeTypeAndValue, FromDer, X509Certificate, X509Name},
};

use crate::types::CertificateNames;

const COMMON_NAME: &str = "2.5.4.3";

/// What OpenSSL calls the attributes of a name; it prints the numbers of all others.
const SHORT_NAMES: &[(&str, &str)] = &[
    (COMMON_NAME, "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "street"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("2.5.4.13", "description"),
    ("2.5.4.15", "businessCategory"),
    ("2.5.4.16", "postalAddress"),
    ("2.5.4.17", "postalCode"),
    ("2.5.4.18", "postOfficeBox"),
    ("2.5.4.20", "telephoneNumber"),
    ("2.5.4.41", "name"),
    ("2.5.4.42", "GN"),
    ("2.5.4.43", "initials"),
    ("2.5.4.44", "generationQualifier"),
    ("2.5.4.45", "x500UniqueIdentifier"),
    ("2.5.4.46", "dnQualifier"),
    ("2.5.4.65", "pseudonym"),
    ("2.5.4.72", "role"),
    ("2.5.4.97", "organizationIdentifier"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.3", "mail"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
    ("1.2.840.113549.1.9.2", "unstructuredName"),
    ("1.2.840.113549.1.9.8", "unstructuredAddress"),
    ("1.3.6.1.4.1.311.60.2.1.1", "jurisdictionL"),
    ("1.3.6.1.4.1.311.60.2.1.2", "jurisdictionST"),
    ("1.3.6.1.4.1.311.60.2.1.3", "jurisdictionC"),
];

/// Why a certificate names nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NamesError {
    /// A common name that another program would read only half of (CVE-2009-4034).
    #[error("SSL certificate's common name contains embedded null")]
    EmbeddedNull,
    /// A name that is no text.
    #[error("the certificate's subject is not readable as text")]
    NotText,
    /// Not an X.509 certificate.
    #[error("the certificate is not readable")]
    Unreadable,
}

/// The names of a certificate in DER.
pub(super) fn of_certificate(der: &[u8]) -> Result<CertificateNames, NamesError> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| NamesError::Unreadable)?;
    let subject = certificate.subject();
    Ok(CertificateNames {
        common_name: common_name(subject)?,
        distinguished_name: rfc2253(subject)?,
    })
}

/// The first one in the order of encoding, byte for byte, as `X509_NAME_get_text_by_NID` gives it to PostgreSQL.
fn common_name(subject: &X509Name<'_>) -> Result<Option<String>, NamesError> {
    let Some(attribute) = subject.iter_common_name().next() else {
        return Ok(None);
    };
    let value = attribute.as_slice();
    if value.contains(&0) {
        return Err(NamesError::EmbeddedNull);
    }
    let text = std::str::from_utf8(value).map_err(|_| NamesError::NotText)?;
    Ok(Some(text.to_owned()))
}

/// `CN=app,O=acme`: what `X509_NAME_print_ex` makes with `XN_FLAG_RFC2253`, which is what PostgreSQL compares with
/// `clientname=DN`. The most specific part comes first.
pub(super) fn rfc2253(name: &X509Name<'_>) -> Result<String, NamesError> {
    let mut text = String::new();
    let parts: Vec<_> = name.iter_rdn().collect();
    for part in parts.into_iter().rev() {
        let attributes: Vec<_> = part.iter().collect();
        for (index, attribute) in attributes.into_iter().rev().enumerate() {
            if !text.is_empty() {
                text.push(if index == 0 { ',' } else { '+' });
            }
            push_attribute(attribute, &mut text)?;
        }
    }
    Ok(text)
}

fn push_attribute(attribute: &AttributeTypeAndValue<'_>, text: &mut String) -> Result<(), NamesError> {
    let oid = attribute.attr_type().to_id_string();
    let short = SHORT_NAMES.iter().find(|(known, _)| *known == oid);
    text.push_str(short.map_or(oid.as_str(), |(_, short)| short));
    text.push('=');
    match (short, characters(attribute.attr_value())?) {
        (Some(_), Some(value)) => push_escaped(&value, text),
        // What has no name has no known meaning: all of it is shown.
        _ => push_dump(attribute.attr_value(), text)?,
    }
    Ok(())
}

/// The characters of a string type; `None` for any other value.
fn characters(value: &Any<'_>) -> Result<Option<Vec<char>>, NamesError> {
    let data = value.data;
    let decoded = match value.tag() {
        Tag::Utf8String => std::str::from_utf8(data).ok().map(|text| text.chars().collect()),
        Tag::NumericString
        | Tag::PrintableString
        | Tag::T61String
        | Tag::Ia5String
        | Tag::VisibleString
        | Tag::UtcTime
        | Tag::GeneralizedTime => Some(data.iter().map(|&byte| char::from(byte)).collect()),
        Tag::BmpString => wide(data, |unit: [u8; 2]| u32::from(u16::from_be_bytes(unit))),
        Tag::UniversalString => wide(data, u32::from_be_bytes),
        _ => return Ok(None),
    };
    decoded.map(Some).ok_or(NamesError::NotText)
}

fn wide<const N: usize>(data: &[u8], number: impl Fn([u8; N]) -> u32) -> Option<Vec<char>> {
    let (units, rest) = data.as_chunks();
    let characters = units.iter().map(|unit| char::from_u32(number(*unit)));
    rest.is_empty().then(|| characters.collect()).flatten()
}

/// `ASN1_STRFLGS_RFC2253`: control characters and all beyond ASCII as the hex of their UTF-8.
fn push_escaped(value: &[char], text: &mut String) {
    let mut utf8 = [0; 4];
    for (index, &character) in value.iter().enumerate() {
        let (first, last) = (index == 0, index + 1 == value.len());
        match character {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' => text.extend(['\\', character]),
            ' ' if first || last => text.push_str("\\ "),
            // OpenSSL looks at the last character as such only, even where it is the first one too.
            '#' if first && !last => text.push_str("\\#"),
            ' '..='~' => text.push(character),
            _ => {
                for byte in character.encode_utf8(&mut utf8).bytes() {
                    text.push_str(&format!("\\{byte:02X}"));
                }
            }
        }
    }
}

/// `#` and the DER in hex.
fn push_dump(value: &Any<'_>, text: &mut String) -> Result<(), NamesError> {
    let der = value.to_der_vec().map_err(|_| NamesError::Unreadable)?;
    text.push('#');
    for byte in der {
        text.push_str(&format!("{byte:02X}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CN: &[u8] = &[0x55, 4, 3];
    const O: &[u8] = &[0x55, 4, 10];
    const UTF8: u8 = 12;
    const T61: u8 = 20;
    const BMP: u8 = 30;

    fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u8::try_from(content.len()).unwrap();
        assert!(length < 128, "the short form of a length will do here");
        [&[tag, length], content].concat()
    }

    fn attribute(oid: &[u8], tag: u8, value: &[u8]) -> Vec<u8> {
        tlv(0x30, &[tlv(6, oid), tlv(tag, value)].concat())
    }

    /// A name of parts, each of one attribute or several.
    fn name(parts: &[&[Vec<u8>]]) -> Vec<u8> {
        let parts: Vec<_> = parts.iter().map(|part| tlv(0x31, &part.concat())).collect();
        tlv(0x30, &parts.concat())
    }

    fn printed(der: &[u8]) -> Result<String, NamesError> {
        rfc2253(&X509Name::from_der(der).unwrap().1)
    }

    fn called(der: &[u8]) -> Result<Option<String>, NamesError> {
        common_name(&X509Name::from_der(der).unwrap().1)
    }

    #[test]
    fn a_name_is_printed_as_openssl_does() {
        let cn = |value: &str| name(&[&[attribute(CN, UTF8, value.as_bytes())]]);
        // What `openssl x509 -subject -nameopt RFC2253` says of the same names.
        for (value, expected) in [
            ("app", "CN=app"),
            ("a,b+c\"d\\e<f>g;h", r#"CN=a\,b\+c\"d\\e\<f\>g\;h"#),
            (" x ", r"CN=\ x\ "),
            ("#x#", r"CN=\#x#"),
            ("#", "CN=#"),
            ("a=b", "CN=a=b"),
            ("é€😀", r"CN=\C3\A9\E2\82\AC\F0\9F\98\80"),
            ("a\tb\x7f", r"CN=a\09b\7F"),
        ] {
            assert_eq!(printed(&cn(value)).unwrap(), expected);
        }
        let der = name(&[
            &[attribute(O, UTF8, b"acme")],
            &[
                attribute(CN, UTF8, b"app"),
                attribute(&[0x55, 4, 11], UTF8, b"dev"),
            ],
            &[attribute(&[0x2a, 3, 4], UTF8, b"odd")],
        ]);
        assert_eq!(printed(&der).unwrap(), "1.2.3.4=#0C036F6464,OU=dev+CN=app,O=acme");
        assert_eq!(printed(&name(&[])).unwrap(), "");
    }

    #[test]
    fn every_string_type_is_text() {
        let cn = |tag, value: &[u8]| name(&[&[attribute(CN, tag, value)]]);
        assert_eq!(printed(&cn(T61, b"caf\xe9")).unwrap(), r"CN=caf\C3\A9");
        assert_eq!(
            printed(&cn(BMP, &[0, b'a', 0x20, 0xac])).unwrap(),
            r"CN=a\E2\82\AC"
        );
        assert_eq!(
            printed(&cn(BMP, &[0xd8, 0])),
            Err(NamesError::NotText),
            "half a pair"
        );
        assert_eq!(printed(&cn(BMP, &[0])), Err(NamesError::NotText));
        assert_eq!(printed(&cn(4, b"ab")).unwrap(), "CN=#04026162", "an octet string");
    }

    #[test]
    fn the_first_common_name_counts() {
        let two = name(&[
            &[attribute(CN, UTF8, b"first")],
            &[attribute(CN, UTF8, b"second")],
        ]);
        assert_eq!(called(&two).unwrap().as_deref(), Some("first"));
        assert_eq!(called(&name(&[&[attribute(O, UTF8, b"acme")]])).unwrap(), None);
    }

    #[test]
    fn a_common_name_with_a_null_is_refused() {
        let cn = |tag, value: &[u8]| name(&[&[attribute(CN, tag, value)]]);
        assert_eq!(called(&cn(UTF8, b"alice\0.evil")), Err(NamesError::EmbeddedNull));
        assert_eq!(
            called(&cn(BMP, &[0, b'a'])),
            Err(NamesError::EmbeddedNull),
            "as in PostgreSQL"
        );
        assert_eq!(called(&cn(T61, b"caf\xe9")), Err(NamesError::NotText));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(der in proptest::collection::vec(any::<u8>(), 0..96)) {
            let _ = of_certificate(&der);
            if let Ok((_, name)) = X509Name::from_der(&der) {
                let _ = (rfc2253(&name), common_name(&name));
            }
        }

        #[test]
        fn no_value_makes_it_panic(tag in any::<u8>(), value in proptest::collection::vec(any::<u8>(), 0..32)) {
            if let Ok((_, name)) = X509Name::from_der(&name(&[&[attribute(CN, tag, &value)]])) {
                let _ = (rfc2253(&name), common_name(&name));
            }
        }
    }
}
