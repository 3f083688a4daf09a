//! The screen: how things stand, what has happened lately, and one of several closer looks. Drawing it asks nobody.

use std::time::{Duration, Instant};

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Borders, Paragraph, Sparkline, Tabs},
};

use super::body::{self, Tab};
use crate::status::{
    document::{Level, Rates, Status},
    units::{bytes, count, digits, period, quantile, rate, seconds},
};

/// Silence of this length is worth a word.
const SILENCE: Duration = Duration::from_secs(7);

/// What there is to show, and how.
pub(super) struct Screen {
    address: String,
    style: Palette,
    status: Option<(Status, Instant)>,
    trouble: Option<String>,
    tab: usize,
    scroll: u16,
    paused: bool,
}

/// What somebody wants to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Quit,
    Pause,
    Next,
    Previous,
    Tab(usize),
    Scroll(i16),
}

/// Colours beside the words, where they are wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Palette {
    has_colours: bool,
}

impl Palette {
    pub(super) fn plain() -> Self {
        Self { has_colours: false }
    }

    fn coloured(self, colour: Color) -> Style {
        if self.has_colours {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }

    pub(super) fn level(self, level: Level) -> Style {
        let style = self.coloured(match level {
            Level::Good => Color::Green,
            Level::Warn => Color::Yellow,
            Level::Bad => Color::Red,
        });
        style.add_modifier(Modifier::BOLD)
    }

    pub(super) fn dim(self) -> Style {
        self.coloured(Color::DarkGray)
    }

    pub(super) fn bold(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// A shape and a word.
    pub(super) fn mark(self, level: Level, word: &str) -> Span<'static> {
        let shape = match level {
            Level::Good => '●',
            Level::Warn => '▲',
            Level::Bad => '■',
        };
        Span::styled(format!("{shape} {word}"), self.level(level))
    }
}

impl Screen {
    pub(super) fn new(address: String, has_colours: bool) -> Self {
        Self {
            address,
            style: Palette { has_colours },
            status: None,
            trouble: None,
            tab: 0,
            scroll: 0,
            paused: false,
        }
    }

    /// Takes an answer.
    pub(super) fn show(&mut self, status: Status, now: Instant) {
        self.status = Some((status, now));
        self.trouble = None;
    }

    /// Takes the lack of one.
    pub(super) fn lose(&mut self, trouble: String) {
        self.trouble = Some(trouble);
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused
    }

    pub(super) fn step(&mut self, step: Step) {
        let tabs = Tab::ALL.len();
        let before = self.tab;
        match step {
            Step::Quit => {}
            Step::Pause => self.paused = !self.paused,
            Step::Next => self.tab = (self.tab + 1) % tabs,
            Step::Previous => self.tab = (self.tab + tabs - 1) % tabs,
            Step::Tab(tab) if tab < tabs => self.tab = tab,
            Step::Tab(_) => {}
            Step::Scroll(lines) => self.scroll = self.scroll.saturating_add_signed(lines),
        }
        if self.tab != before {
            self.scroll = 0;
        }
    }

    pub(super) fn draw(&self, frame: &mut Frame<'_>, now: Instant) {
        let Some((status, heard)) = &self.status else {
            return;
        };
        let notices = self.notices(status, now.saturating_duration_since(*heard));
        let notice_lines = u16::try_from(notices.len()).unwrap_or(1).clamp(1, 3);
        let [head, notice, figures, charts, tabs, body, keys] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(notice_lines),
            Constraint::Length(2),
            Constraint::Length(4),
            Constraint::Length(1),
            Constraint::Min(1),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        frame.render_widget(self.head(status), head);
        frame.render_widget(Paragraph::new(notices), notice);
        frame.render_widget(Paragraph::new(figures_of(status)), figures);
        self.draw_charts(frame, charts, status);
        frame.render_widget(self.tabs(), tabs);
        if let Some(tab) = Tab::ALL.get(self.tab) {
            body::draw(frame, body, *tab, status, self.style, self.scroll);
        }
        frame.render_widget(self.keys(), keys);
    }

    /// What `--once` prints: as much of all tabs as there is room for.
    pub(super) fn draw_all(&self, frame: &mut Frame<'_>, now: Instant) {
        let Some((status, heard)) = &self.status else {
            return;
        };
        let notices = self.notices(status, now.saturating_duration_since(*heard));
        let mut rest = frame.area();
        let mut take = |lines: usize| {
            let lines = u16::try_from(lines).unwrap_or(u16::MAX).min(rest.height);
            let [taken, left] = Layout::vertical([Constraint::Length(lines), Constraint::Min(0)]).areas(rest);
            rest = left;
            taken
        };
        frame.render_widget(self.head(status), take(1));
        let area = take(notices.len());
        frame.render_widget(Paragraph::new(notices), area);
        frame.render_widget(Paragraph::new(figures_of(status)), take(2));
        for tab in Tab::ALL {
            let title = Line::styled(tab.title(), self.style.bold());
            take(1);
            frame.render_widget(title, take(1));
            let area = take(body::height(tab, status));
            body::draw(frame, area, tab, status, self.style, 0);
        }
    }

