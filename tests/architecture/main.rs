//! The house rules that no compiler checks: which module may import which, which crate is named where, and
//! what may not be in a source file at all.
//!
//! The rules are the tables below; `scan` turns a source file into what they are about. A rule that is in
//! the way is changed here, in the commit that needs it, with the reason in its message.

mod scan;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use scan::Source;

/// Which modules a module may import, lowest layer first. Each imports only modules above it in this list,
/// which is what keeps the imports free of cycles.
const IMPORTS: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("fault", &["types"]),
    ("topology", &["types"]),
    // Instruments that know nothing of what they count, for whoever counts a lot.
    ("metrics", &["types", "fault"]),
    ("wire", &["types", "fault"]),
    ("config", &["types", "fault"]),
    ("lifecycle", &["types", "config"]),
    ("net", &["types", "config"]),
    ("telemetry", &["types", "config", "lifecycle", "net"]),
    ("tls", &["types", "fault", "config", "net"]),
    (
        "traces",
        &["types", "fault", "config", "lifecycle", "net", "telemetry", "tls"],
    ),
    ("auth", &["types", "fault", "wire", "config"]),
    (
        "startup",
        &["types", "fault", "wire", "config", "net", "tls", "auth"],
    ),
    ("routing", &["types", "topology", "config"]),
    (
        "server",
        &[
            // Who opens a connection is told by the cluster where, and tells it what it has found.
            "types", "fault", "topology", "wire", "config", "net", "tls", "traces", "auth", "routing",
        ],
    ),
    (
        "discovery",
        &["types", "fault", "topology", "config", "lifecycle", "server"],
    ),
    (
        "fleet",
        &[
            "types",
            "fault",
            "topology",
            "wire",
            "config",
            "lifecycle",
            "net",
            "tls",
            "telemetry",
        ],
    ),
    (
        "pool",
        &[
            "types",
            "fault",
            "metrics",
            "topology",
            "config",
            "lifecycle",
            "auth",
            "routing",
            "server",
            "traces",
        ],
    ),
    (
        "session",
        &[
            "types",
            "fault",
            "wire",
            "config",
            "lifecycle",
            "routing",
            "server",
            "pool",
            // A session holds its client's stream, which startup made.
            "net",
            "tls",
            "traces",
        ],
    ),
    (
        "admin",
        &[
            "types",
            "fault",
            "topology",
            "wire",
            "config",
            "lifecycle",
            // A visitor of the console comes on a stream, as a client does; addresses, and what server connections show
            // of themselves, are shown.
            "net",
            "tls",
            "server",
            "pool",
            "session",
        ],
    ),
    (
        // What people see of all the others; it is told where to look by `app`.
        "status",
        &[
            "types",
            "topology",
            "metrics",
            "lifecycle",
            "telemetry",
            "server",
            "pool",
            "session",
        ],
    ),
    (
        "app",
        &[
            "types",
            "fault",
            "metrics",
            "topology",
            "wire",
            "config",
            "lifecycle",
            "net",
            "telemetry",
            "tls",
            "auth",
            "startup",
            "routing",
            "server",
            "discovery",
            "fleet",
            "pool",
            "session",
            "admin",
            "status",
            "traces",
        ],
    ),
    (
        "cli",
        &[
            "types",
            "fault",
            "config",
            "lifecycle",
            "telemetry",
            // `pgweir top` reads what another process's `status` writes.
            "status",
            "app",
        ],
    ),
    // What fuzz/ runs: it only names the targets that the modules have.
    (
        "fuzzing",
        &["wire", "config", "auth", "startup", "server", "session"],
    ),
    // The two crate roots.
    ("lib", &[]),
    ("main", &["cli"]),
];

