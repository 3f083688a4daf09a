//! A wire between two TCP ports that a test can cut, freeze, slow down and chop.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use socket2::{Domain, SockRef, Socket, Type};

const CHUNK: usize = 16 * 1024;
const BACKLOG: i32 = 1024;
/// How often a thread that cannot write looks whether its connection was cut.
const WRITE_SLICE: Duration = Duration::from_millis(20);

/// Forwards what is sent to its own port to a target, and back.
pub struct Link {
    shared: Arc<Shared>,
    address: SocketAddr,
    listener: Option<(Arc<TcpListener>, JoinHandle<()>)>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Where new connections lead.
    target: String,
    /// No listener: the kernel refuses connections.
    refusing: bool,
    /// Nothing moves, and nothing is told to either end.
    frozen: bool,
    bytewise: bool,
    delay: Duration,
    /// The connections that are open.
    open: Vec<Weak<Wire>>,
    /// All that were ever accepted.
    accepted: usize,
}

/// One connection. The sockets close when both directions are done with it.
struct Wire {
    near: TcpStream,
    far: TcpStream,
    cut: AtomicBool,
}

impl Link {
    /// A link to `target` (`HOST:PORT`), which need not listen yet.
    pub fn to(target: impl Into<String>) -> Self {
        Self::at((Ipv4Addr::LOCALHOST, 0).into(), target)
    }

    /// The same with a near end of the caller's choice.
    pub fn at(near: SocketAddr, target: impl Into<String>) -> Self {
        let listener = TcpListener::bind(near).expect("the address is free");
        let address = listener.local_addr().expect("a bound listener has an address");
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                target: target.into(),
                ..State::default()
            }),
            changed: Condvar::new(),
        });
        let mut link = Self {
            shared,
            address,
            listener: None,
        };
        link.accept_on(listener);
        link
    }

    /// `127.0.0.1:PORT` of the near end.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// How many connections there have been.
    pub fn accepted(&self) -> usize {
        self.shared.state().accepted
    }

    /// New connections lead elsewhere; open ones stay.
    pub fn lead_to(&self, target: impl Into<String>) {
        self.shared.state().target = target.into();
    }

    /// Resets all open connections at both ends.
    pub fn cut(&self) {
        for wire in self.shared.state().open.drain(..) {
            if let Some(wire) = wire.upgrade() {
                wire.cut();
            }
        }
        self.shared.changed.notify_all();
    }

    /// Refuses new connections; open ones stay.
    pub fn refuse(&mut self) {
        self.shared.state().refusing = true;
        self.stop_listening();
    }

    /// Takes new connections again, on the same port.
    pub fn admit(&mut self) {
        if !std::mem::take(&mut self.shared.state().refusing) {
            return;
        }
        let listener = listen_again(self.address).expect("the port is still this link's");
        self.accept_on(listener);
    }

    /// Lets nothing through and says nothing, as a network that has gone does. New connections hang too.
    pub fn freeze(&self) {
        self.shared.state().frozen = true;
    }

    /// Lets everything through again, what was held back first.
    pub fn thaw(&self) {
        self.shared.state().frozen = false;
        self.shared.changed.notify_all();
    }

    /// Holds each piece back for this long, in both directions.
    pub fn delay(&self, delay: Duration) {
        self.shared.state().delay = delay;
    }

    /// Sends each byte in a segment of its own.
    pub fn bytewise(&self, bytewise: bool) {
        self.shared.state().bytewise = bytewise;
    }

    fn accept_on(&mut self, listener: TcpListener) {
        let listener = Arc::new(listener);
        let (shared, accepting) = (Arc::clone(&self.shared), Arc::clone(&listener));
        let thread = thread::spawn(move || shared.accept(&accepting));
        self.listener = Some((listener, thread));
    }

    fn stop_listening(&mut self) {
        if let Some((listener, thread)) = self.listener.take() {
            super::stop_listening(&listener);
            let _ = thread.join();
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        {
            let mut state = self.shared.state();
            state.refusing = true;
            state.frozen = false;
        }
        self.stop_listening();
        self.cut();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for near in listener.incoming() {
            if self.state().refusing {
                return;
            }
            if let Ok(near) = near {
                let shared = Arc::clone(self);
                thread::spawn(move || shared.connect(near));
            }
        }
    }

    /// Joins a connection to the target; one that the target refuses is closed.
    fn connect(self: &Arc<Self>, near: TcpStream) {
        self.state().accepted += 1;
        self.wait_while_frozen(None);
        let target = self.state().target.clone();
        // Failing means that one end is gone, which the other end sees.
        let Ok(far) = TcpStream::connect(target) else {
            return;
        };
        for stream in [&near, &far] {
            let _ = stream.set_nodelay(true);
            let _ = stream.set_write_timeout(Some(WRITE_SLICE));
        }
        let wire = Arc::new(Wire {
            near,
            far,
            cut: AtomicBool::new(false),
        });
        {
            let mut state = self.state();
            state.open.retain(|wire| wire.strong_count() > 0);
            state.open.push(Arc::downgrade(&wire));
        }
        let (shared, back) = (Arc::clone(self), Arc::clone(&wire));
        thread::spawn(move || shared.forward(&back, &back.far, &back.near));
        self.forward(&wire, &wire.near, &wire.far);
    }

    fn forward(&self, wire: &Wire, mut from: &TcpStream, to: &TcpStream) {
        let mut chunk = vec![0; CHUNK];
        loop {
            let length = match from.read(&mut chunk) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            if self.send(wire, to, &chunk[..length]).is_err() {
                break;
            }
        }
        self.wait_while_frozen(Some(wire));
        if !wire.is_cut() {
            // Half-closes travel too.
            let _ = to.shutdown(Shutdown::Write);
            let _ = from.shutdown(Shutdown::Read);
        }
    }

    fn send(&self, wire: &Wire, to: &TcpStream, bytes: &[u8]) -> io::Result<()> {
        self.wait_while_frozen(Some(wire));
        if wire.is_cut() {
            return Err(ErrorKind::ConnectionAborted.into());
        }
        let (delay, bytewise) = {
            let state = self.state();
            (state.delay, state.bytewise)
        };
        if !delay.is_zero() {
            thread::sleep(delay);
        }
        if bytewise {
            return bytes.chunks(1).try_for_each(|byte| wire.write(to, byte));
        }
        wire.write(to, bytes)
    }

    fn wait_while_frozen(&self, wire: Option<&Wire>) {
        let mut state = self.state();
        while state.frozen && !wire.is_some_and(Wire::is_cut) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Wire {
    /// Makes the closing of both sockets a reset, and both directions stop.
    fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
        for stream in [&self.near, &self.far] {
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
            // Wakes the thread that reads, and unlike a shutdown for writing tells the peer nothing.
            let _ = stream.shutdown(Shutdown::Read);
        }
    }

    fn is_cut(&self) -> bool {
        self.cut.load(Ordering::SeqCst)
    }

    fn write(&self, mut to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match to.write(bytes) {
                Ok(length) => bytes = &bytes[length..],
                Err(error) if self.is_cut() => return Err(error),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Binds a port that connections of an earlier listener may still use.
fn listen_again(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
