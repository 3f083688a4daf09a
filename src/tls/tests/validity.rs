//! What files say of how long their certificates and CRLs are good for.

use rcgen::{DistinguishedName, date_time_ymd};

use super::fixtures::{Authority, Files, server_leaf};
use crate::tls::{Validity, certificate_validity, crl_validity};

/// 2001-01-01
const JANUARY: i64 = 978_307_200;
/// 2031-12-31
const DECEMBER: i64 = 1_956_441_600;

#[test]
fn every_certificate_of_a_file_is_described() {
    let (files, ca) = (Files::new(), Authority::new("ca"));
    let mut named = server_leaf(&["db.example"]);
    named.not_before = date_time_ymd(2001, 1, 1);
    named.not_after = date_time_ymd(2031, 12, 31);
    let mut nameless = named.clone();
    nameless.distinguished_name = DistinguishedName::new();
    let chain = ca.issue(&named).cert + &ca.issue(&nameless).cert + &ca.pem();
    let described = certificate_validity(&files.write("chain.crt", &chain)).unwrap();
    let validity = |subject: &str| Validity {
        subject: subject.to_owned(),
        not_before: JANUARY,
        not_after: DECEMBER,
    };
    assert_eq!(
        described[..2],
        [validity("CN=a server"), validity("DNS:db.example")]
    );
    assert_eq!(described[2].subject, "CN=ca");
    assert!(certificate_validity(&files.write("empty.crt", "")).is_err());
}

#[test]
fn every_crl_of_a_file_is_described() {
    let (files, ca, other) = (Files::new(), Authority::new("ca"), Authority::new("other ca"));
    let lists = ca.crl(&[1], 2031) + &other.crl(&[], 2032);
    let described = crl_validity(&files.write("ca.crl", &lists)).unwrap();
    let expected = Validity {
        subject: "CN=ca".to_owned(),
        not_before: JANUARY,
        not_after: DECEMBER,
    };
    assert_eq!(described[0], expected);
    assert_eq!(described[1].subject, "CN=other ca");
}