/// The only places that may name a crate or a part of one. A place is a path under `src` and all below it.
const HOMES: &[(&str, &[&str])] = &[
    ("tokio::net", &["net"]),
    ("toml", &["config"]),
    // The HTTP server, and what asks other replicas or sends to a collector.
    ("hyper", &["telemetry/http", "fleet/ask", "traces/post"]),
    // The same, and the client of Kubernetes' API.
    ("hyper_util", &["telemetry/http", "discovery/kubernetes"]),
    (
        "http_body_util",
        &[
            "telemetry/http",
            "fleet/ask",
            "traces/post",
            "discovery/kubernetes",
        ],
    ),
    ("opentelemetry_proto", &["traces"]),
    ("prost", &["traces"]),
    ("pgwire", &["wire", "auth"]),
    ("dashmap", &["pool", "session", "server/statements"]),
    ("rustls_pemfile", &["tls"]),
    ("x509_parser", &["tls"]),
    ("kube", &["discovery/kubernetes"]),
    ("ratatui", &["cli/top"]),
    ("serde_saphyr", &["cli/import"]),
];

/// Calls that read a clock, and the places (beside every `state` module) where time is an argument instead.
/// Their tests may look at the clock to have a time to pass.
const CLOCKS: &[&str] = &["Instant::now", "SystemTime::now"];
const CLOCKLESS: &[&str] = &["wire", "auth", "routing"];

/// Types that make a `static` hold something that changes.
const LIVE_TYPES: &[&str] = &[
    "ArcSwap",
    "ArcSwapAny",
    "ArcSwapOption",
    "Cell",
    "DashMap",
    "LazyCell",
    "Mutex",
    "OnceCell",
    "OnceLock",
    "RefCell",
    "RwLock",
    "UnsafeCell",
];

/// A rule that a line breaks.
#[derive(Debug, PartialEq, Eq)]
struct Violation {
    place: String,
    line: usize,
    what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "src/{} line {}: {}", self.place, self.line, self.what)
    }
}

fn violation(source: &Source, line: usize, what: String) -> Violation {
    Violation {
        place: source.place.clone(),
        line,
        what,
    }
}

fn forbidden_imports(source: &Source) -> Vec<Violation> {
    let module = source.module();
    let Some((_, allowed)) = IMPORTS.iter().find(|(name, _)| *name == module) else {
        return vec![violation(
            source,
            1,
            format!("`{module}` is not in the table of imports"),
        )];
    };
    source
        .imports()
        .into_iter()
        .filter(|(_, to)| to != module && !allowed.contains(&to.as_str()))
        .map(|(line, to)| violation(source, line, format!("`{module}` may not import `{to}`")))
        .collect()
}

fn crates_abroad(source: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    for (name, homes) in HOMES {
        if homes.iter().any(|home| source.is_in(home)) {
            continue;
        }
        for line in source.lines_naming(name) {
            found.push(violation(
                source,
                line,
                format!("`{name}` is named only in {homes:?}"),
            ));
        }
    }
    found
}

fn clocks(source: &Source) -> Vec<Violation> {
    let clockless = source.place.split('/').any(|part| part == "state")
        || CLOCKLESS.iter().any(|place| source.is_in(place));
    if !clockless {
        return Vec::new();
    }
    let calls = source.lines_calling(CLOCKS);
    calls
        .into_iter()
        .map(|line| violation(source, line, "time is an argument here".to_owned()))
        .collect()
}

fn live_statics(source: &Source) -> Vec<Violation> {
    let is_live = |word: &str| word == "mut" || word.starts_with("Atomic") || LIVE_TYPES.contains(&word);
    source
        .statics()
        .into_iter()
        .filter(|(_, words)| words.iter().any(|word| is_live(word)))
        .map(|(line, _)| violation(source, line, "a static holds live state".to_owned()))
        .collect()
}

fn missing_header(source: &Source) -> Vec<Violation> {
    if source.opens_with_docs() {
        return Vec::new();
    }
    let what = "the file does not open with `//!`, saying its job".to_owned();
    vec![violation(source, 1, what)]
}

/// All violations of a rule in `src`.
fn in_the_tree(rule: fn(&Source) -> Vec<Violation>) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    assert!(files.len() > 10, "the sources are not where they were");
    let mut found = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).expect("a source file is readable");
        let relative = path.strip_prefix(&root).expect("it was found under the root");
        found.extend(rule(&Source::new(&relative.to_string_lossy(), &text)));
    }
    found.dedup();
    found.iter().map(|violation| format!("{violation}\n")).collect()
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a source directory is readable") {
        let path = entry.expect("a directory entry is readable").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

mod the_tree {
    use super::*;

