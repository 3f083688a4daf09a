//! The container image and the trial that comes with it, as far as they can be judged without an engine.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a helper fails the test"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn dockerfile() -> String {
    fs::read_to_string(root("docker/Dockerfile")).unwrap()
}

/// The lists of arguments of an instruction, `CMD ["a", "b"]`, each time that there is one.
fn lists(instruction: &str) -> Vec<Vec<String>> {
    let text = dockerfile();
    let lists = text.lines().filter_map(|line| {
        let list = line.trim().strip_prefix(instruction)?.trim();
        let items = list.strip_prefix('[')?.strip_suffix(']')?.split(", ");
        Some(items.map(|item| item.trim_matches('"').to_owned()).collect())
    });
    lists.collect()
}

#[test]
fn the_program_takes_the_arguments_that_the_image_gives_it() {
    assert_eq!(lists("ENTRYPOINT"), [["/pgweir"]]);
    let [healthcheck, run] = lists("CMD").try_into().unwrap();
    for (given, named) in [(&healthcheck[1..], "healthcheck"), (&run[..], "--config")] {
        assert_eq!(given[0], named);
        // That it has understood them is told by what it misses.
        let output = Command::new(env!("CARGO_BIN_EXE_pgweir"))
            .args(given)
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains("/etc/pgweir/pgweir.toml"), "{given:?}: {error}");
    }
    assert_eq!(healthcheck[0], "/pgweir");
}

#[test]
fn there_is_nothing_in_the_image_but_the_program_and_licences_and_it_is_not_root() {
    let text = dockerfile();
    let (_, last) = text.rsplit_once("\nFROM ").unwrap();
    assert!(last.starts_with("scratch\n"), "{last}");
    let copies: Vec<_> = last.lines().filter(|line| line.starts_with("COPY")).collect();
    assert_eq!(
        copies,
        [
            "COPY --from=build --chmod=0755 /out/pgweir /pgweir",
            "COPY --from=build --chmod=0644 /out/LICENSE /out/THIRD-PARTY.txt /licenses/",
        ]
    );
    // A number: Kubernetes knows of no other that it is not root's.
    let user = last.lines().find_map(|line| line.strip_prefix("USER ")).unwrap();
    let ids: Vec<u32> = user.split(':').map(|id| id.parse().unwrap()).collect();
    assert!(ids.len() == 2 && ids.iter().all(|id| *id > 0), "{user}");
}

#[test]
fn the_configuration_of_the_trial_is_one() {
    let output = Command::new(env!("CARGO_BIN_EXE_pgweir"))
        .args(["check", "--config"])
        .arg(root("docker/trial/pgweir.toml"))
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && error.is_empty(), "{error}");
    let compose = fs::read_to_string(root("docker/compose.yaml")).unwrap();
    assert!(compose.contains("- ./trial:/etc/pgweir:ro"), "{compose}");
}

#[test]
fn the_dockerfile_is_as_hadolint_wants_it() {
    let hadolint = root(".dev/helm/python/bin/hadolint");
    if !hadolint.exists() {
        eprintln!("left out: hadolint is not installed here; ./dev test installs it");
        return;
    }
    let output = Command::new(hadolint)
        .arg(root("docker/Dockerfile"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
}
