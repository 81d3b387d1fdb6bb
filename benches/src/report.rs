//! What replays tell: one line of JSON per run and a summary, a table, a plot beside the published curves.

use std::{collections::BTreeMap, path::Path, time::Duration};

use serde::Serialize;

use crate::{
    arrivals::{self, STEPS},
    departures,
    driver::Latencies,
    plot::{self, Curve},
    published,
};

/// By arrivals in per cent.
pub type Curves = BTreeMap<u32, f64>;

/// How long decisions took.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Speed {
    pub decisions_per_s: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub max_us: f64,
}

/// One run, or the mean of several.
#[derive(Debug, Clone, Serialize)]
pub struct Arrivals {
    pub summary: bool,
    pub pods: String,
    pub policy: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seeds: Option<u64>,
    /// In per cent of the cluster's GPUs.
    pub allocated_pct: Curves,
    /// Free GPUs that a random pod cannot use, in per cent of the cluster's GPUs.
    pub fragmented_pct: Curves,
    pub failed: f64,
    #[serde(flatten)]
    pub speed: Speed,
}

/// One run of the loss system, or the mean of several.
#[derive(Debug, Clone, Serialize)]
pub struct Departures {
    pub summary: bool,
    pub departures: bool,
    pub pods: String,
    pub policy: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seeds: Option<u64>,
    /// Offered demand, in parts of the cluster's GPUs.
    pub load: f64,
    /// Mean over time, in per cent of the cluster's GPUs.
    pub allocated_pct: f64,
    /// Standard deviation over the seeds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deviation: Option<f64>,
    /// By whole GPUs that a pod needs: lost demand in per cent of all offered.
    pub lost_pct: BTreeMap<u64, f64>,
    #[serde(flatten)]
    pub speed: Speed,
}

impl Speed {
    #[expect(clippy::cast_precision_loss, reason = "a number of decisions")]
    pub fn of(latencies: &Latencies, wall: Duration) -> Self {
        Self {
            decisions_per_s: (latencies.len() as f64 / wall.as_secs_f64().max(1e-9)).round(),
            p50_us: latencies.quantile(0.5),
            p99_us: latencies.quantile(0.99),
            max_us: latencies.quantile(1.0),
        }
    }
}

