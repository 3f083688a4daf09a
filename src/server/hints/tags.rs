//! What command tags say: for requests whose text says too little, and for what may have ended.

use super::Hints;

/// What a command that was answered by this tag (the body of a CommandComplete) may have done. `SET` is also the answer
/// to what lasts no longer than its transaction: see [`super::Reading::local_sets`].
pub fn of_tag(tag: &[u8]) -> Hints {
    match tag {
        // INSERT, BEGIN, FETCH, MERGE, SELECT, UPDATE, DELETE, COMMIT, COPY, CREATE, CLOSE: by far most.
        [b'I' | b'B' | b'F' | b'M', ..]
        | [b'S', b'E', b'L', ..]
        | [b'U', b'P', ..]
        | [b'D', b'E', b'L', ..]
        | [b'C', b'O' | b'R' | b'L', ..] => Hints::NONE,
        _ => of_rare(tag.strip_suffix(b"\0").unwrap_or(tag)),
    }
}

fn of_rare(tag: &[u8]) -> Hints {
    match tag {
        b"SET" | b"RESET" => Hints::SETTINGS,
        b"PREPARE" | b"DEALLOCATE" | b"DEALLOCATE ALL" => Hints::PREPARED,
        b"LISTEN" | b"UNLISTEN" => Hints::LISTEN,
        b"LOAD" => Hints::LOAD,
        b"DISCARD TEMP" => Hints::TEMP,
        b"DISCARD ALL" | b"DO" | b"CALL" => Hints::ASKABLE,
        _ => Hints::NONE,
    }
}

/// What a command that was answered by this tag may have ended. It matters only while there is something to be ended:
/// then the server is asked whether it still is.
pub fn may_release(tag: &[u8]) -> Hints {
    match tag.strip_suffix(b"\0").unwrap_or(tag) {
        b"DISCARD ALL" | b"DO" | b"CALL" => Hints::ASKABLE,
        b"DEALLOCATE" | b"DEALLOCATE ALL" => Hints::PREPARED,
        b"UNLISTEN" => Hints::LISTEN,
        b"CLOSE CURSOR" | b"CLOSE CURSOR ALL" => Hints::CURSOR,
        b"DISCARD TEMP" => Hints::TEMP,
        tag if tag.starts_with(b"DROP ") => Hints::TEMP,
        _ => Hints::NONE,
    }
}

/// Whether a command that was answered by this tag may have made functions, or changed what they do.
pub fn defines_functions(tag: &[u8]) -> bool {
    match tag {
        [b'C', b'R', b'E', ..] | [b'A', b'L', b'T', ..] => {
            let what = tag
                .strip_prefix(b"CREATE ")
                .or_else(|| tag.strip_prefix(b"ALTER "));
            let what = what.unwrap_or_default();
            [
                &b"FUNCTION"[..],
                b"PROCEDURE",
                b"ROUTINE",
                b"TRIGGER",
                b"EXTENSION",
                b"VIEW",
                b"MATERIALIZED VIEW",
                b"RULE",
            ]
            .iter()
            .any(|kind| what.starts_with(kind))
        }
        _ => tag == b"DO\0" || tag == b"CALL\0",
    }
}
