//! Composes several indicators into one kernel.
//!
//! `shaders/indicators/panel.wgsl` iterates over the bars and imports the module `uses`, which is generated here. Every use
//! of an indicator is a separate folder of WGSL modules: `indicator` (its shader), `parameters`, and one module for
//! each average and window, completed from the templates in `shaders/lib/`.

use super::indicator::{Input, Need, Spec, Value, Window};
use crate::Result;
use crate::gpu::{Class, Shader, Variant, compose_with};

/// The kernel that iterates over bars.
pub const SHADER: Shader = crate::shaders::shader!("indicators/panel");
const AVERAGE: &str = include_str!("../../shaders/lib/average.wgsl");
const WINDOW: &str = include_str!("../../shaders/lib/window.wgsl");
const MEMORY: &str = include_str!("../../shaders/lib/memory.wgsl");
const RING: &str = include_str!("../../shaders/lib/ring.wgsl");

/// Longest window that is kept in registers: Mesa does not unroll longer loops, and more registers spill.
const IN_REGISTERS: u32 = 32;

/// Longest period of an average without compensated summation: steps of 1/100 lose no significant digit.
const SHORT: u32 = 100;

/// Binding of the first output, after those of uniform, candles, volumes, parameter table, counters, state and rings.
pub const FIRST_OUTPUT: u32 = 7;

/// Configuration of an indicator kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PanelConfig {
    /// Class of adapters, which determines the workgroup size.
    pub class: Class,
    /// Read candles from textures, which software adapters load several times as fast as storage buffers.
    pub textures: bool,
    /// Process any number of bars one by one, rather than in groups of four.
    pub live: bool,
    /// Keep the state from one dispatch to the next.
    pub keep: bool,
    /// Read parameters from a buffer with one entry per parameter set, rather than from constants.
    pub parameter_table: bool,
    /// Store outputs in f16.
    pub f16_outputs: bool,
    /// Store outputs in 64-bit words of two values, which software adapters do twice as fast.
    pub wide_stores: bool,
}

/// Loop iterations of one lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loops {
    /// In an average bar.
    pub bar: u32,
    /// In the bar in which all windows complete a block.
    pub burst: u32,
}

/// The source of a kernel and its resources.
#[derive(Clone, Debug)]
pub struct Source {
    /// WGSL.
    pub text: String,
    /// Class, constants and conditions from which it was composed.
    pub variant: Variant,
    /// Whether an indicator needs the volume.
    pub volume: bool,
    /// Words of a lane's ring buffers.
    pub rings: u32,
    /// Words of a lane's state, without the counters.
    pub state: u32,
    /// Number of outputs of all indicators.
    pub outputs: u32,
    /// Loop iterations, without the loop over bars.
    pub loops: Loops,
}

fn literal(value: Value) -> String {
    match value {
        // Rounded to f32 before printing, for shorter literals; WGSL would round the same way.
        Value::F32(value) => format!("f32({:?})", value as f32),
        Value::U32(value) => format!("{value}u"),
        Value::Bool(value) => value.to_string(),
    }
}

/// One entry of the parameter table.
#[must_use]
pub fn entry(spec: &Spec) -> Vec<u32> {
    let mut words = Vec::new();
    let mut add = |value: Value| match value {
        Value::F32(value) => words.push((value as f32).to_bits()),
        Value::U32(value) => words.push(value),
        Value::Bool(value) => words.push(u32::from(value)),
    };
    row_parameters(spec).for_each(|(_, _, value)| add(value));
    words
}

/// Module, name and value of every parameter that may differ between rows.
fn row_parameters(spec: &Spec) -> impl Iterator<Item = (&'static str, &'static str, Value)> + '_ {
    let first = ("parameters", "first", Value::F32(f64::from(spec.first)));
    let constants = spec.constants.iter().map(|(name, value)| ("parameters", *name, *value));
    let averages = spec.averages.iter().flat_map(|average| {
        [
            (average.name, "period", Value::F32(f64::from(average.period))),
            (average.name, "weight", Value::F32(average.weight)),
        ]
    });
    let windows = spec.windows.iter().map(|window| (window.name, "N", Value::U32(window.length)));
    std::iter::once(first).chain(constants).chain(averages).chain(windows)
}

/// Whether a window is kept in registers, provided that its length is the same for all rows.
#[must_use]
pub fn in_registers(window: &Window) -> bool {
    window.length <= IN_REGISTERS
}

/// Words of the ring buffers of one lane.
#[must_use]
pub fn words_of_rings(specs: &[Spec], parameter_table: bool) -> u32 {
    let windows = specs.iter().flat_map(|spec| &spec.windows);
    windows.filter(|window| parameter_table || !in_registers(window)).map(words_of_ring).sum()
}

fn words_of_ring(window: &Window) -> u32 {
    let arrays: u32 = window
        .needs
        .iter()
        .map(|need| match need {
            Need::Sum | Need::Squares | Need::Weighted => 1,
            Need::Extremes => 2,
            Need::Each => 0,
        })
        .sum();
    window.length * (1 + arrays)
}

