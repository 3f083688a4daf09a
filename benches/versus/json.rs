//! The raw numbers as JSON. Text only.

use std::fmt::Write;

use super::{
    metrics::Sample,
    results::{Pair, Record, SIDES},
};

/// An object with the facts and an array of measurements.
pub(crate) fn render(facts: &[(&str, String)], records: &[Record], labels: [&str; 2]) -> String {
    let facts: Vec<String> = facts
        .iter()
        .map(|(name, value)| format!("    {}: {}", string(name), string(value)))
        .collect();
    let measurements: Vec<String> = records
        .iter()
        .flat_map(|record| record.pairs.iter().map(move |pair| (record, pair)))
        .flat_map(|(record, pair)| {
            outcome(pair).into_iter().map(move |(side, outcome)| {
                format!(
                    "    {{\"workload\": {}, \"pooler\": {}, \"round\": {}, {outcome}}}",
                    string(&record.workload.name),
                    string(labels[side]),
                    pair.round,
                )
            })
        })
        .collect();
    format!(
        "{{\n  \"facts\": {{\n{}\n  }},\n  \"measurements\": [\n{}\n  ]\n}}\n",
        facts.join(",\n"),
        measurements.join(",\n")
    )
}

/// Of whom there is something to say, and what.
fn outcome(pair: &Pair) -> Vec<(usize, String)> {
    match &pair.outcome {
        Ok(samples) => SIDES.map(|side| (side, numbers(&samples[side]))).into(),
        Err(failure) => vec![(failure.side, format!("\"error\": {}", string(&failure.error)))],
    }
}

fn numbers(sample: &Sample) -> String {
    let numbers = sample
        .iter()
        .map(|(metric, value)| format!("\"{}\": {}", metric.key(), number(*value)));
    numbers.collect::<Vec<_>>().join(", ")
}

/// JSON has neither NaN nor infinity.
fn number(value: f64) -> String {
    if value.is_finite() {
        value.to_string()
    } else {
        "null".to_owned()
    }
}

fn string(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                quoted.push('\\');
                quoted.push(c);
            }
            // Writing to a String cannot fail.
            c if c.is_control() => drop(write!(quoted, "\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::{
        super::results::{Failure, OURS, tests::record},
        *,
    };

    #[test]
    fn every_measurement_is_there() {
        let mut record = record(&[(1.5, f64::NAN), (2.0, 3.0)]);
        record.pairs[1].outcome = Err(Failure {
            side: OURS,
            error: "no \"way\"\n".into(),
        });
        let text = render(&[("machine", "2 cores".into())], &[record], ["a", "b"]);
        let lines: Vec<&str> = text
            .lines()
            .map(|line| line.trim().trim_end_matches(','))
            .collect();
        for line in [
            r#""machine": "2 cores""#,
            r#"{"workload": "simple-8x20", "pooler": "a", "round": 1, "throughput": 1.5}"#,
            r#"{"workload": "simple-8x20", "pooler": "b", "round": 1, "throughput": null}"#,
            r#"{"workload": "simple-8x20", "pooler": "a", "round": 1, "error": "no \"way\"\u000a"}"#,
        ] {
            assert!(lines.contains(&line), "{line} in {text}");
        }
    }
}
