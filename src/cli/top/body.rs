//! The closer looks: pools, who waits, transactions, clusters, errors, and the rest.

use ratatui::{
    Frame,
    layout::{Alignment, Constraint, Rect},
    text::{Line, Span, Text},
    widgets::{Cell, Paragraph, Row, Table, Wrap},
};

use super::screen::Palette;
use crate::status::{
    document::{Budget, Change, Cluster, Level, Message, Pool, Replica, Session, Status},
    units::{count, digits, many, period, quantile, rate, seconds},
};

/// A closer look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tab {
    Pools,
    Waiting,
    Transactions,
    Clusters,
    Errors,
    More,
}

impl Tab {
    pub(super) const ALL: [Self; 6] = [
        Self::Pools,
        Self::Waiting,
        Self::Transactions,
        Self::Clusters,
        Self::Errors,
        Self::More,
    ];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Pools => "Pools",
            Self::Waiting => "Waiting",
            Self::Transactions => "Transactions",
            Self::Clusters => "Clusters",
            Self::Errors => "Errors",
            Self::More => "More",
        }
    }
}

/// Draws one, from its `scroll`th line on.
pub(super) fn draw(
    frame: &mut Frame<'_>,
    area: Rect,
    tab: Tab,
    status: &Status,
    style: Palette,
    scroll: u16,
) {
    let skip = usize::from(scroll);
    match tab {
        Tab::Pools => frame.render_widget(pools(status, style, skip), area),
        Tab::Transactions if !status.transactions.is_empty() => {
            frame.render_widget(transactions(status, style, skip), area);
        }
        _ => {
            let text = Text::from(lines(tab, status, style));
            let paragraph = Paragraph::new(text).wrap(Wrap { trim: false });
            frame.render_widget(paragraph.scroll((scroll, 0)), area);
        }
    }
}

/// How many lines one has, if no line is too long.
pub(super) fn height(tab: Tab, status: &Status) -> usize {
    match tab {
        Tab::Pools => status.pools.len() + 1,
        Tab::Transactions if !status.transactions.is_empty() => status.transactions.len() + 1,
        _ => lines(tab, status, Palette::plain()).len(),
    }
}

fn lines(tab: Tab, status: &Status, style: Palette) -> Vec<Line<'static>> {
    let now = status.process.now;
    let lines: Vec<_> = match tab {
        Tab::Pools => Vec::new(),
        Tab::Transactions => vec![Line::raw("No transaction has been open for a second.")],
        Tab::Waiting => waiting(status, style),
        Tab::Clusters => status
            .clusters
            .iter()
            .flat_map(|cluster| self::cluster(cluster, now, style))
            .collect(),
        Tab::Errors => status
            .errors
            .iter()
            .flat_map(|error| self::error(error, now, style))
            .collect(),
        Tab::More => more(status, style),
    };
    match tab {
        Tab::Waiting if lines.is_empty() => vec![Line::raw("No client has waited for 100 ms.")],
        Tab::Clusters if lines.is_empty() => vec![Line::raw("No database is configured.")],
        Tab::Errors if lines.is_empty() => vec![Line::raw("None since the start.")],
        _ => lines,
    }
}

fn header(names: &[&'static str], style: Palette) -> Row<'static> {
    let right = |index| {
        if index == 0 {
            Alignment::Left
        } else {
            Alignment::Right
        }
    };
    let cells = names.iter().enumerate();
    Row::new(cells.map(|(index, name)| Cell::from(Line::from(*name).alignment(right(index)))))
        .style(style.dim())
}

fn number(text: String) -> Cell<'static> {
    Cell::from(Line::from(text).alignment(Alignment::Right))
}

fn pools(status: &Status, style: Palette, skip: usize) -> Table<'static> {
    let rows = status.pools.iter().skip(skip).map(|pool| pool_row(pool, style));
    let widths = [
        Constraint::Min(17),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(10),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(8),
    ];
    let names = [
        "database/user",
        "clients",
        "waiting",
        "active/max",
        "trans/s",
        "p50",
        "p95",
        "wait p95",
    ];
    Table::new(rows, widths)
        .header(header(&names, style))
        .column_spacing(1)
}