/// The mean speed; the longest decision of all.
fn mean_speed(speeds: &[Speed]) -> Speed {
    let of = |part: fn(&Speed) -> f64| mean(speeds.iter().map(part));
    Speed {
        // Runs are about equally long, and the slow ones count for longer.
        decisions_per_s: (1.0 / mean(speeds.iter().map(|speed| 1.0 / speed.decisions_per_s))).round(),
        p50_us: of(|speed| speed.p50_us),
        p99_us: of(|speed| speed.p99_us),
        max_us: speeds.iter().map(|speed| speed.max_us).fold(0.0, f64::max),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a number of runs")]
fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len().max(1) as f64;
    values.sum::<f64>() / count
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

fn curves(values: &[f64]) -> Curves {
    STEPS
        .iter()
        .copied()
        .zip(values.iter().map(|value| round(*value)))
        .collect()
}

impl Arrivals {
    pub fn of(run: &arrivals::Run, pods: &Path, policy: &str, seed: u64) -> Self {
        Self {
            summary: false,
            pods: pods.display().to_string(),
            policy: policy.to_owned(),
            seed: Some(seed),
            seeds: None,
            allocated_pct: curves(&run.allocated),
            fragmented_pct: curves(&run.fragmented),
            failed: f64::from(u32::try_from(run.failed).unwrap_or(u32::MAX)),
            speed: Speed::of(&run.latencies, run.wall),
        }
    }

    /// `None` without a run.
    pub fn mean(runs: &[Self]) -> Option<Self> {
        let first = runs.first()?;
        let over = |part: fn(&Self) -> &Curves| -> Curves {
            let mean_at = |step: &u32| {
                let values: Vec<f64> = runs.iter().filter_map(|run| part(run).get(step).copied()).collect();
                (*step, round(mean(values.into_iter())))
            };
            part(first).keys().map(mean_at).collect()
        };
        Some(Self {
            summary: true,
            seed: None,
            seeds: Some(runs.len() as u64),
            allocated_pct: over(|run| &run.allocated_pct),
            fragmented_pct: over(|run| &run.fragmented_pct),
            failed: round(mean(runs.iter().map(|run| run.failed))),
            speed: mean_speed(&runs.iter().map(|run| run.speed).collect::<Vec<_>>()),
            ..first.clone()
        })
    }

    /// For people.
    pub fn table(&self) -> String {
        let published = published::of(self.pods.as_ref());
        let fgd: Curves = published.iter().flat_map(|published| published.fgd_curve()).collect();
        let best_fit: Curves = published
            .iter()
            .flat_map(|published| published.best_fit_curve())
            .collect();
        let cell = |curve: &Curves, step: u32| {
            curve
                .get(&step)
                .map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"))
        };
        let mut lines = vec![
            format!("{}, {}, {} seeds", self.pods, self.policy, self.seeds.unwrap_or(1)),
            format!(
                "{:>9} {:>11} {:>12} {:>14} {:>18}",
                "arrived %", "allocated %", "fragmented %", "published FGD", "published BestFit"
            ),
        ];
        lines.extend(self.allocated_pct.iter().map(|(step, allocated)| {
            let (fragmented, fgd) = (cell(&self.fragmented_pct, *step), cell(&fgd, *step));
            let best_fit = cell(&best_fit, *step);
            format!("{step:>9} {allocated:>11.2} {fragmented:>12} {fgd:>14} {best_fit:>18}")
        }));
        lines.push(self.speed.line());
        lines.join("\n")
    }

    /// The allocated share as it grows with the arrivals.
    pub fn plot(&self) -> String {
        let points = |curve: &[(u32, f64)]| -> Vec<(f64, f64)> {
            curve.iter().map(|(step, value)| (f64::from(*step), *value)).collect()
        };
        let mut curves = vec![Curve {
            name: self.policy.clone(),
            points: self
                .allocated_pct
                .iter()
                .map(|(step, value)| (f64::from(*step), *value))
                .collect(),
            published: false,
        }];
        if let Some(published) = published::of(self.pods.as_ref()) {
            for (name, curve) in [("FGD", published.fgd_curve()), ("BestFit", published.best_fit_curve())] {
                curves.push(Curve {
                    name: format!("{name} (published)"),
                    points: points(&curve),
                    published: true,
                });
            }
        }
        plot::svg(
            &self.pods,
            "arrived demand, % of the cluster's GPUs",
            "allocated, %",
            &curves,
        )
    }
}

impl Departures {
    pub fn of(run: &departures::Run, pods: &Path, policy: &str, seed: u64, load: f64) -> Self {
        let offered: f64 = run.lost.iter().map(|loss| loss.offered).sum();
        let lost = |loss: &departures::Loss| (loss.gpus, round(100.0 * loss.lost / offered.max(1e-9)));
        Self {
            summary: false,
            departures: true,
            pods: pods.display().to_string(),
            policy: policy.to_owned(),
            seed: Some(seed),
            seeds: None,
            load,
            allocated_pct: round(run.allocated),
            deviation: None,
            lost_pct: run.lost.iter().map(lost).collect(),
            speed: Speed::of(&run.latencies, run.wall),
        }
    }

    /// `None` without a run.
    pub fn mean(runs: &[Self]) -> Option<Self> {
        let first = runs.first()?;
        let allocated = mean(runs.iter().map(|run| run.allocated_pct));
        let variance = mean(runs.iter().map(|run| (run.allocated_pct - allocated).powi(2)));
        let lost = |gpus: &u64| {
            let lost = runs.iter().map(|run| run.lost_pct.get(gpus).copied().unwrap_or(0.0));
            (*gpus, round(mean(lost)))
        };
        Some(Self {
            summary: true,
            seed: None,
            seeds: Some(runs.len() as u64),
            allocated_pct: round(allocated),
            deviation: Some(round(variance.sqrt())),
            lost_pct: first.lost_pct.keys().map(lost).collect(),
            speed: mean_speed(&runs.iter().map(|run| run.speed).collect::<Vec<_>>()),
            ..first.clone()
        })
    }

    /// For people.
    pub fn table(&self) -> String {
        let lost: Vec<_> = self
            .lost_pct
            .iter()
            .map(|(gpus, lost)| {
                let size = if *gpus == 0 { "<1".to_owned() } else { gpus.to_string() };
                format!("{size} GPU {lost:.2} %")
            })
            .collect();
        format!(
            "{}, {}, load {}, {} seeds\nallocated {:.2} % (sd {:.2}); lost: {}\n{}",
            self.pods,
            self.policy,
            self.load,
            self.seeds.unwrap_or(1),
            self.allocated_pct,
            self.deviation.unwrap_or(0.0),
            lost.join(", "),
            self.speed.line(),
        )
    }
}

impl Speed {
    fn line(&self) -> String {
        format!(
            "{} decisions/s, waits for tables included; one takes {:.1} us (p50), {:.1} us (p99), {:.0} us (max)",
            self.decisions_per_s, self.p50_us, self.p99_us, self.max_us
        )
    }
}
