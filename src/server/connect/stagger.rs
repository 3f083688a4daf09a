//! Several attempts at one thing, begun one after the other: the next when those under way have failed or have gone quiet,
//! as RFC 8305 has it for addresses. The first that is good wins; the others are dropped.
//!
//! It knows no socket: what an attempt is, its caller says.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use crate::server::error::ConnectError;

/// An attempt that has heard nothing for this long does not keep the next one waiting.
pub(super) const QUIET: Duration = Duration::from_millis(250);
/// After this long a candidate that has failed is tried again, if there is still another that has not been heard out:
/// what it has failed for may be over before that one is given up.
pub(super) const AGAIN: Duration = Duration::from_millis(200);

/// When an attempt has last heard something.
#[derive(Debug, Default)]
pub(in crate::server) struct Pulse {
    last: Mutex<Option<Instant>>,
    answered: AtomicBool,
}

/// What a good attempt comes to.
#[derive(Debug)]
pub(super) enum Step<C, T> {
    /// What was wanted.
    Good(T),
    /// Other candidates, which take its place.
    Instead(Vec<C>),
    /// It refuses for good, and speaks for itself only: the others are heard, and it is not asked again.
    Refused(ConnectError),
}

impl Pulse {
    /// Something was heard, or is to be heard from now on. Before the first beat an attempt is not under way: it has
    /// to wait for the pooler itself.
    pub(in crate::server) fn beat(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// A server has said something about the log-in: it is there, whatever comes of this one.
    pub(in crate::server) fn answer(&self) {
        self.beat();
        self.answered.store(true, Ordering::Relaxed);
    }

    /// Whether [`Pulse::answer`] was called.
    pub(in crate::server) fn is_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// From when on it counts as quiet.
    fn quiet_from(&self) -> Option<Instant> {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.map(|last| last + QUIET)
    }
}

/// Tries candidates in their order until one is good. It ends when each has been heard out once: those that are tried again
/// meanwhile keep nobody waiting, or two silent ones would take turns for ever.
///
/// # Errors
/// A final refusal (see [`ConnectError::is_transient`]), after which no more is begun, or else the last failure, or else
/// what the first has refused with for its own part.
pub(super) async fn first_good<C, T, F>(
    candidates: impl IntoIterator<Item = C>,
    begin: impl Fn(C, Arc<Pulse>) -> F,
) -> Result<T, ConnectError>
where
    C: Clone,
    F: Future<Output = Result<Step<C, T>, ConnectError>>,
{
    let mut field = Field::new(candidates);
    let (mut refusal, mut last, mut refused) = (None, None, None);
    loop {
        match field.next().await {
            Event::Turn(next) => field.begin(next, &begin),
            Event::Ended(_, Ok(Step::Good(good))) => return Ok(good),
            Event::Ended(_, Ok(Step::Instead(candidates))) => {
                if refusal.is_none() {
                    field.put_first(candidates);
                }
            }
            Event::Ended(_, Ok(Step::Refused(error))) => {
                refused.get_or_insert(error);
            }
            Event::Ended(candidate, Err(error)) if error.is_transient() => {
                if refusal.is_none() {
                    field.put_off(candidate);
                }
                last = Some(error);
            }
            Event::Ended(_, Err(error)) => {
                field.waiting.clear();
                refusal.get_or_insert(error);
            }
            Event::Over => {
                let error = refusal.or(last).or(refused);
                return Err(error.unwrap_or(ConnectError::NoEndpoint));
            }
        }
    }
}

/// Who is under way, and who is not yet.
struct Field<C, F> {
    /// Those that have been tried are behind those that have not.
    waiting: VecDeque<Waiting<C>>,
    running: Vec<Running<C, F>>,
}

struct Waiting<C> {
    candidate: C,
    /// It has failed, and is not tried again before then.
    again: Option<Instant>,
}

struct Running<C, F> {
    candidate: C,
    future: Pin<Box<F>>,
    pulse: Arc<Pulse>,
    /// It has failed before.
    is_retry: bool,
}

enum Event<C, O> {
    /// It is a candidate's turn.
    Turn(Waiting<C>),
    /// An attempt has ended.
    Ended(C, O),
    /// Everybody has been heard out, and nobody who is under way again says anything.
    Over,
}

impl<C: Clone, F: Future> Field<C, F> {
    fn new(candidates: impl IntoIterator<Item = C>) -> Self {
        Self {
            waiting: candidates.into_iter().map(Waiting::untried).collect(),
            running: Vec::new(),
        }
    }

    fn begin(&mut self, next: Waiting<C>, begin: impl Fn(C, Arc<Pulse>) -> F) {
        let (candidate, pulse) = (next.candidate, Arc::<Pulse>::default());
        self.running.push(Running {
            future: Box::pin(begin(candidate.clone(), pulse.clone())),
            candidate,
            pulse,
            is_retry: next.again.is_some(),
        });
    }

    fn put_first(&mut self, candidates: Vec<C>) {
        for candidate in candidates.into_iter().rev() {
            self.waiting.push_front(Waiting::untried(candidate));
        }
    }

