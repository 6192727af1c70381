//! The contents of an ONNX file, as the caller chooses them.

/// Options of [`super::Policy::export_onnx`]. By default one graph for all agents, with values, and with weights in f32.
#[derive(Clone, Copy, Debug, Default)]
pub struct OnnxOptions<'a> {
    pub(super) agent: Option<usize>,
    pub(super) without_value: bool,
    pub(super) weights: ExportWeights<'a>,
}

/// Representation of the weights of matrices. Biases, LayerNorms and statistics are always f32.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub enum ExportWeights<'a> {
    /// f32.
    #[default]
    F32,
    /// f16, which a cast turns into f32 before the product: half the file, the same speed.
    F16,
    /// int8 with a scale per output, and inputs of the products quantised to int8 over the range that they have in the calibration
    /// (QuantizeLinear and DequantizeLinear). Weights of a GRU are int8 too, its inputs stay f32.
    Int8(Calibration<'a>),
}

/// Observations from which the ranges of activations are taken.
#[derive(Clone, Copy, Debug, Default)]
pub struct Calibration<'a> {
    /// Observations of one environment, step after step, `[step][agent][feature]`, as [`super::Policy::act`] takes them: those of a
    /// market are scaled.
    pub observations: &'a [f32],
    /// Global states, `[step][number]`, if critics read them; else empty.
    pub states: &'a [f32],
}

impl<'a> OnnxOptions<'a> {
    /// A graph of one agent, `[batch][feature]`, instead of all.
    #[must_use]
    pub fn agent(self, agent: usize) -> Self {
        Self { agent: Some(agent), ..self }
    }

    /// Leaves out the critic, and with it the inputs that only it reads.
    #[must_use]
    pub fn without_value(self) -> Self {
        Self { without_value: true, ..self }
    }

    /// Representation of the weights.
    #[must_use]
    pub fn weights(self, weights: ExportWeights<'a>) -> Self {
        Self { weights, ..self }
    }
}
