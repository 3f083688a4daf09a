//! What mends an auth_query that does not work, as SQL where SQL mends it. Pure: it goes by the configuration and by what
//! the server has said.

use std::fmt;

use crate::{
    auth::server_login::ServerLoginError,
    fault::SqlState,
    server::{ConnectError, SettleError},
};

use super::QueryError;

/// The function that is proposed where the query calls none.
const FUNCTION: &str = "public.user_search";

/// Where to run what is about roles and databases: any that can be entered.
const MAINTENANCE: &str = "postgres";

/// What is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked<'a> {
    /// `auth_user`
    pub user: &'a str,
    /// `auth_query`
    pub query: &'a str,
    /// The database, by its name on the server.
    pub database: &'a str,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// In words.
    pub text: String,
    /// What a superuser runs, and in which database.
    pub sql: Option<(String, String)>,
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        if let Some((database, sql)) = &self.sql {
            write!(f, "; as a superuser in database {}: {sql}", identifier(database))?;
        }
        Ok(())
    }
}

/// What mends this error, if it is known.
pub fn advice(error: &QueryError, asked: &Asked<'_>) -> Option<Advice> {
    match error {
        QueryError::Connect(error) => match &**error {
            ConnectError::Server(refusal) => on_log_in(refusal.code?, &refusal.message, asked),
            ConnectError::Login(ServerLoginError::MissingCredential { .. }) => Some(no_credential(asked)),
            _ => None,
        },
        QueryError::Query(error) => match &**error {
            SettleError::Refused(refusal) => on_query(refusal.code?, asked),
            _ => None,
        },
        QueryError::NoDatabase(name) => Some(words(format!(
            "add [databases.{name:?}] with its hosts, or correct auth_database"
        ))),
        QueryError::Columns | QueryError::OtherUser => Some(words(
            "correct auth_query: its first column is the user that it was asked for, its second the password",
        )),
        _ => None,
    }
}

fn words(text: impl Into<String>) -> Advice {
    Advice {
        text: text.into(),
        sql: None,
    }
}

fn on_log_in(code: SqlState, message: &str, asked: &Asked<'_>) -> Option<Advice> {
    let (user, database) = (identifier(asked.user), identifier(asked.database));
    let sql = |text: &str, sql: String| {
        Some(Advice {
            text: text.to_owned(),
            sql: Some((MAINTENANCE.to_owned(), sql)),
        })
    };
    match code {
        SqlState::INVALID_CATALOG_NAME => Some(words(format!(
            "set auth_database to a database that exists, such as \"postgres\": there is no {database}"
        ))),
        SqlState::INSUFFICIENT_PRIVILEGE => sql(
            "let auth_user connect",
            format!("GRANT CONNECT ON DATABASE {database} TO {user};"),
        ),
        SqlState::INVALID_PASSWORD => Some(no_credential(asked)),
        // The server's words may be in any language; these are its own, and otherwise both are said.
        SqlState::INVALID_AUTHORIZATION if message.contains("does not exist") => {
            sql("make the role auth_user", format!("CREATE ROLE {user} LOGIN;"))
        }
        SqlState::INVALID_AUTHORIZATION if message.contains("not permitted to log in") => {
            sql("let auth_user log in", format!("ALTER ROLE {user} LOGIN;"))
        }
        SqlState::INVALID_AUTHORIZATION => Some(words(format!(
            "the role {user} has to exist with LOGIN, and a line of the server's pg_hba.conf has to let it in, such as \
             \"hostssl all {} all cert\" for a certificate in [server_tls] whose common name is the role's",
            asked.user
        ))),
        _ => None,
    }
}

fn no_credential(asked: &Asked<'_>) -> Advice {
    words(format!(
        "give the role {} a line with its password in users_file, or have the server's pg_hba.conf ask for the certificate \
         of [server_tls]",
        identifier(asked.user)
    ))
}

fn on_query(code: SqlState, asked: &Asked<'_>) -> Option<Advice> {
    let sql = |text: String, sql: String| {
        Some(Advice {
            text,
            sql: Some((asked.database.to_owned(), sql)),
        })
    };
    let called = Called::of(asked.query);
    match (code.as_str(), called) {
        // undefined_function, invalid_schema_name
        ("42883" | "3F000", Some(called)) => sql(
            "make the function that auth_query asks (without a schema it is looked for in public)".to_owned(),
            called.definition(asked.user),
        ),
        ("42501", Some(called)) => sql(
            "let auth_user call the function".to_owned(),
            called.grants(asked.user),
        ),
        // Whoever reads pg_authid or pg_shadow is a superuser, or asks a function.
        ("42501" | "42P01", None) => {
            let called = Called::new(FUNCTION);
            sql(
                format!(
                    "auth_user may not read what auth_query asks for, or it does not exist: make a function, and set \
                     auth_query = \"SELECT usename, passwd FROM {FUNCTION}($1)\""
                ),
                called.definition(asked.user),
            )
        }
        (code, _) if code.starts_with("42") => Some(words("correct auth_query")),
        _ => None,
    }
}

