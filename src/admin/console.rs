//! The console's conversation: commands in, tables and tags out, in the simple and in the extended protocol.

use std::{io, sync::Arc, time::Duration};

use super::{
    command::{self, Command},
    error::ConsoleError,
    portals::Portals,
    premises::Premises,
    stats::Sampler,
};
use crate::{
    pool::Pools,
    session::{self, Control, Entry, Identity, Interruption, Introduction, Table},
    tls::Stream,
    wire::{
        frontend::tag,
        reply::{self, Severity},
        rows::{self, Formats},
        stream::{Frame, Framed, ReadError},
    },
};

/// The longest message that is read.
const MESSAGE: usize = 16 * 1024;
/// How long the last words may take.
const GOODBYE: Duration = Duration::from_secs(5);
/// The settings that drivers look at when they log in.
const GREETING: [(&str, &str); 7] = [
    ("client_encoding", "UTF8"),
    ("server_encoding", "UTF8"),
    ("DateStyle", "ISO"),
    ("TimeZone", "GMT"),
    ("standard_conforming_strings", "on"),
    ("integer_datetimes", "on"),
    ("is_superuser", "on"),
];

/// What the console looks at, and to whom it passes orders.
#[derive(Debug, Clone)]
pub struct Console {
    /// The pools.
    pub pools: Arc<Pools>,
    /// The sessions.
    pub table: Arc<Table>,
    /// What the pools have done of late.
    pub sampler: Arc<Sampler>,
    /// Whoever runs the process.
    pub premises: Arc<dyn Premises>,
}

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    Nothing,
    /// Look (`stats_users`).
    Stats,
    /// Everything (`admin_users`).
    Admin,
}

/// Someone who is logged in to the console. AuthenticationOk stands in the stream's output.
#[derive(Debug)]
pub struct Visitor<Slot> {
    /// The stream.
    pub stream: Framed<Stream>,
    /// Who it is.
    pub identity: Identity,
    /// What it may do.
    pub level: Level,
    /// What it calls itself.
    pub application_name: String,
    /// Its place among the sessions.
    pub entry: Entry,
    /// Its place among the clients.
    pub slot: Slot,
}

/// One visitor's conversation.
pub(super) struct Conversation<'a> {
    pub(super) console: &'a Console,
    pub(super) level: Level,
    pub(super) control: Arc<Control>,
    /// It has suspended the pooler, which goes on without it.
    pub(super) has_suspended: bool,
    pub(super) stream: &'a mut Framed<Stream>,
    shown: session::Shown,
    pub(super) portals: Portals,
    /// Everything up to the next Sync is part of a batch that has failed.
    skips: bool,
    /// A message that came while something was waited for.
    early: Option<Frame>,
}

/// Why a conversation is over: what has to be said, if anything.
type Farewell = Option<ConsoleError>;

impl Console {
    /// Serves a visitor until one side ends it.
    pub async fn serve<Slot>(self, mut visitor: Visitor<Slot>) {
        let span = visitor.identity.span();
        if visitor.level == Level::Nothing {
            let error = ConsoleError::NotAllowed(visitor.identity.user.to_string());
            span.in_scope(|| tracing::info!(%error, "admin console refused"));
            return end(&mut visitor.stream, Some(error)).await;
        }
        greet(&mut visitor);
        let introduction = Introduction {
            identity: &visitor.identity,
            application_name: &visitor.application_name,
            replication: "none",
            server: None,
        };
        let mut conversation = Conversation {
            console: &self,
            level: visitor.level,
            control: visitor.entry.control().clone(),
            has_suspended: false,
            shown: visitor.entry.show_aside(visitor.stream.get_ref(), introduction),
            stream: &mut visitor.stream,
            portals: Portals::default(),
            skips: false,
            early: None,
        };
        let farewell = conversation.run().await;
        if conversation.has_suspended && self.pools.resume(None).is_ok() {
            span.in_scope(|| tracing::warn!("who has suspended the pooler is gone, going on"));
        }
        end(&mut visitor.stream, farewell).await;
    }
}

fn greet<Slot>(visitor: &mut Visitor<Slot>) {
    let key = visitor.entry.key().clone();
    let out = visitor.stream.output();
    let version = format!("{}/pgweir", env!("CARGO_PKG_VERSION"));
    reply::parameter_status("server_version", version.as_bytes(), out);
    for (name, value) in GREETING {
        reply::parameter_status(name, value.as_bytes(), out);
    }
    reply::backend_key_data(&key, out);
    reply::ready_for_query(out);
}

