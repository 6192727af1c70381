//! From the outputs of an actor to masked logits, greedy actions and target levels.

use onnx_rs::ast::{DataType, OpType};

use super::network::Network;
use super::onnx::GraphOf;
use crate::policy::distribution::BELOW_ONE;
use crate::policy::metadata::ActionSpec;

/// Adds the outputs that follow from `head`, `[batch][agent][output]`.
pub(super) fn add(graph: &mut GraphOf<'_>, actors: &[Network], head: &str) {
    match graph.policy.metadata().actions.clone() {
        ActionSpec::Discrete { choices } => discrete(graph, &choices, head),
        ActionSpec::Continuous { numbers, squashed } => {
            continuous(graph, actors, numbers as usize, squashed, head);
        }
    }
}

fn discrete(graph: &mut GraphOf<'_>, choices: &[u32], head: &str) {
    let options = choices.iter().sum::<u32>() as usize;
    let mask = graph.input("action_mask", DataType::Bool, options);
    let lowest = graph.builder.scalar("lowest", f32::MIN);
    let logits = graph.builder.node(OpType::Where, "masked_logits", &[&mask, head, &lowest]);
    let shape = graph.outer(&[options]);
    graph.output("logits", &logits, DataType::Float, shape);
    // The first of the largest, and option 0 where none is allowed: as phalanx decides.
    let last = [("axis", -1)];
    let builder = &mut graph.builder;
    let chosen = if let [_] = choices {
        builder.node_with(OpType::ArgMax, "options", &[&logits], &last)
    } else {
        let parts: Vec<_> = (0..choices.len()).map(|choice| format!("logits.choice{choice}")).collect();
        let sizes: Vec<i64> = choices.iter().map(|size| i64::from(*size)).collect();
        let sizes = builder.integers("sizes_of_choices", &sizes);
        builder.operation(OpType::Split, &[&logits, &sizes], parts.clone(), &last);
        let mut taken = Vec::new();
        for part in &parts {
            taken.push(builder.node_with(OpType::ArgMax, format!("{part}.option"), &[part], &last));
        }
        let taken: Vec<_> = taken.iter().map(String::as_str).collect();
        builder.node_with(OpType::Concat, "options", &taken, &last)
    };
    let shape = match choices.len() {
        1 => graph.outer(&[]),
        several => graph.outer(&[several]),
    };
    graph.output("actions", &chosen, DataType::Int64, shape);
    #[cfg(feature = "market")]
    if let Some(market) = &graph.policy.metadata().market {
        let levels: Vec<f32> = market.settings.positions.iter().map(|level| *level as f32).collect();
        let levels = graph.builder.floats("levels", &[levels.len()], &levels);
        let target = graph.builder.node(OpType::Gather, "levels_of_options", &[&levels, &chosen]);
        let shape = graph.outer(&[]);
        graph.output("target", &target, DataType::Float, shape);
    }
}

fn continuous(graph: &mut GraphOf<'_>, actors: &[Network], numbers: usize, squashed: bool, head: &str) {
    let active = graph.input("action_mask", DataType::Bool, 1);
    let shape = graph.outer(&[numbers]);
    graph.output("mean", head, DataType::Float, shape.clone());
    let own = |agent: usize| actors[agent.min(actors.len() - 1)].log_std.iter().copied();
    let log_std: Vec<f32> = graph.agents.clone().flat_map(own).collect();
    let log_std = graph.builder.floats("actor.log_std", &[log_std.len()], &log_std);
    // Without the batch.
    graph.output("log_std", &log_std, DataType::Float, shape[1..].to_vec());
    let zero = graph.builder.scalar("0", 0.0);
    let mut actions = graph.builder.node(OpType::Where, "active_mean", &[&active, head, &zero]);
    if squashed {
        let builder = &mut graph.builder;
        let (low, high) = (builder.scalar("above_-1", -BELOW_ONE), builder.scalar("below_1", BELOW_ONE));
        let squashed = builder.node(OpType::Tanh, "squashed_mean", &[&actions]);
        actions = builder.node(OpType::Clip, "clipped_mean", &[&squashed, &low, &high]);
    }
    graph.output("actions", &actions, DataType::Float, shape);
    #[cfg(feature = "market")]
    if let Some(market) = &graph.policy.metadata().market {
        let [lowest, highest] = market.settings.range();
        let builder = &mut graph.builder;
        let (low, high) = (builder.scalar("-1", -1.0), builder.scalar("1", 1.0));
        let half = builder.scalar("0.5", 0.5);
        let width = builder.scalar("width_of_levels", highest - lowest);
        let (lowest, highest) =
            (builder.scalar("lowest_level", lowest), builder.scalar("highest_level", highest));
        let within = builder.node(OpType::Clip, "weights", &[&actions, &low, &high]);
        let halved = builder.node(OpType::Mul, "half_weights", &[&within, &half]);
        let share = builder.node(OpType::Add, "shares", &[&halved, &half]);
        let part = builder.node(OpType::Mul, "parts_of_levels", &[&share, &width]);
        let level = builder.node(OpType::Add, "levels", &[&lowest, &part]);
        let target = builder.node(OpType::Clip, "clipped_levels", &[&level, &lowest, &highest]);
        let shape = graph.outer(&[]);
        graph.output("target", &target, DataType::Float, shape);
    }
}
