//! `metrics.csv`: one line per iteration, flushed immediately, and read for the report's training curves.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use phalanx::files::{AppendFile, write_atomically};
use phalanx::mappo::{Phases, Progress};
use serde::{Deserialize, Serialize};

use crate::checked;
use crate::console::note;
use crate::memory::Memory;
use crate::report::TrainingCurves;

/// Largest file that is read, in bytes: millions of iterations.
pub const MOST_BYTES: u64 = 1 << 30;

/// One line. Returns are empty if no episode ended in the iteration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub iteration: u32,
    pub env_steps: u64,
    pub seconds: f64,
    pub steps_per_second: f64,
    pub mean_return: Option<f64>,
    pub episodes: f32,
    pub mean_length: Option<f64>,
    pub terminated: f32,
    pub mean_reward: f32,
    pub policy_loss: f32,
    pub value_loss: f32,
    pub entropy: f32,
    pub approx_kl: f32,
    pub clip_fraction: f32,
    pub actor_grad_norm: f32,
    pub critic_grad_norm: f32,
    pub learning_rate: f32,
    pub value_mean: f32,
    pub value_deviation: f32,
    pub skipped_updates: f32,
    /// Epochs run, fewer if the KL divergence exceeded `target_kl`. Missing in files from before that setting.
    #[serde(default)]
    pub epochs: f32,
    /// Mean return of about the last hundred episodes; empty until an episode has ended.
    #[serde(default)]
    pub running_return: Option<f64>,
    /// 1 - Var(returns - values) / Var(returns); empty if all returns are equal. Missing, as the next column, in older files.
    #[serde(default)]
    pub explained_variance: Option<f64>,
    /// Fraction of the rows whose agent was active.
    #[serde(default)]
    pub active_fraction: Option<f64>,
    /// Return over the evaluation bars with greedy actions, if the policy was evaluated in this iteration.
    #[serde(default)]
    pub evaluation: Option<f64>,
    /// The same with sampled actions.
    #[serde(default)]
    pub evaluation_sampled: Option<f64>,
    /// 1 in f32. Missing in files from before f16.
    #[serde(default = "unscaled")]
    pub loss_scale: f32,
    /// Wall time of acting and stepping the environments, if the phases were timed in this iteration
    /// (`logging.phase_times_every`). Missing, as the next columns, in older files.
    #[serde(default)]
    pub rollout_seconds: Option<f64>,
    /// Of the critics' values and the advantages.
    #[serde(default)]
    pub values_seconds: Option<f64>,
    /// Of all epochs of updates.
    #[serde(default)]
    pub update_seconds: Option<f64>,
    /// Device memory of this process.
    #[serde(default)]
    pub gpu_memory_bytes: Option<u64>,
    /// Resident set size of this process.
    #[serde(default)]
    pub host_memory_bytes: Option<u64>,
}

fn unscaled() -> f32 {
    1.0
}

impl Row {
    /// Whether the time may be continued from. Other numbers are only shown, and may be anything after a training that diverged.
    fn is_plausible(&self) -> bool {
        checked::range("seconds", self.seconds, 0.0..=1e11).is_ok()
    }

    pub fn new(progress: &Progress, seconds: f64, memory: Memory) -> Self {
        let record = progress.record;
        let phase = |of: fn(&Phases) -> Duration| progress.phases.map(|phases| of(&phases).as_secs_f64());
        Self {
            iteration: progress.iteration,
            env_steps: progress.env_steps,
            seconds,
            steps_per_second: progress.steps_per_second,
            mean_return: progress.mean_return(),
            episodes: record.episodes,
            mean_length: progress.mean_length(),
            terminated: record.terminated,
            mean_reward: record.reward,
            policy_loss: record.policy_loss,
            value_loss: record.value_loss,
            entropy: record.entropy,
            approx_kl: record.approx_kl,
            clip_fraction: record.clip_fraction,
            actor_grad_norm: record.actor_norm,
            critic_grad_norm: record.critic_norm,
            learning_rate: record.learning_rate,
            value_mean: record.value_mean,
            value_deviation: record.value_deviation,
            skipped_updates: record.skipped,
            epochs: record.epochs,
            running_return: progress.running_return,
            explained_variance: Some(f64::from(record.explained_variance)).filter(|value| value.is_finite()),
            active_fraction: Some(f64::from(record.active_fraction)),
            evaluation: None,
            evaluation_sampled: None,
            loss_scale: record.loss_scale,
            rollout_seconds: phase(|phases| phases.rollout),
            values_seconds: phase(|phases| phases.values),
            update_seconds: phase(|phases| phases.update),
            gpu_memory_bytes: memory.gpu,
            host_memory_bytes: memory.host,
        }
    }
}

