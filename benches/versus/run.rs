//! The rounds: every workload on both poolers, never both at work at once.

use std::{fs, io::Write, time::Duration};

use pgweir::{cli::demo::interrupt::Interrupt, fault::chain, lifecycle::raise_open_files};

use super::{
    error::{BenchError, MeasureError, SideError},
    idle, json, machine,
    metrics::Sample,
    options::Options,
    poolers::Subject,
    results::{Failure, OURS, Pair, Record, THEIRS},
    site::Site,
    stream, table, turns,
    workloads::{self, Load, Workload},
};

/// A run's time besides what is measured of it, for the estimate.
const OVERHEAD: u64 = 3;

/// Runs everything and prints the table; whether every workload could be measured.
pub(crate) fn run(options: &Options) -> Result<bool, BenchError> {
    let chosen = workloads::choose(&options.only, options.quick)?;
    if options.list {
        list(&chosen);
        return Ok(true);
    }
    let subjects = [
        Subject::ours(&options.pgweir, &options.workers)?,
        Subject::rival(options.vs.as_deref(), &options.workers)?,
    ];
    let interrupt = Interrupt::listen().map_err(BenchError::Signals)?;
    // The poolers and pgbench inherit it. What is too low is told by whoever needs more.
    let _ = raise_open_files();
    eprintln!("starting PostgreSQL and filling pgbench's tables");
    let site = Site::prepare()?;
    let facts = machine::facts(&site, &subjects, options)?;
    for (name, value) in &facts {
        eprintln!("{name:<12} {value}");
    }
    let has_goals = subjects[THEIRS].is_pgbouncer();
    let records = chosen
        .into_iter()
        .map(|workload| Record::new(workload, has_goals))
        .collect();
    let mut bench = Bench {
        site,
        subjects,
        interrupt,
        seconds: options.seconds(),
        records,
    };
    let ended = bench.all_rounds(options.rounds());
    bench.report(&facts, options)?;
    ended?;
    Ok(bench.records.iter().all(|record| record.failure().is_none()))
}

fn list(chosen: &[Workload]) {
    for workload in chosen {
        println!("{:<22}{}", workload.name, workload.title());
    }
}

struct Bench {
    site: Site,
    subjects: [Subject; 2],
    interrupt: Interrupt,
    seconds: u32,
    records: Vec<Record>,
}

impl Bench {
    fn all_rounds(&mut self, rounds: u32) -> Result<(), BenchError> {
        let runs = u64::from(rounds) * 2 * self.records.len() as u64;
        let seconds = runs * (u64::from(self.seconds) + OVERHEAD);
        eprintln!("{runs} runs, about {}", table::duration(seconds));
        for round in 1..=rounds {
            for index in 0..self.records.len() {
                // Whoever failed has no number any more, and may fail slowly.
                if self.records[index].failure().is_none() {
                    self.one_pair(round, index)?;
                }
            }
        }
        Ok(())
    }

    fn one_pair(&mut self, round: u32, index: usize) -> Result<(), BenchError> {
        let workload = self.records[index].workload.clone();
        // AB, BA, AB: neither is always the one who comes after the other.
        let first = (index + round as usize) % 2;
        let outcome = self.measure(first, &workload)?;
        let labels = self.labels();
        let record = &mut self.records[index];
        record.pairs.push(Pair { round, outcome });
        for line in table::brief(record, labels) {
            eprintln!("round {round} {} {line}", workload.name);
        }
        Ok(())
    }

    /// Numbers or why there are none; an error only if it makes no sense to go on.
    fn measure(&self, first: usize, workload: &Workload) -> Result<Result<[Sample; 2], Failure>, BenchError> {
        if self.interrupt.came_within(Duration::ZERO) {
            return Err(BenchError::Interrupted);
        }
        if workload.load == Load::TpcB {
            self.site.tidy()?;
        }
        let samples = match workload.load {
            Load::Stream | Load::Idle => self.one_after_the_other(first, workload),
            Load::Select { .. } | Load::TpcB | Load::Storm => turns::measure(
                &self.site,
                &self.subjects,
                workload,
                self.seconds,
                first,
                &self.interrupt,
            ),
        };
        match samples {
            Ok(samples) => Ok(Ok(samples)),
            Err((_, MeasureError::Interrupted)) => Err(BenchError::Interrupted),
            Err((side, error)) => Ok(Err(Failure {
                side,
                error: chain(&error),
            })),
        }
    }

    fn one_after_the_other(&self, first: usize, workload: &Workload) -> Result<[Sample; 2], SideError> {
        let mut samples = [Sample::new(), Sample::new()];
        for side in [first, 1 - first] {
            samples[side] = self.one_side(side, workload).map_err(|error| (side, error))?;
        }
        Ok(samples)
    }

    fn one_side(&self, side: usize, workload: &Workload) -> Result<Sample, MeasureError> {
        let mut pooler = self.subjects[side].start(&self.site, workload)?;
        match workload.load {
            Load::Idle => idle::measure(&self.site, &mut pooler, workload, &self.interrupt),
            _ => stream::measure(&pooler, self.seconds, &self.interrupt),
        }
    }

    /// The heads of the two columns.
    fn labels(&self) -> [&'static str; 2] {
        [self.subjects[OURS].label, self.subjects[THEIRS].label]
    }

    fn report(&self, facts: &[(&'static str, String)], options: &Options) -> Result<(), BenchError> {
        if self.records.iter().all(|record| record.pairs.is_empty()) {
            return Ok(());
        }
        let labels = self.labels();
        let mut text = table::render(&self.records, labels);
        text.push('\n');
        for (name, value) in facts {
            text.push_str(&format!("{name:<12} {value}\n"));
        }
        let mut out = std::io::stdout();
        // Nobody reads it, if it cannot be written.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        match &options.json {
            Some(file) => {
                let text = json::render(facts, &self.records, labels);
                fs::write(file, text).map_err(BenchError::file(file))
            }
            None => Ok(()),
        }
    }
}
