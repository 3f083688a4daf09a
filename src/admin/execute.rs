//! Carrying commands out.

use std::{borrow::Cow, time::Duration};

use bytes::BytesMut;
use tokio::sync::oneshot;

use super::{
    DATABASES,
    command::{Command, Shutdown, Topic, UnknownCommand, near_topic},
    console::{Conversation, Level},
    error::ConsoleError,
    premises::{Directive, SetError},
    show::{self, Shown},
};
use crate::wire::reply;

/// How often it is looked whether what is waited for has happened.
const LOOK: Duration = Duration::from_millis(20);

/// Settings of PostgreSQL's that drivers set without asking whether it is of any use.
const IGNORED: [&str; 20] = [
    "application_name",
    "bytea_output",
    "client_encoding",
    "client_min_messages",
    "datestyle",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "extra_float_digits",
    "idle_in_transaction_session_timeout",
    "intervalstyle",
    "jit",
    "lock_timeout",
    "lc_messages",
    "row_security",
    "search_path",
    "standard_conforming_strings",
    "statement_timeout",
    "synchronize_seqscans",
    "timezone",
    "transaction_isolation",
];

/// What a command is answered with.
pub(super) struct Answer {
    pub(super) tag: Cow<'static, str>,
    pub(super) notice: Option<String>,
    pub(super) shown: Option<Shown>,
}

impl Answer {
    fn done(tag: impl Into<Cow<'static, str>>) -> Self {
        Self {
            tag: tag.into(),
            notice: None,
            shown: None,
        }
    }

    fn with_notice(mut self, notice: impl Into<String>) -> Self {
        self.notice = Some(notice.into());
        self
    }

    fn show(shown: Shown) -> Self {
        Self {
            shown: Some(shown),
            ..Self::done("SHOW")
        }
    }

    /// Appends the notice, if there is one.
    pub(super) fn say_notice(&self, out: &mut BytesMut) {
        if let Some(notice) = &self.notice {
            reply::notice(notice, None, out);
        }
    }
}

impl Command {
    /// What one has to be allowed to do for it.
    pub(super) fn level(&self) -> Level {
        match self {
            Self::Show(Topic::Fds) => Level::Admin,
            Self::Show(_) | Self::ShowSetting(_) | Self::Nothing(_) => Level::Stats,
            Self::Set { name, .. } if is_ignored(name) => Level::Stats,
            _ => Level::Admin,
        }
    }
}

fn is_ignored(name: &str) -> bool {
    IGNORED.iter().any(|ignored| name.eq_ignore_ascii_case(ignored))
}

