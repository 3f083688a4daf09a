//! What somebody probably meant by a key that does not exist.
//!
//! It only guesses; it decides nothing about the file.

use super::keys::{self, KEYS, Key};

/// A hint for the unknown `name` in `section` (`""` at the top of the file).
pub(super) fn for_unknown(section: &str, name: &str) -> Option<String> {
    renamed_from_pgbouncer(section, name)
        .or_else(|| misspelt(section, name))
        .or_else(|| misplaced(section, name))
        .or_else(|| misspelt_elsewhere(name))
        .or_else(|| known_here(section))
}

/// The candidate that `word` most resembles, if it resembles one at all.
pub fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (word.chars().count() / 4).clamp(1, 3);
    candidates
        .map(|candidate| (edit_distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn renamed_from_pgbouncer(section: &str, name: &str) -> Option<String> {
    if section.is_empty() && name == "pgbouncer" {
        return Some(
            "this is the section of a pgbouncer.ini: `pgweir import` prints it as pgweir's, --pgbouncer-ini takes it as it is"
                .to_owned(),
        );
    }
    let renamed = |key: &&Key| key.pgbouncer.contains(&name) && key.name != name;
    let key = keys::in_section(section)
        .find(renamed)
        .or_else(|| KEYS.iter().find(renamed))?;
    // Where another section has a key of just this name, that is the better answer, except in the
    // sections of a pgbouncer.ini, which are ours as well.
    let here = key.section == section;
    let same_name_exists = KEYS.iter().any(|key| key.name == name);
    (here || !same_name_exists || section.is_empty())
        .then(|| format!("PgBouncer's `{name}` is `{}` here", key.path()))
}

fn misspelt(section: &str, name: &str) -> Option<String> {
    let names = || keys::in_section(section).map(|key| key.name);
    if let Some(near) = nearest(name, names().chain(keys::subsections(section))) {
        return Some(format!("did you mean `{near}`?"));
    }
    // `size` for `pool_size`, `ca_file` for `client_ca_file`.
    let longer = names().find(|known| known.strip_suffix(name).is_some_and(|rest| rest.ends_with('_')))?;
    Some(format!("did you mean `{longer}`?"))
}

fn misplaced(section: &str, name: &str) -> Option<String> {
    let inside = |key: &&Key| {
        key.section
            .strip_prefix(section)
            .is_some_and(|rest| rest.starts_with('.'))
    };
    let mut homes: Vec<_> = KEYS.iter().filter(|key| key.name == name).collect();
    if homes.iter().any(inside) {
        homes.retain(|key| inside(key));
    }
    let homes: Vec<_> = homes.iter().map(|key| format!("[{}]", key.section)).collect();
    (!homes.is_empty()).then(|| format!("belongs in {}", homes.join(" or ")))
}

fn misspelt_elsewhere(name: &str) -> Option<String> {
    let near = nearest(name, KEYS.iter().map(|key| key.name))?;
    let key = KEYS.iter().find(|key| key.name == near)?;
    Some(format!("did you mean `{}`?", key.path()))
}

fn known_here(section: &str) -> Option<String> {
    let mut names: Vec<_> = keys::in_section(section)
        .map(|key| key.name)
        .chain(keys::subsections(section))
        .collect();
    names.dedup();
    match section {
        "" => Some(format!("the sections are {}", names.join(", "))),
        _ if names.is_empty() => None,
        _ => Some(format!("[{section}] has {}", names.join(", "))),
    }
}

/// Levenshtein's distance, with two neighbours in the wrong order counted as one edit.
fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=right.len()).collect();
    let mut previous = None;
    for (row, l) in left.chars().enumerate() {
        let mut current = vec![row + 1];
        for (column, r) in right.iter().enumerate() {
            let replaced = above[column] + usize::from(l != *r);
            let mut best = replaced.min(above[column + 1] + 1).min(current[column] + 1);
            let swapped = column > 0 && previous == Some(*r) && right[column - 1] == l;
            if let (true, Some(distance)) = (swapped, before.get(column.wrapping_sub(1))) {
                best = best.min(distance + 1);
            }
            current.push(best);
        }
        before = above;
        above = current;
        previous = Some(l);
    }
    above.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(section: &str, name: &str) -> String {
        for_unknown(section, name).unwrap_or_default()
    }

    #[test]
    fn distances() {
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("abc", "abc"), 0);
        assert_eq!(edit_distance("modde", "mode"), 1);
        assert_eq!(edit_distance("mdoe", "mode"), 1);
        assert_eq!(edit_distance("kitten", "sitting"), 3);
    }

    #[test]
    fn misspelt_keys_and_sections() {
        assert_eq!(
            hint("pool", "default_pol_size"),
            "did you mean `default_pool_size`?"
        );
        assert_eq!(hint("listen", "adress"), "did you mean `address`?");
        assert_eq!(hint("listen", "tsl"), "did you mean `tls`?");
        assert_eq!(hint("", "databasse"), "did you mean `databases`?");
        assert_eq!(hint("users.NAME", "size"), "did you mean `pool_size`?");
        assert_eq!(hint("listen.tls", "ca_file"), "did you mean `client_ca_file`?");
    }

    #[test]
    fn keys_in_the_wrong_section() {
        assert_eq!(hint("pool", "max_client_conn"), "belongs in [listen]");
        assert_eq!(hint("", "default_pool_size"), "belongs in [pool]");
        assert_eq!(hint("listen", "cert_file"), "belongs in [listen.tls]");
        assert_eq!(
            hint("auth", "cert_file"),
            "belongs in [listen.tls] or [server_tls] or [users.NAME.server_tls]"
        );
        assert_eq!(
            hint("listen", "drain_delya"),
            "did you mean `shutdown.drain_delay`?"
        );
    }

    #[test]
    fn names_from_pgbouncer() {
        assert_eq!(
            hint("listen", "client_tls_sslmode"),
            "PgBouncer's `client_tls_sslmode` is `listen.tls.mode` here"
        );
        assert_eq!(
            hint("auth", "auth_file"),
            "PgBouncer's `auth_file` is `auth.users_file` here"
        );
        assert_eq!(
            hint("databases.NAME", "host"),
            "PgBouncer's `host` is `databases.NAME.hosts` here"
        );
        assert_eq!(
            hint("pool", "pool_mode"),
            "PgBouncer's `pool_mode` is `pool.mode` here"
        );
        assert!(hint("", "pgbouncer").contains("pgbouncer.ini"));
    }

    #[test]
    fn otherwise_what_there_is() {
        assert_eq!(hint("log", "xyzzy"), "[log] has format, level");
        assert!(hint("", "xyzzy").starts_with("the sections are listen, auth, pool"));
    }
}
