//! Settings of AdamW, its learning rates and gradient clipping.

use super::{Config, range};
use crate::Result;

pub(super) fn validate(config: &Config) -> Result<()> {
    range("max_grad_norm", config.max_grad_norm, 0.0, 1e6)?;
    range("actor_learning_rate", config.actor_learning_rate, 0.0, 1.0)?;
    range("critic_learning_rate", config.critic_learning_rate, 0.0, 1.0)?;
    range("adam_beta1", config.adam_beta1, 0.0, 0.999_999)?;
    range("adam_beta2", config.adam_beta2, 0.0, 0.999_999_9)?;
    range("adam_epsilon", config.adam_epsilon, 1e-20, 1.0)?;
    range("weight_decay", config.weight_decay, 0.0, 1.0)
}
