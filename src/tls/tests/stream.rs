//! The stream after the handshake: readiness, the end, and the move between runtimes.

use std::{
    future::poll_fn,
    num::NonZeroU32,
    task::{Context, Poll, Waker},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::{Builder, Runtime},
};

use super::fixtures::{Authority, Files, handshake, plain_acceptor, plain_connector, talk};
use crate::{
    config::{ListenAddress, Tcp},
    net::{BindOptions, Listener, Socket, Tuning},
    tls::Stream,
};

async fn tls_pair() -> (Stream, Stream) {
    let files = Files::new();
    let acceptor = plain_acceptor(&files, &Authority::new("ca"));
    let (client, server) = handshake(&plain_connector(None), "localhost", &acceptor).await;
    (client.unwrap(), server.unwrap())
}

/// Two ends of a TCP connection over loopback, both in the current runtime.
async fn tcp_pair() -> (Socket, Socket) {
    let any_port = ListenAddress::Tcp("127.0.0.1:0".parse().unwrap());
    let options = BindOptions {
        backlog: NonZeroU32::MIN,
        unix_socket_mode: 0,
        unix_socket_group: None,
        tuning: Tuning::default(),
    };
    let mut listener = Listener::bind(&any_port, &options).unwrap();
    let ListenAddress::Tcp(address) = *listener.local_address() else {
        panic!("not TCP");
    };
    let near = Socket::connect_address(address, &Tcp::default()).await.unwrap();
    let (far, _) = listener.accept().await;
    (near, far)
}

async fn tls_over_tcp() -> (Stream, Stream) {
    let files = Files::new();
    let acceptor = plain_acceptor(&files, &Authority::new("ca"));
    let connector = plain_connector(None);
    let (near, far) = tcp_pair().await;
    let (client, server) = tokio::join!(connector.connect(near, "localhost"), acceptor.accept(far));
    (client.unwrap(), server.unwrap())
}

fn readable(stream: &Stream) -> bool {
    let poll = stream.poll_read_ready(&mut Context::from_waker(Waker::noop()));
    matches!(poll, Poll::Ready(Ok(())))
}

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

#[tokio::test]
async fn plaintext_left_in_the_session_makes_it_readable() {
    let (mut client, mut server) = tls_pair().await;
    assert!(!readable(&server));
    client.write_all(b"ping").await.unwrap();
    client.flush().await.unwrap();
    assert_eq!(server.read_u8().await.unwrap(), b'p');
    // A pipe in memory never reports readiness itself, so this comes from the session.
    assert!(readable(&server));
    let mut rest = [0; 3];
    server.read_exact(&mut rest).await.unwrap();
    assert!(!readable(&server));
}

#[tokio::test]
async fn bytes_on_the_socket_and_its_end_make_it_readable() {
    let (mut client, mut server) = tls_over_tcp().await;
    talk(&mut client, &mut server).await;
    let mut buffer = [0; 64];
    client.write_all(b"more").await.unwrap();
    client.flush().await.unwrap();
    poll_fn(|cx| server.poll_read_ready(cx)).await.unwrap();
    assert_eq!(server.read(&mut buffer).await.unwrap(), 4);
    assert!(!readable(&server));
    drop(client);
    poll_fn(|cx| server.poll_read_ready(cx)).await.unwrap();
    assert_eq!(server.read(&mut buffer).await.unwrap(), 0);
}

#[tokio::test]
async fn the_end_reads_as_the_end_with_or_without_notice() {
    let mut buffer = [0; 8];
    let (mut client, mut server) = tls_pair().await;
    client.shutdown().await.unwrap();
    assert_eq!(server.read(&mut buffer).await.unwrap(), 0);
    assert!(readable(&server));

    let (mut client, server) = tls_pair().await;
    drop(server);
    assert_eq!(client.read(&mut buffer).await.unwrap(), 0);
    assert_eq!(client.read(&mut buffer).await.unwrap(), 0);
}

#[tokio::test]
async fn a_flush_carries_what_a_full_socket_held_back() {
    let (mut client, mut server) = tls_pair().await;
    let sent = vec![7; 1 << 20];
    let mut received = vec![0; sent.len()];
    let write = async {
        client.write_all(&sent).await?;
        client.flush().await
    };
    let (written, read) = tokio::join!(write, server.read_exact(&mut received));
    written.unwrap();
    read.unwrap();
    assert_eq!(received, sent);
}

#[test]
fn a_connection_outlives_the_runtime_it_was_made_on() {
    let (first, second) = (current_thread(), current_thread());
    let (mut client, mut server) = first.block_on(async {
        let (mut client, mut server) = tls_over_tcp().await;
        talk(&mut client, &mut server).await;
        // Half of it is decrypted before the move and must not get lost.
        client.write_all(b"early").await.unwrap();
        client.flush().await.unwrap();
        assert_eq!(server.read_u8().await.unwrap(), b'e');
        (client, server)
    });
    second.block_on(async {
        client.rehome().unwrap();
        server.rehome().unwrap();
    });
    drop(first);
    second.block_on(async {
        let mut rest = [0; 4];
        server.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"arly");
        talk(&mut client, &mut server).await;
    });
}

#[test]
fn a_plain_connection_moves_too() {
    let (first, second) = (current_thread(), current_thread());
    let (near, far) = first.block_on(tcp_pair());
    let (mut client, mut server) = (Stream::Plain(near), Stream::Plain(far));
    second.block_on(async {
        client.rehome().unwrap();
        server.rehome().unwrap();
        talk(&mut client, &mut server).await;
    });
}