/// Values per loop iteration in ring.wgsl.
const STEP: u32 = 8;

/// Words of `State` in ring.wgsl.
const RING_STATE: u32 = 8;

/// The generated modules of one use of an indicator.
#[derive(Default)]
struct Use {
    /// Name and text of each module.
    modules: Vec<(&'static str, String)>,
    /// Modules with state, and the size of the state in words.
    kept: Vec<(&'static str, u32)>,
    /// Statements that load the parameters from the table.
    load: String,
}

/// Composes one kernel for `specs`. With a parameter table, `specs` contain the longest windows of all rows.
///
/// # Errors
/// [`crate::Error::Shader`].
pub fn compose(specs: &[Spec], config: PanelConfig) -> Result<Source> {
    let volume = specs.iter().any(|spec| spec.input == Input::Trades);
    let (mut rings, mut words) = (0, 0);
    let mut modules: Vec<(String, String)> = Vec::new();
    let mut uses = Vec::new();
    for (n, spec) in specs.iter().enumerate() {
        let part = use_modules(n, spec, config.parameter_table, &mut words, &mut rings);
        modules.push((format!("use{n}/indicator"), spec.shader.source.into()));
        modules.extend(part.modules.iter().map(|(name, text)| (format!("use{n}/{name}"), text.clone())));
        uses.push(part);
    }
    let mut memory = String::from(MEMORY);
    if rings > 0 {
        memory += "@group(0) @binding(6) var<storage, read_write> rings: array<f32>;\n";
    }
    modules.push(("memory".into(), memory));
    modules.push(("uses".into(), glue(specs, &uses, config)));
    let loops = loops(specs, config.parameter_table);
    let state = uses.iter().flat_map(|part| &part.kept).map(|(_, words)| words).sum();
    let variant = Variant::wide(config.class)
        .when("textures", config.textures)
        .when("live", config.live)
        .when("keep", config.keep)
        .when("parameter_table", config.parameter_table)
        .when("volume", volume)
        .when("rings", rings > 0);
    let text = compose_with(&SHADER, &modules, &variant)?;
    let outputs = specs.iter().map(|spec| spec.outputs.len() as u32).sum();
    Ok(Source { text, variant, volume, rings, state, outputs, loops })
}

/// Iterations of the loops over the windows of `specs`.
#[must_use]
pub fn loops<'a>(specs: impl IntoIterator<Item = &'a Spec>, parameter_table: bool) -> Loops {
    let windows = specs.into_iter().flat_map(|spec| &spec.windows);
    let mut loops = Loops::default();
    for window in windows.filter(|window| parameter_table || !in_registers(window)) {
        let iterations = window.length.div_ceil(STEP);
        loops.burst += iterations;
        // The ends of a block of n values are computed once in n bars, amortised one iteration per bar.
        loops.bar += 1 + if window.needs.contains(&Need::Each) { iterations } else { 0 };
    }
    if loops.burst > 0 {
        loops.bar += 1;
    }
    loops
}

/// The modules of the n-th use. `words` counts the words of a parameter table entry, `rings` those of the ring buffers.
fn use_modules(n: usize, spec: &Spec, parameter_table: bool, words: &mut u32, rings: &mut u32) -> Use {
    let mut part = Use { modules: vec![("parameters", String::new())], ..Use::default() };
    if spec.state > 0 {
        part.kept.push(("indicator", spec.state));
    }
    for average in &spec.averages {
        part.kept.push((average.name, 2));
        let long = Value::Bool(parameter_table || average.period > SHORT);
        part.modules.push((average.name, AVERAGE.to_string() + &constant("long", long)));
    }
    for window in &spec.windows {
        let ring = parameter_table || !in_registers(window);
        if !ring {
            part.kept.push((window.name, window.length));
            part.modules.push((window.name, WINDOW.into()));
            continue;
        }
        let needs = |need| Value::Bool(window.needs.contains(&need));
        let constants = [
            ("CAPACITY", Value::U32(window.length)),
            ("OFFSET", Value::U32(*rings)),
            ("SUMS", needs(Need::Sum)),
            ("SQUARES", needs(Need::Squares)),
            ("WEIGHTS", needs(Need::Weighted)),
            ("EXTREMES", needs(Need::Extremes)),
        ];
        let constants = constants.map(|(name, value)| constant(name, value)).concat();
        part.kept.push((window.name, RING_STATE));
        part.modules.push((window.name, RING.to_string() + &constants));
        *rings += words_of_ring(window);
    }
    for (module, name, value) in row_parameters(spec) {
        let Some((_, text)) = part.modules.iter_mut().find(|(text, _)| *text == module) else {
            continue;
        };
        if parameter_table {
            let kind = if matches!(value, Value::U32(_)) { "u32" } else { "f32" };
            *text += &format!("var<private> {name}: {kind};\n");
            part.load += &format!(
                "    package::use{n}::{module}::{name} = bitcast<{kind}>(parameter_table[entry + {words}u]);\n"
            );
            *words += 1;
        } else {
            *text += &constant(name, value);
        }
    }
    part
}

/// The module that passes bars to the indicators and stores their values in the outputs.
fn glue(specs: &[Spec], uses: &[Use], config: PanelConfig) -> String {
    let mut text =
        String::from("import package::lib::bar::Bar;\nimport package::lib::numeric::nan;\nstruct Values {\n");
    let outputs: usize = specs.iter().map(|spec| spec.outputs.len()).sum();
    (0..outputs).for_each(|o| text += &format!("    o{o}: f32,\n"));
    text += "}\n";
    let element = match (config.live, config.f16_outputs) {
        (true, _) => "f32",
        (false, true) => "vec2<u32>",
        (false, false) if config.wide_stores => "vec2<u64>",
        (false, false) => "vec4<f32>",
    };
    for o in 0..outputs {
        let binding = FIRST_OUTPUT as usize + o;
        text +=
            &format!("@group(0) @binding({binding}) var<storage, read_write> out{o}: array<{element}>;\n");
    }
    text += "fn step(bar: Bar) -> Values {\n    var values: Values;\n";
    let mut next = 0;
    for (n, spec) in specs.iter().enumerate() {
        let counter = match spec.input {
            Input::Close => "closes",
            Input::Candle => "candles",
            Input::Trades => "trades",
        };
        text += &format!("    let r{n} = package::use{n}::indicator::step(bar);\n");
        text += &format!("    let known{n} = bar.{counter} > package::use{n}::parameters::first;\n");
        for component in ["x", "y", "z", "w"].iter().take(spec.outputs.len()) {
            let value = if spec.outputs.len() == 1 { format!("r{n}") } else { format!("r{n}.{component}") };
            text += &format!("    values.o{next} = select(nan(), {value}, known{n});\n");
            next += 1;
        }
    }
    text += "    return values;\n}\nstruct Four {\n";
    (0..outputs).for_each(|o| text += &format!("    o{o}: vec4<f32>,\n"));
    text += "}\n";
    if config.wide_stores && !config.f16_outputs {
        text += "fn pair(x: vec2<f32>) -> u64 {\n    let bits = bitcast<vec2<u32>>(x);\n";
        text += "    return u64(bits.x) | (u64(bits.y) << 32u);\n}\n";
    }
    text += "var<private> four: Four;\nfn put(i: u32, values: Values) {\n";
    // FXC rejects assignments to component i of a vector in a structure.
    text += "    let component = vec4<u32>(i) == vec4<u32>(0u, 1u, 2u, 3u);\n";
    (0..outputs).for_each(|o| {
        text += &format!("    four.o{o} = select(four.o{o}, vec4<f32>(values.o{o}), component);\n");
    });
    text += "}\nfn store(at: u32) {\n";
    for o in 0..outputs {
        let four = if config.f16_outputs {
            format!("vec2<u32>(pack2x16float(four.o{o}.xy), pack2x16float(four.o{o}.zw))")
        } else if config.wide_stores {
            format!("vec2<u64>(pair(four.o{o}.xy), pair(four.o{o}.zw))")
        } else {
            format!("four.o{o}")
        };
        text += &format!("    out{o}[at] = {four};\n");
    }
    text += "}\nfn store_one(at: u32, a: Values) {\n";
    (0..outputs).for_each(|o| text += &format!("    out{o}[at] = a.o{o};\n"));
    text += "}\n";
    if config.parameter_table {
        text +=
            "@group(0) @binding(3) var<storage, read> parameter_table: array<u32>;\nfn load(entry: u32) {\n";
        uses.iter().for_each(|part| text += &part.load);
        text += "}\n";
    }
    let kept = || uses.iter().enumerate().flat_map(|(n, part)| part.kept.iter().map(move |(m, _)| (n, m)));
    text += "struct Kept {\n";
    kept().for_each(|(n, m)| text += &format!("    u{n}_{m}: package::use{n}::{m}::State,\n"));
    text += "}\n@group(0) @binding(5) var<storage, read_write> states: array<Kept>;\n";
    text += "fn restore(lane: u32) {\n    let kept = states[lane];\n";
    // Windows in registers store their values outside of their `State`.
    let place = |n: usize, m: &str| {
        let in_registers = uses[n].modules.iter().any(|(name, text)| *name == m && text.starts_with(WINDOW));
        if in_registers { ["values", ".values"] } else { ["state", ""] }
    };
    kept().for_each(|(n, m)| {
        let [own, field] = place(n, m);
        text += &format!("    package::use{n}::{m}::{own} = kept.u{n}_{m}{field};\n");
    });
    text += "}\nfn save(lane: u32) {\n    var kept: Kept;\n";
    kept().for_each(|(n, m)| {
        let [own, field] = place(n, m);
        text += &format!("    kept.u{n}_{m}{field} = package::use{n}::{m}::{own};\n");
    });
    text + "    states[lane] = kept;\n}\n"
}

fn constant(name: &str, value: Value) -> String {
    let kind = match value {
        Value::F32(_) => "f32",
        Value::U32(_) => "u32",
        Value::Bool(_) => "bool",
    };
    format!("const {name}: {kind} = {};\n", literal(value))
}
