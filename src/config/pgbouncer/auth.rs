//! `auth_type` and what goes with it.
//!
//! It reads no file.

use super::{
    document::Value,
    draft::{Draft, Subject},
    main_section::Main,
    remark::{
        Remark,
        Weight::{Note, Refusal, Warning},
    },
};

const DOORS: [&str; 3] = ["auth_type", "allow_plaintext_password", "hba_file"];
const NOBODY: &str = "neither auth_file nor auth_user is set: PgBouncer lets nobody in then";
const ONLY_HBA: &str = "it is read with auth_type = hba only";
const ONLY_LDAP: &str = "it is read with auth_type = ldap only";
const NO_AUTH_USER: &str = "without auth_user nobody asks it";
const IN_CLEAR: &str = "As PgBouncer: passwords are asked for without TLS, too.";
const LDAP: &str = "write a file with the line `host all all all ldap ` and behind it what is in auth_ldap_options, and set \
    auth_type = hba and auth_hba_file to it, which PgBouncer 1.25 takes as well";
const PAM: &str = "there is no PAM here: use ldap in an HBA file if that is where PAM looks, or scram-sha-256 with auth_file \
    or auth_user";
const ANY: &str = "it is trust without a list of users here";
const ANY_ADMIN: &str =
    "in PgBouncer everybody is an administrator with auth_type = any; here those are who are named here";
const ANY_FILE: &str = "with it only the users in it would be let in; give each database the password of its user with \
    password= where the server asks for one";
const ANY_WITHOUT_USER: &str =
    "auth_type = any needs user= in every database: everybody would be whoever they say";
const ANY_AUTH_USER: &str = "with auth_type = any nobody is looked up: leave auth_user= out of the databases";
const SCHEMAS: &str =
    "Names without a schema are looked for in pg_catalog and public, whatever search_path auth_user has.";

/// What the other sections say of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Elsewhere {
    /// A database has an `auth_user` of its own.
    pub(super) has_auth_user: bool,
    /// A database has no `user`.
    pub(super) has_free_user: bool,
}

pub(super) fn translate(main: &Main, elsewhere: Elsewhere, draft: &mut Draft) {
    let subject = main.subject("auth_type");
    let auth_type = main.in_force("auth_type").to_ascii_lowercase();
    let set = |draft: &mut Draft, word: &str| {
        draft.set("auth", "auth_type", Value::Text(word.to_owned()), subject);
    };
    let looks_up = main.text("auth_user").is_some() || elsewhere.has_auth_user;
    let mut needs_users = true;
    match auth_type.as_str() {
        "md5" | "scram-sha-256" | "trust" | "cert" => set(draft, &auth_type),
        "plain" => {
            set(draft, "password");
            let clear = draft.set("auth", "allow_plaintext_password", Value::Flag(true), subject);
            clear.comment = Some(IN_CLEAR.to_owned());
        }
        "hba" if main.text("auth_hba_file").is_none() => {
            draft.problem(subject, "auth_type = hba needs auth_hba_file", None);
        }
        "hba" => set(draft, "hba"),
        "any" => {
            needs_users = false;
            set(draft, "trust");
            any(main, elsewhere, draft);
        }
        "ldap" => {
            needs_users = false;
            draft.remark(Refusal, subject, LDAP);
        }
        "pam" => {
            needs_users = false;
            draft.remark(Refusal, subject, PAM);
        }
        word => draft.problem(
            subject,
            format!("{word:?} is no authentication method"),
            Some("md5, scram-sha-256, cert, hba, trust, plain, any, ldap or pam"),
        ),
    }
    if needs_users && !looks_up && main.text("auth_file").is_none() {
        draft.remark(Refusal, subject, NOBODY);
    }
    files(main, &auth_type, draft);
    query(main, looks_up && auth_type != "any", draft);
    close(draft);
}

/// What is refused is not printed either as a door that stands open: without these, everybody is asked for a password.
fn close(draft: &mut Draft) {
    let is_refused = |remark: &Remark| remark.weight == Refusal && remark.name == "auth_type";
    if draft.remarks.iter().any(is_refused) {
        let auth = draft.section(&["auth"]);
        auth.settings.retain(|setting| !DOORS.contains(&setting.key));
    }
}

fn any(main: &Main, elsewhere: Elsewhere, draft: &mut Draft) {
    let subject = main.subject("auth_type");
    draft.remark(Note, subject, ANY);
    draft.remark(Warning, main.subject("admin_users"), ANY_ADMIN);
    if elsewhere.has_free_user {
        draft.remark(Refusal, subject, ANY_WITHOUT_USER);
    }
    if elsewhere.has_auth_user {
        draft.remark(Refusal, subject, ANY_AUTH_USER);
    }
    if main.text("auth_file").is_some() {
        draft.remark(Warning, main.subject("auth_file"), ANY_FILE);
    }
    // With somebody to ask, only whom they know would be let in.
    let auth = draft.section(&["auth"]);
    auth.settings
        .retain(|setting| !matches!(setting.key, "auth_user" | "auth_database"));
}

fn files(main: &Main, auth_type: &str, draft: &mut Draft) {
    for (name, key) in [("auth_hba_file", "hba_file"), ("auth_ident_file", "ident_file")] {
        let subject = main.subject(name);
        if main.text(name).is_none() {
            continue;
        }
        match auth_type {
            "hba" => file(draft, key, subject),
            _ => draft.remark(Note, subject, ONLY_HBA),
        }
    }
    if auth_type != "any" && main.text("auth_file").is_some() {
        file(draft, "users_file", main.subject("auth_file"));
    }
    if auth_type != "ldap" && main.text("auth_ldap_options").is_some() {
        draft.discreet_remark(Note, main.subject("auth_ldap_options"), ONLY_LDAP);
    }
}

fn file(draft: &mut Draft, key: &'static str, subject: Subject<'_>) {
    let Some(given) = subject.given else { return };
    let value = Value::Text(given.value.clone());
    draft.set("auth", key, value, subject);
}

fn query(main: &Main, looks_up: bool, draft: &mut Draft) {
    let subject = main.subject("auth_query");
    let Some(query) = main.text("auth_query") else {
        return;
    };
    if looks_up {
        let value = Value::Text(query.to_owned());
        draft.set("auth", "auth_query", value, subject).comment = Some(SCHEMAS.to_owned());
    } else {
        draft.remark(Note, subject, NO_AUTH_USER);
    }
}
