//! Connection strings of a `pgbouncer.ini`: `key=value` pairs with quotes.
//!
//! It knows no key. What is wrong never quotes a value, which may be a secret.

/// Why a text is no connection string.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum PairError {
    #[error("{}", no_equals(.0.as_deref()))]
    NoEquals(Option<String>),
    #[error("{0} is empty")]
    Empty(String),
    #[error("the quote of {0} is not closed")]
    Open(String),
}

/// The pairs of a connection string, as PgBouncer takes it apart.
pub(super) fn pairs(text: &str) -> Result<Vec<(String, String)>, PairError> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        let length = rest.find(['=', ' ']).unwrap_or(rest.len());
        let (key, after) = rest.split_at(length);
        let value = after
            .trim_start_matches(is_space)
            .strip_prefix('=')
            .filter(|_| !key.is_empty())
            .ok_or_else(|| PairError::NoEquals(pairs.last().map(|(key, _)| String::clone(key))))?;
        let (value, after) = value_of(key, value.trim_start_matches(is_space))?;
        pairs.push((key.to_owned(), value));
        rest = after.trim_start_matches(is_space);
    }
    Ok(pairs)
}

/// What stands in a key's place may be the rest of a secret.
fn no_equals(before: Option<&str>) -> String {
    match before {
        None => "it does not begin with key=value".to_owned(),
        Some(key) => {
            format!("what follows {key} is no key=value; a value with spaces is quoted, as in key='a b'")
        }
    }
}

fn value_of<'a>(key: &str, text: &'a str) -> Result<(String, &'a str), PairError> {
    let Some(mut rest) = text.strip_prefix('\'') else {
        let (value, after) = text.split_at(text.find(' ').unwrap_or(text.len()));
        if value.is_empty() {
            return Err(PairError::Empty(key.to_owned()));
        }
        return Ok((value.to_owned(), after));
    };
    let mut value = String::new();
    loop {
        let (before, after) = rest
            .split_once('\'')
            .ok_or_else(|| PairError::Open(key.to_owned()))?;
        value.push_str(before);
        match after.strip_prefix('\'') {
            Some(after) => {
                value.push('\'');
                rest = after;
            }
            None if value.is_empty() => return Err(PairError::Empty(key.to_owned())),
            None => return Ok((value, after)),
        }
    }
}

fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\r' | '\n')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Vec<(String, String)>, PairError> {
        pairs(text)
    }

    fn pair(key: &str, value: &str) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    #[test]
    fn pairs_and_quotes() {
        assert_eq!(read(""), Ok(vec![]));
        assert_eq!(
            read(" host=a  port = 5432 connect_query='select ''x'' ; --'dbname=b"),
            Ok(vec![
                pair("host", "a"),
                pair("port", "5432"),
                pair("connect_query", "select 'x' ; --"),
                pair("dbname", "b")
            ])
        );
        assert_eq!(
            read("password=a'b"),
            Ok(vec![pair("password", "a'b")]),
            "only a quote at the beginning is one"
        );
    }

    #[test]
    fn no_pairs() {
        for text in ["host", "host a", "=a"] {
            assert_eq!(read(text), Err(PairError::NoEquals(None)));
        }
        let split = read("host=a password=my secret").unwrap_err();
        assert_eq!(split, PairError::NoEquals(Some("password".to_owned())));
        assert!(!split.to_string().contains("secret"));
        assert_eq!(read("host="), Err(PairError::Empty("host".to_owned())));
        assert_eq!(read("host=''"), Err(PairError::Empty("host".to_owned())));
        assert_eq!(read("a='b"), Err(PairError::Open("a".to_owned())));
    }

    proptest! {
        #[test]
        fn what_is_quoted_reads_back(values in proptest::collection::vec("[^\0]{1,8}", 0..4)) {
            let expected: Vec<_> = values.iter().map(|value| pair("k", value)).collect();
            let text: Vec<_> = values.iter().map(|value| format!("k='{}'", value.replace('\'', "''"))).collect();
            prop_assert_eq!(read(&text.join(" ")), Ok(expected));
        }

        #[test]
        fn any_text_is_pairs_or_a_mistake(text in ".*") {
            let _ = read(&text);
        }
    }
}
