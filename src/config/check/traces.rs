//! `[traces]`: where spans are sent, and of what.
//!
//! It sends nothing.

use std::{net::IpAddr, time::Duration};

use crate::config::{
    address,
    observation::{Collector, Traces},
    reader::Table,
};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);
const DEFAULT_SERVICE_NAME: &str = "pgweir";
/// What a collector listens at for traces.
const PATH: &str = "/v1/traces";

pub(super) fn traces(table: &Table<'_>) -> Option<Traces> {
    if !table.has("endpoint") {
        let is_meant = table.has("ca_file") || table.has("token_file") || sample_rate(table) > 0.0;
        if is_meant {
            let hint = "set endpoint, such as \"http://otel-collector:4318\"".to_owned();
            table.problem_here("says nothing of where traces go", Some(hint));
        }
        return None;
    }
    let ca_file = table.file("ca_file");
    let token_file = table.file("token_file");
    let sample_rate = sample_rate(table);
    let query_text = table.flag("query_text").unwrap_or(false);
    let service_name = table.nonempty_string("service_name");
    let timeout = timeout(table);
    let endpoint = endpoint(table)?;
    match (endpoint.tls, table.has("ca_file")) {
        (true, false) => {
            let hint = "set ca_file to the CAs that sign the collector's certificate".to_owned();
            table.problem("endpoint", "is https, and nothing says whom to trust", Some(hint));
        }
        (false, true) => table.problem("ca_file", "is for an endpoint that is https", None),
        _ => {}
    }
    if table.has("token_file") && !endpoint.tls && !is_here(&endpoint.host) {
        let hint = "the token would be sent for everybody to read".to_owned();
        table.problem("endpoint", "must be https:// except on this machine", Some(hint));
    }
    Some(Traces {
        endpoint,
        ca_file,
        token_file,
        sample_rate,
        query_text,
        service_name: service_name.unwrap_or_else(|| DEFAULT_SERVICE_NAME.to_owned()),
        timeout,
    })
}

fn endpoint(table: &Table<'_>) -> Option<Collector> {
    let url = table.string("endpoint")?;
    let collector = collector(&url);
    if collector.is_none() {
        let hint = "such as \"http://otel-collector:4318\" or \"https://collector.example/otlp\"".to_owned();
        let message = format!("{url:?} is not the URL of a collector that speaks HTTP");
        table.problem("endpoint", message, Some(hint));
    }
    collector
}

fn collector(url: &str) -> Option<Collector> {
    let (tls, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => return None,
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = address::host_and_any_port(authority).ok()?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%".contains(&byte);
    if !path.bytes().all(is_plain) {
        return None;
    }
    let path = path.trim_end_matches('/');
    Some(Collector {
        tls,
        host: host.to_owned(),
        port: port.unwrap_or(if tls { 443 } else { 80 }),
        path: match path.ends_with(PATH) {
            true => path.to_owned(),
            false => format!("{path}{PATH}"),
        },
    })
}

fn is_here(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// A percentage, as a part of one.
fn sample_rate(table: &Table<'_>) -> f64 {
    let Some(text) = table.string("sample_rate") else {
        return 0.0;
    };
    let percent = text.strip_suffix('%').and_then(|number| number.parse().ok());
    match percent.filter(|percent: &f64| (0.0..=100.0).contains(percent)) {
        Some(percent) => percent / 100.0,
        None => {
            let hint = "such as \"0%\", \"0.1%\" or \"100%\"".to_owned();
            let message = format!("{text:?} is not a percentage");
            table.problem("sample_rate", message, Some(hint));
            0.0
        }
    }
}

fn timeout(table: &Table<'_>) -> Duration {
    let timeout = table.duration("timeout").unwrap_or(DEFAULT_TIMEOUT);
    if timeout.is_zero() || timeout > LONGEST_TIMEOUT {
        let message = format!("must be between 1ms and {}s", LONGEST_TIMEOUT.as_secs());
        table.problem("timeout", message, None);
    }
    timeout
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::parse;

    const REST: &str = "[auth]\nusers_file = \"users\"\n[databases.app]\nhosts = [\"db\"]\n";

    fn read(traces: &str) -> Result<Option<Traces>, String> {
        let text = format!("{REST}[traces]\n{traces}");
        match parse(&text, Path::new("/")) {
            Ok(settings) => Ok(settings.traces),
            Err(problems) => Err(problems.iter().map(|problem| format!("{problem}\n")).collect()),
        }
    }

    #[test]
    fn where_a_collector_is() {
        let shown = |url: &str| collector(url).map(|collector| collector.to_string());
        for (url, means) in [
            ("http://otel:4318", "http://otel:4318/v1/traces"),
            ("http://otel:4318/", "http://otel:4318/v1/traces"),
            ("http://otel/v1/traces", "http://otel:80/v1/traces"),
            ("https://x.example/otlp", "https://x.example:443/otlp/v1/traces"),
            ("http://[::1]:4318", "http://[::1]:4318/v1/traces"),
        ] {
            assert_eq!(shown(url).as_deref(), Some(means), "{url}");
        }
        for url in [
            "otel:4318",
            "grpc://otel:4317",
            "http://",
            "http://a b",
            "http://otel/?x=1",
            "http://otel:0",
        ] {
            assert_eq!(shown(url), None, "{url}");
        }
    }

    #[test]
    fn nothing_is_traced_unless_somebody_says_where_to() {
        assert_eq!(read(""), Ok(None));
        let traces = read("endpoint = \"http://otel:4318\"\nsample_rate = \"2.5%\"\n");
        let traces = traces.unwrap().unwrap();
        assert!((traces.sample_rate - 0.025).abs() < 1e-9 && !traces.query_text);
        assert_eq!(traces.service_name, "pgweir");
    }

    #[test]
    fn what_cannot_be_is_said() {
        for (text, part) in [
            ("sample_rate = \"1%\"", "says nothing of where traces go"),
            ("endpoint = \"otel\"", "is not the URL of a collector"),
            ("endpoint = \"https://otel\"", "nothing says whom to trust"),
            (
                "endpoint = \"http://otel\"\nca_file = \"x\"",
                "is for an endpoint that is https",
            ),
            (
                "endpoint = \"http://otel\"\ntoken_file = \"x\"",
                "must be https:// except",
            ),
            (
                "endpoint = \"http://otel\"\nsample_rate = \"101%\"",
                "is not a percentage",
            ),
            (
                "endpoint = \"http://otel\"\nsample_rate = \"1\"",
                "is not a percentage",
            ),
            (
                "endpoint = \"http://otel\"\nsample_rate = \"NaN%\"",
                "is not a percentage",
            ),
            ("endpoint = \"http://otel\"\ntimeout = \"0\"", "must be between"),
        ] {
            let problems = read(text).unwrap_err();
            assert!(problems.contains(part), "{text}: {problems}");
        }
        assert!(read("endpoint = \"http://127.0.0.1:1\"\ntoken_file = \"x\"").is_ok());
    }
}