    fn put_off(&mut self, candidate: C) {
        self.waiting.push_back(Waiting {
            candidate,
            again: Some(Instant::now() + AGAIN),
        });
    }

    /// Cancel-safe.
    async fn next(&mut self) -> Event<C, F::Output> {
        let mut alarm = pin!(sleep_until(Instant::now()));
        poll_fn(|cx| {
            if let Some((index, outcome)) = self.poll_running(cx) {
                let ended = self.running.remove(index);
                return Poll::Ready(Event::Ended(ended.candidate, outcome));
            }
            let Some(at) = self.next_turn() else {
                return Poll::Pending;
            };
            if at > Instant::now() {
                alarm.as_mut().reset(at);
                ready!(alarm.as_mut().poll(cx));
            }
            if self.is_heard_out() {
                return Poll::Ready(Event::Over);
            }
            Poll::Ready(self.waiting.pop_front().map_or(Event::Over, Event::Turn))
        })
        .await
    }

    fn poll_running(&mut self, cx: &mut Context<'_>) -> Option<(usize, F::Output)> {
        let mut running = self.running.iter_mut().enumerate();
        running.find_map(|(index, running)| match running.future.as_mut().poll(cx) {
            Poll::Ready(outcome) => Some((index, outcome)),
            Poll::Pending => None,
        })
    }

    /// Whether every candidate has been tried, and none is under way for the first time.
    fn is_heard_out(&self) -> bool {
        let untried = self.waiting.front().is_some_and(|next| next.again.is_none());
        !untried && self.running.iter().all(|running| running.is_retry)
    }

