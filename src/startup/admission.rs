//! By what a client may come in, and whether it is whom its connection says: all that is settled before a password.

use super::{
    error::StartupError,
    login::{Policy, Request},
};
use crate::{
    auth::{
        AuthError,
        access::{Access, AccessRules, ClientCert, Method, Mismatch, Origin, Visit},
        hba::Interface,
    },
    net::{self, PeerAddress, Socket},
    tls::Stream,
};

/// By what the client has to prove the rest.
pub(super) async fn admit<'a>(
    stream: &Stream,
    request: &Request,
    policy: &'a Policy,
    peer: PeerAddress,
) -> Result<&'a Access, StartupError> {
    let visit = Visit {
        origin: match peer {
            PeerAddress::Ip(address, _) => Origin::Ip(address),
            PeerAddress::Local => Origin::Local,
        },
        tls: stream.is_tls(),
        database: &request.database,
        user: &request.user,
        replication: request.replication,
    };
    let rules = &*policy.access;
    let access = rules
        .access(&visit, &interfaces(rules)?)
        .map_err(AuthError::Denied)?;
    if access.clientcert != ClientCert::Off {
        let names = stream.client_names();
        let names = names.map_err(|error| Mismatch::Unusable(error.to_string().into()));
        rules
            .check_certificate(access, names, &request.user)
            .map_err(AuthError::Identity)?;
    }
    if access.method == Method::Peer {
        check_peer(rules, access, stream.socket(), &request.user).await?;
    }
    Ok(access)
}

/// This machine's addresses, where a line asks for them. They may change, so they are looked up each time.
fn interfaces(rules: &AccessRules) -> Result<Vec<Interface>, StartupError> {
    if !rules.asks_for_interfaces() {
        return Ok(Vec::new());
    }
    let interfaces = net::interfaces().map_err(StartupError::Interfaces)?;
    let interface = |(address, mask)| Interface { address, mask };
    Ok(interfaces.into_iter().map(interface).collect())
}

async fn check_peer(
    rules: &AccessRules,
    access: &Access,
    socket: &Socket,
    user: &str,
) -> Result<(), StartupError> {
    let name = match socket.peer_uid() {
        // Whoever keeps the names may be asked over a network.
        Some(uid) => tokio::task::spawn_blocking(move || net::user_name(uid))
            .await
            .unwrap_or_else(|error| Err(error.into()))
            .map_err(StartupError::UserName)?
            .ok_or(Mismatch::UnknownUid(uid)),
        None => Err(Mismatch::NoCredentials),
    };
    let checked = rules.check_peer(access, name.as_deref().map_err(Clone::clone), user);
    Ok(checked.map_err(AuthError::Identity)?)
}