fn pool_row(pool: &Pool, style: Palette) -> Row<'static> {
    let role = match &*pool.role {
        "rw" => String::new(),
        role => format!(" ({role})"),
    };
    let waiting = number(count(pool.waiting as u64));
    let minute = pool.minute.as_ref();
    let time = |time: Option<f64>| number(quantile(time));
    Row::new([
        Cell::from(format!("{}/{}{role}", pool.database, pool.user)),
        number(count(pool.clients as u64)),
        if pool.waiting > 0 {
            waiting.style(style.level(Level::Warn))
        } else {
            waiting
        },
        number(format!("{}/{}", pool.servers.active, pool.servers.limit)),
        number(minute.map_or_else(|| "–".to_owned(), |minute| digits(minute.transactions_per_second))),
        time(minute.and_then(|minute| minute.transaction_seconds.p50)),
        time(minute.and_then(|minute| minute.transaction_seconds.p95)),
        time(minute.and_then(|minute| minute.wait_seconds.p95)),
    ])
}

fn transactions(status: &Status, style: Palette, skip: usize) -> Table<'static> {
    let row = |session: &Session| {
        let pins = match session.pins.join(", ") {
            pins if pins.is_empty() => String::new(),
            pins => format!("; pinned: {pins}"),
        };
        Row::new([
            Cell::from(seconds(session.seconds)),
            Cell::from(name_of(&session.application)),
            Cell::from(format!("{}/{}", session.database, session.user)),
            Cell::from(format!("{}{pins}", session.state)),
            Cell::from(session.address.clone()),
        ])
    };
    let rows = status.transactions.iter().skip(skip).map(row);
    let widths = [
        Constraint::Length(11),
        Constraint::Fill(3),
        Constraint::Fill(3),
        Constraint::Fill(4),
        Constraint::Fill(3),
    ];
    let names = ["open for", "application", "database/user", "state", "address"];
    Table::new(rows, widths)
        .header(Row::new(names).style(style.dim()))
        .column_spacing(1)
}

fn name_of(application: &str) -> String {
    match application {
        "" => "unnamed".to_owned(),
        name => name.to_owned(),
    }
}

fn waiting(status: &Status, style: Palette) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for queue in &status.queues {
        let clients = many(queue.waiting, "client waits", "clients wait");
        let title = format!("{}/{}: {clients} ", queue.database, queue.user);
        lines.push(Line::from(vec![
            Span::styled(title, style.bold()),
            Span::raw(format!("for {}", queue.waits_for)),
        ]));
        lines.extend(queue.clients.iter().map(|client| {
            let name = name_of(&client.application);
            Line::raw(format!(
                "  {:>9}  {name}, user {}, {}, pid {}",
                seconds(client.seconds),
                client.user,
                client.address,
                client.pid
            ))
        }));
    }
    lines
}

fn phase_level(phase: &str) -> Level {
    match phase {
        "serving" => Level::Good,
        "degraded" => Level::Bad,
        _ => Level::Warn,
    }
}

fn cluster(cluster: &Cluster, now: f64, style: Palette) -> Vec<Line<'static>> {
    let why = cluster.explanation.as_deref();
    let mut lines = vec![Line::from(vec![
        Span::styled(format!("{} ", cluster.name), style.bold()),
        style.mark(phase_level(&cluster.phase), &cluster.phase),
        Span::raw(why.map(|why| format!(": {why}")).unwrap_or_default()),
        Span::raw(format!(
            " for {}, primary {}",
            period(now - cluster.since),
            cluster.primary.as_deref().unwrap_or("not known")
        )),
    ])];
    for member in &cluster.members {
        let role = match (member.primary, member.role.as_deref()) {
            (true, _) => "primary",
            (false, Some(role)) => role,
            (false, None) => "not seen yet",
        };
        let level = if member.state == "ready" {
            Level::Good
        } else {
            Level::Warn
        };
        lines.push(Line::from(vec![
            Span::raw(format!("  {} ({}) {role} ", member.name, member.address)),
            style.mark(level, &member.state.replace('_', " ")),
            Span::raw(format!(
                " {} active of {} connections",
                member.active, member.connections
            )),
        ]));
    }
    lines.extend(cluster.history.iter().map(|change| past(change, now, style)));
    lines
}

