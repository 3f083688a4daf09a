//! `pgweir top`: what a running pgweir does, live in a terminal. It sees what the status page sees, over HTTP.

mod body;
mod fetch;
mod screen;

use std::{
    io::{self, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use ratatui::{
    DefaultTerminal, Terminal,
    backend::TestBackend,
    crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
};

use self::{
    fetch::{FetchError, Source},
    screen::{Screen, Step},
};
use crate::{fault::chain, status::document::Status};

/// How often keys are looked for while nothing else happens.
const PATIENCE: Duration = Duration::from_millis(250);
/// The size of what `--once` prints, where nobody knows better.
const COLUMNS: u16 = 100;
const ROWS: u16 = 40;

/// Options of `pgweir top`.
#[derive(Debug, clap::Args)]
pub(super) struct TopArgs {
    /// The HTTP server of the pgweir to look at; a user and a password for http.auth go before the host
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9127")]
    url: String,
    /// A file with the token that http.auth asks for
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = clap::value_parser!(u16).range(1..=3600))]
    interval: u16,
    /// Print it once, without colours, and end
    #[arg(long)]
    once: bool,
}

/// Shows it until somebody has seen enough.
pub(super) fn top(args: &TopArgs) -> ExitCode {
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pgweir top: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// Why nothing is shown.
#[derive(Debug, thiserror::Error)]
enum TopError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("this is no terminal; --once prints what there is to see")]
    NoTerminal,
    #[error("the terminal cannot be used")]
    Terminal(#[from] io::Error),
}

fn run(args: &TopArgs) -> Result<(), TopError> {
    let source = Source::new(&args.url, args.token_file.as_deref())?;
    // What is wrong from the start is said where it can be read.
    let first = source.fetch()?;
    let mut screen = Screen::new(source.address(), has_colours());
    screen.show(first, Instant::now());
    if args.once {
        return Ok(print(&screen)?);
    }
    if !io::stdout().is_terminal() {
        return Err(TopError::NoTerminal);
    }
    let news = ask(source, Duration::from_secs(args.interval.into()));
    let mut terminal = ratatui::try_init()?;
    let ended = follow(&mut terminal, &mut screen, &news);
    ratatui::try_restore()?;
    Ok(ended?)
}

/// <https://no-color.org>
fn has_colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Answers, and a way to say whether any are wanted.
struct News {
    answers: Receiver<Result<Status, FetchError>>,
    wanted: Arc<AtomicBool>,
}

/// Asks in a thread of its own, so that keys are heard while nobody answers. It ends with the process.
fn ask(source: Source, interval: Duration) -> News {
    let (sender, answers): (Sender<_>, _) = mpsc::channel();
    let wanted = Arc::new(AtomicBool::new(true));
    let asked = wanted.clone();
    thread::spawn(move || {
        loop {
            thread::sleep(interval);
            if asked.load(Ordering::Relaxed) && sender.send(source.fetch()).is_err() {
                return;
            }
        }
    });
    News { answers, wanted }
}

fn follow(terminal: &mut DefaultTerminal, screen: &mut Screen, news: &News) -> io::Result<()> {
    loop {
        terminal.draw(|frame| screen.draw(frame, Instant::now()))?;
        if event::poll(PATIENCE)?
            && let Event::Key(key) = event::read()?
            && let Some(step) = step(key)
        {
            if step == Step::Quit {
                return Ok(());
            }
            screen.step(step);
            news.wanted.store(!screen.is_paused(), Ordering::Relaxed);
        }
        for answer in news.answers.try_iter() {
            match answer {
                // It was asked for before the pause.
                _ if screen.is_paused() => {}
                Ok(status) => screen.show(status, Instant::now()),
                Err(error) => screen.lose(chain(&error)),
            }
        }
    }
}

fn step(key: KeyEvent) -> Option<Step> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Step::Quit),
        KeyCode::Char('q') | KeyCode::Esc => Some(Step::Quit),
        KeyCode::Char(' ') => Some(Step::Pause),
        KeyCode::Tab | KeyCode::Right => Some(Step::Next),
        KeyCode::BackTab | KeyCode::Left => Some(Step::Previous),
        KeyCode::Down | KeyCode::Char('j') => Some(Step::Scroll(1)),
        KeyCode::Up | KeyCode::Char('k') => Some(Step::Scroll(-1)),
        KeyCode::PageDown => Some(Step::Scroll(10)),
        KeyCode::PageUp => Some(Step::Scroll(-10)),
        KeyCode::Char(digit) => digit
            .to_digit(10)
            .and_then(|number| usize::try_from(number).ok()?.checked_sub(1))
            .map(Step::Tab),
        _ => None,
    }
}

/// All tabs, one below the other.
fn print(screen: &Screen) -> io::Result<()> {
    let size = ratatui::crossterm::terminal::size();
    let columns = size.map_or(COLUMNS, |(columns, _)| columns.max(COLUMNS));
    // Nothing can be wrong with a terminal that is none.
    let Ok(mut terminal) = Terminal::new(TestBackend::new(columns, ROWS));
    let Ok(_) = terminal.draw(|frame| screen.draw_all(frame, Instant::now()));
    let text = text_of(&terminal);
    match io::stdout().write_all(text.as_bytes()) {
        // Whoever reads has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// What stands on a screen, without the empty lines at the end.
fn text_of(terminal: &Terminal<TestBackend>) -> String {
    let buffer = terminal.backend().buffer();
    let width = usize::from(buffer.area.width.max(1));
    let rows = buffer.content.chunks(width).map(|row| {
        let line: String = row.iter().map(ratatui::buffer::Cell::symbol).collect();
        line.trim_end().to_owned()
    });
    let text = rows.collect::<Vec<_>>().join("\n");
    format!("{}\n", text.trim_end())
}
