//! The HTTP server for metrics, probes and whatever else there is to see.
//!
//! It knows no page; those are in the [`Site`] that it is given.

mod exchange;
mod guard;
mod site;

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    task::{JoinError, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

pub use self::{
    exchange::exchange,
    guard::{Guard, GuardError, check},
    site::{Answer, Answering, Ask, FAN_OUT, HTML, JSON, PLAIN_TEXT, Page, Site},
};
use crate::net::{Listener, Socket};

/// Scrapers and probes are few; more connections than this wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 64;
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection carries one request, and no peer can hold its place for longer than this.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// The least that hyper takes; a request for one of these pages is a few hundred bytes.
const BUFFER_SIZE: usize = 8192;

/// Serves until `stop` is cancelled, then finishes what it has begun (half a minute at most).
///
/// Dropping it closes all connections.
pub async fn serve(mut listener: Listener, site: Arc<Site>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => report(ended),
            (socket, _) = listener.accept(), if connections.len() < MAX_CONNECTIONS => {
                connections.spawn(serve_connection(socket, Arc::clone(&site), stop.clone()));
            }
        }
    }
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        report(ended);
    }
}

async fn serve_connection(socket: Socket, site: Arc<Site>, stop: CancellationToken) {
    let service = service_fn(|request: Request<Incoming>| {
        let site = Arc::clone(&site);
        async move { Ok::<_, Infallible>(site.respond(request).await) }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .keep_alive(false)
            .max_buf_size(BUFFER_SIZE)
            .serve_connection(TokioIo::new(socket), service)
    );
    let served = timeout(CONNECTION_TIMEOUT, async {
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    });
    match served.await {
        Ok(Ok(())) => {}
        // Probes connect and leave; that is no news.
        Ok(Err(error)) => debug!(%error, "http connection failed"),
        Err(_) => debug!("http connection took too long"),
    }
}

fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        error!(%error, "http connection panicked");
    }
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, num::NonZeroU32};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::{
        config::{HttpAuth, ListenAddress, Tcp},
        lifecycle::{Phase, PhaseSender},
        net::{BindOptions, Tuning},
    };

    struct Server {
        address: SocketAddr,
        phase: PhaseSender,
        stop: CancellationToken,
        task: JoinSet<()>,
    }

    impl Server {
        fn start() -> Self {
            Self::guarded(HttpAuth::default())
        }

        fn guarded(auth: HttpAuth) -> Self {
            let any_port = ListenAddress::Tcp("127.0.0.1:0".parse().unwrap());
            let listener = Listener::bind(
                &any_port,
                &BindOptions {
                    backlog: NonZeroU32::new(128).unwrap(),
                    unix_socket_mode: 0o777,
                    unix_socket_group: None,
                    tuning: Tuning::default(),
                },
            )
            .unwrap();
            let ListenAddress::Tcp(address) = *listener.local_address() else {
                panic!("not TCP");
            };
            let phase = PhaseSender::new();
            let stop = CancellationToken::new();
            let mut task = JoinSet::new();
            let echo = Arc::new(|ask: Ask| Answer::text(200, format!("{ask:?}\n")));
            let site = Site::new(phase.subscribe(), Arc::new(Guard::new(auth)))
                .with("/echo", echo.clone())
                .with_order("/order", echo);
            task.spawn(serve(listener, Arc::new(site), stop.clone()));
            Self {
                address,
                phase,
                stop,
                task,
            }
        }

        async fn connect(&self) -> Socket {
            Socket::connect_tcp("127.0.0.1", self.address.port(), &Tcp::default())
                .await
                .unwrap()
        }

        /// Sends a request line and returns all that comes back.
        async fn ask(&self, request_line: &str) -> String {
            self.ask_with(request_line, "").await
        }

        async fn ask_with(&self, request_line: &str, headers: &str) -> String {
            let mut socket = self.connect().await;
            let request = format!("{request_line} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
            socket.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            socket.read_to_string(&mut answer).await.unwrap();
            answer
        }

        async fn ended(&mut self) {
            self.task.join_next().await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn a_page_is_told_what_is_asked() {
        let server = Server::start();
        let answer = server
            .ask_with("GET /echo?a=1&b", "Accept: text/html\r\nX-Pgweir-Fan-Out: 1\r\n")
            .await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(
            answer.contains("content-type: text/plain; charset=utf-8\r\n"),
            "{answer}"
        );
        let asked = r#"Ask { query: Some("a=1&b"), accept: Some("text/html"), is_fan_out: true, body: b"" }"#;
        assert!(answer.ends_with(&format!("{asked}\n")), "{answer}");
    }

    #[tokio::test]
    async fn who_shows_nothing_sees_the_probes_only() {
        let directory = tempfile::tempdir().unwrap();
        let token_file = directory.path().join("token");
        std::fs::write(&token_file, "t0ken\n").unwrap();
        let server = Server::guarded(HttpAuth {
            basic: None,
            token_file: Some(token_file),
        });
        for path in ["/", "/echo", "/nothing"] {
            let answer = server.ask(&format!("GET {path}")).await;
            assert!(answer.starts_with("HTTP/1.1 401 "), "{path}: {answer}");
            assert!(
                answer.contains("www-authenticate: Bearer realm=\"pgweir\"\r\n"),
                "{answer}"
            );
            assert!(!answer.contains("t0ken"), "{answer}");
        }
        assert!(server.ask("GET /livez").await.starts_with("HTTP/1.1 200 "));
        let shown = server
            .ask_with("GET /echo", "Authorization: Bearer t0ken\r\n")
            .await;
        assert!(shown.starts_with("HTTP/1.1 200 "), "{shown}");
    }

    #[tokio::test]
    async fn readiness_follows_the_phase_and_liveness_does_not() {
        let server = Server::start();
        let steps = [
            (Phase::Starting, "503", "not ready: starting\n"),
            (Phase::Running, "200", "ok\n"),
            (Phase::Draining, "503", "not ready: draining\n"),
            (Phase::Stopped, "503", "not ready: stopped\n"),
        ];
        for (phase, status, reason) in steps {
            server.phase.advance(phase);
            let ready = server.ask("GET /readyz").await;
            assert!(
                ready.starts_with(&format!("HTTP/1.1 {status} ")),
                "{phase}: {ready}"
            );
            assert!(ready.ends_with(&format!("\r\n\r\n{reason}")), "{phase}: {ready}");
            let alive = server.ask("GET /livez").await;
            assert!(alive.starts_with("HTTP/1.1 200 "), "{phase}: {alive}");
        }
    }

    #[tokio::test]
    async fn what_is_not_there_is_refused() {
        let server = Server::start();
        assert!(
            server
                .ask("GET /")
                .await
                .ends_with("pgweir: /echo /livez /readyz\n")
        );
        assert!(server.ask("GET /ech").await.starts_with("HTTP/1.1 404 "));
        let post = server.ask("POST /echo").await;
        assert!(post.starts_with("HTTP/1.1 405 "), "{post}");
        assert!(post.contains("allow: GET, HEAD\r\n"), "{post}");
        let get = server.ask("GET /order").await;
        assert!(
            get.starts_with("HTTP/1.1 405 ") && get.contains("allow: POST\r\n"),
            "{get}"
        );
    }

    #[tokio::test]
    async fn an_order_is_told_what_it_says() {
        let server = Server::start();
        // The end of the line is a part of it.
        let answer = server
            .ask_with("POST /order", "Content-Length: 5\r\n\r\nabc")
            .await;
        assert!(answer.contains(r#"body: b"abc\r\n""#), "{answer}");
    }

    #[tokio::test]
    async fn head_has_a_length_and_no_body() {
        let answer = Server::start().ask("HEAD /livez").await;
        assert!(answer.contains("content-length: 3\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    }

    #[tokio::test]
    async fn a_stop_does_not_wait_for_peers_that_say_nothing() {
        let mut server = Server::start();
        let mut silent = server.connect().await;
        // Answered after the silent one was accepted.
        server.ask("GET /livez").await;
        server.stop.cancel();
        timeout(HEADER_TIMEOUT / 2, server.ended()).await.unwrap();
        assert_eq!(silent.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn connections_beyond_the_cap_wait_for_a_place() {
        let server = Server::start();
        let mut silent = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            silent.push(server.connect().await);
        }
        let mut asking = pin!(server.ask("GET /livez"));
        tokio::select! {
            biased;
            answer = asking.as_mut() => panic!("served beyond the cap: {answer}"),
            () = yields(1000) => {}
        }
        silent.pop();
        assert!(asking.await.starts_with("HTTP/1.1 200 "));
    }

    async fn yields(times: usize) {
        for _ in 0..times {
            tokio::task::yield_now().await;
        }
    }
}
