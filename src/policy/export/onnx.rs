//! The graph of a policy: inputs, preparation of the observations, networks, actions, and what a stranger has to know.

use std::ops::Range;

use onnx_rs::ast::{DataType, OpType};
use serde_json::json;

use super::builder::{BATCH, Builder};
use super::calibration::ranges;
use super::layers::Layers;
use super::network::{Network, networks};
use super::options::{ExportWeights, OnnxOptions};
use super::preparation::{normalization, scaling};
use super::quantization::Storage;
use super::{Policy, onnx_actions};
use crate::nn::{CriticInput, Sharing};
use crate::{Error, Result};

impl Policy {
    /// The bytes of an ONNX file (operators of version 17) with the whole way from raw observations to actions: a market's features
    /// before they are scaled, other observations as [`Policy::act`] takes them. Actions are the most probable ones.
    ///
    /// | input | type and shape |
    /// |---|---|
    /// | `observations` | f32 `[batch][agent][feature]` |
    /// | `action_mask` | bool `[batch][agent][option]`, true: allowed; continuous actions: `[batch][agent][1]`, false: act with 0 |
    /// | `actor_state`, `critic_state` | f32 `[batch][agent][entry]` with a GRU; zeros at the beginning of an episode |
    /// | `state` | f32 `[batch][number]` if the critic reads the global state |
    /// | `joint_observations` | f32 `[batch][agent][feature]` in the graph of one agent, if the critic reads those of all |
    ///
    /// | output | type and shape |
    /// |---|---|
    /// | `logits` | f32 `[batch][agent][option]`, lowest where the mask is false; or `mean`, and `log_std` `[agent][number]` |
    /// | `actions` | i64 `[batch][agent]`, several choices: `[batch][agent][choice]`; continuous: f32 `[batch][agent][number]` |
    /// | `target` | f32 `[batch][agent]`, target level of an instrument, for policies of a market |
    /// | `value` | f32 `[batch][agent]`, in the units of [`Policy::values`] |
    /// | `next_actor_state`, `next_critic_state` | as the inputs |
    ///
    /// Graphs of one agent ([`OnnxOptions::agent`]) lack the dimension `[agent]`, but for `joint_observations`. Everything is computed in
    /// f32, also for a policy that acts in f16. The file's metadata name agents, features, actions and target levels.
    ///
    /// # Errors
    /// [`Error::Config`] for an agent that does not exist; [`Error::Shape`] or [`Error::Data`] for observations of the calibration that
    /// are not those of this policy; [`Error::Data`] for a weight that f16 cannot hold, for more than 2 GiB, and for values of a policy
    /// without statistics of the global state.
    pub fn export_onnx(&self, options: &OnnxOptions<'_>) -> Result<Vec<u8>> {
        let agents = self.metadata().network.agents as usize;
        if let Some(agent) = options.agent.filter(|agent| *agent >= agents) {
            return Err(Error::config("agent", format!("{agent} is none of the {agents}, counted from 0")));
        }
        let networks = networks(self)?;
        let storage = match &options.weights {
            ExportWeights::F32 => Storage::F32,
            ExportWeights::F16 => Storage::F16,
            ExportWeights::Int8(calibration) => Storage::Int8(ranges(self, &networks, calibration)?),
        };
        let own = options.agent.map_or(0..agents, |agent| agent..agent + 1);
        let single = options.agent.is_some();
        let mut graph = GraphOf { policy: self, agents: own, single, storage, builder: Builder::default() };
        let observations = graph.observations();
        let (head, next) = graph.stack(&networks[0], "actor", &observations)?;
        onnx_actions::add(&mut graph, &networks[0], &head);
        graph.next_state("actor", next);
        if !options.without_value {
            let input = graph.critic_input(&observations)?;
            let (head, next) = graph.stack(&networks[1], "critic", &input)?;
            let shape = graph.outer(&[]);
            graph.output("value", &head, DataType::Float, shape);
            graph.next_state("critic", next);
        }
        graph.builder.encode(DESCRIPTION, &graph.about())
    }
}

const DESCRIPTION: &str = "A trained policy of phalanx, from raw observations to greedy actions.";

/// A graph under construction.
pub(super) struct GraphOf<'a> {
    pub policy: &'a Policy,
    /// Agents of the graph.
    pub agents: Range<usize>,
    /// Whether inputs and outputs lack the dimension of agents.
    single: bool,
    storage: Storage,
    pub builder: Builder,
}