/// The function that a query calls with the user's name.
#[derive(Debug, PartialEq, Eq)]
struct Called {
    /// As it is written, which may have a schema in front.
    schema: Option<String>,
    name: String,
    columns: [String; 2],
}

impl Called {
    fn new(name: &str) -> Self {
        let (schema, name) = split_schema(name);
        Self {
            schema: schema.map(str::to_owned),
            name: name.to_owned(),
            columns: ["usename".to_owned(), "passwd".to_owned()],
        }
    }

    fn of(query: &str) -> Option<Self> {
        let (before, _) = query.split_once("$1")?;
        let before = before.trim_end().strip_suffix('(')?.trim_end();
        let start = name_start(before);
        let name = before.get(start..).filter(|name| !name.is_empty())?;
        let mut called = Self::new(name);
        let selected = before.get(..start).and_then(selected_columns);
        if let Some(columns) = selected {
            called.columns = columns;
        }
        Some(called)
    }

    fn signature(&self) -> String {
        let schema = self.schema.as_deref().unwrap_or("public");
        format!("{schema}.{}(text)", self.name)
    }

    /// Usage of its schema, and execution, for `user` alone.
    fn grants(&self, user: &str) -> String {
        let (user, signature) = (identifier(user), self.signature());
        let schema = self.schema.as_deref().unwrap_or("public");
        format!("GRANT USAGE ON SCHEMA {schema} TO {user}; GRANT EXECUTE ON FUNCTION {signature} TO {user};")
    }

    fn definition(&self, user: &str) -> String {
        let schema = match self.schema.as_deref() {
            None | Some("public") => String::new(),
            Some(schema) => format!("CREATE SCHEMA IF NOT EXISTS {schema}; "),
        };
        let [name, password] = &self.columns;
        let signature = self.signature();
        let function = signature.strip_suffix("(text)").unwrap_or(&signature);
        format!(
            "{schema}CREATE FUNCTION {function}(uname text) RETURNS TABLE ({name} name, {password} text) \
             LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$\
             SELECT rolname, CASE WHEN rolvaliduntil IS NULL OR rolvaliduntil > now() THEN rolpassword END \
             FROM pg_catalog.pg_authid WHERE rolname = $1 AND rolcanlogin$$; \
             REVOKE ALL ON FUNCTION {signature} FROM PUBLIC; {}",
            self.grants(user)
        )
    }
}

/// Where the possibly qualified, possibly quoted name begins that `text` ends with.
fn name_start(text: &str) -> usize {
    let mut quoted = false;
    let mut start = text.len();
    for (index, character) in text.char_indices().rev() {
        match character {
            '"' => quoted = !quoted,
            _ if quoted => {}
            '.' | '_' | '$' => {}
            character if character.is_alphanumeric() => {}
            _ => break,
        }
        start = index;
    }
    start
}

/// The schema in front of a name, if there is one.
fn split_schema(name: &str) -> (Option<&str>, &str) {
    let mut quoted = false;
    for (index, character) in name.char_indices() {
        match character {
            '"' => quoted = !quoted,
            '.' if !quoted => {
                let (schema, rest) = name.split_at(index);
                return (Some(schema), rest.get(1..).unwrap_or_default());
            }
            _ => {}
        }
    }
    (None, name)
}

/// The two columns of `SELECT a, b FROM `, if it is that simple.
fn selected_columns(text: &str) -> Option<[String; 2]> {
    let mut words = text.split_whitespace();
    if !words.next()?.eq_ignore_ascii_case("select") {
        return None;
    }
    let mut list: Vec<&str> = words.collect();
    if !list.pop()?.eq_ignore_ascii_case("from") {
        return None;
    }
    let list = list.join(" ");
    let (name, password) = list.split_once(',')?;
    let is_plain = |column: &str| {
        let mut characters = column.chars();
        characters
            .next()
            .is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
            && characters.all(|character| character.is_ascii_alphanumeric() || character == '_')
    };
    let columns = [name.trim(), password.trim()];
    columns
        .iter()
        .all(|column| is_plain(column))
        .then(|| columns.map(str::to_owned))
}

