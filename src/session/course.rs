//! A client's task: what it does before there is a session, and after.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use super::{
    activity::Stage,
    error::{End, SessionError},
    identity::{Arrival, Identity},
    run::{Session, poll_departure},
    welcome::{Welcomed, settings},
    worker::Worker,
};
use crate::{
    fault::{Fault, chain},
    pool::Greeting,
    tls::Stream,
    wire::{
        reply::{self, Severity},
        stream::Framed,
    },
};

/// How long the last words to a client may take.
const GOODBYE: Duration = Duration::from_secs(5);

/// Serves a client until one side ends it.
///
/// Runs on the worker's thread and nowhere else; dropping it gives everything back.
pub fn serve<Slot: Unpin + 'static>(
    arrival: Box<Arrival<Slot>>,
    worker: Rc<Worker>,
) -> impl Future<Output = ()> {
    Course::Brief(Box::pin(begin(arrival, worker)))
}

/// The same for a client that knows already that it may ask.
pub fn go_on<Slot: Unpin + 'static>(
    welcomed: Box<Welcomed<Slot>>,
    worker: Rc<Worker>,
) -> impl Future<Output = ()> {
    Course::Brief(Box::pin(async { Some(Session::new(*welcomed, worker)) }))
}

/// Where a client's task stands. What an idle client costs is the size of this and of its session: the runtime puts
/// 112 bytes beside this and rounds up to 128, or to 256.
enum Course<Slot> {
    /// At its beginning or its end, which are large and short. What it leads to is the session, if there is one.
    Brief(Pin<Box<dyn Future<Output = Place<Slot>>>>),
    /// Between them.
    Long(Place<Slot>),
}

type Place<Slot> = Option<Box<Session<Slot>>>;

impl<Slot: Unpin + 'static> Future for Course<Slot> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        loop {
            let next = match this {
                Self::Brief(brief) => {
                    let session = ready!(brief.as_mut().poll(cx));
                    if let Some(session) = &session {
                        session.entry.control().listen(cx.waker());
                    }
                    Self::Long(session)
                }
                Self::Long(place) => {
                    let Some(mut session) = place.take() else {
                        return Poll::Ready(());
                    };
                    let Poll::Ready(ended) = Pin::new(&mut *session).poll(cx) else {
                        *place = Some(session);
                        return Poll::Pending;
                    };
                    Self::Brief(Box::pin(farewell(session, ended)))
                }
            };
            *this = next;
        }
    }
}

async fn farewell<Slot>(mut session: Box<Session<Slot>>, ended: End) -> Option<Box<Session<Slot>>> {
    let Session {
        client,
        member,
        entry,
        ..
    } = &mut *session;
    member.activity.enter(Stage::Ended, entry.clock().now());
    ended.count(&member.pool);
    end(ended, client, &member.identity).await;
    None
}

async fn begin<Slot>(mut arrival: Box<Arrival<Slot>>, worker: Rc<Worker>) -> Option<Box<Session<Slot>>> {
    moved(arrival.stream.get_mut().rehome())?;
    let greeting = match admit(&mut arrival, &worker).await {
        Ok(greeting) => greeting,
        Err(ended) => {
            ended.count(&arrival.pool);
            end(ended, &mut arrival.stream, &arrival.identity).await;
            return None;
        }
    };
    Some(Session::new(Welcomed::new(*arrival, greeting), worker))
}

/// Whether a client's stream could be moved to its worker. `None` has been logged.
pub(super) fn moved(moved: io::Result<()>) -> Option<()> {
    moved
        .inspect_err(|error| tracing::warn!(error = chain(error), "cannot move a client to its worker"))
        .ok()
}

/// Finds out what the session begins with, as long as the client waits for it and nobody ends it.
async fn admit<Slot>(arrival: &mut Arrival<Slot>, worker: &Worker) -> Result<Greeting, End> {
    let Arrival {
        stream,
        startup,
        pool,
        entry,
        ..
    } = arrival;
    let control = entry.control().clone();
    tokio::select! {
        // A client that is already gone, or ended, is not worth a server connection.
        biased;
        () = control.ordered_to_end() => Err(End::Fault(SessionError::Drained)),
        error = poll_fn(|cx| poll_departure(stream, cx, worker)) => Err(End::Left(error)),
        greeting = settings(pool, startup, worker.home()) => {
            greeting.map_err(|error| End::Fault(entry.explain(pool, error)))
        }
    }
}

/// Tells a client that is logged in why there is no session for it.
pub async fn turn_away(mut stream: Framed<Stream>, identity: &Identity, error: SessionError) {
    end(End::Fault(error), &mut stream, identity).await;
}

/// Says what has to be said, writes what is still to be written, and closes; logs why.
pub(super) async fn end(end: End, stream: &mut Framed<Stream>, identity: &Identity) {
    match &end {
        End::Terminated => {
            // Almost all end so, and seldom does anybody look: a span costs as much as a short query.
            if tracing::enabled!(tracing::Level::DEBUG) {
                identity.span().in_scope(|| tracing::debug!("client left"));
            }
            // It has closed already, or is about to.
            if stream.is_drained() && !stream.get_ref().is_tls() {
                return;
            }
        }
        End::Left(error) => {
            let error = error.as_ref().map(|error| chain(error));
            identity
                .span()
                .in_scope(|| tracing::info!(error, "client left without saying goodbye"));
            return;
        }
        End::ServerFarewell(error) => {
            identity
                .span()
                .in_scope(|| tracing::info!(%error, "server ended the connection"));
        }
        End::Cut => identity
            .span()
            .in_scope(|| tracing::warn!("connection ended in the middle of a message")),
        End::Fault(error) => {
            identity.span().in_scope(|| {
                tracing::info!(
                    sqlstate = %error.sqlstate(), blame = error.blame().as_str(),
                    error = chain(error), hint = error.hint().as_deref(), "session ended"
                );
            });
            reply::error(Severity::Fatal, error, stream.output());
        }
    }
    let _ = tokio::time::timeout(GOODBYE, async {
        stream.flush().await?;
        stream.shutdown().await
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::member::Member;

    /// There are ten thousand of them. The allocator rounds up, to 320 and 192 bytes with the stream and the counts.
    #[test]
    fn an_idle_client_takes_little_room() {
        type Places = [usize; 3];
        assert_eq!(size_of::<Course<Places>>(), 16);
        // A stream is larger here than in the program.
        let session = size_of::<Session<Places>>() - size_of::<Framed<Stream>>();
        assert!(session <= 176, "{session}");
        assert!(size_of::<Member>() <= 176, "{}", size_of::<Member>());
    }
}
