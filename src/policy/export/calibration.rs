//! Ranges of the inputs of all matrix products, from a plain forward pass over observations.

use std::collections::BTreeMap;

use super::Policy;
use super::network::{Dense, Matrix, Network, Norm};
use super::options::Calibration;
use crate::nn::{Activation, CriticInput};
use crate::policy::cpu::activation::{activate, hyperbolic, sigmoid};
use crate::{Error, Result};

/// Lowest and highest input of a layer, by its name.
pub(super) type Ranges = BTreeMap<String, [f32; 2]>;

/// Ranges of the inputs of all layers of `networks`, over all agents.
///
/// # Errors
/// [`Error::Shape`] for observations or states of another size, or none; [`Error::Data`] for one that is not finite.
pub(super) fn ranges(
    policy: &Policy,
    networks: &[Vec<Network>; 2],
    calibration: &Calibration<'_>,
) -> Result<Ranges> {
    let network = &policy.metadata().network;
    let [agents, obs_dim] = [network.agents, network.obs_dim].map(|size| size as usize);
    let (whole, states) = (agents * obs_dim, policy.layout().shape.stored_state() as usize);
    let steps = calibration.observations.len() / whole;
    if steps == 0 || calibration.observations.len() != steps * whole {
        let expected = format!("a multiple of {whole} [step][agent][feature]");
        return Err(Error::shape(
            "observations of the calibration",
            expected,
            calibration.observations.len(),
        ));
    }
    if calibration.states.len() != steps * states {
        return Err(Error::shape("states of the calibration", steps * states, calibration.states.len()));
    }
    let numbers = calibration.observations.iter().chain(calibration.states);
    if let Some(number) = numbers.copied().find(|number| !number.is_finite()) {
        return Err(Error::Data(format!("a number of the calibration is {number}, expected finite ones")));
    }
    let mut ranges = Ranges::new();
    let mut memory = vec![vec![0.0; policy.layout().shape.memory() as usize]; 2 * agents];
    let (mut observed, mut global) = (vec![0.0; whole], vec![0.0; states]);
    for step in 0..steps {
        policy.networks.prepare(0, &calibration.observations[step * whole..][..whole], &mut observed);
        if states > 0 {
            policy.networks.prepare(whole, &calibration.states[step * states..][..states], &mut global);
        }
        for agent in 0..agents {
            let own = &observed[agent * obs_dim..][..obs_dim];
            let critic = match network.critic_input {
                CriticInput::Own => own,
                CriticInput::Joint => &observed,
                CriticInput::State => &global,
            };
            for ((stack, input), memory) in
                networks.iter().zip([own, critic]).zip(memory[2 * agent..].iter_mut())
            {
                let network = &stack[agent.min(stack.len() - 1)];
                network.run(agent, network_activation(policy), input, memory, &mut |layer, input| {
                    let range = ranges.entry(layer.to_string()).or_insert([0.0; 2]);
                    for value in input {
                        *range = [range[0].min(*value), range[1].max(*value)];
                    }
                });
            }
        }
    }
    Ok(ranges)
}

fn network_activation(policy: &Policy) -> Activation {
    policy.metadata().network.activation
}

impl Network {
    /// Outputs for one agent. `watch` is called with the name and the input of every layer, after its LayerNorm.
    pub(super) fn run(
        &self,
        agent: usize,
        activation: Activation,
        input: &[f32],
        memory: &mut [f32],
        watch: &mut impl FnMut(&str, &[f32]),
    ) -> Vec<f32> {
        let mut values = input.to_vec();
        for dense in &self.hidden {
            values = dense.run(agent, values, watch);
            activate(activation, &mut values);
        }
        if let Some(cell) = &self.cell {
            let input = normed(cell.norm.as_ref(), values);
            watch(&cell.name, &input);
            let of_input = cell.input.product(&input, &cell.input_bias);
            let of_state = cell.state.product(memory, &cell.state_bias);
            let size = memory.len();
            for (j, h) in memory.iter_mut().enumerate() {
                let reset = sigmoid(of_state[j] + of_input[size + j]);
                let update = sigmoid(of_state[size + j] + of_input[2 * size + j]);
                let candidate = hyperbolic(of_input[j] + reset * of_state[2 * size + j]);
                *h = candidate + update * (*h - candidate);
            }
            values = memory.to_vec();
        }
        self.head.run(agent, values, watch)
    }
}

impl Dense {
    fn run(&self, agent: usize, input: Vec<f32>, watch: &mut impl FnMut(&str, &[f32])) -> Vec<f32> {
        let input = normed(self.norm.as_ref(), input);
        watch(&self.name, &input);
        self.weight.product(&input, &self.bias[agent.min(self.bias.len() - 1)])
    }
}

impl Matrix {
    fn product(&self, input: &[f32], bias: &[f32]) -> Vec<f32> {
        let mut sums = bias.to_vec();
        for (value, row) in input.iter().zip(self.values.chunks_exact(self.outputs)) {
            sums.iter_mut().zip(row).for_each(|(sum, weight)| *sum += value * weight);
        }
        sums
    }
}

fn normed(norm: Option<&Norm>, mut values: Vec<f32>) -> Vec<f32> {
    let Some(norm) = norm else { return values };
    let count = values.len() as f32;
    let mean = values.iter().sum::<f32>() / count;
    let variance = values.iter().map(|value| (value - mean) * (value - mean)).sum::<f32>() / count;
    let scale = 1.0 / (variance + 1e-5).sqrt();
    for ((value, gain), offset) in values.iter_mut().zip(&norm.gain).zip(&norm.offset) {
        *value = (*value - mean) * scale * gain + offset;
    }
    values
}
