//! Fuzzing of what a stranger says before it is known: packets without a type byte, and `options`.

use super::{login, options};
use crate::wire::{
    fuzzing::{Input, Pipe, complete},
    startup::{self, MAX_PACKET, Packet, PacketError},
    stream::{Framed, ReadError},
};

/// A packet is the same whichever way it is cut, nothing behind it is lost, and a request for a session can be
/// made from it or is refused.
pub fn startup_packet(data: &[u8]) {
    let pieces = Input(data).pieces();
    let stream = pieces.concat();
    let (cut, whole) = (read(&pieces), read(&[&stream]));
    assert_eq!(cut, whole);
    let Ok(packet) = whole else { return };
    match packet {
        Packet::Startup(startup) => {
            let size = |text: &String| text.len() + 1;
            let known: usize = startup.parameters.iter().map(|(k, v)| size(k) + size(v)).sum();
            let options: usize = startup.protocol_options.iter().map(size).sum();
            assert!(known + options <= MAX_PACKET);
            if let Ok(request) = login::request(startup) {
                assert!(!request.user.is_empty() && !request.database.is_empty());
            }
        }
        Packet::Cancel(key) => assert!((4..=256).contains(&key.secret.len())),
        Packet::SslRequest | Packet::GssEncRequest => {}
    }
}

fn read(pieces: &[&[u8]]) -> Result<Packet, Option<PacketError>> {
    let stream = pieces.concat();
    let mut framed = Framed::new(Pipe::new(pieces));
    let packet = complete(framed.read_packet()).map_err(|error| match error {
        ReadError::Packet(error) => Some(error),
        _ => None,
    })?;
    let length = stream.first_chunk().map(|length| startup::body_length(*length));
    let end = 4 + length.expect("there is a packet").expect("it has a length");
    let mut behind = vec![0; framed.held()];
    framed.take_held(&mut behind);
    behind.extend(std::iter::from_fn(|| complete(framed.read_byte()).ok()));
    assert_eq!(Some(&behind[..]), stream.get(end..), "nothing behind it is lost");
    Ok(packet)
}

/// What `options` says can be written again and says the same.
pub fn startup_options(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(settings) = options::parse(&text) else {
        return;
    };
    let mut again = String::new();
    for (name, value) in &settings {
        again.push_str("-c ");
        for character in format!("{name}={value}").chars() {
            again.extend(['\\', character]);
        }
        again.push(' ');
    }
    assert_eq!(options::parse(&again).as_ref(), Ok(&settings));
}
