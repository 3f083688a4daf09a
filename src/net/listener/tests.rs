//! Listeners on loopback ports that the kernel chooses and on socket files in temporary directories.

use std::{
    fs,
    os::unix::{fs::MetadataExt, net::UnixListener as StdUnixListener},
    path::PathBuf,
};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::net::PeerAddress;

fn options() -> BindOptions {
    BindOptions {
        backlog: NonZeroU32::new(16).unwrap(),
        unix_socket_mode: 0o777,
        unix_socket_group: None,
        tuning: Tuning::default(),
    }
}

fn bind_loopback() -> Listener {
    let any_port = ListenAddress::Tcp("127.0.0.1:0".parse().unwrap());
    Listener::bind(&any_port, &options()).unwrap()
}

fn scripted(failures: &[Errno]) -> Listener {
    Listener {
        source: Source::Scripted(failures.iter().copied().collect()),
        address: ListenAddress::Unix("/nowhere".into()),
        tuning: Tuning::default(),
        inherited: None,
        shortage: Shortage::default(),
    }
}

fn socket_path(directory: &tempfile::TempDir) -> PathBuf {
    directory.path().join(".s.PGSQL.6432")
}

#[tokio::test]
async fn tcp_connections_arrive_with_nagle_off() {
    let mut listener = bind_loopback();
    let ListenAddress::Tcp(address) = *listener.local_address() else {
        panic!("not TCP");
    };
    assert_ne!(address.port(), 0);
    let (mut client, (mut accepted, peer)) = {
        let tcp = Tcp::default();
        let (client, accepted) = tokio::join!(
            Socket::connect_tcp("127.0.0.1", address.port(), &tcp),
            listener.accept()
        );
        (client.unwrap(), accepted)
    };
    assert_eq!(peer, client.local().unwrap());
    assert!(accepted.tcp().unwrap().tcp_nodelay().unwrap());
    client.write_all(b"x").await.unwrap();
    assert_eq!(accepted.read_u8().await.unwrap(), b'x');
}

#[tokio::test]
async fn accepted_sockets_have_the_options_of_the_moment() {
    let mut listener = bind_loopback();
    let ListenAddress::Tcp(address) = *listener.local_address() else {
        panic!("not TCP");
    };
    let tuning = listener.tuning.clone();
    let mut clients = Vec::new();
    for seconds in [21, 22] {
        tuning.set(Tcp {
            user_timeout: Duration::from_secs(seconds),
            ..Tcp::default()
        });
        clients.push(std::net::TcpStream::connect(address).unwrap());
        let (accepted, _) = listener.accept().await;
        let timeout = accepted.tcp().unwrap().tcp_user_timeout().unwrap();
        assert_eq!(timeout, Some(Duration::from_secs(seconds)));
    }
}

#[tokio::test]
async fn a_tcp_address_is_taken_once() {
    let first = bind_loopback();
    let again = Listener::bind(first.local_address(), &options());
    let Err(BindError::Socket { source, .. }) = again else {
        panic!("bound twice");
    };
    assert_eq!(source.kind(), io::ErrorKind::AddrInUse);
}

#[tokio::test]
async fn a_unix_socket_is_open_to_all_and_gone_when_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let path = socket_path(&directory);
    let mut listener = Listener::bind(&ListenAddress::Unix(path.clone()), &options()).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o777);
    let (client, accepted) = tokio::join!(Socket::connect_unix(&path), listener.accept());
    client.unwrap();
    assert_eq!(accepted.1, PeerAddress::Local);
    drop(listener);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_stale_socket_file_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = socket_path(&directory);
    // The standard library leaves the file behind, as a killed process does.
    drop(StdUnixListener::bind(&path).unwrap());
    assert!(path.exists());
    Listener::bind(&ListenAddress::Unix(path), &options()).unwrap();
}

#[tokio::test]
async fn a_live_server_keeps_its_socket_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = socket_path(&directory);
    let _live = StdUnixListener::bind(&path).unwrap();
    let refused = Listener::bind(&ListenAddress::Unix(path.clone()), &options());
    assert!(matches!(refused, Err(BindError::Taken { .. })), "{refused:?}");
    assert!(path.exists());
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = socket_path(&directory);
    fs::write(&path, "precious").unwrap();
    let refused = Listener::bind(&ListenAddress::Unix(path.clone()), &options());
    assert!(
        matches!(refused, Err(BindError::NotASocket { .. })),
        "{refused:?}"
    );
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}

