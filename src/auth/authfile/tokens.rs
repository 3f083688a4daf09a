//! From text to lines, from a line to fields, as PostgreSQL's `next_token` cuts them.

use std::borrow::Cow;

/// One word of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::auth) struct Token {
    pub(in crate::auth) text: Box<str>,
    /// It began with a quote: whatever it says, it is no keyword.
    pub(in crate::auth) quoted: bool,
}

impl Token {
    /// Whether this is the keyword, and not only a name that is written like it.
    pub(in crate::auth) fn is(&self, keyword: &str) -> bool {
        !self.quoted && &*self.text == keyword
    }

    /// What follows `sign` in a token that it gives a meaning to.
    pub(in crate::auth) fn after(&self, sign: char) -> Option<&str> {
        self.text.strip_prefix(sign).filter(|_| !self.quoted)
    }
}

/// Words with commas between them.
pub(in crate::auth) type Field = Vec<Token>;

/// A quote without its other half.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unclosed;

/// The lines with their numbers, each together with those that it is continued on.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (usize, Cow<'_, str>)> {
    let mut physical = text
        .split('\n')
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim_end_matches('\r')));
    std::iter::from_fn(move || {
        let (number, first) = physical.next()?;
        let Some(mut joined) = first.strip_suffix('\\').map(str::to_owned) else {
            return Some((number, Cow::Borrowed(first)));
        };
        for (_, next) in physical.by_ref() {
            match next.strip_suffix('\\') {
                Some(part) => joined.push_str(part),
                None => {
                    joined.push_str(next);
                    break;
                }
            }
        }
        Some((number, Cow::Owned(joined)))
    })
}

/// The fields of a line; none where there is only a comment.
pub(super) fn fields(line: &str) -> Result<Vec<Field>, Unclosed> {
    let (mut fields, mut field, mut rest) = (Vec::new(), Field::new(), line);
    while let Some(cut) = next(rest)? {
        field.push(cut.token);
        rest = cut.rest;
        if !cut.comma {
            fields.push(std::mem::take(&mut field));
        }
    }
    // A comma with nothing behind it.
    if !field.is_empty() {
        fields.push(field);
    }
    Ok(fields)
}

struct Cut<'a> {
    token: Token,
    comma: bool,
    rest: &'a str,
}

fn next(line: &str) -> Result<Option<Cut<'_>>, Unclosed> {
    let line = line.trim_start_matches(|c| is_blank(c) || c == ',');
    let (mut text, mut comma, mut end) = (String::new(), false, line.len());
    let (mut in_quote, mut was_quote, mut saw_quote, mut quoted) = (false, false, false, false);
    for (index, c) in line.char_indices() {
        if !in_quote && (is_blank(c) || c == ',' || c == '#') {
            comma = c == ',';
            end = match c {
                '#' => line.len(),
                ',' => index + 1,
                _ => index,
            };
            break;
        }
        if c != '"' || was_quote {
            text.push(c);
        }
        // Two quotes within quotes are one: the first closes, the second opens again.
        was_quote = in_quote && c == '"' && !was_quote;
        if c == '"' {
            in_quote = !in_quote;
            saw_quote = true;
            quoted |= text.is_empty();
        }
    }
    if in_quote {
        return Err(Unclosed);
    }
    let token = Token {
        text: text.into(),
        quoted,
    };
    let rest = &line[end..];
    Ok((saw_quote || !token.text.is_empty()).then_some(Cut { token, comma, rest }))
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r')
}
