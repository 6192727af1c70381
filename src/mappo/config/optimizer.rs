//! Settings of AdamW, its learning rates and gradient clipping.

use crate::Result;
use crate::ranges::check as range;

/// AdamW, its learning rates and gradient clipping.
#[derive(Clone, Debug, PartialEq)]
pub struct OptimizerConfig {
    /// Learning rate of the actors.
    pub actor_learning_rate: f64,
    /// Learning rate of the critics.
    pub critic_learning_rate: f64,
    /// Whether learning rates decay linearly to 0 over the iterations.
    pub learning_rate_decay: bool,
    /// AdamW: decay of the first moment.
    pub adam_beta1: f64,
    /// AdamW: decay of the second moment.
    pub adam_beta2: f64,
    /// AdamW: epsilon, added to the root of the second moment.
    pub adam_epsilon: f64,
    /// AdamW: weight decay.
    pub weight_decay: f64,
    /// Maximum gradient norm per network; 0 disables clipping.
    pub max_grad_norm: f64,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            actor_learning_rate: 1e-3,
            critic_learning_rate: 1e-3,
            learning_rate_decay: true,
            adam_beta1: 0.9,
            adam_beta2: 0.999,
            adam_epsilon: 1e-5,
            weight_decay: 1e-4,
            max_grad_norm: 10.0,
        }
    }
}

impl OptimizerConfig {
    pub(super) fn validate(&self) -> Result<()> {
        range("max_grad_norm", self.max_grad_norm, 0.0, 1e6)?;
        range("actor_learning_rate", self.actor_learning_rate, 0.0, 1.0)?;
        range("critic_learning_rate", self.critic_learning_rate, 0.0, 1.0)?;
        range("adam_beta1", self.adam_beta1, 0.0, 0.999_999)?;
        range("adam_beta2", self.adam_beta2, 0.0, 0.999_999_9)?;
        range("adam_epsilon", self.adam_epsilon, 1e-20, 1.0)?;
        range("weight_decay", self.weight_decay, 0.0, 1.0)
    }
}