fn past(change: &Change, now: f64, style: Palette) -> Line<'static> {
    let mut words = String::new();
    if let Some(why) = &change.explanation {
        words.push_str(&format!(": {why}"));
    }
    if let Some(primary) = &change.primary {
        words.push_str(&format!(", primary {primary}"));
    }
    if let Some(held) = change.held_seconds {
        words.push_str(&format!(", after {} without one", seconds(held)));
    }
    Line::from(vec![
        Span::styled(format!("  {} ago ", period(now - change.at)), style.dim()),
        style.mark(phase_level(&change.phase), &change.phase),
        Span::raw(words),
    ])
}

fn error(error: &Message, now: f64, style: Palette) -> Vec<Line<'static>> {
    let level = if error.kind == "error" {
        Level::Bad
    } else {
        Level::Warn
    };
    let why = error.error.as_ref().map(|why| format!(": {why}"));
    let mut lines = vec![Line::from(vec![
        Span::styled(format!("{} ago ", period(now - error.last)), style.dim()),
        style.mark(level, &error.kind),
        Span::raw(format!(" {}{}", error.message, why.unwrap_or_default())),
    ])];
    if let Some(hint) = &error.hint {
        lines.push(Line::raw(format!("  what to do: {hint}")));
    }
    let mut facts = vec![format!("{}x", error.count)];
    let named = [
        ("SQLSTATE", &error.sqlstate),
        ("database", &error.database),
        ("user", &error.user),
        ("cluster", &error.cluster),
    ];
    for (name, value) in named {
        facts.extend(value.iter().map(|value| format!("{name} {value}")));
    }
    lines.push(Line::styled(format!("  {}", facts.join(", ")), style.dim()));
    lines
}

fn more(status: &Status, style: Palette) -> Vec<Line<'static>> {
    let mut lines = vec![Line::styled("pinned clients, by what pins them", style.bold())];
    for pin in &status.pins {
        lines.push(Line::raw(format!(
            "  {:<10} {} now, {} times so far",
            pin.reason, pin.clients, pin.total
        )));
    }
    if let Some(fleet) = &status.fleet {
        lines.push(Line::styled("replicas", style.bold()));
        lines.extend(fleet.iter().map(|replica| self::replica(replica, style)));
    }
    lines.push(Line::styled("certificates", style.bold()));
    for certificate in &status.certificates {
        let left = certificate.not_after as f64 - status.process.now;
        let when = if left < 0.0 {
            format!("expired {} ago", period(-left))
        } else {
            format!("good for {}", period(left))
        };
        lines.push(Line::raw(format!(
            "  {when}: {} ({})",
            certificate.subject, certificate.setting
        )));
    }
    if status.certificates.is_empty() {
        lines.push(Line::raw("  none in use"));
    }
    lines
}

fn of_budget(budget: Budget) -> String {
    let [connections, allowance] = [budget.connections, budget.allowance].map(|number| count(number as u64));
    format!(", {connections} connected of {allowance}")
}

fn replica(replica: &Replica, style: Palette) -> Line<'static> {
    let mark = match (&replica.error, replica.phase.as_deref()) {
        (Some(error), _) => style.mark(Level::Bad, error),
        (None, Some("running")) => style.mark(Level::Good, "running"),
        (None, phase) => style.mark(Level::Warn, phase.unwrap_or("unknown")),
    };
    let words = match &replica.error {
        Some(_) => String::new(),
        None => format!(
            " {}, {} waiting, {} servers active{}, {}",
            many(replica.clients, "client", "clients"),
            count(replica.waiting as u64),
            count(replica.active as u64),
            replica.budget.map(of_budget).unwrap_or_default(),
            rate(replica.transactions_per_second)
        ),
    };
    Line::from(vec![
        Span::raw(format!("  {} ", replica.name)),
        mark,
        Span::raw(words),
    ])
}
