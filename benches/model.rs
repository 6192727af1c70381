//! Expected times of a training iteration on GPUs, computed from counts of the block kernels and from figures of the devices, without a
//! device. A model to be contradicted by measurements: docs/performance.md quotes it and explains where it was wrong.
//!
//! A phase takes as long as the longest of
//! * its products: multiply-adds / (processors x clock x multiply-adds a clock),
//! * its reads of workgroup memory: 1.5 bytes a multiply-add (two vec4s of values and one of weights for 32 of them) / bandwidth,
//! * its traffic: bytes / memory bandwidth,
//! * its longest chain in one workgroup: barriers and dependent loads, one after the other,
//!
//! plus a gap for every dispatch, which waits for the one before it. Workgroups come in rounds where they are more than the processors
//! hold at a time.

use phalanx::model::{Layout, Shape};

/// Figures of a device, from its data sheet but for the last three, which are typical of its family in published microbenchmarks.
struct Device {
    name: &'static str,
    /// Streaming multiprocessors, compute units or cores.
    processors: f64,
    gigahertz: f64,
    /// f32 multiply-adds a clock and processor.
    multiply_adds: f64,
    /// Bytes of workgroup memory a clock and processor.
    shared_bytes: f64,
    gigabytes_a_second: f64,
    /// Workgroups of 128 invocations with 20 KiB that a processor holds.
    resident: f64,
    /// Microseconds: a load that the second-level cache answers, a barrier in a workgroup, and the gap between dependent dispatches.
    load: f64,
    barrier: f64,
    gap: f64,
}

#[rustfmt::skip]
const DEVICES: [Device; 5] = [
    Device { name: "T4", processors: 40., gigahertz: 1.35, multiply_adds: 64., shared_bytes: 64., gigabytes_a_second: 320., resident: 3., load: 0.19, barrier: 0.03, gap: 2.5 },
    Device { name: "RTX 4090", processors: 128., gigahertz: 2.52, multiply_adds: 128., shared_bytes: 128., gigabytes_a_second: 1008., resident: 4., load: 0.13, barrier: 0.02, gap: 2.0 },
    Device { name: "H100 SXM", processors: 132., gigahertz: 1.83, multiply_adds: 128., shared_bytes: 128., gigabytes_a_second: 3350., resident: 8., load: 0.15, barrier: 0.02, gap: 2.0 },
    Device { name: "M2, 10 cores", processors: 10., gigahertz: 1.4, multiply_adds: 128., shared_bytes: 128., gigabytes_a_second: 100., resident: 1., load: 0.25, barrier: 0.05, gap: 5.0 },
    Device { name: "RX 7900 XTX", processors: 96., gigahertz: 2.3, multiply_adds: 64., shared_bytes: 64., gigabytes_a_second: 960., resident: 3., load: 0.15, barrier: 0.02, gap: 4.0 },
];

/// The configuration of docs/performance.md: a shared actor and a critic that sees all agents.
const AGENTS: u32 = 4;
const FEATURES: u32 = 18;
const ACTIONS: u32 = 3;
const HIDDEN: [u32; 2] = [64, 64];
const STEPS: u32 = 128;
const EPOCHS: u32 = 4;

/// Quads of rows of a block, inputs whose weights are staged at a time, and most workgroups a network that sum gradients.
const BLOCK_QUADS: u32 = 16;
const DEPTH: u32 = 16;
const MOST_GROUPS: u32 = 256;

/// Steps of a rollout's dispatch, and dispatches of an optimizer step.
const STEPS_OF_DISPATCH: u32 = 32;
const OPTIMIZER_STEP: u32 = 4;

/// Dispatches of an iteration besides acting and optimizer steps: values, advantages, two for their statistics, the beginning of the
/// first minibatch, two for metrics.
const OTHERS: u32 = 7;

/// Loads of the market's step that wait for a load before them: nine for each of four instruments by the compiler's report (navi31), and
/// two of the account.
const MARKET_LOADS: u32 = 4 * 9 + 2;

/// A stack of layers: inputs of the first, hidden layers, outputs.
fn widths(inputs: u32, outputs: u32) -> Vec<u32> {
    [inputs].into_iter().chain(HIDDEN).chain([outputs]).collect()
}

/// Multiply-adds of a row in a forward pass.
fn products(widths: &[u32]) -> f64 {
    widths.windows(2).map(|pair| f64::from(pair[0] * pair[1])).sum()
}

