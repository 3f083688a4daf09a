//! Which line lets a connection in, and what is said of lines that are wrong.

use std::{net::IpAddr, path::Path};

use proptest::prelude::*;

use super::*;
use crate::auth::{
    access::{ClientName, Method, Origin, Replication},
    authfile::fake::Fake,
};

fn read(text: &str) -> Result<Hba, Problems> {
    Hba::read(&Fake::new(&[("f", text)]), Path::new("f"))
}

/// `local` or an address, ` tls`; then the database and the user.
fn visit<'a>(from: &str, database: &'a str, user: &'a str) -> Visit<'a> {
    let (origin, tls) = match from.split_once(' ') {
        Some((origin, _)) => (origin, true),
        None => (from, false),
    };
    Visit {
        origin: origin.parse().map_or(Origin::Local, Origin::Ip),
        tls,
        database,
        user,
        replication: Replication::No,
    }
}

fn interface(address: &str, mask: &str) -> Interface {
    Interface {
        address: address.parse().unwrap(),
        mask: mask.parse().unwrap(),
    }
}

fn interfaces() -> [Interface; 4] {
    [
        interface("127.0.0.1", "255.0.0.0"),
        interface("10.1.2.3", "255.255.0.0"),
        interface("fd00::5", "ffff:ffff:ffff:ffff::"),
        interface("172.16.0.9", "0.0.0.0"),
    ]
}

/// The method, `reject`, or `none` where no line fits.
fn outcome(hba: &Hba, visit: &Visit<'_>) -> String {
    match hba.access(visit, &interfaces()) {
        Ok(access) => format!("{:?}", access.method),
        Err(denial) if denial.to_string().contains("rejects") => "reject".to_owned(),
        Err(_) => "none".to_owned(),
    }
}

