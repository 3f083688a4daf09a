//! Discovery in Kubernetes, against a played API server that does what real ones do, and what goes wrong with them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a helper fails the test"
)]

mod support;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, Ipv4Addr, TcpStream},
    time::Duration,
};

use support::api_server::{ApiServer, EndpointSpec, Fault, Framing, Resource, Service, WatchEnd};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/db/endpointslices";

/// Sends a GET and reads to the end of the connection.
fn get(server: &ApiServer, path: &str) -> String {
    let mut text = String::new();
    // A reset is an end as well.
    let _ = request(server, path).read_to_string(&mut text);
    text
}

fn request(server: &ApiServer, path: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let token = server.token();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n"
    )
    .unwrap();
    BufReader::new(stream)
}

mod the_played_server {
    use super::*;

    #[test]
    fn lists_what_is_selected_with_and_without_a_length() {
        let server = ApiServer::start();
        server.slice("pg", Service::Rw, &[EndpointSpec::ready("pg-1", HERE, 5432)]);
        server.slice("pg", Service::R, &[]);
        server.slice("pg", Service::Ro, &[]);
        let rw = get(
            &server,
            &format!("{SLICES}?labelSelector=kubernetes.io%2Fservice-name%3Dpg-rw"),
        );
        assert!(
            rw.starts_with("HTTP/1.1 200 OK\r\n") && rw.contains("Content-Length: "),
            "{rw}"
        );
        assert!(rw.contains("pg-1") && !rw.contains("\"pg-r\""), "{rw}");
        let both = "labelSelector=kubernetes.io%2Fservice-name+in+%28pg-rw%2Cpg-ro%2Cpg-r%29";
        let both = get(&server, &format!("{SLICES}?{both}"));
        assert!(
            both.contains("Transfer-Encoding: chunked") && both.contains("\r\n800\r\n"),
            "{both}"
        );
        assert!(both.contains("\"endpoints\":null"), "{both}");
        let requests = server.requests();
        assert_eq!(requests[0].label_selector, "kubernetes.io/service-name=pg-rw");
        assert_eq!(
            (requests[0].verb, requests[0].resource),
            ("list", Resource::EndpointSlices)
        );
    }

    #[test]
    fn watches_say_what_has_changed() {
        let server = ApiServer::start();
        server.slice("pg", Service::Rw, &[EndpointSpec::ready("pg-1", HERE, 5432)]);
        server.framing(Framing::Crumbs);
        let stream = request(
            &server,
            &format!("{SLICES}?watch=1&allowWatchBookmarks=true&timeoutSeconds=1"),
        );
        support::eventually("the watch is open", || server.watches() == 1);
        server.slice("pg", Service::Rw, &[EndpointSpec::unready("pg-1", HERE, 5432)]);
        server.delete_slice("pg", Service::Rw);
        let events = events(stream);
        let kinds: Vec<_> = events
            .iter()
            .map(|event| event["type"].as_str().unwrap())
            .collect();
        assert_eq!(
            kinds[..4],
            ["ADDED", "BOOKMARK", "MODIFIED", "DELETED"],
            "{kinds:?}"
        );
        assert_eq!(events[1]["object"]["endpoints"], serde_json::Value::Null);
        assert_eq!(events[3]["object"]["endpoints"][0]["targetRef"]["name"], "pg-1");
    }

    #[test]
    fn faults_and_their_end() {
        let server = ApiServer::start();
        server.fault(Fault::TooManyRequests);
        assert!(get(&server, SLICES).contains("text/plain"));
        server.heal();
        let version = server.apply_and_version();
        server.compact();
        let expired = get(&server, &format!("{SLICES}?watch=1&resourceVersion={version}"));
        assert!(
            expired.starts_with("HTTP/1.1 200") && expired.contains("\"code\":410"),
            "{expired}"
        );
        assert!(expired.ends_with("0\r\n\r\n"), "{expired}");
        let stream = request(&server, &format!("{SLICES}?watch=1"));
        support::eventually("the watch is open", || server.watches() == 1);
        server.end_watches(WatchEnd::Cut);
        assert!(!text(stream).ends_with("0\r\n\r\n"));
        server.kill();
        assert!(TcpStream::connect(server.address()).is_err());
        server.heal();
        assert!(get(&server, SLICES).starts_with("HTTP/1.1 200"));
        server.expire_token();
        server.forbid(Resource::EndpointSlices);
        assert!(get(&server, SLICES).starts_with("HTTP/1.1 403"));
    }

    impl ApiServer {
        fn apply_and_version(&self) -> String {
            self.slice("pg", Service::Rw, &[]);
            let list = get(self, SLICES);
            let body: serde_json::Value =
                serde_json::from_str(list.split("\r\n\r\n").nth(1).unwrap()).unwrap();
            body["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
        }
    }

    fn text(mut stream: BufReader<TcpStream>) -> String {
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        text
    }

    /// Takes the chunks away and reads the lines.
    fn events(mut stream: BufReader<TcpStream>) -> Vec<serde_json::Value> {
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            stream.read_line(&mut line).unwrap();
        }
        let mut body = Vec::new();
        loop {
            line.clear();
            stream.read_line(&mut line).unwrap();
            let length = usize::from_str_radix(line.trim(), 16).unwrap();
            let mut chunk = vec![0; length + 2];
            stream.read_exact(&mut chunk).unwrap();
            body.extend_from_slice(&chunk[..length]);
            if length == 0 {
                return String::from_utf8(body)
                    .unwrap()
                    .lines()
                    .map(|line| serde_json::from_str(line).unwrap())
                    .collect();
            }
        }
    }
}
