//! What is read as what, and what is said of what cannot be read.

use std::path::Path;

use proptest::prelude::*;

use super::{fake::Fake, tokens, *};

/// The fields of each line; a word that is quoted has its quotes.
fn read(files: &[(&str, &str)]) -> Result<Vec<String>, Vec<String>> {
    let fake = Fake::new(files);
    let mut reading = Reading::new(&fake);
    let lines = reading.lines(Path::new(files[0].0));
    let word = |token: &Token| match token.quoted {
        true => format!("{:?}", token.text),
        false => token.text.to_string(),
    };
    let field = |field: &Field| field.iter().map(word).collect::<Vec<_>>().join(",");
    let line = |line: &Line| {
        let fields: Vec<_> = line.fields.iter().map(field).collect();
        format!("{} {}", line.place, fields.join("|"))
    };
    reading
        .finish(lines.iter().map(line).collect())
        .map_err(|problems| problems.0.iter().map(ToString::to_string).collect())
}

#[test]
fn lines_are_cut_as_postgresql_does() {
    let cases: &[(&str, &[&str])] = &[
        ("", &[]),
        ("  \r\n# c\n\t#\n", &[]),
        ("local all all trust # c", &["f:1 local|all|all|trust"]),
        ("a\tb  c\r\n\nd", &["f:1 a|b|c", "f:3 d"]),
        ("a, b ,c d", &["f:1 a,b|c|d"]),
        ("a,,b, d", &["f:1 a,b,d"]),
        ("a,", &["f:1 a"]),
        (",a", &["f:1 a"]),
        ("a#b c", &["f:1 a"]),
        ("\"a b\" \"\" \"x,y\"", &["f:1 \"a b\"|\"\"|\"x,y\""]),
        ("\"a\"\"b\" \"#\"", &["f:1 \"a\\\"b\"|\"#\""]),
        ("a\"b c\"d", &["f:1 ab cd"]),
        ("a\\\nb c\\\n d\ne", &["f:1 ab|c|d", "f:4 e"]),
        ("# c\\\nall\nb", &["f:3 b"]),
        ("a \"b\\\n c\" d", &["f:1 a|\"b c\"|d"]),
        ("a\\\\\n\nb", &["f:1 a\\", "f:3 b"]),
        ("a b\\", &["f:1 a|b"]),
        ("@ \"@x\"", &["f:1 @|\"@x\""]),
    ];
    for (text, expected) in cases {
        assert_eq!(read(&[("f", text)]).unwrap(), *expected, "{text:?}");
    }
    assert_eq!(
        read(&[("f", "a\n\"b c\n\"d\"")]).unwrap_err(),
        ["f:2: a quote is not closed on its line"]
    );
}

#[test]
fn other_files_are_taken_in_where_they_are_named() {
    let files = [
        (
            "d/f",
            "a\ninclude one\ninclude_if_exists none\ninclude_dir more\ninclude a b\nx @list,c y",
        ),
        ("d/one", "b\ninclude \"sub/two words\""),
        ("d/sub/two words", "include_if_exists ../sub/three\nc"),
        ("d/sub/../sub/three", "d"),
        ("d/more/1.conf", "e"),
        ("d/more/2.conf", "include ../one"),
        ("d/more/../one", "g"),
        ("d/list", "k, l\nm # c\n\"all\" @deeper"),
        ("d/deeper", "z"),
    ];
    let expected = [
        "d/f:1 a",
        "d/one:1 b",
        "d/sub/../sub/three:1 d",
        "d/sub/two words:2 c",
        "d/more/1.conf:1 e",
        "d/more/../one:1 g",
        "d/f:5 include|a|b",
        "d/f:6 x|k,l,m,\"all\",z,c|y",
    ];
    assert_eq!(read(&files).unwrap(), expected);
}

#[test]
fn what_cannot_be_taken_in_is_said_at_the_line_that_names_it() {
    let files = [
        ("f", "include none\n\na @gone b\ninclude_dir nowhere\ninclude g"),
        ("g", "\""),
    ];
    assert_eq!(
        read(&files).unwrap_err(),
        [
            "f:1: could not open file \"none\": entity not found",
            "f:3: could not open file \"gone\": entity not found",
            "f:4: could not open directory \"nowhere\": entity not found",
            "g:1: a quote is not closed on its line",
        ]
    );
    let fake = Fake::new(&[("f", b"a\nb\n\xff".as_slice())]);
    let mut reading = Reading::new(&fake);
    assert_eq!(reading.lines(Path::new("f")), []);
    assert_eq!(reading.finish(()).unwrap_err().to_string(), "f:3: not UTF-8");
    let mut reading = Reading::new(&fake);
    reading.lines(Path::new("nowhere"));
    let error = reading.finish(()).unwrap_err().to_string();
    assert_eq!(
        error,
        "nowhere: could not open file \"nowhere\": entity not found"
    );
}