/// Each of the lines is the only one of a file: which of the connections fit it.
fn check(cases: &[(&str, &[(&str, bool)])], parse: impl Fn(&str) -> Visit<'_>) {
    for (line, connections) in cases {
        let hba = read(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        for (connection, expected) in *connections {
            let fits = outcome(&hba, &parse(connection)) == "Trust";
            assert_eq!(fits, *expected, "{line}: {connection}");
        }
    }
}

#[test]
fn connections_fit_by_the_way_they_come() {
    check(
        &[
            (
                "local all all trust",
                &[("local", true), ("10.0.0.1", false), ("::1 tls", false)],
            ),
            (
                "host all all all trust",
                &[("local", false), ("10.0.0.1", true), ("::1 tls", true)],
            ),
            (
                "hostssl all all all trust",
                &[("local", false), ("10.0.0.1", false), ("::1 tls", true)],
            ),
            (
                "hostnossl all all all trust",
                &[("local", false), ("10.0.0.1", true), ("::1 tls", false)],
            ),
            (
                "hostgssenc all all all trust",
                &[("local", false), ("10.0.0.1", false), ("::1 tls", false)],
            ),
            (
                "hostnogssenc all all all trust",
                &[("local", false), ("10.0.0.1", true), ("::1 tls", true)],
            ),
        ],
        |from| visit(from, "d", "u"),
    );
}

/// A line, and which addresses fit it.
const ADDRESSES: &[(&str, &[(&str, bool)])] = &[
    (
        "host all all 10.0.0.0/8 trust",
        &[
            ("10.255.0.1", true),
            ("11.0.0.1", false),
            ("::ffff:10.1.1.1", true),
            ("::a00:1", false),
        ],
    ),
    ("host all all 10.1.2.3/8 trust", &[("10.255.0.1", true)]),
    (
        "host all all 10.1.2.3/32 trust",
        &[("10.1.2.3", true), ("10.1.2.2", false)],
    ),
    (
        "host all all 0.0.0.0/0 trust",
        &[("1.2.3.4", true), ("::1", false)],
    ),
    (
        "host all all ::/0 trust",
        &[("1.2.3.4", false), ("::ffff:1.2.3.4", false), ("::1", true)],
    ),
    ("host all all ::0/0 trust", &[("fe80::1", true)]),
    (
        "host all all 10.0.0.0 255.0.0.0 trust",
        &[("10.9.9.9", true), ("11.0.0.1", false)],
    ),
    (
        "host all all 10.0.0.7 255.0.0.255 trust",
        &[("10.9.9.7", true), ("10.9.9.8", false)],
    ),
    (
        "host all all fd00::/8 trust",
        &[("fd12::1", true), ("fe80::1", false), ("10.0.0.1", false)],
    ),
    (
        "host all all fd00:: ff00:: trust",
        &[("fd12::1", true), ("fe80::1", false)],
    ),
    (
        "host all all ::ffff:10.0.0.0/104 trust",
        &[("10.1.1.1", true), ("::ffff:10.1.1.1", true), ("11.1.1.1", false)],
    ),
    (
        "host all all ::ffff:10.0.0.0 ffff:ffff:ffff:ffff:ffff:ffff:ff00:: trust",
        &[("10.1.1.1", true), ("::ffff:10.1.1.1", true), ("11.1.1.1", false)],
    ),
    (
        "host all all samehost trust",
        &[
            ("127.0.0.1", true),
            ("10.1.2.3", true),
            ("10.1.2.4", false),
            ("fd00::5", true),
            ("fd00::6", false),
        ],
    ),
    (
        "host all all samenet trust",
        &[
            ("127.9.9.9", true),
            ("10.1.255.4", true),
            ("10.2.0.1", false),
            ("::ffff:10.1.255.4", true),
            ("fd00::ffff", true),
            ("fd00:0:0:1::", false),
            // An interface without a mask is no network.
            ("172.16.0.9", true),
            ("172.16.0.10", false),
        ],
    ),
];

#[test]
fn connections_fit_by_their_address() {
    check(ADDRESSES, |from| visit(from, "d", "u"));
}

#[test]
fn connections_fit_by_their_database() {
    check(
        &[
            ("local all all trust", &[("app", true), ("replication", true)]),
            (
                "local app all trust",
                &[("app", true), ("App", false), ("application", false)],
            ),
            (
                "local a,app, b all trust",
                &[("app", true), ("b", true), ("c", false)],
            ),
            ("local sameuser all trust", &[("u", true), ("app", false)]),
            (
                "local \"sameuser\" all trust",
                &[("sameuser", true), ("u", false)],
            ),
            ("local \"all\" all trust", &[("all", true), ("app", false)]),
            ("local replication all trust", &[("replication", false)]),
            ("local \"replication\" all trust", &[("replication", true)]),
            ("local \"samerole\" all trust", &[("samerole", true)]),
            (
                "local /^db\\d+$ all trust",
                &[("db12", true), ("db", false), ("xdb1", false)],
            ),
            (
                "local \"/^db\\d{2,3}$\",x all trust",
                &[("db12", true), ("x", true), ("db1", false)],
            ),
            (
                "local \"two words\" all trust",
                &[("two words", true), ("two", false)],
            ),
        ],
        |database| visit("local", database, "u"),
    );
}

#[test]
fn connections_fit_by_their_user() {
    check(
        &[
            (
                "local all alice trust",
                &[("alice", true), ("Alice", false), ("alice2", false)],
            ),
            (
                "local all alice,bob trust",
                &[("alice", true), ("bob", true), ("carol", false)],
            ),
            ("local all \"all\" trust", &[("all", true), ("alice", false)]),
            (
                "local all \"+staff\" trust",
                &[("+staff", true), ("staff", false)],
            ),
            ("local all /^app_ trust", &[("app_1", true), ("an_app_", false)]),
            ("local all sameuser trust", &[("sameuser", true), ("d", false)]),
        ],
        |user| visit("local", "d", user),
    );
}

#[test]
fn physical_replication_fits_only_its_own_word() {
    let of = |replication, text| {
        let visit = Visit {
            replication,
            ..visit("local", "app", "app")
        };
        outcome(&read(text).unwrap(), &visit) == "Trust"
    };
    for (line, physical, logical) in [
        ("local all all trust", false, true),
        ("local app all trust", false, true),
        ("local sameuser all trust", false, true),
        ("local /a all trust", false, true),
        ("local replication all trust", true, false),
        ("local \"replication\" all trust", false, false),
        ("local all,replication all trust", true, true),
    ] {
        assert_eq!(of(Replication::Physical, line), physical, "{line}");
        assert_eq!(of(Replication::Logical, line), logical, "{line}");
    }
}

#[test]
fn the_first_line_that_fits_decides() {
    let hba = read(
        "local pgbouncer pgbouncer peer map=admins\n\
         hostssl all \"alice\" 0.0.0.0/0 cert clientname=DN map=people\n\
         hostssl all bob all scram-sha-256 clientcert=verify-ca\n\
         hostssl all carol all scram-sha-256 clientcert=verify-full\n\
         host all bob all reject\n\
         host all all samenet md5\n\
         local all all ident\n\
         host all all all password",
    )
    .unwrap();
    assert!(hba.asks_for_interfaces());
    for (from, database, user, expected) in [
        ("local", "pgbouncer", "pgbouncer", "Peer"),
        ("local", "app", "alice", "Peer"),
        ("9.9.9.9 tls", "app", "alice", "Cert"),
        ("9.9.9.9", "app", "alice", "Password"),
        ("::1 tls", "app", "alice", "Password"),
        ("9.9.9.9 tls", "app", "bob", "ScramSha256"),
        ("10.1.0.1", "app", "bob", "reject"),
        ("10.1.0.1", "app", "carol", "Md5"),
    ] {
        assert_eq!(
            outcome(&hba, &visit(from, database, user)),
            expected,
            "{from} {database} {user}"
        );
    }
    let access = |from, user| hba.access(&visit(from, "app", user), &[]).unwrap();
    let alice = access("9.9.9.9 tls", "alice");
    assert_eq!(
        (alice.clientcert, alice.clientname),
        (ClientCert::VerifyFull, ClientName::Dn)
    );
    assert_eq!(alice.map.as_deref(), Some("people"));
    assert_eq!(access("9.9.9.9 tls", "bob").clientcert, ClientCert::VerifyCa);
    assert_eq!(access("9.9.9.9 tls", "carol").clientcert, ClientCert::VerifyFull);
    assert_eq!(access("local", "bob"), &Access::by(Method::Peer));
    assert!(!read("host all all all trust").unwrap().asks_for_interfaces());
}

#[test]
fn a_denial_speaks_as_postgresql_does() {
    let empty = read("").unwrap();
    let reject = read("local all,replication all reject\nhost all,replication all all reject").unwrap();
    let cases = [
        (
            "local",
            Replication::No,
            "host \"[local]\", user \"u\", database \"d\", no encryption",
        ),
        (
            "10.1.2.3 tls",
            Replication::No,
            "host \"10.1.2.3\", user \"u\", database \"d\", SSL encryption",
        ),
        (
            "::ffff:10.1.2.3",
            Replication::Logical,
            "host \"10.1.2.3\", user \"u\", database \"d\", no encryption",
        ),
        (
            "::1",
            Replication::Physical,
            "host \"::1\", user \"u\", no encryption",
        ),
    ];
    for (from, replication, end) in cases {
        let visit = Visit {
            replication,
            ..visit(from, "d", "u")
        };
        let said = |hba: &Hba| hba.access(&visit, &[]).unwrap_err().to_string();
        let physical = replication == Replication::Physical;
        let (no_entry, rejects) = match physical {
            true => (
                "entry for replication connection from",
                "replication connection for",
            ),
            false => ("entry for", "connection for"),
        };
        assert_eq!(said(&empty), format!("no pg_hba.conf {no_entry} {end}"));
        assert_eq!(said(&reject), format!("pg_hba.conf rejects {rejects} {end}"));
    }
}

/// A line, and how each thing that is said of it begins.
const MISTAKES: &[(&str, &[&str])] = &[
    ("loca all all trust", &["invalid connection type \"loca\""]),
    (
        "local,host all all trust",
        &["multiple values specified for connection type"],
    ),
    ("local", &["end-of-line before database specification"]),
    ("local all", &["end-of-line before role specification"]),
    ("local all all", &["end-of-line before authentication method"]),
    ("host all all", &["end-of-line before IP address specification"]),
    (
        "host all all 10.0.0.1/8,::1/8 md5",
        &["multiple values specified for IP address"],
    ),
    (
        "host all all 10.0.0.1",
        &["end-of-line before netmask specification\n  hint: Specify an address"],
    ),
    ("host all all 10.0.0.1 trust", &["invalid IP mask \"trust\""]),
    (
        "host all all 10.0.0.1 ffff:: trust",
        &["IP address and mask do not match"],
    ),
    // It would fit nobody, and who is to be rejected would come in by another line.
    (
        "host all all ::ffff:10.0.0.0 ffff:: reject",
        &["IP address and mask do not match"],
    ),
    (
        "host all all ::ffff:10.0.0.0/8 reject",
        &["invalid CIDR mask in address \"::ffff:10.0.0.0/8\""],
    ),
    (
        "host all all 10.0.0.1/33 trust",
        &["invalid CIDR mask in address \"10.0.0.1/33\""],
    ),
    (
        "host all all 10.0.0.1/+8 trust",
        &["invalid CIDR mask in address"],
    ),
    ("host all all ::/129 trust", &["invalid CIDR mask in address"]),
    ("host all all 10.0.0.1/ trust", &["invalid CIDR mask in address"]),
    (
        "host all all 10.0.0.256/8 trust",
        &["invalid IP address \"10.0.0.256\""],
    ),
    ("host all all fe80:::1/8 trust", &["invalid IP address"]),
    (
        "host all all db.example.com trust",
        &["\"db.example.com\" is a host name"],
    ),
    (
        "host all all .example.com trust",
        &["\".example.com\" is a host name"],
    ),
    (
        "host all all \"samehost\" trust",
        &["\"samehost\" is a host name"],
    ),
    ("local samerole all trust", &["\"samerole\" stands for "]),
    ("local samegroup all trust", &["\"samegroup\" stands for "]),
    ("local all +staff trust", &["\"+staff\" stands for the members"]),
    ("local /( all trust", &["invalid regular expression \"(\": "]),
    (
        "local all all kerberos",
        &["invalid authentication method \"kerberos\""],
    ),
    (
        "local all all trust,md5",
        &["multiple values specified for authentication type"],
    ),
    (
        "host all all all peer",
        &["peer authentication is only supported on local sockets"],
    ),
    (
        "host all all all cert",
        &["cert authentication is only supported on hostssl"],
    ),
    (
        "local all all cert",
        &["cert authentication is only supported on hostssl"],
    ),
    (
        "host all all all ident",
        &["authentication method \"ident\" is not supported: "],
    ),
    (
        "local all all pam",
        &["authentication method \"pam\" is not supported: "],
    ),
    (
        "local all all bsd",
        &["authentication method \"bsd\" is not supported: "],
    ),
    (
        "host all all all gss",
        &["authentication method \"gss\" is not supported: "],
    ),
    (
        "host all all all sspi",
        &["authentication method \"sspi\" is not supported: "],
    ),
    (
        "host all all all radius",
        &["authentication method \"radius\" is not supported: "],
    ),
    (
        "host all all all oauth",
        &["authentication method \"oauth\" is not supported: "],
    ),
    (
        "local all all trust map",
        &["authentication option not in name=value format: map"],
    ),
    (
        "local all all trust map=m",
        &["authentication option \"map\" is only valid for authentication methods peer and cert"],
    ),
    (
        "local all all peer mpa=m",
        &["unrecognized authentication option name: \"mpa\""],
    ),
    (
        "local all all peer ldapserver=x",
        &["authentication option \"ldapserver\" is only valid for authentication methods ldap"],
    ),
    (
        "host all all all md5 clientcert=verify-ca",
        &["clientcert can only be configured for \"hostssl\" rows"],
    ),
    (
        "host all all all md5 clientname=CN",
        &["clientname can only be configured for \"hostssl\" rows"],
    ),
    (
        "hostssl all all all md5 clientcert=1",
        &["invalid value for clientcert: \"1\""],
    ),
    (
        "hostssl all all all cert clientcert=verify-ca",
        &["clientcert only accepts \"verify-full\""],
    ),
    (
        "hostssl all all all cert clientname=SAN",
        &["invalid value for clientname: \"SAN\""],
    ),
    // All of one line.
    (
        "local samerole,/[ +x trust a=b c",
        &[
            "\"samerole\"",
            "invalid regular expression",
            "\"+x\"",
            "unrecognized",
            "authentication option not in",
        ],
    ),
    (
        "local samerole +x",
        &[
            "\"samerole\"",
            "\"+x\"",
            "end-of-line before authentication method",
        ],
    ),
];

#[test]
fn every_mistake_is_said_with_its_line() {
    for (line, expected) in MISTAKES {
        let text = format!("local all all trust\n# c\\\n\n{line}\n");
        let Problems(problems) = read(&text).unwrap_err();
        assert_eq!(problems.len(), expected.len(), "{line}: {problems:?}");
        for (problem, expected) in problems.iter().zip(*expected) {
            let said = problem.to_string();
            assert!(said.starts_with(&format!("f:4: {expected}")), "{line}: {said}");
        }
    }
    let all: String = MISTAKES.iter().map(|(line, _)| format!("{line}\n")).collect();
    let said = read(&all).unwrap_err().0.len();
    assert_eq!(
        said,
        MISTAKES.iter().map(|(_, expected)| expected.len()).sum::<usize>()
    );
}

#[test]
fn files_and_lists_of_names_are_taken_in() {
    let files = Fake::new(&[
        (
            "d/f",
            "include more\nlocal @dbs @users trust\nlocal @none all reject",
        ),
        ("d/more", "local x all peer"),
        ("d/dbs", "a b\n/^c\n\"all\""),
        ("d/users", "u, sameuser"),
        ("d/none", "# nobody"),
    ]);
    let hba = Hba::read(&files, Path::new("d/f")).unwrap();
    for (database, user, expected) in [
        ("x", "u", "Peer"),
        ("b", "u", "Trust"),
        ("cc", "u", "Trust"),
        ("all", "u", "Trust"),
        ("z", "u", "none"),
        ("a", "a", "none"),
        ("a", "sameuser", "Trust"),
    ] {
        assert_eq!(
            outcome(&hba, &visit("local", database, user)),
            expected,
            "{database} {user}"
        );
    }
    let files = Fake::new(&[("f", "include g\n"), ("g", "\nlocal all +x trust")]);
    let error = Hba::read(&files, Path::new("f")).unwrap_err().to_string();
    assert!(error.starts_with("g:2: \"+x\""), "{error}");
}

#[test]
fn a_line_that_nothing_serves_is_said() {
    let text = "hostssl all all all cert map=m\nhostssl all all all trust clientcert=verify-ca\n\
                local all all peer\nlocal all all md5\n\
                local all all ldap ldapurl=ldaps://h/b\nlocal all all ldap ldapurl=ldap://h/b\n\
                local all all reject map=m";
    assert!(read(text).is_err(), "reject has no map");
    let hba = read(text.strip_suffix(" map=m").unwrap()).unwrap();
    let all = Offers {
        client_certificates: true,
        ident_file: true,
        ldap_ca: true,
        secrets: true,
    };
    assert_eq!(hba.unserved(&all), None);
    let none = Offers {
        client_certificates: false,
        ident_file: false,
        ldap_ca: false,
        secrets: false,
    };
    let said: Vec<_> = hba
        .unserved(&none)
        .unwrap()
        .0
        .iter()
        .map(|problem| problem.place.line)
        .collect();
    assert_eq!(said, [1, 1, 2, 4, 5]);
    let no_map = hba
        .unserved(&Offers {
            ident_file: false,
            ..all
        })
        .unwrap();
    assert_eq!(
        no_map.to_string(),
        "f:1: it names a map and there is no ident file\n  hint: set auth.ident_file"
    );
}

/// What CloudNativePG gives its poolers, and what PostgreSQL's initdb and PgBouncer's documentation write.
#[test]
fn files_that_people_have_are_read() {
    let cnpg = "local pgbouncer pgbouncer peer\nlocal all all peer map=local\nhostssl all cnpg_pooler_pgbouncer all \
                cert map=cnpg_streaming_replica\nhost all all 0.0.0.0/0 md5\nhost all all ::/0 md5\n";
    let initdb = "local   all             all                                     trust\n\
                  host    all             all             127.0.0.1/32            trust\n\
                  host    all             all             ::1/128                 trust\n\
                  local   replication     all                                     trust\n\
                  host    replication     all             127.0.0.1/32            trust\n\
                  host    replication     all             ::1/128                 trust\n";
    let pgbouncer = "host all all 0.0.0.0/0 scram-sha-256\nhostssl p0 all 10.0.0.1 255.255.255.255 cert\n\
                     host all @admins 127.0.0.1/32 trust\n";
    for text in [cnpg, initdb, pgbouncer] {
        let files = Fake::new(&[("f", text), ("admins", "a\nb")]);
        assert!(Hba::read(&files, Path::new("f")).is_ok(), "{text}");
    }
}

/// Lines of words that mean something, in places where some of them do.
fn words() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "local",
        "host",
        "hostssl",
        "all",
        "sameuser",
        "replication",
        "\"",
        "\"all\"",
        "a,b",
        ",",
        "+g",
        "/a",
        "/(",
        "@f",
        "@g",
        "@",
        "include",
        "f",
        "10.0.0.0/8",
        "::1/128",
        "::1",
        "255.0.0.0",
        "samenet",
        "x.y",
        "trust",
        "peer",
        "cert",
        "md5",
        "reject",
        "map=m",
        "clientcert=verify-full",
        "#",
        "\\",
        "\n",
        "\r\n",
        "\\\n",
        "\u{e4}",
    ]);
    prop::collection::vec(word, 0..40).prop_map(|words| words.join(" "))
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in words(), user in "\\PC{0,3}") {
        let files = Fake::new(&[("f", &text), ("g", &"all".to_owned())]);
        match Hba::read(&files, Path::new("f")) {
            Ok(hba) => {
                for from in ["local", "10.0.0.1 tls", "::1"] {
                    let _ = outcome(&hba, &visit(from, "a", &user));
                }
            }
            Err(problems) => prop_assert!(!problems.0.is_empty()),
        }
    }

    /// By the definition, bit by bit.
    #[test]
    fn a_range_has_the_addresses_that_begin_like_it(network: u128, other: u128, prefix in 0u32..=128, flip in 0u32..128) {
        for peer in [other, network ^ (1 << flip)] {
            let bits = |address: u128| (0..prefix).map(move |bit| address >> (127 - bit) & 1);
            let expected = bits(network).eq(bits(peer));
            let (network, peer) = (IpAddr::V6(network.into()), IpAddr::V6(peer.into()));
            prop_assume!(matches!((network.to_canonical(), peer.to_canonical()), (IpAddr::V6(_), IpAddr::V6(_))));
            let range = address::Range::cidr(network, prefix).unwrap();
            prop_assert_eq!(range.contains(peer), expected);
        }
        let prefix = prefix / 4;
        for peer in [other, network ^ (1 << flip)] {
            let [network, peer] = [network, peer].map(|bits| u32::try_from(bits & 0xffff_ffff).unwrap());
            let bits = |address: u32| (0..prefix).map(move |bit| address >> (31 - bit) & 1);
            let range = address::Range::cidr(IpAddr::V4(network.into()), prefix).unwrap();
            prop_assert_eq!(range.contains(IpAddr::V4(peer.into())), bits(network).eq(bits(peer)));
        }
    }
}
