//! A PostgreSQL server that says what a test tells it to say.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{
    LIMIT,
    frames::{self, Frame},
};

type Panic = Box<dyn std::any::Any + Send>;

/// Listens, and runs its script once per connection, each in a thread.
///
/// A script that fails fails the test when the server is dropped.
pub struct FakeServer {
    shared: Arc<Shared>,
    address: SocketAddr,
    listener: Arc<TcpListener>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    stopped: AtomicBool,
    accepted: AtomicUsize,
    open: Mutex<Vec<Weak<TcpStream>>>,
    failure: Mutex<Option<Panic>>,
}

/// The server's side of one connection.
pub struct FakeConnection {
    stream: Arc<TcpStream>,
    /// 0 for the first connection.
    pub index: usize,
}

impl FakeServer {
    /// Listens on a loopback port of its own. The script may return at any time; that closes the connection.
    pub fn start(script: impl Fn(&mut FakeConnection) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let shared = Arc::new(Shared {
            stopped: AtomicBool::new(false),
            accepted: AtomicUsize::new(0),
            open: Mutex::default(),
            failure: Mutex::default(),
        });
        let listener = Arc::new(listener);
        let (accepting, socket) = (Arc::clone(&shared), Arc::clone(&listener));
        let thread = Some(thread::spawn(move || accepting.accept(&socket, &script)));
        Self {
            shared,
            address,
            listener,
            thread,
        }
    }

    /// A server that logs everyone in and answers each simple query, or batch that ends with Sync, with
    /// `reply(sql)`, where `sql` is the text of the Query or of the last Parse.
    pub fn answering(reply: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::start(move |connection| {
            connection.log_in()?;
            let mut sql = String::new();
            loop {
                let message = connection.read()?;
                match message.tag {
                    b'Q' => {
                        sql = message.strings().remove(0);
                        connection.send(reply(&sql))?;
                    }
                    b'P' => sql = message.strings().swap_remove(1),
                    b'S' => connection.send(reply(&sql))?,
                    b'X' => return Ok(()),
                    _ => {}
                }
            }
        })
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// How many connections there have been.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn accept<F>(&self, listener: &TcpListener, script: &F)
    where
        F: Fn(&mut FakeConnection) -> io::Result<()> + Sync,
    {
        thread::scope(|scope| {
            for stream in listener.incoming() {
                if self.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let index = self.accepted.fetch_add(1, Ordering::SeqCst);
                let stream = Arc::new(stream);
                let handle = Arc::downgrade(&stream);
                self.open
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(handle);
                // Stopped since the look above: nobody else wakes this script.
                if self.stopped.load(Ordering::SeqCst) {
                    return;
                }
                scope.spawn(move || self.run(FakeConnection { stream, index }, script));
            }
        });
    }

    fn run<F>(&self, mut connection: FakeConnection, script: &F)
    where
        F: Fn(&mut FakeConnection) -> io::Result<()>,
    {
        // A peer that goes away is not the script's failure; an assertion is.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(script(&mut connection)))) {
            self.failure
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get_or_insert(panic);
        }
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        super::stop_listening(&self.listener);
        for stream in self
            .shared
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .drain(..)
        {
            if let Some(stream) = stream.upgrade() {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let failure = self
            .shared
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(panic) = failure
            && !thread::panicking()
        {
            resume_unwind(panic);
        }
    }
}

impl FakeConnection {
    /// Refuses SSLRequest and GSSENCRequest and returns the parameters of the StartupMessage.
    pub fn read_startup(&mut self) -> io::Result<Vec<(String, String)>> {
        match self.read_packet()? {
            (frames::CANCEL_REQUEST, _) => Err(io::ErrorKind::Unsupported.into()),
            (_, rest) => Ok(pairs(&rest)),
        }
    }

    /// Refuses SSLRequest and GSSENCRequest and returns the next packet: its code or version, and what follows.
    pub fn read_packet(&mut self) -> io::Result<(i32, Vec<u8>)> {
        self.stream.set_nodelay(true)?;
        self.stream.set_write_timeout(Some(LIMIT))?;
        loop {
            let body = frames::read_body(&mut &*self.stream)?;
            let (code, rest) = body.split_first_chunk().expect("a startup packet has a code");
            match i32::from_be_bytes(*code) {
                frames::SSL_REQUEST | frames::GSSENC_REQUEST => self.send(b"N")?,
                code => return Ok((code, rest.to_vec())),
            }
        }
    }

    /// Logs the peer in without a password, with the parameters and key of a server of version 15.
    pub fn log_in(&mut self) -> io::Result<Vec<(String, String)>> {
        let parameters = self.read_startup()?;
        self.greet(&[1, 2, 3, 4])?;
        Ok(parameters)
    }

    /// Says what comes after a log-in, with this secret.
    pub fn greet(&mut self, secret: &[u8]) -> io::Result<()> {
        let mut greeting = frames::frame(b'R', [0; 4]);
        for (name, value) in [
            ("application_name", ""),
            ("client_encoding", "UTF8"),
            ("DateStyle", "ISO, MDY"),
            ("default_transaction_read_only", "off"),
            ("in_hot_standby", "off"),
            ("integer_datetimes", "on"),
            ("IntervalStyle", "postgres"),
            ("is_superuser", "off"),
            ("server_encoding", "UTF8"),
            ("server_version", "15.0"),
            ("session_authorization", "app"),
            ("standard_conforming_strings", "on"),
            ("TimeZone", "Etc/UTC"),
        ] {
            greeting.extend(frames::parameter_status(name, value));
        }
        let pid = i32::try_from(self.index + 1000).expect("a test has few connections");
        greeting.extend(frames::frame(b'K', [&pid.to_be_bytes(), secret].concat()));
        greeting.extend(frames::ready_for_query(b'I'));
        self.send(greeting)
    }

    /// Reads one message; an error at the end of the connection.
    pub fn read(&mut self) -> io::Result<Frame> {
        Frame::read(&mut &*self.stream)
    }

    /// Reads one message that must be of this type.
    pub fn expect(&mut self, tag: u8) -> io::Result<Frame> {
        let message = self.read()?;
        assert_eq!(char::from(message.tag), char::from(tag), "{message:?}");
        Ok(message)
    }

    /// Reads until the peer closes; what it sent.
    pub fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        (&*self.stream).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Sends these bytes.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        (&*self.stream).write_all(bytes.as_ref())
    }

    /// Sends these bytes each in a write of its own.
    pub fn send_bytewise(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        bytes.as_ref().iter().try_for_each(|&byte| self.send([byte]))
    }

    /// The socket once more, for a thread that writes while the script reads.
    pub fn socket(&self) -> io::Result<TcpStream> {
        self.stream.try_clone()
    }

    /// Makes the end of the script a TCP reset.
    pub fn reset_at_end(&mut self) -> io::Result<()> {
        socket2::SockRef::from(&*self.stream).set_linger(Some(Duration::ZERO))
    }
}

fn pairs(bytes: &[u8]) -> Vec<(String, String)> {
    let strings: Vec<String> = bytes
        .split(|&byte| byte == 0)
        .map(|string| String::from_utf8_lossy(string).into_owned())
        .collect();
    strings
        .chunks_exact(2)
        .take_while(|pair| !pair[0].is_empty())
        .map(|pair| (pair[0].clone(), pair[1].clone()))
        .collect()
}
