//! Encryption: SSLRequest, GSSENCRequest and TLS without asking, up to the packet that says what is wanted.

use super::{error::StartupError, login::Policy, newcomers::Place, refuse::refuse};
use crate::{
    net::Socket,
    tls::{self, Acceptor, Stream},
    types::{BackendKey, TlsMode},
    wire::{
        startup::{Packet, Startup},
        stream::{Framed, ReadAhead, ReadError},
    },
};

/// The first byte of a TLS handshake record; no startup packet is long enough to begin with it.
const TLS_HANDSHAKE: u8 = 0x16;

/// What a client wants, and the stream it said so on.
#[derive(Debug)]
pub(super) enum Opening {
    Startup(Framed<Stream>, Startup),
    Cancel(Framed<Stream>, BackendKey),
}

/// Which requests have been answered; each may be made once, in either order.
#[derive(Debug, Default)]
struct Asked {
    ssl: bool,
    gss: bool,
}

pub(super) async fn negotiate(
    socket: Socket,
    policy: &Policy,
    place: &Place,
) -> Result<Opening, StartupError> {
    let mut stream = hear(socket, policy, place).await?;
    let mut asked = Asked {
        ssl: stream.get_ref().is_tls(),
        gss: stream.get_ref().is_tls(),
    };
    loop {
        let packet = match place.awaiting(next_packet(&mut stream, &mut asked)).await {
            Ok(packet) => packet,
            Err(error) => {
                refuse(&mut stream, &error).await;
                return Err(error);
            }
        };
        match packet {
            Packet::SslRequest => {
                stream = place
                    .awaiting(Box::pin(answer_ssl_request(stream, policy)))
                    .await?;
                asked.gss |= stream.get_ref().is_tls();
            }
            Packet::GssEncRequest => answer(&mut stream, b'N').await?,
            Packet::Cancel(key) => return Ok(Opening::Cancel(stream, key)),
            Packet::Startup(startup) => return Ok(Opening::Startup(stream, startup)),
        }
    }
}

/// Waits for the client's first words.
async fn hear(mut socket: Socket, policy: &Policy, place: &Place) -> Result<Framed<Stream>, StartupError> {
    let Some(acceptor) = &policy.acceptor else {
        let mut stream = Framed::new(Stream::Plain(socket));
        stream.read_more().await?;
        place.heard();
        return match stream.held_bytes().first() {
            Some(&TLS_HANDSHAKE) => Err(StartupError::Encryption),
            _ => Ok(stream),
        };
    };
    // TLS has to read them itself.
    let first = socket.peek_byte().await.map_err(ReadError::from)?;
    if first.is_some() {
        place.heard();
    }
    match first {
        Some(TLS_HANDSHAKE) => place.awaiting(Box::pin(direct(acceptor, socket))).await,
        _ => Ok(Framed::new(Stream::Plain(socket))),
    }
}

async fn next_packet(stream: &mut Framed<Stream>, asked: &mut Asked) -> Result<Packet, StartupError> {
    let packet = stream.read_packet().await?;
    let again = match packet {
        Packet::SslRequest => std::mem::replace(&mut asked.ssl, true),
        Packet::GssEncRequest => std::mem::replace(&mut asked.gss, true),
        Packet::Cancel(_) | Packet::Startup(_) => false,
    };
    if again {
        Err(StartupError::Encryption)
    } else {
        Ok(packet)
    }
}

/// Whether a client may log in over this stream. A unix socket is as good as TLS.
pub(super) fn check_tls(stream: &Stream, mode: TlsMode) -> Result<(), StartupError> {
    let required = matches!(mode, TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull);
    let local = stream.socket().is_unix();
    if required && !stream.is_tls() && !local {
        Err(StartupError::TlsRequired)
    } else {
        Ok(())
    }
}

async fn direct(acceptor: &Acceptor, socket: Socket) -> Result<Framed<Stream>, StartupError> {
    // A handshake is a task's business: all of it may be there already, and whoever accepts has others to see to.
    tokio::task::yield_now().await;
    let stream = acceptor.accept(socket).await.map_err(StartupError::Tls)?;
    if stream.alpn() != Some(tls::ALPN) {
        return Err(StartupError::NoAlpn);
    }
    Ok(Framed::new(stream))
}

async fn answer_ssl_request(
    mut stream: Framed<Stream>,
    policy: &Policy,
) -> Result<Framed<Stream>, StartupError> {
    let local = stream.get_ref().socket().is_unix();
    let Some(acceptor) = policy.acceptor.as_ref().filter(|_| !local) else {
        answer(&mut stream, b'N').await?;
        return Ok(stream);
    };
    // Whoever sends before the answer sends in clear what could be taken for encrypted.
    if stream.held() > 0 || stream.get_ref().socket().has_unread() {
        let error = StartupError::from(ReadAhead);
        refuse(&mut stream, &error).await;
        return Err(error);
    }
    answer(&mut stream, b'S').await?;
    let Stream::Plain(socket) = stream.into_inner()? else {
        return Err(StartupError::Encryption);
    };
    Ok(Framed::new(
        acceptor.accept(socket).await.map_err(StartupError::Tls)?,
    ))
}

async fn answer(stream: &mut Framed<Stream>, byte: u8) -> Result<(), StartupError> {
    stream.output().extend_from_slice(&[byte]);
    stream.flush().await.map_err(StartupError::Write)
}