    #[test]
    fn imports_point_one_way() {
        assert_eq!(in_the_tree(forbidden_imports), "");
    }

    #[test]
    fn crates_stay_at_home() {
        assert_eq!(in_the_tree(crates_abroad), "");
    }

    #[test]
    fn pure_modules_read_no_clock() {
        assert_eq!(in_the_tree(clocks), "");
    }

    #[test]
    fn no_static_holds_live_state() {
        assert_eq!(in_the_tree(live_statics), "");
    }

    #[test]
    fn every_file_says_its_job() {
        assert_eq!(in_the_tree(missing_header), "");
    }

    #[test]
    fn the_table_has_no_cycle() {
        for (index, (module, imports)) in IMPORTS.iter().enumerate() {
            for import in *imports {
                let above = IMPORTS[..index].iter().any(|(name, _)| name == import);
                assert!(above, "`{module}` imports `{import}`, which is not above it");
            }
        }
    }
}

/// Each rule on snippets that keep it and that break it.
mod the_rules {
    use super::*;

    /// The lines that break the rule.
    fn broken(rule: fn(&Source) -> Vec<Violation>, file: &str, text: &str) -> Vec<usize> {
        let mut violations = rule(&Source::new(file, text));
        violations.dedup();
        violations.into_iter().map(|violation| violation.line).collect()
    }

    #[test]
    fn an_import_upwards_is_found_however_it_is_written() {
        let rule = forbidden_imports;
        for text in [
            "use crate::pool::Pool;",
            "use crate::{config::Log, pool::{self, Pool}};",
            "use crate::{\n  types,\n  pool,\n};",
            "pub use crate::pool as reservoir;",
            "use crate::*;",
            "fn f() { crate::pool::open(); }",
            "fn f(p: &crate::pool::Pool) {}",
            "fn f() -> Vec<crate::pool::Pool> { vec![] }",
            "use super::super::pool;",
            "mod inner { use super::super::super::pool; }",
            "#[cfg(test)]\nmod tests { use crate::pool::Pool; }",
        ] {
            assert_eq!(broken(rule, "net/socket.rs", text).len(), 1, "{text}");
        }
        assert_eq!(broken(rule, "net/mod.rs", "use super::pool;"), [1]);
        assert_eq!(
            broken(rule, "main.rs", "\nfn main() { pgweir::app::run(); }"),
            [2]
        );
        assert_eq!(broken(rule, "surprise/mod.rs", ""), [1], "not in the table");
    }

    #[test]
    fn an_import_that_is_allowed_or_only_looks_like_one_passes() {
        let rule = forbidden_imports;
        for text in [
            "use crate::{config::{pool::Size, Log}, types::PoolKey};",
            "use crate::net::socket;",
            "use super::pool;",
            "use self::pool;",
            "pub(crate) fn f() {}",
            "use other::{crate_pool, pool};",
            "// use crate::pool::Pool;",
            "/* use /* crate::pool */ crate::pool; */",
            "/// See [`crate::pool`].",
            r#"const TEXT: &str = "crate::pool \" crate::pool";"#,
            r###"const TEXT: &str = r#"crate::pool " crate::pool"#;"###,
            "const QUOTE: char = '\"'; const OTHER: u8 = b'\\''; // crate::pool\"",
            "fn f<'a>(x: &'a str) {} mod tests { use super::super::pool; }",
        ] {
            assert_eq!(broken(rule, "net/socket.rs", text), [0; 0], "{text}");
        }
        assert_eq!(
            broken(rule, "main.rs", "fn main() { pgweir::cli::run() }"),
            [0; 0]
        );
    }

    #[test]
    fn a_crate_outside_its_home_is_found() {
        for (file, text) in [
            ("tls/mod.rs", "use tokio::net::TcpStream;"),
            ("tls/mod.rs", "use tokio::{io, net::{self, TcpStream}};"),
            ("tls/mod.rs", "fn f() { tokio::net::lookup_host(1); }"),
            ("app/mod.rs", "use toml;"),
            ("app/mod.rs", "fn f() { ::toml::from_str(1); }"),
            ("telemetry/httpd.rs", "use hyper::Method;"),
            ("discovery/mod.rs", "#[cfg(test)] mod tests { use kube::Api; }"),
        ] {
            assert_eq!(broken(crates_abroad, file, text).len(), 1, "{file}: {text}");
        }
    }

