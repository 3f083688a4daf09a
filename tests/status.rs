//! `/status.json`, the page that shows it, and `pgweir top`, of a running process with clients that work, wait and fail.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a helper fails the test"
)]

mod support;

use std::process::{Command, Stdio};

use serde_json::Value;
use support::{
    Authority, Frame, Pooler, PoolerBuilder, RawClient, Stage, browser::Browser, eventually, fleet, frames,
    postgres,
};

/// What a client of somebody hostile may be called.
const MARKUP: &str = "<img src=x onerror=document.title='broken'>";

fn status(pooler: &Pooler) -> Value {
    let (code, text) = pooler.http_get("/status.json");
    assert_eq!(code, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

fn http(pooler: &Pooler) -> String {
    pooler
        .wait_for_log(0, r#""message":"ready""#)
        .split_once(r#""http":""#)
        .and_then(|(_, rest)| rest.split('"').next().map(str::to_owned))
        .unwrap()
}

/// A pool of one with TLS, a client that has a transaction open, and one that waits for it.
struct Scene {
    stage: Stage,
    _busy: RawClient,
    _waiting: RawClient,
}

fn scene() -> Scene {
    scene_with(|builder| builder)
}

fn scene_with(change: impl FnOnce(PoolerBuilder) -> PoolerBuilder) -> Scene {
    let postgres = postgres();
    let certificate = Authority::new("ca").unwrap().server(&["localhost"]).unwrap();
    let builder = Pooler::builder(&postgres.address())
        .client_tls("allow", &certificate)
        .set("pool.default_pool_size", "1");
    let stage = Stage {
        pooler: change(builder).start(),
        size: 1,
        postgres,
    };
    let mut busy = named(&stage, MARKUP);
    busy.query("BEGIN; CREATE TEMP TABLE kept (secret_column int)");
    let mut waiting = named(&stage, "patient");
    waiting.send(frames::query("SELECT 'secret text'"));
    stage.waits(1);
    Scene {
        stage,
        _busy: busy,
        _waiting: waiting,
    }
}

fn named(stage: &Stage, application: &str) -> RawClient {
    let mut client = RawClient::connect(stage.pooler.address());
    let parameters = [
        ("user", "app"),
        ("database", "app"),
        ("application_name", application),
    ];
    client.authenticate(&parameters, "secret");
    client
}

/// A log-in that is refused, with SQLSTATE 3D000 or another.
fn refused(pooler: &Pooler) -> Vec<Frame> {
    let mut client = RawClient::connect(pooler.address());
    let parameters = [("user", "app"), ("database", "app"), ("replication", "database")];
    client.send(frames::startup(frames::PROTOCOL_3_0, &parameters));
    client.read_to_end()
}

#[test]
fn the_status_says_who_works_who_waits_and_what_went_wrong() {
    let scene = scene();
    let pooler = &scene.stage.pooler;
    refused(pooler);
    let mut seen = Value::Null;
    eventually(
        "the transaction is a second old, and what was refused is known",
        || {
            seen = status(pooler);
            !seen["transactions"].as_array().unwrap().is_empty()
                && !seen["errors"].as_array().unwrap().is_empty()
        },
    );
    assert_eq!(seen["process"]["phase"], "running");
    assert_eq!(seen["process"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(seen["clients"]["connected"], 2);
    assert_eq!(seen["clients"]["waiting"], 1);
    assert_eq!(seen["servers"]["active"], 1);
    let cluster = &seen["clusters"][0];
    assert_eq!(cluster["phase"], "serving");
    assert_eq!(cluster["members"][0]["active"], 1, "{cluster}");
    assert_eq!(cluster["history"][0]["phase"], "serving");
    let pool = &seen["pools"][0];
    assert_eq!((&pool["database"], &pool["waiting"]), (&"app".into(), &1.into()));
    assert_eq!(pool["servers"]["limit"], 1);
    let open = &seen["transactions"][0];
    assert_eq!(open["application"], MARKUP);
    assert_eq!(open["state"], "idle in transaction");
    let queue = &seen["queues"][0];
    assert_eq!(queue["clients"][0]["application"], "patient");
    let cause = queue["waits_for"].as_str().unwrap();
    assert!(
        cause.starts_with("one of the pool's 1 server connections, which are all in use; longest by"),
        "{cause}"
    );
    assert_eq!(seen["certificates"][0]["setting"], "listen.tls.cert_file");
    let error = &seen["errors"][0];
    assert!(
        error["hint"].is_string() && error["sqlstate"].is_string(),
        "{error}"
    );
    assert_eq!(error["kind"], "refusal");
    let text = seen.to_string();
    for hidden in ["secret text", "secret_column", "SELECT"] {
        assert!(!text.contains(hidden), "{hidden}: {text}");
    }
}

#[test]
fn samples_become_rates_and_quantiles() {
    let stage = support::stage(2);
    let mut client = stage.client();
    let mut seen = Value::Null;
    eventually("a sample was taken", || {
        client.query("SELECT 1");
        seen = status(&stage.pooler);
        seen["series"]["transactions_per_second"][0].as_f64() > Some(0.0)
    });
    let series = &seen["series"];
    let length = |list: &Value| list.as_array().unwrap().len();
    let samples = length(&series["clients"]);
    for list in [
        "waiting",
        "active",
        "servers",
        "queries_per_second",
        "sent_bytes_per_second",
    ] {
        assert_eq!(length(&series[list]), samples, "{list}");
    }
    assert!(
        seen["minute"]["query_seconds"]["p50"].as_f64() > Some(0.0),
        "{seen}"
    );
    assert!(
        seen["minute"]["transaction_seconds"]["p99"].as_f64() > Some(0.0),
        "{seen}"
    );
}

fn top(arguments: &[&str]) -> (String, String, bool) {
    let output = Command::new(env!("CARGO_BIN_EXE_pgweir"))
        .arg("top")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        text(&output.stdout),
        text(&output.stderr),
        output.status.success(),
    )
}

#[test]
fn top_prints_the_same_and_says_what_is_wrong_with_a_url() {
    let scene = scene();
    eventually("it is seen who waits", || {
        !status(&scene.stage.pooler)["queues"]
            .as_array()
            .unwrap()
            .is_empty()
    });
    let (shown, errors, good) = top(&[
        "--once",
        "--url",
        &format!("http://{}", http(&scene.stage.pooler)),
    ]);
    assert!(good && errors.is_empty(), "{errors}");
    for part in [
        "clients 2 of",
        "app/app: 1 client waits for one of the pool's 1",
        "CN=localhost",
    ] {
        assert!(shown.contains(part), "{part}:\n{shown}");
    }
    let (_, errors, good) = top(&["--url", &format!("http://{}", http(&scene.stage.pooler))]);
    assert!(!good && errors.contains("--once"), "{errors}");
    let (_, errors, good) = top(&["--url", "http://127.0.0.1:1"]);
    assert!(!good && errors.contains("http.address"), "{errors}");
    let (_, errors, good) = top(&["--url", &format!("http://{}", scene.stage.pooler.address())]);
    assert!(!good && errors.starts_with("pgweir top: "), "{errors}");
}

/// Replicas divide a budget by themselves; how, only metrics told, of one replica each.
#[test]
fn replicas_and_their_parts_of_the_budget_are_shown() {
    let postgres = postgres();
    let poolers = fleet(&postgres.address(), 2, &[], |builder| {
        builder.set("pool.server_connection_budget", "9")
    });
    let mut client = RawClient::connect(poolers[0].address());
    client.authenticate(&[("user", "app"), ("database", "app")], "secret");
    client.query("BEGIN");
    let parts = |status: &Value| {
        let budgets = status["fleet"].as_array().unwrap().iter();
        let mut parts: Vec<_> = budgets
            .filter_map(|replica| {
                let budget = replica["budget"].as_object()?;
                let number = |name: &str| budget[name].as_u64().unwrap();
                Some((number("whole"), number("allowance"), number("connections")))
            })
            .collect();
        parts.sort_unstable();
        parts
    };
    eventually("each has its part, and one uses of it", || {
        parts(&status(&poolers[1])) == [(9, 4, 0), (9, 5, 1)]
            || parts(&status(&poolers[1])) == [(9, 4, 1), (9, 5, 0)]
    });
    let own = status(&poolers[0])["budget"].clone();
    assert_eq!(
        (own["whole"].as_u64(), own["connections"].as_u64()),
        (Some(9), Some(1))
    );
    let (shown, ..) = top(&[
        "--once",
        "--url",
        &format!("http://{}", poolers[0].http_address()),
    ]);
    for part in ["of the budget's 9", "1 connected of", "0 connected of"] {
        assert!(shown.contains(part), "{part}:\n{shown}");
    }
    for size in [(360, 780), (1280, 900)] {
        let Some(browser) = Browser::start(size, false) else {
            return;
        };
        browser.open(&format!("http://{}/", poolers[0].http_address()));
        browser.wait(
            "the page shows both replicas",
            "document.querySelectorAll('#fleet tbody tr').length === 2",
        );
        let text = browser.run("return document.getElementById('fleet').textContent;");
        assert!(
            text.as_str().unwrap().contains("1 active, 1 connected of"),
            "{text}"
        );
        let tiles = browser.run("return document.getElementById('tiles').textContent;");
        assert!(tiles.as_str().unwrap().contains(", the budget "), "{tiles}");
        for check in [MISPLACED, FAINT] {
            let found = browser.run(check);
            assert_eq!(found.as_array().map(Vec::len), Some(0), "{size:?}: {found}");
        }
        assert_eq!(browser.complaints(), Vec::<String>::new());
    }
}

/// Pairs of boxes with text in them that overlap, and boxes that stick out of the window.
const MISPLACED: &str = r#"
    const boxes = [...document.querySelectorAll("dd, dt, th, td > span, h1, h2, h3, figcaption, .legend, .plot, .errors p, button, .mark")]
        .filter((node) => node.offsetParent !== null || node.closest("svg"))
        .filter((node) => node.getClientRects().length > 0 && !node.closest("thead") && !node.closest(".hidden"))
        .map((node) => ({ node, box: node.getBoundingClientRect() }));
    const found = [];
    for (const { node, box } of boxes) {
        if (box.right > innerWidth + 1 || box.left < -1) found.push("sticks out: " + node.textContent.slice(0, 60));
    }
    boxes.forEach((one, index) => boxes.slice(index + 1).forEach((two) => {
        if (one.node.contains(two.node) || two.node.contains(one.node)) return;
        const wide = Math.min(one.box.right, two.box.right) - Math.max(one.box.left, two.box.left);
        const high = Math.min(one.box.bottom, two.box.bottom) - Math.max(one.box.top, two.box.top);
        if (wide > 1 && high > 1) found.push("overlap: " + one.node.textContent.slice(0, 40) + " | " + two.node.textContent.slice(0, 40));
    }));
    if (document.documentElement.scrollWidth > innerWidth) found.push("the page is wider than the window");
    return found;"#;

/// Text that is hard to read on what is behind it (WCAG 2, contrast below 4.5).
const FAINT: &str = r#"
    const parse = (text) => (text.match(/[\d.]+/g) || []).map(Number);
    const light = ([r, g, b]) => { const l = [r, g, b].map((v) => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; });
        return .2126 * l[0] + .7152 * l[1] + .0722 * l[2]; };
    const behind = (node) => { for (; node; node = node.parentElement) { const c = parse(getComputedStyle(node).backgroundColor);
        if (c.length === 3 || c[3] > 0) return c; } return [255, 255, 255]; };
    const faint = [];
    for (const node of document.querySelectorAll("dd, dt, th, td, h1, h2, h3, p, span, li, button, a, strong")) {
        if (!node.textContent.trim() || node.closest("svg") || node.closest(".hidden")) continue;
        const [one, two] = [light(parse(getComputedStyle(node).color)), light(behind(node))];
        const contrast = (Math.max(one, two) + .05) / (Math.min(one, two) + .05);
        if (contrast < 4.5) faint.push(contrast.toFixed(2) + " " + node.textContent.slice(0, 40));
    }
    return faint;"#;

#[test]
fn the_page_is_whole_on_every_screen_and_notices_when_nobody_answers() {
    let mut scene = scene();
    refused(&scene.stage.pooler);
    let url = format!("http://{}/", http(&scene.stage.pooler));
    for (size, dark) in [
        ((360, 780), false),
        ((360, 780), true),
        ((1280, 900), true),
        ((1280, 900), false),
    ] {
        let Some(browser) = Browser::start(size, dark) else {
            eprintln!(
                "left out: the page in a browser (Debian: chromium and chromium-driver are not installed)"
            );
            return;
        };
        browser.open(&url);
        browser.wait(
            "the page shows a status",
            "!document.getElementById('main').hidden",
        );
        browser.wait(
            "the page shows who waits and who has a transaction open",
            "document.body.innerText.includes('patient') && document.querySelector('#transactions table')",
        );
        assert_eq!(browser.run("return innerWidth;"), size.0);
        let paper = browser.run("return getComputedStyle(document.body).backgroundColor;");
        assert_eq!(paper == "rgb(17, 22, 29)", dark, "{paper}");
        for check in [MISPLACED, FAINT] {
            let found = browser.run(check);
            assert_eq!(
                found.as_array().map(Vec::len),
                Some(0),
                "{size:?}, dark {dark}: {found}"
            );
        }
        // A name is a name.
        let images = browser.run("return document.images.length;");
        assert_eq!(images, 0);
        let text = browser.run("return document.getElementById('transactions').textContent;");
        assert!(text.as_str().unwrap().contains(MARKUP), "{text}");
        assert!(
            !browser
                .run("return document.title;")
                .as_str()
                .unwrap()
                .contains("broken")
        );
        assert_eq!(browser.complaints(), Vec::<String>::new());
    }
    let browser = Browser::start((1280, 900), false).unwrap();
    browser.open(&url);
    browser.wait(
        "the page is live",
        "document.getElementById('fresh').textContent === 'live'",
    );
    scene.stage.pooler.signal(nix::sys::signal::Signal::SIGKILL);
    browser.wait(
        "the page says that nobody answers",
        "!document.getElementById('lost').hidden && document.getElementById('lost').textContent.includes('cannot be reached')",
    );
    let kept = browser.run("return document.getElementById('pools').textContent;");
    assert!(kept.as_str().unwrap().contains("app"), "{kept}");
}
