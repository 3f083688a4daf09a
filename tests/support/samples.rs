//! Reading Prometheus's text format.

/// The sum of the samples of `name{label="value",...}` that have at least these labels, in any order; NaN,
/// which equals nothing, if there is none.
pub fn sum_of_samples(text: &str, sample: &str) -> f64 {
    let (name, wanted) = split_labels(sample);
    let found = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (series_name, labels) = split_labels(series);
            let matches = series_name == name && wanted.iter().all(|label| labels.contains(label));
            matches.then(|| value.parse::<f64>().expect("a sample has a number"))
        });
    found.reduce(|sum, value| sum + value).unwrap_or(f64::NAN)
}

/// `name{a="1",b="2"}` as its name and `a="1"`, `b="2"`. Label values of tests have no commas.
fn split_labels(series: &str) -> (&str, Vec<&str>) {
    match series.trim().split_once('{') {
        Some((name, labels)) => (name, labels.trim_end_matches('}').split(',').collect()),
        None => (series.trim(), Vec::new()),
    }
}
