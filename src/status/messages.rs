//! The last errors and warnings, as people want to see them.

use super::{document::Message, moment::seconds};
use crate::telemetry::{
    Recent,
    recent::{self, Words},
};

pub(super) fn show(recent: &Recent) -> Vec<Message> {
    recent.messages().into_iter().map(show_one).collect()
}

fn show_one(message: recent::Message) -> Message {
    let Words {
        what,
        error,
        hint,
        sqlstate,
        blame,
        database,
        user,
        cluster,
    } = message.words;
    let kind = match message.level {
        tracing::Level::ERROR => "error",
        tracing::Level::WARN => "warning",
        _ => "refusal",
    };
    Message {
        first: seconds(message.first),
        last: seconds(message.last),
        count: message.count,
        kind: kind.to_owned(),
        message: what,
        error,
        hint,
        sqlstate,
        blame,
        database,
        user,
        cluster,
    }
}
