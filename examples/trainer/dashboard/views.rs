//! The views and their charts.

use ratatui::style::Color;

use super::history::History;
use crate::metrics::Row;
use crate::progress::{count, number};

/// Several charts.
pub struct View {
    pub name: &'static str,
    pub charts: &'static [Chart],
}

pub struct Chart {
    pub title: &'static str,
    pub curves: &'static [Curve],
    /// The text of a value.
    pub text: fn(f64) -> String,
    /// The text if there is no value at all.
    pub missing: &'static str,
}

pub struct Curve {
    /// Its name, if there is another curve in the chart.
    pub name: &'static str,
    pub colour: Color,
    /// The value of a row, which may need the row before.
    pub value: fn(&[Row], usize) -> Option<f64>,
}

const FIRST: Color = Color::Cyan;
const SECOND: Color = Color::Yellow;
const THIRD: Color = Color::Magenta;

const NOTHING: &str = "no value yet";
const NO_EPISODE: &str = "no episode has ended yet";
const NO_EVALUATION: &str = "no evaluation yet (evaluation.every)";
const NOT_TIMED: &str = "not timed yet (logging.phase_times_every)";
const NO_MEMORY: &str = "not known on this system";

pub const VIEWS: [View; 4] = [
    View { name: "Return", charts: &[RETURN, EVALUATION, EXPLAINED_VARIANCE, LENGTH] },
    View {
        name: "Losses",
        charts: &[POLICY_LOSS, VALUE_LOSS, ENTROPY, APPROX_KL, CLIP_FRACTION, EXPLAINED_VARIANCE],
    },
    View { name: "Gradients", charts: &[ACTOR_GRADIENT, CRITIC_GRADIENT, LEARNING_RATE, LOSS_SCALE] },
    View { name: "Machine", charts: &[SPEED, PHASES, GPU_MEMORY, HOST_MEMORY] },
];

const fn single(title: &'static str, curves: &'static [Curve]) -> Chart {
    Chart { title, curves, text: number, missing: NOTHING }
}

const fn curve(value: fn(&[Row], usize) -> Option<f64>) -> Curve {
    Curve { name: "", colour: FIRST, value }
}

const RETURN: Chart = Chart {
    missing: NO_EPISODE,
    ..single(
        "Return",
        &[
            Curve { name: "mean", colour: FIRST, value: |rows, at| rows[at].mean_return },
            Curve { name: "running", colour: SECOND, value: |rows, at| rows[at].running_return },
        ],
    )
};
const EVALUATION: Chart = Chart {
    missing: NO_EVALUATION,
    ..single(
        "Evaluation",
        &[
            Curve { name: "greedy", colour: FIRST, value: |rows, at| rows[at].evaluation },
            Curve { name: "sampled", colour: SECOND, value: |rows, at| rows[at].evaluation_sampled },
        ],
    )
};
const EXPLAINED_VARIANCE: Chart =
    single("Explained variance", &[curve(|rows, at| rows[at].explained_variance)]);
const LENGTH: Chart = Chart {
    text: count,
    missing: NO_EPISODE,
    ..single("Episode length", &[curve(|rows, at| rows[at].mean_length)])
};
const POLICY_LOSS: Chart = single("Policy loss", &[curve(|rows, at| Some(rows[at].policy_loss.into()))]);
const VALUE_LOSS: Chart = single("Value loss", &[curve(|rows, at| Some(rows[at].value_loss.into()))]);
const ENTROPY: Chart = single("Entropy", &[curve(|rows, at| Some(rows[at].entropy.into()))]);
const APPROX_KL: Chart = single("Approximate KL", &[curve(|rows, at| Some(rows[at].approx_kl.into()))]);
const CLIP_FRACTION: Chart =
    single("Clip fraction", &[curve(|rows, at| Some(rows[at].clip_fraction.into()))]);
const ACTOR_GRADIENT: Chart =
    single("Actor gradient norm", &[curve(|rows, at| Some(rows[at].actor_grad_norm.into()))]);
const CRITIC_GRADIENT: Chart =
    single("Critic gradient norm", &[curve(|rows, at| Some(rows[at].critic_grad_norm.into()))]);
const LEARNING_RATE: Chart =
    single("Learning rate", &[curve(|rows, at| Some(rows[at].learning_rate.into()))]);
const LOSS_SCALE: Chart =
    Chart { text: count, ..single("Loss scale", &[curve(|rows, at| Some(rows[at].loss_scale.into()))]) };
const SPEED: Chart = Chart {
    text: count,
    ..single(
        "Steps/s",
        &[
            Curve { name: "now", colour: FIRST, value: History::speed },
            Curve { name: "average", colour: SECOND, value: |rows, at| Some(rows[at].steps_per_second) },
        ],
    )
};
const PHASES: Chart = Chart {
    text: percent,
    missing: NOT_TIMED,
    ..single(
        "Time",
        &[
            Curve {
                name: "rollout",
                colour: FIRST,
                value: |rows, at| share(&rows[at], rows[at].rollout_seconds),
            },
            Curve {
                name: "values",
                colour: SECOND,
                value: |rows, at| share(&rows[at], rows[at].values_seconds),
            },
            Curve {
                name: "update",
                colour: THIRD,
                value: |rows, at| share(&rows[at], rows[at].update_seconds),
            },
        ],
    )
};
const GPU_MEMORY: Chart = Chart {
    text: bytes,
    missing: NO_MEMORY,
    ..single("GPU memory", &[curve(|rows, at| rows[at].gpu_memory_bytes.map(|bytes| bytes as f64))])
};
const HOST_MEMORY: Chart = Chart {
    text: bytes,
    missing: NO_MEMORY,
    ..single("Host memory", &[curve(|rows, at| rows[at].host_memory_bytes.map(|bytes| bytes as f64))])
};

/// The share of a phase in the three that are timed.
fn share(row: &Row, seconds: Option<f64>) -> Option<f64> {
    let all = row.rollout_seconds? + row.values_seconds? + row.update_seconds?;
    (all > 0.0).then_some(seconds? / all)
}

fn percent(value: f64) -> String {
    format!("{:.0}%", value * 100.0)
}

/// `512 KiB`, `38.5 MiB`, `1.25 GiB`.
fn bytes(value: f64) -> String {
    match value.abs() {
        size if size >= 1_073_741_824.0 => format!("{:.2} GiB", value / 1_073_741_824.0),
        size if size >= 1_048_576.0 => format!("{:.1} MiB", value / 1_048_576.0),
        _ => format!("{:.0} KiB", value / 1024.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_from_rows() {
        let row = Row {
            rollout_seconds: Some(3.0),
            values_seconds: Some(1.0),
            update_seconds: Some(4.0),
            ..Row::default()
        };
        let shares: Vec<_> = PHASES.curves.iter().map(|curve| (curve.value)(&[row], 0)).collect();
        assert_eq!(shares, [Some(0.375), Some(0.125), Some(0.5)]);
        assert!(PHASES.curves.iter().all(|curve| (curve.value)(&[Row::default()], 0).is_none()));
        assert_eq!([0.0, 40_370_176.0, 1_342_177_280.0].map(bytes), ["0 KiB", "38.5 MiB", "1.25 GiB"]);
        assert_eq!(percent(0.125), "12%");
    }
}
