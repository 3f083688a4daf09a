//! Opening a stream to a server: which address, socket, TLS.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use super::{stagger::Pulse, target::Target};
use crate::{
    net::Socket,
    server::{error::ConnectError, names::Host},
    tls::Stream,
    types::{Endpoint, TlsMode},
    wire::{frontend, stream::Framed},
};

/// How long a host may take to accept a connection: time for two packets that are lost.
const ACCEPT: Duration = Duration::from_secs(3);

/// An endpoint, and where it is.
#[derive(Debug, Clone)]
pub struct Address {
    /// The endpoint, as it is known to people.
    pub endpoint: Endpoint,
    /// The address that its name stands for; `None` for a unix socket, and where any will do.
    pub at: Option<SocketAddr>,
    /// The name.
    pub(in crate::server) host: Option<Arc<Host>>,
}

impl Address {
    /// The endpoint, at whichever address.
    pub(super) fn of(endpoint: &Endpoint) -> Self {
        let at = match endpoint {
            Endpoint::Tcp { host, port } => host.parse().ok().map(|ip| SocketAddr::new(ip, *port)),
            Endpoint::Unix(_) => None,
        };
        Self {
            endpoint: endpoint.clone(),
            at,
            host: None,
        }
    }

    /// Whether the name stands for another address by now.
    pub(in crate::server) fn has_moved(&self) -> bool {
        match (&self.host, self.at) {
            (Some(host), Some(at)) => !host.has(at.ip()),
            _ => false,
        }
    }

    /// The server there, whatever name leads to it.
    pub(super) fn server(&self) -> Endpoint {
        match self.at {
            Some(at) => Endpoint::Tcp {
                host: at.ip().to_string(),
                port: at.port(),
            },
            None => self.endpoint.clone(),
        }
    }
}

/// Opens the stream to an endpoint as every connection of this pooler does, cancel requests included.
pub(in crate::server) async fn open(
    target: &Target,
    address: &Address,
    ask_for_tls: bool,
    pulse: &Pulse,
) -> Result<Framed<Stream>, ConnectError> {
    let (connector, endpoint) = (&target.connector, &address.endpoint);
    let io = |source: io::Error| ConnectError::Io {
        endpoint: endpoint.clone(),
        source,
    };
    let socket = connect(target, address).await.map_err(io)?;
    pulse.beat();
    let mut stream = Framed::new(Stream::Plain(socket));
    let Endpoint::Tcp { host, .. } = endpoint else {
        return Ok(stream);
    };
    if !ask_for_tls || connector.mode() == TlsMode::Disable {
        return Ok(stream);
    }
    frontend::ssl_request(stream.output());
    stream.flush().await.map_err(io)?;
    let answer = stream.read_byte().await?;
    pulse.beat();
    match answer {
        b'S' => {
            let Stream::Plain(socket) = stream.into_inner().map_err(|_| ConnectError::Protocol)? else {
                return Err(ConnectError::Protocol);
            };
            let name = target.server_name.as_deref().unwrap_or(host);
            let stream = connector.connect(socket, name).await.map_err(ConnectError::Tls)?;
            pulse.beat();
            Ok(Framed::new(stream))
        }
        b'N' if matches!(connector.mode(), TlsMode::Allow | TlsMode::Prefer) => Ok(stream),
        b'N' => Err(ConnectError::TlsRefused {
            endpoint: endpoint.clone(),
        }),
        // What a server says before TLS may be anyone's words (CVE-2024-10977): it is not shown.
        b'E' => Err(ConnectError::TlsUnanswered {
            endpoint: endpoint.clone(),
        }),
        _ => Err(ConnectError::Protocol),
    }
}

/// A host that is there accepts at once, however busy it is; a log-in may take longer.
async fn connect(target: &Target, address: &Address) -> io::Result<Socket> {
    let options = &target.options.tcp;
    match (&address.endpoint, address.at) {
        (Endpoint::Unix(path), _) => Socket::connect_unix(path).await,
        (Endpoint::Tcp { .. }, Some(at)) => {
            match tokio::time::timeout(ACCEPT, Socket::connect_address(at, options)).await {
                Ok(connected) => connected,
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            }
        }
        (Endpoint::Tcp { host, port }, None) => Socket::connect_tcp(host, *port, options).await,
    }
}