#[test]
fn files_that_take_in_themselves_end() {
    let errors = read(&[("f", "include f")]).unwrap_err();
    assert_eq!(
        errors,
        [
            "f:1: could not open file \"f\": maximum nesting depth exceeded\n  hint: does a file take in itself?"
        ]
    );
    // Ten to the power of ten, without a limit.
    let many = "include f\nx @f\n".repeat(5);
    let errors = read(&[("f", &many)]).unwrap_err();
    assert!(errors.len() < 50, "said once, more or less: {}", errors.len());
    let too_many = "more than 1000 files or 4 MB with \"f\"";
    assert!(
        errors.iter().any(|error| error.ends_with(too_many)),
        "{errors:#?}"
    );
}

#[test]
fn a_file_that_is_too_long_is_refused() {
    let long = "#".repeat((4 << 20) + 1);
    assert_eq!(
        read(&[("f", &long)]).unwrap_err(),
        ["f: more than 1000 files or 4 MB with \"f\""]
    );
}

#[test]
fn the_disk_is_read_like_that() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for name in ["b.conf", "a.conf", ".hidden.conf", "c.conf~"] {
        std::fs::write(at(name), name).unwrap();
    }
    std::fs::create_dir(at("d.conf")).unwrap();
    assert_eq!(Disk.list(directory.path()).unwrap(), [at("a.conf"), at("b.conf")]);
    assert_eq!(Disk.read(&at("a.conf"), 100).unwrap(), b"a.conf");
    assert_eq!(
        Disk.read(&at("a.conf"), 2).unwrap(),
        b"a.c",
        "more than the limit, to be seen"
    );
    assert!(Disk.read(directory.path(), 100).is_err());
    std::fs::write(at("hba"), "include_dir .\ninclude gone\n@names @names x").unwrap();
    let found = ["", "a.conf", "b.conf", "gone", "hba", "names"].map(|name| match name {
        "" => directory.path().join("."),
        name => at(name),
    });
    let mut taken_in = taken_in(&at("hba"));
    taken_in.sort();
    assert_eq!(taken_in.len(), found.len(), "{taken_in:?}");
}

#[test]
fn a_regular_expression_is_looked_for_anywhere() {
    let name = |text: &str| {
        let token = Token {
            text: text.into(),
            quoted: true,
        };
        Name::of(&token)
    };
    for (pattern, matched, not) in [
        ("alice", "alice", "alice2"),
        ("/ali", "xalicex", "bob"),
        ("/^db\\d{2,4}$", "db123", "db1"),
        ("/^a.b$", "a\nb", "ab"),
        ("/", "anything", "\0"),
    ] {
        let name = name(pattern).unwrap();
        assert!(name.matches(matched), "{pattern}");
        assert!(pattern == "/" || !name.matches(not), "{pattern}");
    }
    let error = name("/a(b").unwrap_err().to_string();
    assert!(
        error.starts_with("invalid regular expression \"a(b\": "),
        "{error}"
    );
    assert!(name("/(a{500}){500}").is_err(), "too large");
}

#[test]
fn not_everything_is_said_of_what_is_wrong_everywhere() {
    let errors = Problems(
        (1..=150)
            .map(|line| Problem {
                place: Place {
                    file: Path::new("f").into(),
                    line,
                },
                message: "is wrong".to_owned(),
                hint: None,
            })
            .collect(),
    );
    let text = errors.to_string();
    assert_eq!(text.lines().count(), 101);
    assert!(text.ends_with("\nand 50 more"), "{text}");
}

proptest! {
    #[test]
    fn a_name_survives_quoting(names in prop::collection::vec("[^\0\n\r\\\\]{0,8}", 1..5)) {
        let quoted: Vec<_> = names.iter().map(|name| format!("\"{}\"", name.replace('"', "\"\""))).collect();
        for separator in [" ", ","] {
            let fields = tokens::fields(&quoted.join(separator)).unwrap();
            let words: Vec<_> = fields.iter().flatten().map(|token| (&*token.text, token.quoted)).collect();
            let expected: Vec<_> = names.iter().map(|name| (&**name, true)).collect();
            prop_assert_eq!(words, expected);
            prop_assert_eq!(fields.len(), if separator == " " { names.len() } else { 1 });
        }
    }
}
