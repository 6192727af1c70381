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
const MEMORY: &str = include_str!("../../shaders/lib/memory.wgsl");

/// Templates of windows, each in registers and in memory.
const WINDOW: [&str; 2] =
    [include_str!("../../shaders/lib/window.wgsl"), include_str!("../../shaders/lib/ring.wgsl")];
const LAG: [&str; 2] =
    [include_str!("../../shaders/lib/lag.wgsl"), include_str!("../../shaders/lib/lag_ring.wgsl")];
const EXTREME: [&str; 2] =
    [include_str!("../../shaders/lib/extreme.wgsl"), include_str!("../../shaders/lib/extreme_ring.wgsl")];

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
    /// Store extremes of prices a second time behind their rows, as prices rather than relative to the close.
    pub prices: bool,
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
    let arrays = |need: &Need| match need {
        Need::Prices | Need::Lag | Need::Highest | Need::Lowest => 1,
        Need::Sum | Need::Squares | Need::Weighted => 1,
        Need::Each => 0,
    };
    window.length * (1 + window.needs.iter().map(arrays).sum::<u32>())
}

/// Registers that a window occupies, provided that it is kept in registers.
#[must_use]
pub fn registers(window: &Window) -> u32 {
    if window.is_extreme() {
        2 * (window.length - 1).max(1)
    } else if window.has(Need::Lag) {
        2 * window.length
    } else {
        window.length
    }
}

/// Values per loop iteration in ring.wgsl.
const STEP: u32 = 8;

/// Words of `State` in the template of a window in memory.
fn words_of_state(window: &Window) -> u32 {
    if window.is_extreme() {
        4
    } else if window.has(Need::Lag) {
        1
    } else {
        7
    }
}

/// A module's state between two dispatches.
struct Kept {
    module: &'static str,
    /// Size in words.
    words: u32,
    /// The private arrays that hold it, empty if it is `state`.
    arrays: &'static [&'static str],
}