    fn head(&self, status: &Status) -> Line<'static> {
        let process = &status.process;
        let up = period(process.now - process.started);
        Line::from(vec![
            Span::styled("pgweir ", self.style.bold()),
            Span::raw(format!(
                "{} on {} ({}), pid {}, {} for {up}",
                process.version, process.host, self.address, process.pid, process.phase
            )),
        ])
    }

    fn notices(&self, status: &Status, silence: Duration) -> Vec<Line<'static>> {
        let mut lines = Vec::new();
        if let Some(trouble) = &self.trouble
            && silence >= SILENCE
        {
            let since = seconds(silence.as_secs_f64().round());
            let text = format!(": what is shown is {since} old; {trouble}");
            let mark = self.style.mark(Level::Bad, "no contact");
            lines.push(Line::from(vec![mark, Span::raw(text)]));
        }
        lines.extend(status.notices.iter().map(|notice| {
            let mark = self.style.mark(notice.level, &notice.title);
            Line::from(vec![mark, Span::raw(format!(" {}", notice.text))])
        }));
        lines
    }

    fn draw_charts(&self, frame: &mut Frame<'_>, area: Rect, status: &Status) {
        let series = &status.series;
        let rates = series.transactions_per_second.iter().map(|rate| whole(*rate));
        let times = series.transaction_seconds.p95.iter();
        let times = times.map(|time| whole(time.unwrap_or_default() * 1e6));
        let waits = series.waiting.iter().map(|waiting| *waiting as u64);
        let areas: [Rect; 3] = Layout::horizontal([Constraint::Fill(1); 3])
            .spacing(2)
            .areas(area);
        let all = [
            (
                "transactions",
                rates.collect::<Vec<_>>(),
                rate as fn(f64) -> String,
            ),
            ("time p95", times.collect(), |micros| quantile(Some(micros / 1e6))),
            ("clients waiting", waits.collect(), digits),
        ];
        for (area, (name, values, unit)) in areas.into_iter().zip(all) {
            self.draw_chart(frame, area, name, &values, unit);
        }
    }

    fn draw_chart(
        &self,
        frame: &mut Frame<'_>,
        area: Rect,
        name: &str,
        values: &[u64],
        unit: fn(f64) -> String,
    ) {
        let last = values.len().saturating_sub(usize::from(area.width));
        let shown = values.get(last..).unwrap_or_default();
        let most = shown.iter().max().copied().unwrap_or(0);
        let title = format!("{name}, up to {}", unit(most as f64));
        let block = Block::new()
            .borders(Borders::TOP)
            .border_style(self.style.dim())
            .title(title);
        let bars = Sparkline::default()
            .block(block)
            .max(most.max(1))
            .data(shown.iter().copied());
        frame.render_widget(bars.style(self.style.coloured(Color::Cyan)), area);
    }

    fn tabs(&self) -> Tabs<'static> {
        let titles = Tab::ALL
            .iter()
            .enumerate()
            .map(|(index, tab)| format!("{} {}", index + 1, tab.title()));
        Tabs::new(titles)
            .select(self.tab)
            .highlight_style(Style::new().add_modifier(Modifier::REVERSED))
            .divider(" ")
            .padding(" ", " ")
    }

    fn keys(&self) -> Line<'static> {
        let pause = if self.paused {
            "PAUSED, space goes on"
        } else {
            "space pauses"
        };
        let text = format!(
            "q quits   1-{} or tab: closer looks   up/down scroll   {pause}",
            Tab::ALL.len()
        );
        Line::styled(text, self.style.dim())
    }
}

fn whole(value: f64) -> u64 {
    // Negative, endless and no numbers are none that can be counted.
    Duration::try_from_secs_f64(value).map_or(0, |value| value.as_secs())
}

