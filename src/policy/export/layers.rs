//! The networks as nodes. Activations are `[batch][agent][feature]`.

use std::ops::Range;

use onnx_rs::ast::OpType;

use super::builder::{BATCH, Builder};
use super::network::{Cell, Dense, Matrix, Network, Norm};
use super::quantization::Storage;
use crate::Result;
use crate::nn::Activation;

/// Adds networks to a graph.
pub(super) struct Layers<'a> {
    pub builder: &'a mut Builder,
    pub storage: &'a Storage,
    pub activation: Activation,
    /// Agents whose rows activations have.
    pub agents: Range<usize>,
}

impl Layers<'_> {
    /// The outputs of a network, and the next state of its GRU.
    pub fn network(
        &mut self,
        network: &Network,
        input: &str,
        state: Option<&str>,
    ) -> Result<(String, Option<String>)> {
        let mut values = input.to_string();
        for (index, dense) in network.hidden.iter().enumerate() {
            // The first bias has a row per agent, also if all are equal: where agents share the input of a critic, it makes rows of it.
            let rows = if index == 0 { self.agents.clone() } else { 0..1 };
            values = self.dense(dense, values, rows)?;
            values = self.activate(&dense.name, &values);
        }
        let mut next = None;
        if let (Some(cell), Some(state)) = (&network.cell, state) {
            values = self.cell(cell, values, state)?;
            next = Some(values.clone());
        }
        Ok((self.dense(&network.head, values, 0..1)?, next))
    }

    fn dense(&mut self, dense: &Dense, input: String, rows: Range<usize>) -> Result<String> {
        let name = &dense.name;
        let input = self.norm(name, dense.norm.as_ref(), input);
        let input = self.storage.input(self.builder, name, input);
        let weight = self.storage.weights(self.builder, &format!("{name}.weight"), &dense.weight, false)?;
        let product = self.builder.node(OpType::MatMul, format!("{name}.product"), &[&input, &weight]);
        let own = |row: usize| dense.bias.get(row).or(dense.bias.first()).into_iter().flatten().copied();
        let bias: Vec<f32> = rows.clone().flat_map(own).collect();
        let bias = self.builder.floats(format!("{name}.bias"), &[rows.len(), dense.weight.outputs], &bias);
        Ok(self.builder.node(OpType::Add, format!("{name}.sum"), &[&product, &bias]))
    }

    fn norm(&mut self, name: &str, norm: Option<&Norm>, input: String) -> String {
        let Some(norm) = norm else { return input };
        let gain = self.builder.floats(format!("{name}.norm.weight"), &[norm.gain.len()], &norm.gain);
        let offset = self.builder.floats(format!("{name}.norm.bias"), &[norm.offset.len()], &norm.offset);
        // The last axis and an epsilon of 1e-5 are the defaults.
        self.builder.node(OpType::LayerNormalization, format!("{name}.norm"), &[&input, &gain, &offset])
    }

    fn activate(&mut self, name: &str, input: &str) -> String {
        let builder = &mut *self.builder;
        let output = format!("{name}.{}", self.activation.name());
        match self.activation {
            Activation::Relu => builder.node(OpType::Relu, output, &[input]),
            Activation::Tanh => builder.node(OpType::Tanh, output, &[input]),
            Activation::Silu => {
                let gate = builder.node(OpType::Sigmoid, format!("{name}.sigmoid"), &[input]);
                builder.node(OpType::Mul, output, &[input, &gate])
            }
            // Operators have a Gelu from version 20 on.
            Activation::Gelu => {
                let root = builder.scalar("1/sqrt(2)", std::f32::consts::FRAC_1_SQRT_2);
                let (half, one) = (builder.scalar("0.5", 0.5), builder.scalar("1", 1.0));
                let scaled = builder.node(OpType::Mul, format!("{name}.erf.input"), &[input, &root]);
                let erf = builder.node(OpType::Erf, format!("{name}.erf"), &[&scaled]);
                let above = builder.node(OpType::Add, format!("{name}.erf+1"), &[&erf, &one]);
                let share = builder.node(OpType::Mul, format!("{name}.gauss"), &[&above, &half]);
                builder.node(OpType::Mul, output, &[input, &share])
            }
        }
    }

    /// The next state of a GRU.
    fn cell(&mut self, cell: &Cell, input: String, state: &str) -> Result<String> {
        let (name, size, agents) = (&cell.name, cell.state.inputs as i64, self.agents.len() as i64);
        let input = self.norm(name, cell.norm.as_ref(), input);
        // One step of a sequence, and one row per agent and entry of the batch.
        let input =
            self.builder.reshape(&format!("{name}.rows"), &input, &[1, BATCH, cell.input.inputs as i64]);
        let state = self.builder.reshape(&format!("{name}.state.rows"), state, &[1, BATCH, size]);
        // ONNX has the gates in the order update, reset, candidate.
        let (of_input, input_bias) = reordered(&cell.input, &cell.input_bias, [2, 1, 0]);
        let (of_state, state_bias) = reordered(&cell.state, &cell.state_bias, [1, 0, 2]);
        let [of_input, of_state] = [("input", of_input), ("state", of_state)].map(|(part, matrix)| {
            self.storage.weights(self.builder, &format!("{name}.{part}.weight"), &matrix, true)
        });
        let bias = [input_bias, state_bias].concat();
        let bias = self.builder.floats(format!("{name}.bias"), &[1, bias.len()], &bias);
        let inputs = [&input, &of_input?, &of_state?, &bias, "", &state];
        let next = format!("{name}.next.rows");
        let attributes = [("hidden_size", size), ("linear_before_reset", 1)];
        self.builder.operation(OpType::GRU, &inputs, vec![String::new(), next.clone()], &attributes);
        Ok(self.builder.reshape(&format!("{name}.next"), &next, &[BATCH, agents, size]))
    }
}

/// The thirds of a matrix's columns and of a bias in another order.
fn reordered(matrix: &Matrix, bias: &[f32], order: [usize; 3]) -> (Matrix, Vec<f32>) {
    let size = matrix.outputs / 3;
    let row = |row: &[f32]| -> Vec<f32> {
        order.iter().flat_map(|third| row[third * size..][..size].iter().copied()).collect()
    };
    let values = matrix.values.chunks_exact(matrix.outputs).flat_map(row).collect();
    (Matrix { values, ..*matrix }, row(bias))
}
