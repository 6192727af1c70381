//! Kernels of proximal policy optimisation: sampling, advantages, losses, the optimizer.

pub mod adamw;
pub mod advantage_stats;
pub mod advantage_sums;
pub mod end_step;
#[cfg(feature = "market")]
pub mod ensemble;
pub mod epoch;
pub mod gae;
pub mod gradient;
#[cfg(test)]
mod layout_tests;
pub mod loss;
pub mod loss_scale;
pub mod metrics_sums;
pub mod normalize;
pub mod observation_sums;
pub mod running_mean_std;
pub mod sample;
pub mod shuffle;
#[cfg(test)]
mod step_tests;
pub mod write_metrics;

use crate::gpu::{Class, Shader, Variant};
use crate::nn::{Activation, Shape, Storage};

/// Kind of actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActionKind {
    /// Discrete: one of several choices, or one of each of several sets (multi-discrete).
    Choices,
    /// Continuous: numbers from normal distributions.
    Reals,
    /// Continuous and squashed: the tanh of such numbers.
    Squashed,
}

impl ActionKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Choices, Self::Reals, Self::Squashed];

    /// The kind for an environment's actions; discrete ones are never squashed.
    #[must_use]
    pub fn new(continuous: bool, squash: bool) -> Self {
        match (continuous, squash) {
            (false, _) => Self::Choices,
            (true, false) => Self::Reals,
            (true, true) => Self::Squashed,
        }
    }

    /// Whether actions are continuous.
    #[must_use]
    pub fn continuous(self) -> bool {
        self != Self::Choices
    }

    /// Outputs of an actor for `actions` actions: logits, or means and logarithms of standard deviations.
    #[must_use]
    pub fn outputs(self, actions: u32) -> u32 {
        if self.continuous() { 2 * actions } else { actions }
    }

    /// Words of an action as it is stored: the number of a discrete action, or the numbers of a continuous one.
    #[must_use]
    pub fn words(self, actions: u32) -> u32 {
        if self.continuous() { actions } else { 1 }
    }

    /// Sets the conditions of the shaders.
    #[must_use]
    pub fn apply(self, variant: Variant) -> Variant {
        variant.when("continuous", self.continuous()).when("squash", self == Self::Squashed)
    }
}

/// Indices into the buffer of scalars that the kernels of this family share.
pub mod scalars {
    pub use crate::shaders::constants::scalars::*;

    /// Index of a statistic of a group.
    #[must_use]
    pub fn of_group(group: u32, index: usize) -> usize {
        group as usize * GROUP + index
    }

    /// Index of 1 / rows that count for an agent's networks in a minibatch, `[minibatch][agent]`.
    #[must_use]
    pub fn share(groups: u32, agents: u32, minibatch: u32, agent: u32) -> u32 {
        GROUP as u32 * groups + minibatch * agents + agent
    }

    /// Index of the statistics of a minibatch, `[minibatch][group]`, which follow: [`ADVANTAGE_MEAN`], [`ADVANTAGE_SCALE`],
    /// [`RETURN_MEAN`] and [`RETURN_SQUARE`] of every group.
    #[must_use]
    pub fn minibatch(groups: u32, agents: u32, minibatches: u32, minibatch: u32) -> u32 {
        share(groups, agents, minibatches, 0) + 4 * groups * minibatch
    }

    /// f32s of the whole buffer.
    #[must_use]
    pub fn words(groups: u32, agents: u32, minibatches: u32) -> u64 {
        u64::from(minibatch(groups, agents, minibatches, minibatches))
    }
}

/// Every kernel of this family with every variant it is compiled in.
#[must_use]
pub fn kernels(class: Class) -> Vec<(Shader, Variant)> {
    let independent = [gae::SHADER];
    let reducing = [
        advantage_sums::SHADER,
        advantage_stats::SHADER,
        adamw::SHADER,
        epoch::SHADER,
        metrics_sums::SHADER,
        write_metrics::SHADER,
    ];
    let mut all: Vec<_> = independent.map(|shader| (shader, Variant::independent(class))).to_vec();
    all.extend(reducing.map(|shader| (shader, Variant::reducing(class))));
    all.push((observation_sums::SHADER, observation_sums::variant(class)));
    all.push((running_mean_std::SHADER, running_mean_std::variant(class)));
    all.push((shuffle::SHADER, Variant::wide(class)));
    #[cfg(feature = "market")]
    all.push((ensemble::SHADER, ensemble::variant(class)));
    all.extend(ActionKind::ALL.map(|kind| (sample::SHADER, sample::variant(class, kind))));
    let storages = [Storage::F32, Storage::F16, Storage::Packed];
    all.extend(storages.map(|storage| (normalize::SHADER, normalize::variant(class, storage))));
    let forms = crate::nn::representative(class);
    all.extend(forms.iter().filter(|form| !form.unrolled).flat_map(|form| {
        ActionKind::ALL.into_iter().flat_map(|kind| {
            [false, true].map(|agent_steps| {
                (loss::SHADER, kind.apply(loss::variant(form)).when("agent_steps", agent_steps))
            })
        })
    }));
    let folding = forms.iter().filter(|form| !form.unrolled && form.blocks.is_none());
    all.extend(folding.map(|form| (end_step::SHADER, end_step::variant(class, form))));
    for form in forms.iter().filter(|form| form.blocks.is_some()) {
        // Activations and losses are functions of their own: every kind of either is enough.
        let [one, others @ ..] = Activation::ALL.map(|activation| Shape { activation, ..Shape::default() });
        let losses = ActionKind::ALL.into_iter().flat_map(|kind| {
            [false, true].map(|agent_steps| gradient::variant(form, &one, kind, agent_steps))
        });
        let activations = others.map(|shape| gradient::variant(form, &shape, ActionKind::ALL[0], false));
        all.extend(losses.chain(activations).map(|variant| (gradient::SHADER, variant)));
    }
    all
}

#[cfg(test)]
pub(crate) mod testing {
    use crate::gpu::{BindGroup, Command, Gpu, Kernel, Recorder};

    pub fn gpu() -> Gpu {
        crate::testing::gpu()
    }

    pub fn run(gpu: &Gpu, kernel: &Kernel, group: &BindGroup, groups: [u32; 3]) {
        Recorder::new(gpu).run(&[Command::dispatch(kernel, group, groups)]).unwrap();
    }

    pub fn run_at(gpu: &Gpu, kernel: &Kernel, group: &BindGroup, groups: [u32; 3]) {
        Recorder::new(gpu).run(&[Command::dispatch_at(kernel, group, 0, 0, groups)]).unwrap();
    }

    pub fn close(what: &str, got: &[f32], expected: &[f64], tolerance: f64) {
        assert!(got.len() >= expected.len(), "{what}: {} values for {}", got.len(), expected.len());
        for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
            let error = (f64::from(*got) - expected).abs() / expected.abs().max(1.0);
            assert!(error <= tolerance, "{what}[{i}]: got {got}, expected {expected}");
        }
    }
}