    /// When the next candidate may begin beside those under way, or the end comes, as it looks now.
    fn next_turn(&self) -> Option<Instant> {
        let (is_heard_out, now) = (self.is_heard_out(), Instant::now());
        let mut turn = match self.waiting.front() {
            _ if is_heard_out => now,
            next => next?.again.unwrap_or(now),
        };
        for running in &self.running {
            match running.pulse.quiet_from() {
                Some(quiet) => turn = turn.max(quiet),
                None if is_heard_out => {}
                None => return None,
            }
        }
        Some(turn)
    }
}

impl<C> Waiting<C> {
    fn untried(candidate: C) -> Self {
        Self {
            candidate,
            again: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, future::pending};

    use tokio::time::sleep;

    use super::*;
    use crate::types::{Endpoint, Role};

    fn away() -> ConnectError {
        ConnectError::Io {
            endpoint: Endpoint::Unix("/nowhere".into()),
            source: std::io::ErrorKind::ConnectionRefused.into(),
        }
    }

    fn standby() -> ConnectError {
        ConnectError::WrongRole {
            endpoint: Endpoint::Unix("/nowhere".into()),
            role: Role::ReadWrite,
        }
    }

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// What has happened, and when the attempts were begun.
    struct Outcome {
        result: Result<char, ConnectError>,
        begun: Vec<(char, Duration)>,
    }

    impl Outcome {
        fn order(&self) -> String {
            self.begun.iter().map(|(candidate, _)| candidate).collect()
        }

        /// Whether the attempts were begun so many milliseconds after the start, or later.
        fn is_after(&self, times: &[u64]) -> bool {
            let begun = self.begun.iter().map(|(_, after)| *after);
            self.begun.len() == times.len() && begun.zip(times).all(|(after, least)| after >= ms(*least))
        }
    }

    /// Runs candidates, each a letter, with the script for each.
    async fn run<F>(candidates: &str, script: impl Fn(char, Arc<Pulse>) -> F) -> Outcome
    where
        F: Future<Output = Result<Step<char, char>, ConnectError>>,
    {
        let (start, begun) = (Instant::now(), RefCell::new(Vec::new()));
        let result = first_good(candidates.chars(), |candidate, pulse| {
            begun.borrow_mut().push((candidate, start.elapsed()));
            script(candidate, pulse)
        });
        let result = result.await;
        Outcome {
            result,
            begun: begun.into_inner(),
        }
    }

    #[tokio::test]
    async fn a_silent_candidate_delays_the_next_by_its_silence_only() {
        let outcome = run("abc", async |candidate, pulse: Arc<Pulse>| {
            pulse.beat();
            match candidate {
                'c' => Ok(Step::Good('c')),
                _ => pending().await,
            }
        });
        let outcome = outcome.await;
        assert!(outcome.is_after(&[0, 250, 500]), "{:?}", outcome.begun);
        assert_eq!(outcome.result.unwrap(), 'c');
    }

    #[tokio::test]
    async fn one_that_answers_keeps_its_turn_however_long_it_takes() {
        let outcome = run("ab", async |candidate, pulse: Arc<Pulse>| {
            for _ in 0..8 {
                pulse.beat();
                sleep(ms(50)).await;
            }
            Ok(Step::Good(candidate))
        });
        let outcome = outcome.await;
        assert_eq!(outcome.order(), "a");
        // Whoever waits for the pooler is not silent.
        let outcome = run("ab", async |candidate, _| {
            sleep(ms(400)).await;
            Ok(Step::Good(candidate))
        });
        assert_eq!(outcome.await.order(), "a");
    }

    #[tokio::test]
    async fn a_late_answer_beats_those_that_have_begun_since() {
        let outcome = run("ab", async |candidate, pulse: Arc<Pulse>| {
            pulse.beat();
            sleep(ms(if candidate == 'a' { 400 } else { 5000 })).await;
            Ok(Step::Good(candidate))
        });
        let outcome = outcome.await;
        assert_eq!((outcome.order(), outcome.result.unwrap()), ("ab".into(), 'a'));
    }

    #[tokio::test]
    async fn failures_are_gone_through_and_the_last_is_told() {
        let outcome = run("ab", async |candidate, pulse: Arc<Pulse>| {
            pulse.beat();
            Err(if candidate == 'a' { standby() } else { away() })
        });
        let outcome = outcome.await;
        assert_eq!(outcome.order(), "ab");
        assert!(matches!(outcome.result, Err(ConnectError::Io { .. })));
        let nobody = run("", async |_, _| Ok(Step::Good('a')));
        assert!(matches!(nobody.await.result, Err(ConnectError::NoEndpoint)));
    }

    /// A standby may be promoted while the old primary says nothing.
    #[tokio::test]
    async fn a_candidate_that_has_failed_is_tried_again_while_another_is_silent() {
        let tried = RefCell::new(0);
        let outcome = run("ab", async |candidate, pulse: Arc<Pulse>| {
            pulse.beat();
            if candidate == 'a' {
                return pending().await;
            }
            *tried.borrow_mut() += 1;
            let promoted = *tried.borrow() == 3;
            promoted.then_some(Step::Good('b')).ok_or_else(standby)
        });
        let outcome = outcome.await;
        assert!(outcome.is_after(&[0, 250, 450, 650]), "{:?}", outcome.begun);
        assert_eq!((outcome.order(), outcome.result.unwrap()), ("abbb".into(), 'b'));
    }

    /// Two nodes are gone, and packets to them are lost. Each is given up after a while, and was begun again while the other
    /// was not given up yet: the two went on for ever, and no other server was looked for.
    #[tokio::test]
    async fn two_silent_candidates_do_not_take_turns_for_ever() {
        let silent = async |_, pulse: Arc<Pulse>| {
            pulse.beat();
            sleep(ms(600)).await;
            Err(away())
        };
        for candidates in ["ab", "abc"] {
            let start = Instant::now();
            let outcome = run(candidates, silent).await;
            assert!(matches!(outcome.result, Err(ConnectError::Io { .. })));
            assert!(start.elapsed() < ms(4000), "{:?}", outcome.begun);
        }
        // Nor do the addresses of one name.
        let outcome = run("a", async |candidate, pulse: Arc<Pulse>| match candidate {
            'a' => Ok(Step::Instead(vec!['x', 'y'])),
            _ => silent(candidate, pulse).await,
        });
        assert!(matches!(outcome.await.result, Err(ConnectError::Io { .. })));
    }

    /// A standby that was refused once is being asked again when the silent old primary is given up: it may be the primary
    /// by now. If it says nothing more it keeps nobody waiting.
    #[tokio::test]
    async fn one_that_is_tried_again_has_its_answer_heard_and_its_silence_not() {
        for answers in [true, false] {
            let (tried, start) = (RefCell::new(0), Instant::now());
            let outcome = run("ab", async |candidate, pulse: Arc<Pulse>| {
                pulse.beat();
                if candidate == 'a' {
                    sleep(ms(500)).await;
                    return Err(away());
                }
                *tried.borrow_mut() += 1;
                if *tried.borrow() == 1 {
                    return Err(standby());
                }
                sleep(ms(if answers { 100 } else { 60_000 })).await;
                Ok(Step::Good('b'))
            });
            let outcome = outcome.await;
            assert_eq!(outcome.order(), "abb");
            assert_eq!(outcome.result.is_ok(), answers);
            assert!(start.elapsed() < ms(5000));
        }
    }

    #[tokio::test]
    async fn a_final_refusal_ends_it_for_those_who_have_not_begun() {
        for first_is_good in [false, true] {
            let outcome = run("abc", async |candidate, pulse: Arc<Pulse>| {
                pulse.beat();
                if candidate != 'a' {
                    return Err(ConnectError::Protocol);
                }
                sleep(ms(400)).await;
                first_is_good.then_some(Step::Good('a')).ok_or_else(away)
            });
            let outcome = outcome.await;
            assert_eq!(outcome.order(), "ab");
            match outcome.result {
                Ok(good) => assert!(first_is_good && good == 'a'),
                Err(error) => assert!(!first_is_good && matches!(error, ConnectError::Protocol)),
            }
        }
    }

    #[tokio::test]
    async fn what_a_candidate_stands_for_takes_its_place() {
        let outcome = run("ab", async |candidate, pulse: Arc<Pulse>| {
            pulse.beat();
            match candidate {
                'a' => Ok(Step::Instead(vec!['x', 'y'])),
                'b' => Ok(Step::Good('b')),
                _ => Err(away()),
            }
        });
        assert_eq!(outcome.await.order(), "axyb");
    }
}