impl Conversation<'_> {
    /// Carries a command out.
    pub(super) async fn execute(&mut self, command: &Command) -> Result<Answer, ConsoleError> {
        self.authorize(command)?;
        if command.level() == Level::Admin && *command != Command::Show(Topic::Fds) {
            tracing::info!(?command, "command of an administrator");
        }
        match command {
            Command::Show(Topic::Help) => Ok(Answer::done("SHOW").with_notice(show::help())),
            Command::Show(Topic::Fleet) => {
                let replicas = self.console.premises.replicas().await;
                Ok(Answer::show(show::show_fleet(&replicas)))
            }
            Command::Show(topic) => Ok(Answer::show(show::show(*topic, self.console))),
            Command::ShowSetting(name) => self.show_setting(name),
            Command::Nothing(tag) => Ok(Answer::done(*tag)),
            Command::Set { name, value } => self.set(name, value).await,
            Command::Pause(database) => self.pause(database.as_deref()).await,
            Command::Suspend => self.suspend().await,
            Command::WaitClose(database) => self.wait_close(database.as_deref()).await,
            Command::Reload => self.reload().await,
            Command::Shutdown(how) => self.shutdown(*how).await,
            at_once => self.order(at_once),
        }
    }

    /// Commands that wait for nothing.
    fn order(&mut self, command: &Command) -> Result<Answer, ConsoleError> {
        let pools = &self.console.pools;
        match command {
            Command::Resume(_) if self.console.premises.is_shutting_down() => Err(ConsoleError::ShuttingDown),
            Command::Resume(database) => {
                pools.resume(database.as_deref())?;
                self.has_suspended = false;
                Ok(Answer::done("RESUME"))
            }
            Command::Reconnect(database) => {
                self.check_database(database.as_deref())?;
                pools.reconnect(database.as_deref());
                Ok(Answer::done("RECONNECT"))
            }
            Command::Disable(database) => {
                self.check_database(Some(database))?;
                pools.disable(database, true);
                Ok(Answer::done("DISABLE"))
            }
            Command::Enable(database) => {
                self.check_database(Some(database))?;
                pools.disable(database, false);
                Ok(Answer::done("ENABLE"))
            }
            Command::Kill(database) => self.kill(database.as_deref()),
            Command::KillClient(id) => {
                let killed = self.console.table.kill(|client| client.identity.client.0 == *id);
                match killed {
                    0 => Err(ConsoleError::NoClient),
                    _ => Ok(Answer::done("KILL_CLIENT")),
                }
            }
            _ => Err(UnknownCommand::Arguments("not here").into()),
        }
    }

    /// Refuses a database that there is not, and the console.
    fn check_database(&self, database: Option<&str>) -> Result<(), ConsoleError> {
        let Some(name) = database else { return Ok(()) };
        if DATABASES.contains(&name) {
            return Err(ConsoleError::AdminDatabase(name.to_owned()));
        }
        let known = self.console.premises.databases(&[name]);
        if known.iter().any(|database| database.name == name) {
            Ok(())
        } else {
            Err(ConsoleError::NoDatabase(name.to_owned()))
        }
    }

    async fn pause(&mut self, database: Option<&str>) -> Result<Answer, ConsoleError> {
        self.check_database(database)?;
        let pools = self.console.pools.clone();
        pools.pause(database)?;
        let is_done = || pools.are_empty(database);
        if let Err(error) = self.wait_until(is_done).await {
            if matches!(error, ConsoleError::Canceled) {
                let _ = pools.resume(database);
            }
            return Err(error);
        }
        Ok(Answer::done("PAUSE"))
    }

    async fn suspend(&mut self) -> Result<Answer, ConsoleError> {
        let pools = self.console.pools.clone();
        pools.suspend()?;
        self.has_suspended = true;
        if let Err(error) = self.wait_until(|| pools.are_at_rest()).await {
            if matches!(error, ConsoleError::Canceled) {
                let _ = pools.resume(None);
                self.has_suspended = false;
            }
            return Err(error);
        }
        Ok(Answer::done("SUSPEND"))
    }

    async fn wait_close(&mut self, database: Option<&str>) -> Result<Answer, ConsoleError> {
        self.check_database(database)?;
        let pools = self.console.pools.clone();
        let is_done = || {
            !pools.servers().iter().any(|server| {
                server.close_needed
                    && database.is_none_or(|database| server.pool.database.as_str() == database)
            })
        };
        self.wait_until(is_done).await?;
        Ok(Answer::done("WAIT_CLOSE"))
    }

    fn kill(&mut self, database: Option<&str>) -> Result<Answer, ConsoleError> {
        self.check_database(database)?;
        self.console.pools.pause(database)?;
        self.console.table.kill(|client| match (&client.pool, database) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(pool), Some(database)) => pool.database.as_str() == database,
        });
        Ok(Answer::done("KILL"))
    }

    async fn reload(&mut self) -> Result<Answer, ConsoleError> {
        let (reply, answer) = oneshot::channel();
        self.console.premises.direct(Directive::Reload(reply));
        match answer.await {
            Ok(Ok(())) => Ok(Answer::done("RELOAD")),
            Ok(Err(problems)) => Err(ConsoleError::Reload(problems)),
            Err(_) => Err(ConsoleError::ShuttingDown),
        }
    }

    async fn set(&mut self, name: &str, value: &str) -> Result<Answer, ConsoleError> {
        if is_ignored(name) {
            return Ok(Answer::done("SET").with_notice("SET ignored"));
        }
        let (reply, answer) = oneshot::channel();
        self.console.premises.direct(Directive::Set {
            name: name.to_owned(),
            value: value.to_owned(),
            reply,
        });
        let error = match answer.await {
            Ok(Ok(())) => return Ok(Answer::done(format!("SET {name}={value}"))),
            Ok(Err(error)) => error,
            Err(_) => return Err(ConsoleError::ShuttingDown),
        };
        Err(match error {
            SetError::Unknown(near) => ConsoleError::UnknownSetting {
                name: name.to_owned(),
                near,
            },
            error => ConsoleError::Set {
                name: name.to_owned(),
                error,
            },
        })
    }

    async fn shutdown(&mut self, how: Shutdown) -> Result<Answer, ConsoleError> {
        self.console.premises.direct(Directive::Shutdown(how));
        if how == Shutdown::Immediate {
            // The end of the connection is the answer.
            return Err(self.interrupted().await);
        }
        Ok(Answer::done("SHUTDOWN"))
    }

    /// One setting: what drivers ask after, or one of the pooler's.
    fn show_setting(&self, name: &str) -> Result<Answer, ConsoleError> {
        let found = show::setting(name, &self.console.premises.settings());
        found
            .map(Answer::show)
            .ok_or_else(|| ConsoleError::UnknownSetting {
                name: name.to_owned(),
                near: near_topic(name),
            })
    }

    /// Waits, as long as nobody interrupts.
    async fn wait_until(&mut self, mut is_done: impl FnMut() -> bool) -> Result<(), ConsoleError> {
        while !is_done() {
            tokio::select! {
                biased;
                error = self.interrupted() => return Err(error),
                () = tokio::time::sleep(LOOK) => {}
            }
        }
        Ok(())
    }
}
