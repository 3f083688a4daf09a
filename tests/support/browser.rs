//! Chromium without a window, driven by chromedriver (WebDriver, JSON over HTTP).

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Command, Stdio},
};

use nix::sys::signal::Signal;
use pgweir::cli::demo::{
    child::{OwnedChild, find_in_path, tied},
    ports,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{LIMIT, eventually};

/// A browser with one page. Dropped, it is ended with all that it has started.
pub struct Browser {
    driver: OwnedChild,
    address: SocketAddr,
    session: String,
    _profile: TempDir,
}

impl Browser {
    /// A browser of this width and height, which prefers light or dark pages; `None` where Chromium or chromedriver is
    /// not installed (Debian: chromium, chromium-driver).
    pub fn start((width, height): (u32, u32), dark: bool) -> Option<Self> {
        let program = find_in_path("chromedriver")?;
        let chromium = ["chromium", "chromium-browser", "google-chrome"];
        let chromium = chromium.into_iter().find_map(find_in_path)?;
        let port = ports::free(None).expect("a free port");
        let profile = tempfile::tempdir().expect("a directory is made");
        let mut command = tied(program, Signal::SIGKILL);
        command
            .arg(format!("--port={port}"))
            .env("TMPDIR", profile.path())
            .env("HOME", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut browser = Self {
            driver: OwnedChild::spawn(command).expect("chromedriver starts"),
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            session: String::new(),
            _profile: profile,
        };
        eventually("chromedriver listens", || {
            TcpStream::connect(browser.address).is_ok()
        });
        let scheme = if dark { "0" } else { "1" };
        let options = json!({
            "binary": chromium,
            "args": [
                "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
                format!("--window-size={width},{height}"),
                format!("--blink-settings=preferredColorScheme={scheme}"),
            ],
            "mobileEmulation": {"deviceMetrics": {"width": width, "height": height, "pixelRatio": 1.0, "mobile": false}},
        });
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let session = browser.ask("POST", "/session", &wanted);
        session["sessionId"]
            .as_str()
            .expect("a session has an id")
            .clone_into(&mut browser.session);
        Some(browser)
    }

    /// Loads a page.
    pub fn open(&self, url: &str) {
        self.command("POST", "/url", &json!({ "url": url }));
    }

    /// What a script in the page returns.
    pub fn run(&self, script: &str) -> Value {
        self.command("POST", "/execute/sync", &json!({"script": script, "args": []}))
    }

    /// Waits until a script in the page returns true.
    #[track_caller]
    pub fn wait(&self, what: &str, condition: &str) {
        let script = format!("return Boolean({condition});");
        eventually(what, || self.run(&script) == Value::Bool(true));
    }

    /// What the page and the browser have complained about.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.command("POST", "/se/log", &json!({"type": "browser"}));
        let entries = log.as_array().expect("a log is a list").iter();
        entries.map(|entry| entry["message"].to_string()).collect()
    }

    fn command(&self, method: &str, path: &str, body: &Value) -> Value {
        self.ask(method, &format!("/session/{}{path}", self.session), body)
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let mut stream = TcpStream::connect(self.address).expect("chromedriver accepts connections");
        stream
            .set_read_timeout(Some(LIMIT))
            .expect("the limit is not zero");
        let body = body.to_string();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            self.address,
            body.len()
        )
        .expect("chromedriver takes a request");
        let body = read_body(stream);
        let mut answer: Value = serde_json::from_slice(&body).expect("chromedriver answers JSON");
        let value = answer["value"].take();
        assert!(value.get("error").is_none(), "{path}: {value}");
        value
    }
}

/// chromedriver says how long its answer is, and keeps the connection open.
fn read_body(stream: TcpStream) -> Vec<u8> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("chromedriver answers");
        match line.trim().to_ascii_lowercase().split_once(':') {
            Some(("content-length", value)) => length = value.trim().parse().expect("a length"),
            Some(_) => {}
            None if line.trim().is_empty() => break,
            None => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("chromedriver answers");
    body
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Chromium ends with its session; chromedriver would leave it behind.
        if !self.session.is_empty()
            && let Ok(mut stream) = TcpStream::connect(self.address)
        {
            let path = &self.session;
            let _ = write!(
                stream,
                "DELETE /session/{path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
                self.address
            );
            let _ = stream.set_read_timeout(Some(LIMIT));
            let _ = stream.read(&mut [0]);
        }
        let _ = self.driver.signal(Signal::SIGKILL);
        let _ = self.driver.wait(LIMIT);
    }
}

/// Whether a program is there to be run.
pub fn has(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
