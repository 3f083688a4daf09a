//! The table that a person reads. Text only.

use std::fmt::Write;

use super::{
    metrics::Sample,
    results::{Comparison, Failure, Record, SIDES},
    statistics::as_f64,
};

/// The whole table with a summary; `labels` are the heads of the two columns.
pub(crate) fn render(records: &[Record], labels: [&str; 2]) -> String {
    let mut text = String::new();
    let [ours, theirs] = labels;
    // Writing to a String cannot fail, here and below.
    let _ = writeln!(
        text,
        "{:<24}{ours:>12}{theirs:>14}{:>8}  {:<15}goal",
        "", "ratio", "range"
    );
    for record in records.iter().filter(|record| !record.pairs.is_empty()) {
        let workload = &record.workload;
        let _ = writeln!(text, "\n{}  ({})", workload.name, workload.title());
        if let Some(Failure { side, error }) = record.failure() {
            let _ = writeln!(text, "  {}: ERROR: {error}", labels[*side]);
        }
        for line in record.comparisons() {
            text.push_str(&render_line(record, &line));
        }
    }
    text.push('\n');
    text.push_str(&summary(records));
    text
}

/// The latest round, a line for each side with numbers or for what went wrong; for who watches.
pub(crate) fn brief(record: &Record, labels: [&str; 2]) -> Vec<String> {
    let unit = record.workload.unit();
    let numbers = |sample: &Sample| {
        let parts = sample
            .iter()
            .map(|(metric, value)| format!("{} {}", metric.label(unit).trim(), number(*value)));
        parts.collect::<Vec<_>>().join(", ")
    };
    match record.pairs.last().map(|pair| &pair.outcome) {
        None => Vec::new(),
        Some(Ok(samples)) => SIDES
            .map(|side| format!("{}: {}", labels[side], numbers(&samples[side])))
            .into(),
        Some(Err(Failure { side, error })) => vec![format!("{}: ERROR: {error}", labels[*side])],
    }
}

fn render_line(record: &Record, line: &Comparison) -> String {
    let [ours, theirs] = line.values.map(number);
    let label = line.metric.label(record.workload.unit());
    let range = match record.pairs.len() {
        1 => String::new(),
        _ => format!("[{:.2} {:.2}]", line.range.0, line.range.1),
    };
    let text = format!(
        "  {label:<22}{ours:>12}{theirs:>14}{:>8.2}  {range:<15}{:<9}{}",
        line.ratio,
        goal(line),
        verdict(line)
    );
    format!("{}\n", text.trim_end())
}

fn goal(line: &Comparison) -> String {
    let Some(goal) = line.goal else {
        return String::new();
    };
    let sign = if line.metric.more_is_better() { ">=" } else { "<=" };
    format!("{sign} {:.2}", goal.0)
}

fn verdict(line: &Comparison) -> &'static str {
    match line.verdict() {
        Some(true) => "reached",
        Some(false) => "MISSED",
        None => "",
    }
}

/// How many goals are reached, and which are not.
fn summary(records: &[Record]) -> String {
    let (mut reached, mut missed) = (0, Vec::new());
    for record in records {
        for line in record.comparisons() {
            match line.verdict() {
                Some(true) => reached += 1,
                Some(false) => missed.push(format!(
                    "  missed: {} {} {:.2} ({})",
                    record.workload.name,
                    line.metric.label(record.workload.unit()).trim(),
                    line.ratio,
                    goal(&line)
                )),
                None => {}
            }
        }
    }
    let failed = records.iter().filter(|record| record.failure().is_some()).count();
    let total = reached + missed.len();
    let mut text = format!("{reached} of {total} goals reached, {failed} workloads failed\n");
    for line in missed {
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// Three digits at least, thousands set apart.
fn number(value: f64) -> String {
    match value.abs() {
        size if size.is_nan() => "-".to_owned(),
        size if size < 0.1 => format!("{value:.4}"),
        size if size < 10.0 => format!("{value:.2}"),
        size if size < 1000.0 => format!("{value:.1}"),
        _ => {
            let digits = format!("{value:.0}");
            let (sign, digits) = digits
                .strip_prefix('-')
                .map_or(("", digits.as_str()), |rest| ("-", rest));
            let groups: Vec<&str> = digits
                .as_bytes()
                .rchunks(3)
                .rev()
                .filter_map(|group| str::from_utf8(group).ok())
                .collect();
            format!("{sign}{}", groups.join(","))
        }
    }
}

/// How long `seconds` are, for a person.
pub(crate) fn duration(seconds: u64) -> String {
    match seconds {
        0..100 => format!("{seconds} s"),
        _ => format!("{:.0} min", as_f64(seconds) / 60.0),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::results::{OURS, tests::record},
        *,
    };

    #[test]
    fn numbers_are_read_by_people() {
        let shown = [0.01234, 1.234, 123.44, 1234.5, 1_234_567.0, -54321.0, f64::NAN].map(number);
        assert_eq!(
            shown,
            ["0.0123", "1.23", "123.4", "1,234", "1,234,567", "-54,321", "-"]
        );
    }

    #[test]
    fn goals_and_verdicts_stand_beside_the_numbers() {
        let text = render(&[record(&[(1.0, 2.0), (2.0, 2.0)])], ["pgweir", "PgBouncer"]);
        let line = text.lines().find(|line| line.contains("  tps ")).unwrap();
        for part in ["1.50", "2.00", "0.75", "[0.50 1.00]", ">= 1.00", "MISSED"] {
            assert!(line.contains(part), "{part} in {line}");
        }
        assert!(text.contains(
            "0 of 1 goals reached, 0 workloads failed\n  missed: simple-8x20 tps 0.75 (>= 1.00)\n"
        ));
    }

    #[test]
    fn an_error_is_told_instead_of_a_number() {
        let mut record = record(&[(1.0, 2.0)]);
        record.pairs[0].outcome = Err(Failure {
            side: OURS,
            error: "pgbench failed".into(),
        });
        assert_eq!(
            brief(&record, ["pgweir", "PgBouncer"]),
            ["pgweir: ERROR: pgbench failed"]
        );
        let text = render(&[record], ["pgweir", "PgBouncer"]);
        assert!(text.contains("  pgweir: ERROR: pgbench failed\n"));
        assert!(!text.contains("  tps "));
        assert!(text.contains("0 of 0 goals reached, 1 workloads failed"));
    }
}