/// Appends rows and flushes each, so that an interrupted run keeps them.
pub struct Writer {
    file: csv::Writer<AppendFile>,
    /// The rows that training goes on from.
    pub kept: Vec<Row>,
}

impl Writer {
    /// Opens the file to continue after iteration `last`. Later rows, and an incomplete last line, are removed: their iterations are
    /// repeated.
    pub fn resume(path: &Path, last: u32) -> Result<Self> {
        let mut kept = Vec::new();
        if path.exists() {
            let mut reader = csv::Reader::from_reader(checked::open(path, MOST_BYTES)?);
            let rows = reader.deserialize::<Row>().map_while(std::result::Result::ok);
            kept.extend(rows.take_while(|row| row.iteration <= last && row.is_plausible()));
        }
        let mut writer = csv::Writer::from_writer(Vec::new());
        kept.iter().try_for_each(|row| writer.serialize(row)).context("writing metrics.csv")?;
        let bytes = writer.into_inner().map_err(|error| error.into_error()).context("writing metrics.csv")?;
        write_atomically(path, &bytes)?;
        let reached = kept.last().map_or(0, |row| row.iteration);
        if reached < last {
            note!("warning: {}: iterations {} to {last} are missing", path.display(), reached + 1);
        }
        let file = AppendFile::open(path)?;
        let headers = kept.is_empty();
        Ok(Self { file: csv::WriterBuilder::new().has_headers(headers).from_writer(file), kept })
    }

    pub fn write(&mut self, row: &Row) -> Result<()> {
        self.file.serialize(row).context("writing metrics.csv")?;
        self.file.flush().context("writing metrics.csv")
    }

    /// Writes everything to disk; called before a checkpoint, which must not be newer than the metrics.
    pub fn sync(&mut self) -> Result<()> {
        self.file.flush().context("writing metrics.csv")?;
        self.file.get_ref().sync().context("writing metrics.csv")
    }
}