/// The generated modules of one use of an indicator.
#[derive(Default)]
struct Use {
    /// Name and text of each module.
    modules: Vec<(&'static str, String)>,
    /// Modules with state.
    kept: Vec<Kept>,
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
    let state = uses.iter().flat_map(|part| &part.kept).map(|kept| kept.words).sum();
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
    let mut rings = false;
    for window in windows.filter(|window| parameter_table || !in_registers(window)) {
        rings = true;
        if window.has(Need::Lag) {
            continue;
        }
        let iterations = window.length.div_ceil(STEP);
        loops.burst += iterations;
        // The ends of a block of n values are computed once in n bars, amortised one iteration per bar.
        loops.bar += 1 + if window.has(Need::Each) { iterations } else { 0 };
    }
    loops.bar += u32::from(rings);
    loops
}

/// The modules of the n-th use. `words` counts the words of a parameter table entry, `rings` those of the ring buffers.
fn use_modules(n: usize, spec: &Spec, parameter_table: bool, words: &mut u32, rings: &mut u32) -> Use {
    let mut part = Use { modules: vec![("parameters", String::new())], ..Use::default() };
    if spec.state > 0 {
        part.kept.push(Kept { module: "indicator", words: spec.state, arrays: &[] });
    }
    for average in &spec.averages {
        part.kept.push(Kept { module: average.name, words: 2, arrays: &[] });
        let long = Value::Bool(parameter_table || average.period > SHORT);
        part.modules.push((average.name, AVERAGE.to_string() + &constant("long", long)));
    }
    for window in &spec.windows {
        let needs = |need| Value::Bool(window.has(need));
        let (template, mut constants, arrays): (_, _, &[_]) = if window.is_extreme() {
            (EXTREME, vec![("HIGHEST", needs(Need::Highest))], &["values", "rests"])
        } else if window.has(Need::Lag) {
            (LAG, vec![], &["values", "rests"])
        } else {
            (WINDOW, vec![("PRICES", needs(Need::Prices))], &["values"])
        };
        let ring = parameter_table || !in_registers(window);
        let (words, arrays) =
            if ring { (words_of_state(window), &[][..]) } else { (registers(window), arrays) };
        if ring {
            constants.extend([("CAPACITY", Value::U32(window.length)), ("OFFSET", Value::U32(*rings))]);
            *rings += words_of_ring(window);
        }
        if ring && template == WINDOW {
            constants.extend([
                ("SUMS", needs(Need::Sum)),
                ("SQUARES", needs(Need::Squares)),
                ("WEIGHTS", needs(Need::Weighted)),
            ]);
        }
        let constants: String = constants.into_iter().map(|(name, value)| constant(name, value)).collect();
        part.kept.push(Kept { module: window.name, words, arrays });
        part.modules.push((window.name, template[usize::from(ring)].to_string() + &constants));
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

/// The names of a kernel's outputs, and for extremes of prices (`PanelConfig::prices`) those of the prices.
fn stored(specs: &[Spec], prices: bool) -> Vec<(String, Option<String>)> {
    let outputs = specs
        .iter()
        .flat_map(|spec| spec.outputs.iter().map(|output| prices && spec.is_price_extreme(output)));
    outputs.enumerate().map(|(o, channel)| (format!("o{o}"), channel.then(|| format!("p{o}")))).collect()
}

/// The module that passes bars to the indicators and stores their values in the outputs.
fn glue(specs: &[Spec], uses: &[Use], config: PanelConfig) -> String {
    let mut text =
        String::from("import package::lib::bar::Bar;\nimport package::lib::numeric::nan;\nstruct Values {\n");
    let outputs = stored(specs, config.prices);
    let names = || outputs.iter().flat_map(|(name, price)| std::iter::once(name).chain(price));
    names().for_each(|name| text += &format!("    {name}: f32,\n"));
    text += "}\n";
    let element = match (config.live, config.f16_outputs) {
        (true, _) => "f32",
        (false, true) => "vec2<u32>",
        (false, false) if config.wide_stores => "vec2<u64>",
        (false, false) => "vec4<f32>",
    };
    for o in 0..outputs.len() {
        let binding = FIRST_OUTPUT as usize + o;
        text +=
            &format!("@group(0) @binding({binding}) var<storage, read_write> out{o}: array<{element}>;\n");
    }
    text += "fn step(bar: Bar) -> Values {\n    var values: Values;\n";
    let mut next = outputs.iter();
    for (n, spec) in specs.iter().enumerate() {
        let counter = match spec.input {
            Input::Close => "closes",
            Input::Candle => "candles",
            Input::Trades => "trades",
        };
        text += &format!("    let r{n} = package::use{n}::indicator::step(bar);\n");
        text += &format!("    let known{n} = bar.{counter} > package::use{n}::parameters::first;\n");
        let components = [".x", ".y", ".z", ".w"].into_iter().take(spec.outputs.len());
        for (component, (name, price)) in components.zip(&mut next) {
            let component = if spec.outputs.len() == 1 { "" } else { component };
            text += &format!("    values.{name} = select(nan(), r{n}{component}, known{n});\n");
            if let Some(price) = price {
                let value = format!("package::use{n}::indicator::prices{component}");
                text += &format!("    values.{price} = select(nan(), {value}, known{n});\n");
            }
        }
    }
    text += "    return values;\n}\nstruct Four {\n";
    names().for_each(|name| text += &format!("    {name}: vec4<f32>,\n"));
    text += "}\n";
    if config.wide_stores && !config.f16_outputs {
        text += "fn pair(x: vec2<f32>) -> u64 {\n    let bits = bitcast<vec2<u32>>(x);\n";
        text += "    return u64(bits.x) | (u64(bits.y) << 32u);\n}\n";
    }
    text += "var<private> four: Four;\nfn put(i: u32, values: Values) {\n";
    // FXC rejects assignments to component i of a vector in a structure.
    text += "    let component = vec4<u32>(i) == vec4<u32>(0u, 1u, 2u, 3u);\n";
    names().for_each(|name| {
        text += &format!("    four.{name} = select(four.{name}, vec4<f32>(values.{name}), component);\n");
    });
    let four = |name: &str| {
        if config.f16_outputs {
            format!("vec2<u32>(pack2x16float(four.{name}.xy), pack2x16float(four.{name}.zw))")
        } else if config.wide_stores {
            format!("vec2<u64>(pair(four.{name}.xy), pair(four.{name}.zw))")
        } else {
            format!("four.{name}")
        }
    };
    let one = |name: &str| format!("values.{name}");
    let store = |value: &dyn Fn(&str) -> String| -> String {
        let lines = outputs.iter().enumerate().map(|(o, (name, price))| {
            let price = price.iter().map(|price| format!("    out{o}[behind] = {};\n", value(price)));
            format!("    out{o}[at] = {};\n", value(name)) + &price.collect::<String>()
        });
        lines.collect()
    };
    text += &format!("}}\nfn store(at: u32, behind: u32) {{\n{}}}\n", store(&four));
    text += &format!("fn store_one(at: u32, behind: u32, values: Values) {{\n{}}}\n", store(&one));
    if config.parameter_table {
        text +=
            "@group(0) @binding(3) var<storage, read> parameter_table: array<u32>;\nfn load(entry: u32) {\n";
        uses.iter().for_each(|part| text += &part.load);
        text += "}\n";
    }
    text + &state(uses)
}

/// The functions that restore and save the state of all modules.
fn state(uses: &[Use]) -> String {
    let [mut fields, mut restore, mut save] = [const { String::new() }; 3];
    for (n, part) in uses.iter().enumerate() {
        for Kept { module, arrays, .. } in &part.kept {
            let (own, kept) = (format!("package::use{n}::{module}"), format!("kept.u{n}_{module}"));
            fields += &format!("    u{n}_{module}: {own}::State,\n");
            if arrays.is_empty() {
                restore += &format!("    {own}::state = {kept};\n");
                save += &format!("    {kept} = {own}::state;\n");
            }
            for array in *arrays {
                restore += &format!("    {own}::{array} = {kept}.{array};\n");
                save += &format!("    {kept}.{array} = {own}::{array};\n");
            }
        }
    }
    format!(
        "struct Kept {{\n{fields}}}\n@group(0) @binding(5) var<storage, read_write> states: array<Kept>;\n\
         fn restore(lane: u32) {{\n    let kept = states[lane];\n{restore}}}\n\
         fn save(lane: u32) {{\n    var kept: Kept;\n{save}    states[lane] = kept;\n}}\n"
    )
}

fn constant(name: &str, value: Value) -> String {
    let kind = match value {
        Value::F32(_) => "f32",
        Value::U32(_) => "u32",
        Value::Bool(_) => "bool",
    };
    format!("const {name}: {kind} = {};\n", literal(value))
}
