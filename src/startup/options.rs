//! The startup parameter `options`: command-line switches for the server (`-c name=value`, `--name=value`).

/// A switch that is not one of the two forms.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unsupported switch in startup parameter \"options\": {switch}")]
pub struct UnsupportedSwitch {
    /// The switch, as it was written.
    pub switch: String,
}

/// The settings in `options`, in order. Words are separated by white space; a backslash takes the special
/// meaning from the next character (`pg_split_opts` in PostgreSQL).
///
/// # Errors
/// A switch other than `-c` and `--`: it would have to be forwarded to a server of the client's own.
pub(super) fn parse(options: &str) -> Result<Vec<(String, String)>, UnsupportedSwitch> {
    let mut settings = Vec::new();
    let mut words = split(options).into_iter();
    while let Some(word) = words.next() {
        let unsupported = || UnsupportedSwitch { switch: word.clone() };
        let assignment = match word.strip_prefix("--").or_else(|| word.strip_prefix("-c")) {
            Some("") if word == "-c" => words.next().ok_or_else(unsupported)?,
            Some(assignment) => assignment.to_owned(),
            None => return Err(unsupported()),
        };
        let (name, value) = assignment.split_once('=').ok_or_else(unsupported)?;
        // As on the command line, a dash in a name stands for an underscore.
        settings.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(settings)
}

fn split(options: &str) -> Vec<String> {
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let mut characters = options.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => word.get_or_insert_default().extend(characters.next()),
            character if character.is_ascii_whitespace() => words.extend(word.take()),
            character => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(options: &str) -> Vec<(String, String)> {
        parse(options).unwrap()
    }

    #[test]
    fn both_forms_and_escapes() {
        let expected = [
            ("search_path", "a b"),
            ("work_mem", "1MB"),
            ("statement_timeout", "5s"),
            ("x.y", "\\"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(
            pairs(r" -c search_path=a\ b  -cwork_mem=1MB --statement-timeout=5s --x.y=\\ "),
            expected
        );
        assert!(pairs("  ").is_empty());
    }

    #[test]
    fn anything_else_is_named() {
        for (options, switch) in [
            ("-d 5", "-d"),
            ("--x", "--x"),
            ("-c", "-c"),
            ("-c a", "-c"),
            ("x", "x"),
        ] {
            assert_eq!(
                parse(options),
                Err(UnsupportedSwitch {
                    switch: switch.to_owned()
                }),
                "{options}"
            );
        }
    }
}
