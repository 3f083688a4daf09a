//! The status page: one file, with everything in it.
//!
//! It shows what `/status.json` says and knows nothing else.

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::digest::{SHA256, digest};

const HTML: &str = include_str!("page.html");

/// The page, and what a browser may load and run for it (`Content-Security-Policy`).
pub fn page() -> (&'static str, String) {
    (HTML, policy())
}

/// What the page may do: run its own script, by its own style, and ask whoever it comes from. Nothing else is loaded, and
/// what a name would bring in as a script is not run.
fn policy() -> String {
    format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash(inside("script")),
        hash(inside("style")),
    )
}

/// What stands in the page's only element of that name.
fn inside(element: &str) -> &'static str {
    let (open, close) = (format!("<{element}>"), format!("</{element}>"));
    HTML.split_once(&open)
        .and_then(|(_, rest)| rest.split_once(&close))
        .map_or("", |(text, _)| text)
}

fn hash(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(digest(&SHA256, text.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_loads_nothing_and_has_one_script_and_one_style() {
        for element in ["<script", "<style"] {
            assert_eq!(HTML.matches(element).count(), 1, "{element}");
        }
        for foreign in [
            "http://",
            "https://",
            " src=",
            "@import",
            "url(",
            "innerHTML",
            " style=",
        ] {
            let allowed = "http://www.w3.org/2000/svg";
            assert!(!HTML.replace(allowed, "").contains(foreign), "{foreign}");
        }
        assert!(!inside("script").is_empty() && !inside("style").is_empty());
    }

    #[test]
    fn the_policy_names_the_script_by_its_digest() {
        let policy = policy();
        assert!(
            policy.contains("default-src 'none'; script-src 'sha256-"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe"), "{policy}");
    }
}
