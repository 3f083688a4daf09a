//! What the client gets to see of a server's stream, and what is known about the server afterwards, do not
//! depend on how the stream is cut.

use std::{
    num::NonZeroUsize,
    path::PathBuf,
    sync::{Arc, atomic::AtomicUsize},
    time::{Duration, Instant},
};

use bytes::BytesMut;

use crate::{
    config::{LoadBalance, ServerTls, Tcp},
    net::Socket,
    routing::Wish,
    server::{
        Address, ConnectOptions, Connection, Logins, Names, Notices, Target,
        connection::Established,
        parameters::{Parameters, Source},
        state::Verdict,
    },
    tls::{self, Stream},
    topology::Cluster,
    types::{BackendKey, Endpoint, Role, TlsMode},
    wire::{frame::FrameError, fuzzing::Input, stream::Framed},
};

/// How many requests of the pooler's own come first, the types of what the client has sent, and what the server
/// says to all that.
pub fn server_stream(data: &[u8]) {
    let mut input = Input(data);
    let pooler = input.byte() % 3;
    let sent = input.counted();
    let pieces = input.pieces();
    let stream = pieces.concat();
    let (cut, whole) = (listen(pooler, sent, &pieces), listen(pooler, sent, &[&stream]));
    assert_eq!(cut, whole);
}

/// A server to which there is no way: connections are made by [`connection`].
pub(crate) fn target() -> Target {
    let settings = ServerTls {
        mode: TlsMode::Disable,
        ..ServerTls::default()
    };
    let nowhere = Endpoint::Unix(PathBuf::new());
    Target {
        cluster: Cluster::only(&nowhere, Instant::now()),
        wish: Wish {
            role: Role::Any,
            ..Wish::default()
        },
        user: "u".to_owned(),
        database: "d".to_owned(),
        startup: Vec::new(),
        connect_query: None,
        server_name: None,
        connector: Arc::new(tls::connector(&settings).expect("nothing can be wrong without TLS")),
        options: ConnectOptions {
            timeout: Duration::from_secs(1),
            tcp: Tcp::default(),
            load_balance: LoadBalance::default(),
            max_packet_size: u32::MAX,
        },
        logins: Arc::new(Logins::new(NonZeroUsize::MIN)),
        names: Arc::new(Names::system()),
        begun: AtomicUsize::new(0),
    }
}

/// A connection that has just logged in.
pub(crate) fn connection(socket: Socket, target: Arc<Target>) -> Connection {
    let mut parameters = Parameters::default();
    parameters.set("TimeZone", b"UTC", Source::Reported);
    Connection::new(Established {
        stream: Framed::new(Stream::Plain(socket)),
        parameters,
        notices: Notices::default(),
        key: BackendKey {
            pid: 1,
            secret: b"key!".as_slice().into(),
        },
        address: Address {
            endpoint: Endpoint::Unix("/nowhere".into()),
            at: None,
            host: None,
        },
        target,
    })
}

/// All that can be known at the end of a stream.
#[derive(Debug, PartialEq)]
struct Known {
    forwarded: BytesMut,
    held: usize,
    transactions: u64,
    refused: bool,
    farewell: bool,
    parameters: Parameters,
    verdict: Verdict,
}

fn listen(pooler: u8, sent: &[u8], pieces: &[&[u8]]) -> Result<Known, FrameError> {
    let socket = Socket::memory(tokio::io::duplex(1).0);
    let mut connection = connection(socket, Arc::new(target()));
    for _ in 0..pooler {
        connection.query("SELECT", &mut BytesMut::new());
    }
    for tag in sent {
        connection.note_sent(*tag);
    }
    let mut known = Known {
        forwarded: BytesMut::new(),
        held: 0,
        transactions: 0,
        refused: false,
        farewell: false,
        parameters: Parameters::default(),
        verdict: Verdict::Reuse,
    };
    let mut held = Vec::new();
    for piece in pieces {
        held.extend_from_slice(piece);
        let heard = connection.hear(&held, None)?;
        assert!(heard.forward_from <= heard.consumed && heard.consumed <= held.len());
        known.forwarded.extend_from_slice(&heard.early);
        known
            .forwarded
            .extend_from_slice(held.get(heard.forward_from..heard.consumed).unwrap_or_default());
        known.transactions += heard.transactions;
        known.refused |= heard.refused.is_some();
        known.farewell |= heard.farewell.is_some();
        held.drain(..heard.consumed);
    }
    known.held = held.len();
    known.parameters = connection.parameters().clone();
    known.verdict = connection.verdict();
    Ok(known)
}