fn figures_of(status: &Status) -> Vec<Line<'static>> {
    let (clients, servers) = (&status.clients, &status.servers);
    let number = |value: usize| count(value as u64);
    let budget = status.budget.map(|budget| {
        let (allowance, whole) = (number(budget.allowance), number(budget.whole));
        format!(", {allowance} of the budget's {whole}")
    });
    let first = format!(
        "clients {} of {}, waiting {}, pinned {}   servers {} active, {} idle of {}{}",
        number(clients.connected),
        number(clients.limit),
        number(clients.waiting),
        number(clients.pinned),
        number(servers.active),
        number(servers.idle),
        number(servers.limit),
        budget.unwrap_or_default(),
    );
    let Rates {
        transactions_per_second,
        transaction_seconds: time,
        wait_seconds: wait,
        ..
    } = &status.minute;
    let process = &status.process;
    let cpus = process.cpus.map_or_else(|| "–".to_owned(), digits);
    let memory = process.memory_bytes.map_or_else(|| "–".to_owned(), bytes);
    let second = format!(
        "trans {}  p50 {} p95 {}  wait p95 {}  {cpus} CPUs, {memory}",
        rate(*transactions_per_second),
        quantile(time.p50),
        quantile(time.p95),
        quantile(wait.p95),
    );
    vec![Line::raw(first), Line::raw(second)]
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};

    use super::{super::text_of, *};
    use crate::status::document::sample;

    fn screen() -> Screen {
        let mut screen = Screen::new("db:9127".to_owned(), true);
        screen.show(sample(), Instant::now());
        screen
    }

    fn drawn(screen: &Screen, (columns, rows): (u16, u16), after: Duration) -> String {
        let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
        let now = Instant::now() + after;
        terminal.draw(|frame| screen.draw(frame, now)).unwrap();
        text_of(&terminal)
    }

    const USUAL: (u16, u16) = (80, 24);

    #[test]
    fn what_matters_fits_on_the_smallest_usual_screen() {
        let text = drawn(&screen(), USUAL, Duration::ZERO);
        for part in [
            "pgweir 0.1.0 on pgweir-7c9f (db:9127), pid 1, running for 2 h 46 min",
            "● serving 1 cluster, 1 pool, 66 clients.",
            "clients 66 of 1,000, waiting 2, pinned 1   servers 12 active, 7 idle of 20",
            "trans 1,287/s  p50 208 µs p95 2.01 ms  wait p95 2.5 ms  0.25 CPUs, 29.3 MB",
            "transactions, up to 1,550",
            "1 Pools",
            "6 More",
            "active/max",
            "shop/app",
            "12/20",
            "q quits",
        ] {
            assert!(text.contains(part), "{part}:\n{text}");
        }
        assert_eq!(text.lines().count(), usize::from(USUAL.1), "{text}");
    }

    #[test]
    fn every_tab_has_its_own() {
        let mut screen = screen();
        let expected = [
            "wait p95",
            "shop/app: 2 clients wait for one of the pool's 20",
            "idle in transaction",
            "after 1.83 s without one",
            "what to do: Ask whoever has the password.",
            "good for 92 d 14 h: CN=db",
        ];
        for (tab, part) in expected.into_iter().enumerate() {
            screen.step(Step::Tab(tab));
            let text = drawn(&screen, USUAL, Duration::ZERO);
            assert!(text.contains(part), "{part}:\n{text}");
        }
        screen.step(Step::Tab(99));
        screen.step(Step::Next);
        assert!(drawn(&screen, USUAL, Duration::ZERO).contains("shop/app"));
    }

    #[test]
    fn lost_contact_is_said_and_what_was_known_stays() {
        let mut screen = screen();
        screen.lose("db:9127 does not answer".to_owned());
        assert!(!drawn(&screen, USUAL, Duration::from_secs(3)).contains("no contact"));
        let text = drawn(&screen, USUAL, Duration::from_secs(30));
        assert!(
            text.contains("■ no contact: what is shown is 30 s old; db:9127"),
            "{text}"
        );
        assert!(text.contains("shop/app"), "{text}");
    }

    #[test]
    fn no_size_is_too_small_and_no_name_draws_anything() {
        let mut screen = screen();
        let (status, _) = screen.status.as_mut().unwrap();
        "\u{1b}[2J\r\nshop".clone_into(&mut status.pools[0].database);
        for size in [(1, 1), (20, 5), (40, 10), (300, 80)] {
            for tab in 0..Tab::ALL.len() {
                screen.step(Step::Tab(tab));
                screen.step(Step::Scroll(500));
                let text = drawn(&screen, size, Duration::ZERO);
                assert!(!text.contains('\u{1b}'), "{text:?}");
            }
        }
    }

    #[test]
    fn all_of_it_can_be_printed() {
        let mut terminal = Terminal::new(TestBackend::new(100, 40)).unwrap();
        let screen = screen();
        terminal
            .draw(|frame| screen.draw_all(frame, Instant::now()))
            .unwrap();
        let text = text_of(&terminal);
        for tab in Tab::ALL {
            let mut lines = text.lines();
            assert!(lines.any(|line| line == tab.title()), "{}:\n{text}", tab.title());
        }
    }
}