    #[test]
    fn a_crate_at_home_and_a_namesake_pass() {
        for (file, text) in [
            ("net/socket.rs", "use tokio::net::TcpStream;"),
            ("telemetry/http/pages.rs", "use hyper::Method;"),
            ("telemetry/http.rs", "use hyper::Method;"),
            (
                "app/mod.rs",
                "use tokio::{io, sync::watch}; use std::net::IpAddr;",
            ),
            ("app/mod.rs", "use crate::{config::toml::Tree, net::Socket};"),
            ("app/mod.rs", "fn f() { let toml = read(); g(toml); }"),
        ] {
            assert_eq!(broken(crates_abroad, file, text), [0; 0], "{file}: {text}");
        }
    }

    #[test]
    fn a_clock_in_a_pure_module_is_found() {
        let text = "fn f() {\n  std::time::Instant::now();\n  SystemTime::now();\n}";
        for file in [
            "pool/state.rs",
            "session/state/queue.rs",
            "wire/frame.rs",
            "auth/mod.rs",
        ] {
            assert_eq!(broken(clocks, file, text), [2, 3], "{file}");
        }
        assert_eq!(broken(clocks, "pool/janitor.rs", text), [0; 0]);
        let after_tests = "#[cfg(test)]\nmod tests { fn f() {} }\nfn g() { Instant::now(); }";
        assert_eq!(broken(clocks, "pool/state.rs", after_tests), [3]);
    }

    #[test]
    fn the_tests_of_a_pure_module_may_take_a_time_to_pass() {
        let text = "#[cfg(test)]\n#[allow(x, reason = \"y\")]\nmod tests { fn f() { { Instant::now() } } }";
        assert_eq!(broken(clocks, "pool/state.rs", text), [0; 0]);
        assert_eq!(
            broken(clocks, "pool/state/tests.rs", "fn f() { Instant::now() }"),
            [0; 0]
        );
        let elsewhere = "#[cfg(test)]\nuse x;\nmod clock { fn f() { Instant::now() } }";
        assert_eq!(broken(clocks, "pool/state.rs", elsewhere), [3]);
    }

    #[test]
    fn a_live_static_is_found() {
        for text in [
            "static COUNT: AtomicU64 = AtomicU64::new(0);",
            "pub(crate) static TABLE: LazyLock<DashMap<u8, u8>> = LazyLock::new(DashMap::new);",
            "static mut N: u8 = 0;",
            "static CONFIG: std::sync::OnceLock<Config> = OnceLock::new();",
            "thread_local! { static X: RefCell<u8> = RefCell::new(0); }",
            "fn f() { static ONCE: Mutex<()> = Mutex::new(()); }",
        ] {
            assert_eq!(broken(live_statics, "app/mod.rs", text), [1], "{text}");
        }
    }

    #[test]
    fn a_constant_static_passes() {
        for text in [
            "static NAMES: [&str; 2] = [\"Mutex\", \"static X: Mutex\"];",
            "static TABLE: LazyLock<HashMap<&'static str, u8>> = LazyLock::new(build);",
            "#[global_allocator]\nstatic ALLOCATOR: Jemalloc = Jemalloc;",
            "fn f(m: &'static Mutex<u8>) -> impl Trait + 'static { AtomicU8::new(0) }",
        ] {
            assert_eq!(broken(live_statics, "app/mod.rs", text), [0; 0], "{text}");
        }
    }

    #[test]
    fn a_file_without_its_job_is_found() {
        assert_eq!(
            broken(missing_header, "net/mod.rs", "// Sockets.\n//! Late."),
            [1]
        );
        assert_eq!(broken(missing_header, "net/mod.rs", ""), [1]);
        assert_eq!(broken(missing_header, "net/mod.rs", "//!\nuse x;"), [1], "empty");
        assert_eq!(broken(missing_header, "net/mod.rs", "//! Sockets.\n"), [0; 0]);
        let map = "#![doc = include_str!(\"../ARCHITECTURE.md\")]\n";
        assert_eq!(broken(missing_header, "lib.rs", map), [0; 0]);
    }
}
