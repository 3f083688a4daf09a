//! Asking a pgweir for its status, and saying what is wrong when it does not tell.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::Uri;

use crate::status::document::Status;

const TIMEOUT: Duration = Duration::from_secs(5);
/// Far more than any status is long.
const LONGEST: u64 = 16 * 1024 * 1024;
const PORT: u16 = 80;

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("{url:?} is no URL of pgweir's HTTP server; one is http://127.0.0.1:9127")]
    Url { url: String },
    #[error("pgweir's HTTP server has no TLS: use http:// instead of https://")]
    Tls,
    #[error("cannot read {}", path.display())]
    Token {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{host}: no such host")]
    Host {
        host: String,
        #[source]
        source: io::Error,
    },
    #[error(
        "nothing answers at {address}; is pgweir running, with [http] in its configuration, and is this http.address?"
    )]
    Connect {
        address: String,
        #[source]
        source: io::Error,
    },
    #[error("{address} does not answer")]
    Silent {
        address: String,
        #[source]
        source: io::Error,
    },
    #[error(
        "{address} wants to know who asks (http.auth): put user:password@ into the URL, or use --token-file"
    )]
    Unauthorized { address: String },
    #[error("{address} is no pgweir that can show its status: it answers {status:?}")]
    Refused { address: String, status: String },
    #[error("what {address} answers is not the status of a pgweir of this version ({})", env!("CARGO_PKG_VERSION"))]
    Garbled {
        address: String,
        #[source]
        source: serde_json::Error,
    },
}

/// Where a status is to be had.
pub(super) struct Source {
    host: String,
    port: u16,
    path: String,
    authorization: Option<Authorization>,
}

enum Authorization {
    /// The whole header's value.
    Basic(String),
    /// A file that is read each time: tokens change.
    Token(PathBuf),
}

impl Source {
    /// The pgweir at `url`, which is shown the token in that file.
    pub(super) fn new(url: &str, token_file: Option<&Path>) -> Result<Self, FetchError> {
        let wrong = || FetchError::Url {
            // Without what may be a password.
            url: url.rsplit('@').next().unwrap_or_default().to_owned(),
        };
        let full = if url.contains("://") {
            url.to_owned()
        } else {
            format!("http://{url}")
        };
        let uri: Uri = full.parse().map_err(|_| wrong())?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(FetchError::Tls),
            _ => return Err(wrong()),
        }
        let authority = uri.authority().ok_or_else(wrong)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(wrong());
        }
        let user = authority.as_str().rsplit_once('@').map(|(user, _)| user);
        Ok(Self {
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(PORT),
            path: format!(
                "{}/status.json",
                uri.path().trim_end_matches("/status.json").trim_end_matches('/')
            ),
            authorization: match token_file {
                Some(path) => Some(Authorization::Token(path.to_owned())),
                None => user.map(|user| {
                    let user = STANDARD.encode(decoded(user));
                    Authorization::Basic(format!("Basic {user}"))
                }),
            },
        })
    }

    /// `host:port`, for people.
    pub(super) fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The status now. Takes a few seconds at most.
    pub(super) fn fetch(&self) -> Result<Status, FetchError> {
        let address = self.address();
        let silent = |source| FetchError::Silent {
            address: self.address(),
            source,
        };
        let deadline = Instant::now() + TIMEOUT;
        let mut stream = self.connect()?;
        stream.set_write_timeout(Some(TIMEOUT)).map_err(silent)?;
        stream
            .write_all(self.request(&address)?.as_bytes())
            .map_err(silent)?;
        let answer = read(&mut stream, deadline).map_err(silent)?;
        let (head, body) = split(&answer);
        let status = head.lines().next().unwrap_or_default();
        match status.split(' ').nth(1) {
            Some("200") => {
                serde_json::from_slice(body).map_err(|source| FetchError::Garbled { address, source })
            }
            Some("401") => Err(FetchError::Unauthorized { address }),
            _ => Err(FetchError::Refused {
                address,
                status: status
                    .chars()
                    .filter(|char| !char.is_control())
                    .take(80)
                    .collect(),
            }),
        }
    }

    fn connect(&self) -> Result<TcpStream, FetchError> {
        let addresses = (&*self.host, self.port)
            .to_socket_addrs()
            .map_err(|source| FetchError::Host {
                host: self.host.clone(),
                source,
            })?;
        let mut failure = io::ErrorKind::AddrNotAvailable.into();
        for address in addresses {
            match connect(address) {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = error,
            }
        }
        Err(FetchError::Connect {
            address: self.address(),
            source: failure,
        })
    }

    fn request(&self, address: &str) -> Result<String, FetchError> {
        let authorization = match &self.authorization {
            None => None,
            Some(Authorization::Basic(value)) => Some(value.clone()),
            Some(Authorization::Token(path)) => {
                let token = std::fs::read_to_string(path).map_err(|source| FetchError::Token {
                    path: path.clone(),
                    source,
                })?;
                Some(format!("Bearer {}", token.trim()))
            }
        };
        let authorization =
            authorization.map_or_else(String::new, |value| format!("Authorization: {value}\r\n"));
        Ok(format!(
            "GET {} HTTP/1.1\r\nHost: {address}\r\nAccept: application/json\r\n{authorization}Connection: close\r\n\r\n",
            self.path
        ))
    }
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&address, TIMEOUT)
}

