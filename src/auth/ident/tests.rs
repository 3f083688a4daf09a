//! Which names lead where.

use std::path::Path;

use super::*;
use crate::auth::authfile::fake::Fake;

fn read(text: &str) -> Result<IdentMaps, Problems> {
    IdentMaps::read(&Fake::new(&[("f", text)]), Path::new("f"))
}

#[test]
fn the_lines_of_a_map_lead_from_name_to_user() {
    let maps = read(
        "# comment\n\
         m root postgres\n\
         m root \"app user\"\n\
         cert /^(.*)@example\\.com$ \\1\n\
         cert /^(.*)@guests$ guest_\\1_x\n\
         cert boss@example.com all\n\
         any /^ops- /^(app|web)$\n\
         odd /^(.*)$ \"\\1\"\n\
         lit \\1 \\1\n\
         q alice \"all\"\n\
         q bob \"+staff\"\n\
         o /^(x)?y$ u\\1\n",
    )
    .unwrap();
    let cases = [
        ("m", "root", "postgres", true),
        ("m", "root", "app user", true),
        ("m", "root", "root", false),
        ("m", "daemon", "postgres", false),
        ("cert", "alice@example.com", "alice", true),
        ("cert", "alice@example.com", "bob", false),
        ("cert", "alice@example.com.evil", "alice", false),
        ("cert", "boss@example.com", "anybody", true),
        ("cert", "eve@guests", "guest_eve_x", true),
        ("cert", "eve@guests", "eve", false),
        ("cert", "_x@guests", "guest_x", false),
        ("any", "ops-1", "web", true),
        ("any", "ops-1", "website", false),
        ("any", "dev-1", "web", false),
        // What is put together is a name, not a keyword or an expression.
        ("odd", "all", "postgres", false),
        ("odd", "/.*", "postgres", false),
        ("odd", "+postgres", "postgres", false),
        ("odd", "all", "all", true),
        ("lit", "\\1", "\\1", true),
        ("q", "alice", "bob", false),
        ("q", "alice", "all", true),
        ("q", "bob", "+staff", true),
        ("o", "xy", "ux", true),
        ("o", "y", "u", false),
        ("none", "root", "root", false),
    ];
    for (map, name, user, expected) in cases {
        let checked = maps.check(Some(map), name, user);
        assert_eq!(checked.is_ok(), expected, "{map}: {name} as {user}");
    }
    let unmapped = maps.check(Some("m"), "daemon", "postgres").unwrap_err();
    assert_eq!(
        unmapped.to_string(),
        "no match in usermap \"m\" for user \"postgres\" authenticated as \"daemon\""
    );
}

#[test]
fn without_a_map_the_names_are_the_same() {
    let maps = IdentMaps::none();
    for map in [None, Some("")] {
        assert_eq!(maps.check(map, "alice", "alice"), Ok(()));
        let differs = maps.check(map, "alice", "Alice").unwrap_err();
        assert_eq!(
            differs.to_string(),
            "provided user name (Alice) and authenticated user name (alice) do not match"
        );
    }
}

#[test]
fn every_mistake_is_said() {
    let text = "m\nm root\nm root a b\nm a,b c\nm root +staff\nm /( x\nm /x \\1\nm root /[\n\"m";
    let error = read(text).unwrap_err();
    let said: Vec<_> = error
        .0
        .iter()
        .map(|problem| problem.to_string().replace('\n', " "))
        .collect();
    let expected = [
        "f:1: missing entry at end of line",
        "f:2: missing entry at end of line",
        "f:3: more than three fields",
        "f:4: multiple values in ident field",
        "f:5: \"+staff\": who is a member of a role only the server knows",
        "f:6: invalid regular expression \"(\": ",
        "f:7: regular expression \"x\" has no subexpressions as requested by backreference in \"\\1\"",
        "f:8: invalid regular expression \"[\": ",
        "f:9: a quote is not closed on its line",
    ];
    assert_eq!(said.len(), expected.len(), "{said:#?}");
    for (said, expected) in said.iter().zip(expected) {
        assert!(said.starts_with(expected), "{said} is not {expected}");
    }
}

#[test]
fn an_empty_file_leads_nowhere_and_is_no_mistake() {
    assert!(read("").unwrap().check(Some("m"), "root", "root").is_err());
}