/// Barriers and dependent loads of a block's forward pass: two barriers for every slab of weights, six for a LayerNorm; a slab is loaded
/// while the one before it is multiplied.
fn chain(widths: &[u32]) -> [u32; 2] {
    let layers = widths.len() as u32 - 1;
    let slabs: u32 = widths[..widths.len() - 1].iter().map(|inputs| inputs.div_ceil(DEPTH)).sum();
    [2 * slabs + 6 * layers + 2, layers + 1]
}

/// Microseconds of each phase.
struct Phases {
    acting: f64,
    values: f64,
    updates: f64,
    gaps: f64,
}

impl Phases {
    fn all(&self) -> f64 {
        self.acting + self.values + self.updates + self.gaps
    }
}

impl Device {
    /// Microseconds of multiply-adds, by arithmetic or by workgroup memory, on so many of the processors.
    fn multiply(&self, multiply_adds: f64, processors: f64) -> f64 {
        let a_clock = self.multiply_adds.min(self.shared_bytes / 1.5);
        multiply_adds / (processors * a_clock * self.gigahertz * 1e3)
    }

    /// Microseconds of `rows` rows through a network, `passes` times the work of a forward pass, in blocks.
    fn blocks(&self, rows: f64, widths: &[u32], passes: f64, bytes: f64) -> f64 {
        // Workgroups that sum gradients take one block after the other.
        let blocks = rows / f64::from(4 * BLOCK_QUADS);
        let busy = blocks.min(self.processors);
        let [barriers, loads] = chain(widths).map(f64::from);
        let rounds = (blocks / (self.processors * self.resident)).ceil();
        let chain = rounds * passes * (barriers * self.barrier + loads * self.load);
        let multiply = self.multiply(passes * rows * products(widths), busy);
        multiply.max(bytes / self.gigabytes_a_second * 1e-3).max(chain)
    }

    fn phases(&self, envs: u32, layout: &Layout) -> Phases {
        let (actor, critic) = (widths(FEATURES, ACTIONS), widths(AGENTS * FEATURES, 1));
        let slot = f64::from(envs * AGENTS);
        let rows = slot * f64::from(STEPS);
        let observed = rows * f64::from(4 * FEATURES);
        // Every step is a chain of its own: networks, the draw, the environment.
        let groups = slot / f64::from(4 * BLOCK_QUADS);
        let rounds = (groups / (self.processors * self.resident)).ceil();
        let own_chain = 4.0 * self.barrier + f64::from(MARKET_LOADS + 3) * self.load;
        let acting = self.blocks(slot, &actor, 1.0, 0.0) + rounds * own_chain;
        // Forward, gradients of the inputs, gradients of the weights.
        let sums = f64::from(layout.params) * 16.0 * f64::from(MOST_GROUPS);
        let update = self.blocks(rows, &actor, 3.0, observed) + self.blocks(rows, &critic, 3.0, observed);
        let reduction = 2.0 * sums / self.gigabytes_a_second * 1e-3;
        let dispatches = STEPS.div_ceil(STEPS_OF_DISPATCH) + EPOCHS * OPTIMIZER_STEP + OTHERS;
        Phases {
            acting: f64::from(STEPS) * acting,
            values: self.blocks(rows, &critic, 1.0, observed),
            updates: f64::from(EPOCHS) * (update + reduction),
            gaps: f64::from(dispatches) * self.gap,
        }
    }
}

fn main() {
    let shape = Shape {
        agents: AGENTS,
        obs_dim: FEATURES,
        actions: ACTIONS,
        hidden: HIDDEN.to_vec(),
        ..Shape::default()
    };
    let layout = Layout::new(&shape).expect("the shape is within its ranges");
    println!(
        "Expected by the model, not measured: {AGENTS} agents, {FEATURES} features, {HIDDEN:?}, {STEPS} steps, {EPOCHS} epochs, f32\n"
    );
    println!(
        "| device | environments | acting ms | values ms | updates ms | gaps ms | million steps a second |"
    );
    println!("|---|---|---|---|---|---|---|");
    for device in &DEVICES {
        for envs in [1024u32, 4096, 16384] {
            let phases = device.phases(envs, &layout);
            let [acting, values, updates, gaps] =
                [phases.acting, phases.values, phases.updates, phases.gaps].map(|us| us / 1e3);
            let steps = f64::from(envs * STEPS) / phases.all();
            println!(
                "| {} | {envs} | {acting:.2} | {values:.2} | {updates:.2} | {gaps:.2} | {steps:.1} |",
                device.name
            );
        }
    }
}