/// Reads the training curves of a run.
pub fn curves(path: &Path) -> Result<TrainingCurves> {
    let mut reader = csv::Reader::from_reader(checked::open(path, MOST_BYTES)?);
    let rows: Vec<Row> =
        reader.deserialize().collect::<Result<_, _>>().with_context(|| path.display().to_string())?;
    type Column = (&'static str, &'static str, fn(&Row) -> f64);
    let mut columns: Vec<Column> = vec![
        (
            "Mean return",
            "Mean return of the episodes that ended in an iteration, averaged over agents.",
            |row| row.mean_return.unwrap_or(f64::NAN),
        ),
        (
            "Policy loss",
            "Clipped surrogate objective; stays near zero while policy updates are small.",
            |row| f64::from(row.policy_loss),
        ),
        ("Value loss", "Error of the critic's value estimates, in units of normalised returns.", |row| {
            f64::from(row.value_loss)
        }),
        ("Explained variance", "Fraction of the variance of the returns that the critic explains.", |row| {
            row.explained_variance.unwrap_or(f64::NAN)
        }),
        ("Entropy", "Entropy of the policy in nats; falls as the policy becomes deterministic.", |row| {
            f64::from(row.entropy)
        }),
        ("Approximate KL", "KL divergence between the policies before and after an update.", |row| {
            f64::from(row.approx_kl)
        }),
        ("Actor gradient norm", "Before clipping, in the last update of an iteration.", |row| {
            f64::from(row.actor_grad_norm)
        }),
        ("Critic gradient norm", "Before clipping, in the last update of an iteration.", |row| {
            f64::from(row.critic_grad_norm)
        }),
    ];
    if rows.iter().any(|row| row.loss_scale != 1.0) {
        columns.push((
            "Loss scale",
            "Multiplier that keeps small gradients within the range of f16; halved when a gradient overflows.",
            |row| f64::from(row.loss_scale),
        ));
    }
    let curve = |(name, caption, value): Column| {
        (name.to_string(), caption.to_string(), rows.iter().map(value).collect())
    };
    Ok(TrainingCurves {
        env_steps: rows.iter().map(|row| row.env_steps as f64).collect(),
        curves: columns.into_iter().map(curve).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use phalanx::mappo::Record;

    fn progress(iteration: u32, env_steps: u64, record: Record) -> Progress {
        let steps_per_second = 50.0;
        Progress {
            iteration,
            env_steps,
            steps_per_second,
            running_return: None,
            iterations_without_step: 0,
            phases: None,
            record,
        }
    }

    #[test]
    fn rows_are_read_as_curves_and_missing_returns_as_gaps() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.csv");
        let mut writer = Writer::resume(&path, 0).unwrap();
        for (iteration, episodes, loss_scale) in [(1u32, 0.0f32, 1.0f32), (2, 4.0, 512.0)] {
            let record = Record {
                episodes,
                return_sum: 10.0,
                entropy: 0.5,
                loss_scale,
                explained_variance: 0.75,
                ..Record::default()
            };
            let env_steps = u64::from(iteration) * 100;
            let progress = progress(iteration, env_steps, record);
            writer.write(&Row::new(&progress, 1.0, Memory::default())).unwrap();
        }
        let curves = curves(&path).unwrap();
        assert_eq!(curves.env_steps, [100.0, 200.0]);
        assert!(curves.curves[0].2[0].is_nan());
        assert_eq!(curves.curves[0].2[1], 2.5);
        assert_eq!(curves.curves[3].2, [0.75, 0.75]);
        assert_eq!(curves.curves[4].2, [0.5, 0.5]);
        assert_eq!(curves.curves[8].2, [1.0, 512.0]);
    }

    #[test]
    fn a_resumed_file_has_every_iteration_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.csv");
        let row =
            |iteration: u32| Row::new(&progress(iteration, 0, Record::default()), 0.0, Memory::default());
        let iterations = || -> Vec<u32> {
            let mut reader = csv::Reader::from_path(&path).unwrap();
            reader.deserialize::<Row>().map(|row| row.unwrap().iteration).collect()
        };
        // Resumed before the first checkpoint.
        Writer::resume(&path, 0).unwrap().write(&row(1)).unwrap();
        let mut writer = Writer::resume(&path, 1).unwrap();
        (2..5).for_each(|iteration| writer.write(&row(iteration)).unwrap());
        drop(writer);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 9]).unwrap();
        Writer::resume(&path, 3).unwrap().write(&row(4)).unwrap();
        assert_eq!(iterations(), [1, 2, 3, 4]);
        Writer::resume(&path, 0).unwrap().write(&row(1)).unwrap();
        assert_eq!(iterations(), [1]);
    }

    /// The columns of version 0.1, before those of phases and memory.
    #[test]
    fn older_files_are_read_and_continued() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.csv");
        let mut writer = csv::Writer::from_path(&path).unwrap();
        writer.serialize(Row { iteration: 1, env_steps: 64, ..Row::default() }).unwrap();
        writer.flush().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let older = text
            .replace(",rollout_seconds,values_seconds,update_seconds,gpu_memory_bytes,host_memory_bytes", "");
        assert_ne!(older, text);
        std::fs::write(&path, older.replace(",,,,,\n", "\n")).unwrap();
        assert_eq!(curves(&path).unwrap().env_steps, [64.0]);
        let phases = Phases { rollout: Duration::from_millis(250), ..Phases::default() };
        let timed = Progress { phases: Some(phases), ..progress(2, 128, Record::default()) };
        let memory = Memory { gpu: Some(1 << 33), host: None };
        let mut writer = Writer::resume(&path, 1).unwrap();
        writer.write(&Row::new(&timed, 1.0, memory)).unwrap();
        let mut reader = csv::Reader::from_path(&path).unwrap();
        let rows: Vec<Row> = reader.deserialize().map(|row| row.unwrap()).collect();
        assert_eq!(rows[0].rollout_seconds, None);
        assert_eq!((rows[1].rollout_seconds, rows[1].update_seconds), (Some(0.25), Some(0.0)));
        assert_eq!((rows[1].gpu_memory_bytes, rows[1].host_memory_bytes), (Some(1 << 33), None));
    }
}