impl GraphOf<'_> {
    /// Dimensions of an input or output: the batch, the agents unless the graph is of one, and `inner`.
    pub fn outer(&self, inner: &[usize]) -> Vec<i64> {
        let agents = (!self.single).then_some(self.agents.len());
        let all = agents.iter().chain(inner).map(|size| *size as i64);
        std::iter::once(BATCH).chain(all).collect()
    }

    /// Adds an input `[batch][agent][inner]`, and returns it with the dimension of agents.
    pub fn input(&mut self, name: &str, data_type: DataType, inner: usize) -> String {
        let shape = self.outer(&[inner]);
        let input = self.builder.input(name, data_type, shape);
        if !self.single {
            return input;
        }
        self.builder.reshape(&format!("{name}.rows"), &input, &[BATCH, 1, inner as i64])
    }

    /// Makes a tensor an output.
    pub fn output(&mut self, name: &str, tensor: &str, data_type: DataType, shape: Vec<i64>) {
        self.builder.reshape(name, tensor, &shape);
        self.builder.output(name, data_type, shape);
    }

    fn observations(&mut self) -> String {
        let input = self.input("observations", DataType::Float, self.features());
        self.prepared("observations", input, self.agents.clone())
    }

    fn features(&self) -> usize {
        self.policy.metadata().network.obs_dim as usize
    }

    /// Scales and normalises the observations of `agents`.
    fn prepared(&mut self, name: &str, mut values: String, agents: Range<usize>) -> String {
        let features = self.features();
        let shape = [agents.len(), features];
        let columns = agents.start * features..agents.end * features;
        let builder = &mut self.builder;
        if let Some(scaling) = scaling(self.policy) {
            // A number that is not finite minus itself is none.
            let zero = builder.scalar("0", 0.0);
            let difference = builder.node(OpType::Sub, format!("{name}.difference"), &[&values, &values]);
            let infinite = builder.node(OpType::IsNaN, format!("{name}.not_finite"), &[&difference]);
            let flags = scaling.of_bar.iter().map(|own| u8::from(*own)).collect();
            let flags = builder.constant("features_of_bars", &[features], DataType::Bool, flags);
            let missing = builder.node(OpType::And, format!("{name}.missing"), &[&infinite, &flags]);
            let mut part = |part: &str, values: &[f32]| {
                builder.floats(format!("{name}.scaling.{part}"), &shape, &values[columns.clone()])
            };
            let mean = part("mean", &scaling.mean);
            let deviation = part("deviation", &scaling.deviation);
            let highest = part("highest", &scaling.limit);
            let lowest: Vec<f32> = scaling.limit.iter().map(|limit| -limit).collect();
            let lowest = part("lowest", &lowest);
            let centred = builder.node(OpType::Sub, format!("{name}.centred"), &[&values, &mean]);
            let divided = builder.node(OpType::Div, format!("{name}.divided"), &[&centred, &deviation]);
            let below = builder.node(OpType::Min, format!("{name}.below"), &[&divided, &highest]);
            let clamped = builder.node(OpType::Max, format!("{name}.clamped"), &[&below, &lowest]);
            values = builder.node(OpType::Where, format!("{name}.scaled"), &[&missing, &zero, &clamped]);
        }
        self.normalized(name, values, columns, &shape)
    }

    /// Normalises numbers by the running statistics of `columns`, if there are any.
    fn normalized(&mut self, name: &str, values: String, columns: Range<usize>, shape: &[usize]) -> String {
        let Some(statistics) = normalization(self.policy, columns.start, columns.len()) else {
            return values;
        };
        let builder = &mut self.builder;
        let mut part = |part: &str, values: &[f32]| {
            builder.floats(format!("{name}.normalization.{part}"), shape, values)
        };
        let mean = part("mean", &statistics.mean);
        let remainder = part("remainder", &statistics.remainder);
        let scale = part("scale", &statistics.scale);
        let rough = builder.node(OpType::Sub, format!("{name}.less_mean"), &[&values, &mean]);
        let exact = builder.node(OpType::Sub, format!("{name}.less_remainder"), &[&rough, &remainder]);
        let scaled = builder.node(OpType::Mul, format!("{name}.over_deviation"), &[&exact, &scale]);
        let limit = crate::ppo::normalize::LIMIT;
        let (low, high) = (builder.scalar("-10", -limit), builder.scalar("10", limit));
        builder.node(OpType::Clip, format!("{name}.normalized"), &[&scaled, &low, &high])
    }

    /// Inputs of the critics: `[batch][agent][feature]`, or one row for all agents.
    fn critic_input(&mut self, observations: &str) -> Result<String> {
        let network = &self.policy.metadata().network;
        let all = network.agents as usize;
        let whole = all * self.features();
        match network.critic_input {
            CriticInput::Own => Ok(observations.into()),
            CriticInput::Joint => {
                let joint = match self.single {
                    false => observations.to_string(),
                    true => {
                        let shape = vec![BATCH, all as i64, self.features() as i64];
                        let input = self.builder.input("joint_observations", DataType::Float, shape);
                        self.prepared("joint_observations", input, 0..all)
                    }
                };
                Ok(self.builder.reshape("critic.joint", &joint, &[BATCH, 1, whole as i64]))
            }
            CriticInput::State => {
                let numbers = self.policy.layout().shape.stored_state() as usize;
                if !self.policy.networks.normalizes(whole + numbers) {
                    return Err(Error::Data(
                        "the model file has no statistics of the global state, so its critics cannot be exported: leave out the value"
                            .into(),
                    ));
                }
                let input = self.builder.input("state", DataType::Float, vec![BATCH, numbers as i64]);
                let state = self.normalized("state", input, whole..whole + numbers, &[numbers]);
                Ok(self.builder.reshape("critic.state.row", &state, &[BATCH, 1, numbers as i64]))
            }
        }
    }

    /// The outputs of all actors or all critics, `[batch][agent][output]`, and the next states of their GRUs.
    fn stack(&mut self, stack: &[Network], kind: &str, input: &str) -> Result<(String, Option<String>)> {
        let memory = self.policy.layout().shape.memory() as usize;
        let state = (memory > 0).then(|| self.input(&format!("{kind}_state"), DataType::Float, memory));
        let activation = self.policy.metadata().network.activation;
        let separate = self.policy.metadata().network.networks == Sharing::Separate;
        let agents = self.agents.clone();
        let shared_input =
            kind == "critic" && self.policy.metadata().network.critic_input != CriticInput::Own;
        let Self { builder, storage, .. } = self;
        if !separate || agents.len() == 1 {
            let network = &stack[if separate { agents.start } else { 0 }];
            let mut layers = Layers { builder, storage, activation, agents };
            return layers.network(network, input, state.as_deref());
        }
        let mut split = |tensor: &str| -> Vec<String> {
            let parts: Vec<_> = agents.clone().map(|agent| format!("{kind}.{tensor}.agent{agent}")).collect();
            builder.operation(OpType::Split, &[tensor], parts.clone(), &[("axis", 1)]);
            parts
        };
        let inputs = if shared_input { vec![input.to_string(); agents.len()] } else { split(input) };
        let states = state.map(|state| split(&state));
        let (mut heads, mut next) = (Vec::new(), Vec::new());
        for agent in agents {
            let mut layers = Layers { builder, storage, activation, agents: agent..agent + 1 };
            let state = states.as_ref().map(|states| states[agent].as_str());
            let (head, state) = layers.network(&stack[agent], &inputs[agent], state)?;
            heads.push(head);
            next.extend(state);
        }
        let mut joined = |name: &str, parts: &[String]| {
            let parts: Vec<_> = parts.iter().map(String::as_str).collect();
            builder.node_with(OpType::Concat, format!("{kind}.{name}"), &parts, &[("axis", 1)])
        };
        let head = joined("heads", &heads);
        Ok((head, (!next.is_empty()).then(|| joined("states", &next))))
    }

    fn next_state(&mut self, kind: &str, next: Option<String>) {
        if let Some(next) = next {
            let shape = self.outer(&[self.policy.layout().shape.memory() as usize]);
            self.output(&format!("next_{kind}_state"), &next, DataType::Float, shape);
        }
    }

    /// The file's metadata, in a fixed order.
    fn about(&self) -> Vec<(String, String)> {
        let metadata = self.policy.metadata();
        let agents: Vec<_> = self.agents.clone().map(|agent| metadata.agent(agent)).collect();
        let entry = |key: &str, value: serde_json::Value| (key.to_string(), value.to_string());
        let about = [
            ("version".to_string(), metadata.version.clone()),
            ("weights".to_string(), self.storage.name().to_string()),
            entry("agents", json!(agents)),
            entry("features", json!(metadata.features)),
            entry("actions", json!(metadata.actions)),
        ];
        #[cfg(feature = "market")]
        if let Some(market) = &metadata.market {
            let options = if market.settings.continuous() { 1 } else { market.settings.actions() };
            let allowed: Vec<_> =
                (0..options).map(|option| market.settings.mask() & (1 << option) != 0).collect();
            let of_market = [
                entry("symbols", json!(agents)),
                entry("levels", json!(market.settings.positions)),
                entry("action_mask", json!(allowed)),
                ("train_from".into(), market.train_from.to_string()),
                ("train_to".into(), market.train_to.to_string()),
            ];
            return about.into_iter().chain(of_market).collect();
        }
        about.into()
    }
}