/// A name as SQL takes it literally.
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: Asked<'_> = Asked {
        user: "cnpg_pooler_pgbouncer",
        query: "SELECT usename, passwd FROM user_search($1)",
        database: "app",
    };

    fn called(query: &str) -> Option<(Option<String>, String, String)> {
        let called = Called::of(query)?;
        Some((called.schema, called.name, called.columns.join("+")))
    }

    fn sql(code: &[u8; 5], query: &str) -> String {
        let asked = Asked { query, ..ASKED };
        let advice = on_query(SqlState(*code), &asked).unwrap();
        let (database, sql) = advice.sql.unwrap();
        assert_eq!(database, "app");
        sql
    }

    #[test]
    fn the_function_of_a_query_is_found() {
        let expected = |schema: Option<&str>, name: &str, columns: &str| {
            Some((schema.map(str::to_owned), name.to_owned(), columns.to_owned()))
        };
        assert_eq!(
            called(ASKED.query),
            expected(None, "user_search", "usename+passwd")
        );
        assert_eq!(
            called("select username , pw from \"My.Schema\".\"F x\" ( $1 )"),
            expected(Some("\"My.Schema\""), "\"F x\"", "username+pw")
        );
        assert_eq!(
            called("SELECT * FROM a.b($1)"),
            expected(Some("a"), "b", "usename+passwd")
        );
        assert_eq!(
            called("SELECT usename, passwd FROM pg_shadow WHERE usename = $1"),
            None
        );
        for broken in ["", "$1", "($1)", "\"($1)", "f(1)", "ü.($1)"] {
            let _ = called(broken);
        }
    }

    #[test]
    fn a_missing_function_is_made_for_the_role_that_asks_alone() {
        let made = sql(b"42883", ASKED.query);
        assert!(
            made.starts_with("CREATE FUNCTION public.user_search(uname text) RETURNS TABLE (usename name, ")
        );
        for part in [
            "SECURITY DEFINER SET search_path = pg_catalog, pg_temp",
            "REVOKE ALL ON FUNCTION public.user_search(text) FROM PUBLIC;",
            "GRANT EXECUTE ON FUNCTION public.user_search(text) TO \"cnpg_pooler_pgbouncer\";",
        ] {
            assert!(made.contains(part), "{made}");
        }
        let made = sql(b"3F000", "SELECT a, b FROM secrets.get($1)");
        assert!(
            made.starts_with("CREATE SCHEMA IF NOT EXISTS secrets; CREATE FUNCTION secrets.get("),
            "{made}"
        );
        assert!(made.contains("TABLE (a name, b text)"), "{made}");
    }

    #[test]
    fn what_is_not_permitted_is_granted_or_read_through_a_function() {
        assert_eq!(
            sql(b"42501", ASKED.query),
            "GRANT USAGE ON SCHEMA public TO \"cnpg_pooler_pgbouncer\"; \
             GRANT EXECUTE ON FUNCTION public.user_search(text) TO \"cnpg_pooler_pgbouncer\";"
        );
        let direct = "SELECT usename, passwd FROM pg_shadow WHERE usename = $1";
        assert!(sql(b"42501", direct).contains("CREATE FUNCTION public.user_search"));
        let typo = on_query(SqlState(*b"42601"), &ASKED).unwrap();
        assert_eq!((typo.text.as_str(), typo.sql), ("correct auth_query", None));
        assert_eq!(on_query(SqlState(*b"57014"), &ASKED), None);
    }

    #[test]
    fn a_role_that_cannot_log_in_is_made_or_let_in() {
        let shown = |code: &[u8; 5], message: &str| {
            let asked = Asked {
                user: "a\"b",
                ..ASKED
            };
            on_log_in(SqlState(*code), message, &asked).unwrap().to_string()
        };
        assert!(shown(b"28000", "role \"x\" does not exist").ends_with("CREATE ROLE \"a\"\"b\" LOGIN;"));
        assert!(shown(b"28000", "no pg_hba.conf entry for host").contains("pg_hba.conf"));
        assert!(shown(b"42501", "").ends_with("GRANT CONNECT ON DATABASE \"app\" TO \"a\"\"b\";"));
        assert!(shown(b"3D000", "").contains("auth_database"));
        assert!(shown(b"28P01", "").contains("users_file"));
    }
}