impl Conversation<'_> {
    async fn run(&mut self) -> Farewell {
        loop {
            if self.stream.flush().await.is_err() {
                return None;
            }
            let frame = match self.next().await {
                Ok(frame) => frame,
                Err(farewell) => return farewell,
            };
            self.shown.note_request();
            if let Err(farewell) = self.answer(frame).await {
                return farewell;
            }
        }
    }

    async fn next(&mut self) -> Result<Frame, Farewell> {
        if let Some(frame) = self.early.take() {
            return Ok(frame);
        }
        loop {
            tokio::select! {
                frame = self.stream.read_frame(MESSAGE) => return frame.map_err(|error| farewell(&error)),
                interruption = self.control.interrupted() => match interruption {
                    Interruption::End => return Err(Some(ConsoleError::Drained)),
                    Interruption::Cancel => {}
                },
            }
        }
    }

    /// Waits until there is a reason not to wait for something else any more. Cancel-safe.
    pub(super) async fn interrupted(&mut self) -> ConsoleError {
        loop {
            let has_room = self.early.is_none();
            tokio::select! {
                interruption = self.control.interrupted() => match interruption {
                    Interruption::End => return ConsoleError::Drained,
                    Interruption::Cancel => return ConsoleError::Canceled,
                },
                frame = self.stream.read_frame(MESSAGE), if has_room => match frame {
                    Ok(frame) => self.early = Some(frame),
                    Err(_) => return ConsoleError::Drained,
                },
            }
        }
    }

    async fn answer(&mut self, Frame { tag, body }: Frame) -> Result<(), Farewell> {
        match tag {
            tag::TERMINATE => return Err(None),
            tag::SYNC => {
                self.skips = false;
                self.portals.sync();
                reply::ready_for_query(self.stream.output());
            }
            tag::QUERY => {
                let answered = self.query(&body).await;
                self.report(answered)?;
                reply::ready_for_query(self.stream.output());
            }
            tag::PARSE | tag::BIND | tag::DESCRIBE | tag::EXECUTE | tag::CLOSE | tag::FLUSH => {
                if self.skips {
                    return Ok(());
                }
                let answered = self.extended(tag, &body).await;
                self.skips = answered.is_err();
                self.report(answered)?;
            }
            // What a COPY would send, after one that was refused.
            tag::COPY_DATA | tag::COPY_DONE | tag::COPY_FAIL => {}
            _ => return Err(Some(ConsoleError::Protocol)),
        }
        Ok(())
    }

    /// Says an error, after which the conversation goes on, if it does.
    fn report(&mut self, answered: Result<(), ConsoleError>) -> Result<(), Farewell> {
        match answered {
            Ok(()) => Ok(()),
            Err(error @ (ConsoleError::Drained | ConsoleError::Protocol)) => Err(Some(error)),
            Err(error) => {
                reply::error(Severity::Error, &error, self.stream.output());
                Ok(())
            }
        }
    }

    async fn query(&mut self, body: &[u8]) -> Result<(), ConsoleError> {
        let text = String::from_utf8_lossy(body.strip_suffix(b"\0").unwrap_or(body));
        let commands = command::parse(&text)?;
        if commands.is_empty() {
            reply::empty_query_response(self.stream.output());
        }
        for command in commands {
            let answer = self.execute(&command).await?;
            let out = self.stream.output();
            answer.say_notice(out);
            if let Some(shown) = &answer.shown {
                let formats = Formats::default();
                rows::row_description(&shown.columns, &formats, out);
                for row in &shown.rows {
                    rows::data_row(&shown.columns, row, &formats, out);
                }
            }
            reply::command_complete(&answer.tag, out);
        }
        Ok(())
    }

    /// Refuses what the visitor may not do.
    pub(super) fn authorize(&self, command: &Command) -> Result<(), ConsoleError> {
        if self.level >= command.level() {
            Ok(())
        } else {
            Err(ConsoleError::AdminNeeded)
        }
    }
}

fn farewell(error: &ReadError) -> Farewell {
    match error {
        ReadError::Closed | ReadError::Io(_) => None,
        _ => Some(ConsoleError::Protocol),
    }
}

async fn end(stream: &mut Framed<Stream>, error: Option<ConsoleError>) {
    if let Some(error) = error {
        reply::error(Severity::Fatal, &error, stream.output());
    }
    let closed = async {
        stream.flush().await?;
        stream.shutdown().await
    };
    let _: Result<io::Result<()>, _> = tokio::time::timeout(GOODBYE, closed).await;
}
