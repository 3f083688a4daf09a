//! The messages of the extended protocol: what is prepared is carried out with the formats that were bound.

use super::{
    console::Conversation,
    error::ConsoleError,
    execute::Answer,
    portals::{Subject, read_execute},
    show::{self, Shown},
};
use crate::wire::{
    backend,
    frontend::tag,
    reply,
    rows::{self, Formats},
};

impl Conversation<'_> {
    /// Answers one message of a batch.
    pub(super) async fn extended(&mut self, tag: u8, body: &[u8]) -> Result<(), ConsoleError> {
        match tag {
            tag::PARSE => {
                self.portals.parse(body)?;
                self.stream.output().extend_from_slice(&backend::PARSE_COMPLETE);
            }
            tag::BIND => {
                self.portals.bind(body, |command| {
                    command.and_then(show::columns).map_or(0, |columns| columns.len())
                })?;
                self.stream.output().extend_from_slice(&backend::BIND_COMPLETE);
            }
            tag::CLOSE => {
                self.portals.close(&Subject::read(body)?);
                self.stream.output().extend_from_slice(&backend::CLOSE_COMPLETE);
            }
            tag::DESCRIBE => self.describe(&Subject::read(body)?)?,
            tag::EXECUTE => {
                let (portal, most) = read_execute(body)?;
                self.execute_portal(&portal, most).await?;
            }
            _ => {}
        }
        Ok(())
    }

    fn describe(&mut self, subject: &Subject) -> Result<(), ConsoleError> {
        let none = Formats::default();
        let (command, formats) = match subject {
            Subject::Statement(name) => {
                let command = self.portals.statement(name)?;
                rows::no_parameters(self.stream.output());
                (command, &none)
            }
            Subject::Portal(name) => {
                let portal = self.portals.portal(name)?;
                (portal.command.as_ref(), &portal.formats)
            }
        };
        match command.and_then(show::columns) {
            Some(columns) => rows::row_description(&columns, formats, self.stream.output()),
            None => rows::no_data(self.stream.output()),
        }
        Ok(())
    }

    async fn execute_portal(&mut self, name: &str, most: Option<usize>) -> Result<(), ConsoleError> {
        let portal = self.portals.portal(name)?;
        if portal.shown.is_none() {
            let Some(command) = portal.command.clone() else {
                reply::empty_query_response(self.stream.output());
                return Ok(());
            };
            let Answer { tag, notice, shown } = self.execute(&command).await?;
            let out = self.stream.output();
            if let Some(notice) = notice {
                reply::notice(&notice, None, out);
            }
            let Some(shown) = shown else {
                reply::command_complete(&tag, out);
                return Ok(());
            };
            self.portals.portal(name)?.shown = Some((shown, 0));
        }
        self.send_rows(name, most)
    }

    fn send_rows(&mut self, name: &str, most: Option<usize>) -> Result<(), ConsoleError> {
        let portal = self.portals.portal(name)?;
        let out = self.stream.output();
        let Some((Shown { columns, rows }, sent)) = &mut portal.shown else {
            return Ok(());
        };
        let wanted = most.unwrap_or(usize::MAX);
        for row in rows.iter().skip(*sent).take(wanted) {
            rows::data_row(columns, row, &portal.formats, out);
        }
        *sent = sent.saturating_add(wanted).min(rows.len());
        if *sent < rows.len() {
            rows::portal_suspended(out);
        } else {
            reply::command_complete("SHOW", out);
        }
        Ok(())
    }
}
