//! The networks as plain matrices without padding, found by the names of the layout's tensors.

use super::Policy;
use super::tensors::rows;
use crate::Result;
use crate::nn::Sharing;

/// An actor or a critic.
#[derive(Debug)]
pub(super) struct Network {
    pub hidden: Vec<Dense>,
    pub cell: Option<Cell>,
    pub head: Dense,
    /// Logarithms of the standard deviations of continuous actions, which depend on nothing; else empty.
    pub log_std: Vec<f32>,
}

/// Weights `[inputs][outputs]`.
#[derive(Debug)]
pub(super) struct Matrix {
    pub inputs: usize,
    pub outputs: usize,
    pub values: Vec<f32>,
}

/// Gain and offset of a LayerNorm.
#[derive(Debug)]
pub(super) struct Norm {
    pub gain: Vec<f32>,
    pub offset: Vec<f32>,
}

/// A linear layer with the LayerNorm before it.
#[derive(Debug)]
pub(super) struct Dense {
    pub name: String,
    pub norm: Option<Norm>,
    pub weight: Matrix,
    /// `[agent][output]` if the network knows the agent, else `[1][output]`.
    pub bias: Vec<Vec<f32>>,
}

/// A GRU with the LayerNorm before it.
#[derive(Debug)]
pub(super) struct Cell {
    pub name: String,
    pub norm: Option<Norm>,
    /// Columns of the candidate, the reset gate and the update gate.
    pub input: Matrix,
    pub input_bias: Vec<f32>,
    /// Columns of the reset gate, the update gate and the candidate.
    pub state: Matrix,
    pub state_bias: Vec<f32>,
}

/// Actors, then critics: one of each if agents share them, else one per agent.
pub(super) fn networks(policy: &Policy) -> Result<[Vec<Network>; 2]> {
    let network = &policy.metadata().network;
    let of = |kind: &str| -> Result<Vec<Network>> {
        match network.networks {
            Sharing::Shared => Ok(vec![Network::new(policy, kind)?]),
            Sharing::Separate => (0..network.agents)
                .map(|agent| Network::new(policy, &format!("{kind}.agent{agent}")))
                .collect(),
        }
    };
    Ok([of("actor")?, of("critic")?])
}

impl Network {
    /// The network whose tensors begin with `name`: `actor`, or `actor.agent2` if agents have networks of their own.
    fn new(policy: &Policy, name: &str) -> Result<Self> {
        let network = &policy.metadata().network;
        let layers = network.hidden.len();
        let dense = |number: usize| -> Result<Dense> {
            let normed = if number == 0 { network.input_norm } else { network.hidden_norm };
            let name = format!("{name}.{number}");
            Ok(Dense {
                norm: normed.then(|| Norm::new(policy, &name)).transpose()?,
                weight: matrix(policy, &format!("{name}.weight"))?,
                bias: rows(policy, &format!("{name}.bias"))?,
                name,
            })
        };
        let cell = || -> Result<Cell> {
            let name = format!("{name}.gru");
            Ok(Cell {
                norm: network.hidden_norm.then(|| Norm::new(policy, &name)).transpose()?,
                input: matrix(policy, &format!("{name}.input.weight"))?,
                input_bias: row(policy, &format!("{name}.input.bias"))?,
                state: matrix(policy, &format!("{name}.state.weight"))?,
                state_bias: row(policy, &format!("{name}.state.bias"))?,
                name,
            })
        };
        let spread = policy.metadata().actions.continuous() && name.starts_with("actor");
        Ok(Self {
            hidden: (0..layers).map(dense).collect::<Result<_>>()?,
            cell: network.recurrent.then(cell).transpose()?,
            head: dense(layers)?,
            log_std: if spread { row(policy, &format!("{name}.log_std"))? } else { vec![] },
        })
    }
}

impl Norm {
    fn new(policy: &Policy, name: &str) -> Result<Self> {
        let part = |part: &str| row(policy, &format!("{name}.norm.{part}"));
        Ok(Self { gain: part("weight")?, offset: part("bias")? })
    }
}

fn row(policy: &Policy, name: &str) -> Result<Vec<f32>> {
    Ok(rows(policy, name)?.concat())
}

fn matrix(policy: &Policy, name: &str) -> Result<Matrix> {
    let rows = rows(policy, name)?;
    let outputs = rows.first().map_or(0, Vec::len);
    Ok(Matrix { inputs: rows.len(), outputs, values: rows.concat() })
}
