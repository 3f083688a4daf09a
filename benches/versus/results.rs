//! All measurements, and what they say when the two poolers are compared.

use super::{
    metrics::{Metric, Sample},
    statistics::{median, quantile},
    workloads::{Goal, Workload},
};

/// From so many rounds on quartiles mean something.
const ENOUGH_FOR_QUARTILES: usize = 5;

/// Where ours is in what both sides have, and the rival.
pub(crate) const OURS: usize = 0;
pub(crate) const THEIRS: usize = 1;
pub(crate) const SIDES: [usize; 2] = [OURS, THEIRS];

/// Why a workload has no numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) side: usize,
    pub(crate) error: String,
}

/// One workload in one round on both sides.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) round: u32,
    pub(crate) outcome: Result<[Sample; 2], Failure>,
}

/// One workload with all of its rounds.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) workload: Workload,
    /// Whether the goals hold, which are beside PgBouncer.
    has_goals: bool,
    pub(crate) pairs: Vec<Pair>,
}

/// One line of the table.
#[derive(Debug, PartialEq)]
pub(crate) struct Comparison {
    pub(crate) metric: Metric,
    /// The medians of both sides.
    pub(crate) values: [f64; 2],
    /// The median of the rounds' own ratios.
    pub(crate) ratio: f64,
    /// Their quartiles, or the extremes of a few rounds.
    pub(crate) range: (f64, f64),
    pub(crate) goal: Option<Goal>,
}

impl Record {
    pub(crate) fn new(workload: Workload, has_goals: bool) -> Self {
        Self {
            workload,
            has_goals,
            pairs: Vec::new(),
        }
    }

    /// What went wrong first, if anything did in any round.
    pub(crate) fn failure(&self) -> Option<&Failure> {
        self.pairs.iter().find_map(|pair| pair.outcome.as_ref().err())
    }

    /// The metrics that both sides have, in the table's order; none after a failure.
    pub(crate) fn comparisons(&self) -> Vec<Comparison> {
        let first = self.pairs.first().filter(|_| self.failure().is_none());
        let Some(Ok([ours, _])) = first.map(|pair| &pair.outcome) else {
            return Vec::new();
        };
        ours.keys().map(|&metric| self.compare(metric)).collect()
    }

    fn compare(&self, metric: Metric) -> Comparison {
        let of = |side: usize, pair: &Pair| {
            let samples = pair.outcome.as_ref().ok();
            samples
                .and_then(|samples| samples[side].get(&metric))
                .copied()
                .unwrap_or(f64::NAN)
        };
        let values = SIDES.map(|side| {
            let all: Vec<f64> = self.pairs.iter().map(|pair| of(side, pair)).collect();
            median(&all)
        });
        let ratios: Vec<f64> = self.pairs.iter().map(|pair| of(0, pair) / of(1, pair)).collect();
        let edge = if ratios.len() >= ENOUGH_FOR_QUARTILES {
            0.25
        } else {
            0.0
        };
        Comparison {
            metric,
            values,
            ratio: median(&ratios),
            range: (quantile(&ratios, edge), quantile(&ratios, 1.0 - edge)),
            goal: self.workload.goal(metric).filter(|_| self.has_goals),
        }
    }
}

impl Comparison {
    /// Whether the goal is reached, if there is one.
    pub(crate) fn verdict(&self) -> Option<bool> {
        self.goal.map(|goal| goal.is_reached(self.metric, self.ratio))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{super::workloads, *};

    /// Rounds in which ours and theirs had these throughputs.
    pub(crate) fn record(throughputs: &[(f64, f64)]) -> Record {
        let workload = workloads::all().remove(0);
        let pairs = throughputs.iter().map(|&(ours, theirs)| Pair {
            round: 1,
            outcome: Ok([ours, theirs].map(|value| Sample::from([(Metric::Throughput, value)]))),
        });
        Record {
            workload,
            has_goals: true,
            pairs: pairs.collect(),
        }
    }

    #[test]
    fn a_ratio_is_of_its_round() {
        // The second round was slow for both.
        let record = record(&[(100.0, 50.0), (10.0, 10.0), (90.0, 30.0)]);
        let [line] = &record.comparisons()[..] else {
            panic!("one metric");
        };
        assert_eq!((line.values, line.ratio), ([90.0, 30.0], 2.0));
        assert_eq!(line.range, (1.0, 3.0));
        assert_eq!(line.verdict(), Some(true));
    }

    #[test]
    fn five_rounds_have_quartiles() {
        let record = record(&[(1.0, 1.0), (2.0, 1.0), (3.0, 1.0), (4.0, 1.0), (5.0, 1.0)]);
        assert_eq!(record.comparisons()[0].range, (2.0, 4.0));
    }

    #[test]
    fn one_failure_is_the_result() {
        let mut record = record(&[(1.0, 1.0), (2.0, 1.0)]);
        let failure = Failure {
            side: THEIRS,
            error: "it broke".into(),
        };
        record.pairs[1].outcome = Err(failure.clone());
        assert_eq!(record.failure(), Some(&failure));
        assert_eq!(record.comparisons(), []);
    }
}
