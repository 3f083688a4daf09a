//! Settings that are the same in pgweir, but for how their values are written.
//!
//! It knows no setting by name; where it is set is in `keys`.

use super::{
    document::Value,
    draft::{Draft, Subject},
    remark::Weight::{Note, Warning},
    values::{self, ValueError, duration},
};

/// How a value is read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Number,
    /// A number, with zero for "as the kernel does".
    NotZero,
    /// Seconds, perhaps with a fraction.
    Seconds,
    WholeSeconds,
    /// The same, with zero for "as the kernel does".
    SecondsNotZero,
    Milliseconds,
    /// Seconds, with zero for "used once".
    Lifetime,
    /// Seconds, with zero for "no limit", which there has to be.
    ConnectTimeout,
    /// Seconds, with zero for "each time".
    DnsTtl,
    Bytes,
    Flag,
    /// A word that may be written in any case.
    Word,
    Text,
    /// A text that is nothing when it is empty.
    Name,
    Names,
    File,
    /// The permissions of a file.
    Mode,
    Verbosity,
}

/// What pgweir takes at most.
const LARGEST_PACKET: i64 = 0x7fff_ffff;
const LONGEST_CONNECT: u64 = 3600 * 1000;

impl Kind {
    /// The value as pgweir writes it, and what there is to say about it there. `None` where it is left out; what is
    /// wrong with it, and what is lost, is noted.
    pub(super) fn translate(
        self,
        draft: &mut Draft,
        subject: Subject<'_>,
    ) -> Option<(Value, Option<String>)> {
        let text = subject.given?.value.as_str();
        match self.read(text) {
            Ok(Read::Is(value)) => Some((value, None)),
            Ok(Read::Otherwise(value, why)) => {
                draft.remark(Warning, subject, why);
                Some((value, Some(why.to_owned())))
            }
            Ok(Read::Nothing(why)) => {
                draft.remark(Note, subject, why);
                None
            }
            Err(error) => {
                let hint = text
                    .contains([';', '#'])
                    .then_some("a comment has a line of its own in a pgbouncer.ini");
                draft.problem(subject, format!("{text:?} {error}"), hint);
                None
            }
        }
    }

    fn read(self, text: &str) -> Result<Read, ValueError> {
        Ok(match self {
            Self::Number => Read::Is(Value::Number(values::integer(text)?)),
            Self::NotZero => match values::integer(text)? {
                0 => Read::Nothing(KERNEL),
                number => Read::Is(Value::Number(number)),
            },
            Self::Seconds => span(values::seconds(text)?),
            Self::WholeSeconds => span(whole_seconds(text)?),
            Self::SecondsNotZero => match values::integer(text)? {
                0 => Read::Nothing(KERNEL),
                _ => span(whole_seconds(text)?),
            },
            Self::Milliseconds => span((positive(text)?, false)),
            Self::Lifetime => match values::seconds(text)? {
                (0, _) => Read::Otherwise(Value::Text("1ms".to_owned()), ONCE),
                given => span(given),
            },
            Self::ConnectTimeout => match values::seconds(text)? {
                (0, _) => Read::Otherwise(Value::Text(duration(LONGEST_CONNECT)), NEVER_ENDING),
                given => span(given),
            },
            Self::DnsTtl => match values::seconds(text)? {
                (0, _) => Read::Otherwise(Value::Text("1s".to_owned()), EACH_TIME),
                given => span(given),
            },
            Self::Bytes => Read::Is(Value::Text(bytes(values::integer(text)?))),
            Self::Flag => Read::Is(Value::Flag(values::flag(text)?)),
            Self::Word => Read::Is(Value::Text(text.to_ascii_lowercase())),
            Self::Text => Read::Is(Value::Text(text.to_owned())),
            Self::Name | Self::File if text.is_empty() => Read::Nothing(EMPTY),
            Self::Name | Self::File => Read::Is(Value::Text(text.to_owned())),
            Self::Names => match values::names(text) {
                names if names.is_empty() => Read::Nothing(EMPTY),
                names => Read::Is(Value::Texts(names)),
            },
            Self::Mode => Read::Is(Value::Text(format!("{:04o}", values::integer(text)?))),
            Self::Verbosity => Read::Is(Value::Text(level(values::integer(text)?).to_owned())),
        })
    }
}

/// What a value comes to.
enum Read {
    /// The same.
    Is(Value),
    /// Something like it.
    Otherwise(Value, &'static str),
    /// Nothing, for which there is a reason.
    Nothing(&'static str),
}

const EMPTY: &str = "it is empty, as if it were not there";
const KERNEL: &str =
    "what PgBouncer leaves to the kernel has a default here that notices sooner when a peer has vanished";
const ONCE: &str = "0 would be no limit here: what PgBouncer uses once is closed by age here";
const NEVER_ENDING: &str = "there is always a limit here";
const EACH_TIME: &str = "0 would be never here; every new connection looks its host's name up anyhow";
const YEAR: &str = "the longest duration here is a year";

fn span((milliseconds, is_cut): (u64, bool)) -> Read {
    let value = Value::Text(duration(milliseconds));
    match is_cut {
        true => Read::Otherwise(value, YEAR),
        false => Read::Is(value),
    }
}

fn whole_seconds(text: &str) -> Result<(u64, bool), ValueError> {
    let seconds = positive(text).map_err(|_| ValueError::Seconds)?;
    values::seconds(&seconds.to_string())
}

fn positive(text: &str) -> Result<u64, ValueError> {
    u64::try_from(values::integer(text)?).map_err(|_| ValueError::Integer)
}

/// The checker says what is wrong with a negative one.
fn bytes(number: i64) -> String {
    match number.min(LARGEST_PACKET) {
        0 => "0".to_owned(),
        number => format!("{number}B"),
    }
}

fn level(verbosity: i64) -> &'static str {
    match verbosity {
        ..=0 => "info",
        1 => "debug",
        _ => "trace",
    }
}