fn read(stream: &mut TcpStream, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    let mut piece = [0; 16 * 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || answer.len() as u64 > LONGEST {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut piece)? {
            0 => return Ok(answer),
            count => answer.extend_from_slice(piece.get(..count).unwrap_or_default()),
        }
    }
}

/// Head and body. pgweir says how long its answers are, and sends them in one piece.
fn split(answer: &[u8]) -> (String, &[u8]) {
    const BREAK: &[u8] = b"\r\n\r\n";
    let at = answer.windows(BREAK.len()).position(|window| window == BREAK);
    let (head, body) = answer.split_at(at.unwrap_or(answer.len()));
    let body = body.get(BREAK.len()..).unwrap_or_default();
    (String::from_utf8_lossy(head).into_owned(), body)
}

/// `%41` is `A`, as in every URL.
fn decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let code = (*first == b'%').then(|| after.get(..2)).flatten();
        let code = code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok());
        bytes.push(code.unwrap_or(*first));
        rest = after
            .get(if code.is_some() { 2 } else { 0 }..)
            .unwrap_or_default();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    /// What comes of an answer, and what was asked.
    fn answered(answer: &'static str, user: &str) -> (Result<Status, FetchError>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{user}{}/", listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 4096];
            let count = stream.read(&mut asked).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(asked[..count].to_vec()).unwrap()
        });
        let fetched = Source::new(&url, None).unwrap().fetch();
        (fetched, server.join().unwrap())
    }

    fn problem(url: &str) -> String {
        Source::new(url, None).err().unwrap().to_string()
    }

    #[test]
    fn a_status_is_read_and_the_password_is_shown() {
        let answer = concat!(
            "HTTP/1.1 200 OK\r\n\r\n",
            include_str!("../../status/sample.json")
        );
        let (status, asked) = answered(answer, "ann:p%40ss@");
        assert_eq!(status.unwrap().clients.connected, 66);
        assert!(asked.starts_with("GET /status.json HTTP/1.1\r\n"), "{asked}");
        let expected = format!("Authorization: Basic {}\r\n", STANDARD.encode("ann:p@ss"));
        assert!(asked.contains(&expected), "{asked}");
    }

    #[test]
    fn whoever_else_answers_is_told_from_a_pgweir() {
        let (refused, _) = answered("HTTP/1.1 404 Not Found\r\n\r\n", "");
        assert!(matches!(refused, Err(FetchError::Refused { .. })), "{refused:?}");
        let (unknown, _) = answered("HTTP/1.1 401 Unauthorized\r\n\r\n", "");
        assert!(unknown.unwrap_err().to_string().contains("--token-file"));
        let (other, _) = answered("HTTP/1.1 200 OK\r\n\r\n<html>", "");
        assert!(matches!(other, Err(FetchError::Garbled { .. })), "{other:?}");
        let (nonsense, _) = answered("SSH-2.0-OpenSSH\r\n", "");
        assert!(nonsense.unwrap_err().to_string().contains("SSH-2.0"));
    }

    #[test]
    fn a_wrong_url_says_what_a_right_one_is() {
        assert!(problem("https://db:9127").contains("http://"));
        for wrong in ["ftp://db", "http://", "http://a b/"] {
            assert!(problem(wrong).contains("http://127.0.0.1:9127"), "{wrong}");
        }
        assert!(!problem("ftp://ann:secret@db").contains("secret"));
    }

    #[test]
    fn host_port_and_path_may_be_left_out() {
        let source = Source::new("db:9127", None).unwrap();
        assert_eq!((&*source.address(), &*source.path), ("db:9127", "/status.json"));
        let source = Source::new("http://[::1]:9127/pooler/status.json", None).unwrap();
        assert_eq!(
            (&*source.address(), &*source.path),
            ("[::1]:9127", "/pooler/status.json")
        );
    }

    #[test]
    fn where_nobody_listens_the_setting_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = Source::new(&address.to_string(), None).unwrap().fetch();
        assert!(error.unwrap_err().to_string().contains("http.address"));
    }
}
