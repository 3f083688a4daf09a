//! The pages of the HTTP server, by their paths, and what is asked of them.
//!
//! It knows no page but the probes.

use std::{collections::BTreeMap, fmt::Write, pin::Pin, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{
        ACCEPT, ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName,
        HeaderValue, REFERRER_POLICY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
    },
};
use tokio::sync::watch;

use super::guard::{Guard, Verdict};
use crate::lifecycle::Phase;

/// Text for people.
pub const PLAIN_TEXT: &str = "text/plain; charset=utf-8";
/// A page.
pub const HTML: &str = "text/html; charset=utf-8";
/// Data.
pub const JSON: &str = "application/json";
/// What says that another replica asks, which is not to ask others in its turn.
pub const FAN_OUT: &str = "x-pgweir-fan-out";

/// More than this nobody has to say: a line for each of some hundred replicas.
const LONGEST_ORDER: usize = 16 << 10;
/// Where probes ask; nothing has to be shown for these.
const PROBES: [&str; 2] = ["/livez", "/readyz"];

/// Nothing here is worth keeping, and nobody else's page is to make anything of it.
const ALWAYS: [(HeaderName, &str); 3] = [
    (CACHE_CONTROL, "no-store"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
];

/// What is asked of a page.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    /// What follows the question mark.
    pub query: Option<String>,
    /// What the answer may be, as the `Accept` header has it.
    pub accept: Option<String>,
    /// Another replica asks: nobody else is to be asked for the answer.
    pub is_fan_out: bool,
    /// What an order says.
    pub body: Bytes,
}

/// What a page says.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP's status code.
    pub status: u16,
    /// The type of the body.
    pub content_type: &'static str,
    /// The body.
    pub body: Bytes,
    /// What a browser may load and run for it (`Content-Security-Policy`).
    pub policy: Option<String>,
}

impl Answer {
    /// An answer of this type to a good question.
    pub fn ok(content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self {
            status: 200,
            content_type,
            body: body.into(),
            policy: None,
        }
    }

    /// A line of text with a status.
    pub fn text(status: u16, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            content_type: PLAIN_TEXT,
            body: body.into(),
            policy: None,
        }
    }
}

/// An answer that is on its way.
pub type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// One page. It bounds by itself how long an answer takes.
pub trait Page: Send + Sync {
    /// Answers.
    fn answer(&self, ask: Ask) -> Answering;
}

/// A page that has its answer at once.
impl<F: Fn(Ask) -> Answer + Send + Sync> Page for F {
    fn answer(&self, ask: Ask) -> Answering {
        let answer = self(ask);
        Box::pin(async { answer })
    }
}

/// All pages.
pub struct Site {
    pages: BTreeMap<&'static str, Arc<dyn Page>>,
    /// What is done and not only shown.
    orders: BTreeMap<&'static str, Arc<dyn Page>>,
    phase: watch::Receiver<Phase>,
    guard: Arc<Guard>,
}

impl Site {
    /// The probes, and nothing else yet. What `guard` asks for is asked for on every other page.
    pub fn new(phase: watch::Receiver<Phase>, guard: Arc<Guard>) -> Self {
        Self {
            pages: BTreeMap::new(),
            orders: BTreeMap::new(),
            phase,
            guard,
        }
    }

    /// With this page at `path`.
    #[must_use]
    pub fn with(mut self, path: &'static str, page: Arc<dyn Page>) -> Self {
        self.pages.insert(path, page);
        self
    }

    /// With this at `path` for whoever posts something there.
    #[must_use]
    pub fn with_order(mut self, path: &'static str, page: Arc<dyn Page>) -> Self {
        self.orders.insert(path, page);
        self
    }

    pub(super) async fn respond(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let (path, headers) = (head.uri.path(), &head.headers);
        let order = self.orders.get(path);
        let (is_allowed, allowed) = match order {
            None => (matches!(head.method, Method::GET | Method::HEAD), "GET, HEAD"),
            Some(_) => (head.method == Method::POST, "POST"),
        };
        if !is_allowed {
            let mut refusal = response(Answer::text(405, format!("only {allowed}\n")));
            refusal
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static(allowed));
            return refusal;
        }
        match path {
            "/livez" => return response(Answer::text(200, "ok\n")),
            "/readyz" => return response(self.readiness()),
            _ => {}
        }
        let text = |name| {
            let value: Option<&HeaderValue> = headers.get(name);
            value.and_then(|value| value.to_str().ok())
        };
        if let Verdict::Refused { challenges } = self.guard.look_at(text(AUTHORIZATION.as_str())).await {
            let mut refusal = response(Answer::text(401, "who is there? (http.auth)\n"));
            for challenge in challenges {
                let value = HeaderValue::from_static(challenge);
                refusal.headers_mut().append(WWW_AUTHENTICATE, value);
            }
            return refusal;
        }
        let Some(page) = order.or_else(|| self.pages.get(path)) else {
            return response(match path {
                "/" => Answer::text(200, self.index()),
                _ => Answer::text(404, "not found\n"),
            });
        };
        let body = match order {
            None => Bytes::new(),
            Some(_) => match Limited::new(body, LONGEST_ORDER).collect().await {
                Ok(body) => body.to_bytes(),
                Err(_) => return response(Answer::text(413, "too long, or cut short\n")),
            },
        };
        let ask = Ask {
            query: head.uri.query().map(str::to_owned),
            accept: text(ACCEPT.as_str()).map(str::to_owned),
            is_fan_out: headers.contains_key(FAN_OUT),
            body,
        };
        response(page.answer(ask).await)
    }

    /// What there is, for whoever comes without a path.
    fn index(&self) -> String {
        let mut text = "pgweir:".to_owned();
        for path in self.pages.keys().copied().chain(PROBES) {
            // A string takes everything.
            let _ = write!(text, " {path}");
        }
        text.push('\n');
        text
    }

    fn readiness(&self) -> Answer {
        let phase = *self.phase.borrow();
        match phase {
            Phase::Running => Answer::text(200, "ok\n"),
            Phase::Starting | Phase::Draining | Phase::Stopped => {
                Answer::text(503, format!("not ready: {phase}\n"))
            }
        }
    }
}

impl std::fmt::Debug for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let paths = self.pages.keys();
        f.debug_set().entries(paths).finish()
    }
}

fn response(answer: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    for (name, value) in [(CONTENT_TYPE, answer.content_type)].into_iter().chain(ALWAYS) {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let policy = answer
        .policy
        .and_then(|policy| HeaderValue::try_from(policy).ok());
    if let Some(policy) = policy {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}
