//! The raw numbers as JSON. Text only.

use std::fmt::Write;

use super::results::{Outcome, Record, SIDES};

/// An object with the facts and an array of measurements.
pub(crate) fn render(facts: &[(&str, String)], records: &[Record], labels: [&str; 2]) -> String {
    let facts: Vec<String> = facts
        .iter()
        .map(|(name, value)| format!("    {}: {}", string(name), string(value)))
        .collect();
    let measurements: Vec<String> = records
        .iter()
        .flat_map(|record| {
            let all = record
                .pairs
                .iter()
                .flat_map(|pair| SIDES.map(|side| (pair, side)));
            all.map(|(pair, side)| {
                format!(
                    "    {{\"workload\": {}, \"pooler\": {}, \"round\": {}, {}}}",
                    string(&record.workload.name),
                    string(labels[side]),
                    pair.round,
                    outcome(&pair.outcomes[side])
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

fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Ok(sample) => {
            let numbers = sample
                .iter()
                .map(|(metric, value)| format!("\"{}\": {}", metric.key(), number(*value)));
            numbers.collect::<Vec<_>>().join(", ")
        }
        Err(error) => format!("\"error\": {}", string(error)),
    }
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
    use super::{super::results::tests::record, *};

    #[test]
    fn every_measurement_is_there() {
        let mut record = record(&[(1.5, f64::NAN), (2.0, 3.0)]);
        record.pairs[1].outcomes[0] = Err("no \"way\"\n".into());
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
            r#"{"workload": "simple-8x20", "pooler": "b", "round": 1, "throughput": 3}"#,
        ] {
            assert!(lines.contains(&line), "{line} in {text}");
        }
    }
}