#[tokio::test]
async fn another_servers_socket_file_survives_our_drop() {
    let directory = tempfile::tempdir().unwrap();
    let path = socket_path(&directory);
    let ours = Listener::bind(&ListenAddress::Unix(path.clone()), &options()).unwrap();
    // Made before ours is removed, so that the inode cannot be the same one again.
    let theirs = directory.path().join("theirs");
    let _theirs = StdUnixListener::bind(&theirs).unwrap();
    fs::rename(&theirs, &path).unwrap();
    drop(ours);
    assert!(path.exists());
}

#[tokio::test]
async fn a_shortage_is_waited_out() {
    let mut listener = scripted(&[Errno::EMFILE, Errno::ENFILE]);
    let begin = Instant::now();
    listener.accept().await;
    assert!(begin.elapsed() >= FIRST_WAIT * 3, "10 ms and 20 ms");
    assert_eq!(
        listener.shortage.wait,
        Duration::ZERO,
        "the next shortage starts small"
    );
}

#[tokio::test]
async fn a_connection_that_died_in_the_queue_costs_nothing() {
    let mut listener = scripted(&[Errno::ECONNABORTED, Errno::EPROTO, Errno::EINTR]);
    listener.accept().await;
    assert_eq!(listener.shortage.failures, 0);
    assert!(listener.shortage.until.is_none());
}

#[tokio::test]
async fn a_dropped_accept_does_not_shorten_the_wait() {
    let mut listener = scripted(&[Errno::EMFILE]);
    for _ in 0..3 {
        // Polled once, then dropped in the middle of the wait.
        tokio::select! {
            biased;
            _ = listener.accept() => panic!("did not wait"),
            () = std::future::ready(()) => {}
        }
    }
    assert!(listener.shortage.until.is_some());
}

#[test]
fn waits_double_up_to_a_second() {
    let mut shortage = Shortage::default();
    let now = Instant::now();
    let waits: Vec<_> = (0..9)
        .map(|_| {
            shortage.failed(now);
            shortage.wait.as_millis()
        })
        .collect();
    assert_eq!(waits, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
}

#[test]
fn a_lasting_shortage_is_told_once_a_minute() {
    let mut shortage = Shortage::default();
    let now = Instant::now();
    assert_eq!(shortage.failed(now), Some(1));
    assert_eq!(shortage.failed(now + Duration::from_secs(1)), None);
    shortage.over();
    assert_eq!(shortage.failed(now + Duration::from_secs(2)), None);
    assert_eq!(shortage.failed(now + LOG_INTERVAL), Some(3));
}

#[test]
fn what_is_unknown_counts_as_a_shortage() {
    for errno in [
        Errno::EMFILE,
        Errno::ENFILE,
        Errno::ENOBUFS,
        Errno::ENOMEM,
        Errno::EBADF,
    ] {
        assert!(!is_about_one_peer(&errno.into()), "{errno}");
    }
    assert!(!is_about_one_peer(&io::Error::other("strange")));
}

#[tokio::test]
async fn the_socket_file_has_the_mode_and_the_group_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = socket_path(&directory);
    // A group that this process may give a file to: its own.
    let own = nix::unistd::Group::from_gid(nix::unistd::getgid())
        .unwrap()
        .unwrap();
    let restricted = BindOptions {
        unix_socket_mode: 0o750,
        unix_socket_group: Some(own.name),
        ..options()
    };
    let _listener = Listener::bind(&ListenAddress::Unix(path.clone()), &restricted).unwrap();
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!(
        (metadata.mode() & 0o777, metadata.gid()),
        (0o750, own.gid.as_raw())
    );
}

#[tokio::test]
async fn a_group_that_does_not_exist_is_an_error_and_leaves_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = socket_path(&directory);
    let wrong = BindOptions {
        unix_socket_group: Some("no such group".to_owned()),
        ..options()
    };
    let refused = Listener::bind(&ListenAddress::Unix(path.clone()), &wrong);
    assert!(matches!(refused, Err(BindError::NoGroup { .. })));
    assert!(!path.exists());
}
