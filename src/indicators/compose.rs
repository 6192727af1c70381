//! Puts indicators together into one kernel.
//!
//! `shaders/indicators/panel.wgsl` walks over the bars; it imports the module `uses`, which is written here. Every use
//! of an indicator is a folder of WGSL modules of its own: `indicator` (its shader), `parameters`, and one module for
//! each average and window, completed from the templates in `shaders/lib/`.

use super::indicator::{Input, Need, Spec, Value, Window};
use crate::Result;
use crate::gpu::{Class, Shader, Variant, compose_with};

/// The walk.
pub const SHADER: Shader = crate::shaders::shader!("indicators/panel");
const AVERAGE: &str = include_str!("../../shaders/lib/average.wgsl");
const WINDOW: &str = include_str!("../../shaders/lib/window.wgsl");
const MEMORY: &str = include_str!("../../shaders/lib/memory.wgsl");
const RING: &str = include_str!("../../shaders/lib/ring.wgsl");

/// Longest window that is kept in registers: Mesa unrolls no longer loop, and more registers spill.
const IN_REGISTERS: u32 = 32;

/// Longest period of an average that needs no compensation: a step of 1 / 100 loses no digit that counts.
const SHORT: u32 = 100;

/// Binding of the first output; those before it are uniform, candles, volumes, table, counters, state, rings.
pub const FIRST_OUTPUT: u32 = 7;

/// How a kernel is put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Form {
    /// Invocations of a workgroup.
    pub class: Class,
    /// Candles come from textures, which software adapters load several times as fast as storage.
    pub textures: bool,
    /// Bars come one by one, any number of them, rather than in fours.
    pub live: bool,
    /// The state is kept from one dispatch to the next.
    pub keep: bool,
    /// Parameters come from a table rather than from the source.
    pub table: bool,
    /// Outputs are f16.
    pub half: bool,
    /// Outputs are stored as pairs in 64 bits, which software adapters do twice as fast.
    pub pairs: bool,
}

/// Turns of loops inside one lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loops {
    /// Of an average bar.
    pub bar: u32,
    /// Of the bar in which all windows complete a block.
    pub burst: u32,
}

/// A kernel's source and what it asks for.
#[derive(Clone, Debug)]
pub struct Source {
    /// WGSL.
    pub text: String,
    /// The decisions behind it.
    pub variant: Variant,
    /// Whether an indicator needs the volume.
    pub volume: bool,
    /// Words of a lane's rings.
    pub rings: u32,
    /// Words of a lane's state, besides the counters.
    pub state: u32,
    /// Outputs of all indicators together.
    pub outputs: u32,
    /// Loops, besides the walk itself.
    pub loops: Loops,
}

fn literal(value: Value) -> String {
    match value {
        // As f32 before it is printed: WGSL would round it the same way, but not every f64 literal is short.
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
    swept(spec).for_each(|(_, _, value)| add(value));
    words
}

/// Module, name and value of everything that may differ from row to row.
fn swept(spec: &Spec) -> impl Iterator<Item = (&'static str, &'static str, Value)> + '_ {
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

/// Whether a window is kept in registers where its length is the same for all rows.
#[must_use]
pub fn in_registers(window: &Window) -> bool {
    window.length <= IN_REGISTERS
}

/// Words of the rings of one lane.
#[must_use]
pub fn words_of_rings(specs: &[Spec], table: bool) -> u32 {
    let windows = specs.iter().flat_map(|spec| &spec.windows);
    windows.filter(|window| table || !in_registers(window)).map(words_of_ring).sum()
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

/// Values that one turn of a loop handles in ring.wgsl.
const STEP: u32 = 8;

/// Words of `State` in ring.wgsl.
const RING_STATE: u32 = 8;

/// A use of an indicator while it is written.
#[derive(Default)]
struct Use {
    /// Module and text.
    modules: Vec<(&'static str, String)>,
    /// Modules with a state, and its words.
    kept: Vec<(&'static str, u32)>,
    /// Assignments of the parameters from the table.
    load: String,
}

/// Composes one kernel for `specs`. Where parameters come from a table, `specs` hold the longest windows of all rows.
///
/// # Errors
/// [`crate::Error::Shader`].
pub fn compose(specs: &[Spec], form: Form) -> Result<Source> {
    let volume = specs.iter().any(|spec| spec.input == Input::Trades);
    let (mut rings, mut words) = (0, 0);
    let mut modules: Vec<(String, String)> = Vec::new();
    let mut uses = Vec::new();
    for (n, spec) in specs.iter().enumerate() {
        let part = one(n, spec, form.table, &mut words, &mut rings);
        modules.push((format!("use{n}/indicator"), spec.shader.source.into()));
        modules.extend(part.modules.iter().map(|(name, text)| (format!("use{n}/{name}"), text.clone())));
        uses.push(part);
    }
    let mut memory = String::from(MEMORY);
    if rings > 0 {
        memory += "@group(0) @binding(6) var<storage, read_write> rings: array<f32>;\n";
    }
    modules.push(("memory".into(), memory));
    modules.push(("uses".into(), glue(specs, &uses, form)));
    let loops = loops(specs, form.table);
    let state = uses.iter().flat_map(|part| &part.kept).map(|(_, words)| words).sum();
    let variant = Variant::wide(form.class)
        .when("textures", form.textures)
        .when("live", form.live)
        .when("keep", form.keep)
        .when("table", form.table)
        .when("volume", volume)
        .when("rings", rings > 0);
    let text = compose_with(&SHADER, &modules, &variant)?;
    let outputs = specs.iter().map(|spec| spec.outputs.len() as u32).sum();
    Ok(Source { text, variant, volume, rings, state, outputs, loops })
}

/// Turns of the loops over the windows of `specs`.
#[must_use]
pub fn loops<'a>(specs: impl IntoIterator<Item = &'a Spec>, table: bool) -> Loops {
    let windows = specs.into_iter().flat_map(|spec| &spec.windows);
    let mut loops = Loops::default();
    for window in windows.filter(|window| table || !in_registers(window)) {
        let turns = window.length.div_ceil(STEP);
        loops.burst += turns;
        // The ends of a block of n values are computed once in n bars.
        loops.bar += 1 + if window.needs.contains(&Need::Each) { turns } else { 0 };
    }
    if loops.burst > 0 {
        loops.bar += 1;
    }
    loops
}

/// The modules of the n-th use. `words` counts the words of the table, `rings` those of the rings.
fn one(n: usize, spec: &Spec, table: bool, words: &mut u32, rings: &mut u32) -> Use {
    let mut part = Use { modules: vec![("parameters", String::new())], ..Use::default() };
    if spec.state > 0 {
        part.kept.push(("indicator", spec.state));
    }
    for average in &spec.averages {
        part.kept.push((average.name, 2));
        let long = Value::Bool(table || average.period > SHORT);
        part.modules.push((average.name, AVERAGE.to_string() + &constant("long", long)));
    }
    for window in &spec.windows {
        let ring = table || !in_registers(window);
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
    for (module, name, value) in swept(spec) {
        let Some((_, text)) = part.modules.iter_mut().find(|(text, _)| *text == module) else {
            continue;
        };
        if table {
            let kind = if matches!(value, Value::U32(_)) { "u32" } else { "f32" };
            *text += &format!("var<private> {name}: {kind};\n");
            part.load += &format!(
                "    package::use{n}::{module}::{name} = bitcast<{kind}>(table[entry + {words}u]);\n"
            );
            *words += 1;
        } else {
            *text += &constant(name, value);
        }
    }
    part
}

/// The module that hands bars to the indicators and their values to the outputs.
fn glue(specs: &[Spec], uses: &[Use], form: Form) -> String {
    let mut text =
        String::from("import package::lib::bar::Bar;\nimport package::lib::numeric::nan;\nstruct Values {\n");
    let outputs: usize = specs.iter().map(|spec| spec.outputs.len()).sum();
    (0..outputs).for_each(|o| text += &format!("    o{o}: f32,\n"));
    text += "}\n";
    let element = match (form.live, form.half) {
        (true, _) => "f32",
        (false, true) => "vec2<u32>",
        (false, false) if form.pairs => "vec2<u64>",
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
    if form.pairs && !form.half {
        text += "fn pair(x: vec2<f32>) -> u64 {\n    let bits = bitcast<vec2<u32>>(x);\n";
        text += "    return u64(bits.x) | (u64(bits.y) << 32u);\n}\n";
    }
    text += "var<private> four: Four;\nfn put(i: u32, values: Values) {\n";
    // An assignment to component i of a structure's vector is refused by FXC.
    text += "    let component = vec4<u32>(i) == vec4<u32>(0u, 1u, 2u, 3u);\n";
    (0..outputs).for_each(|o| {
        text += &format!("    four.o{o} = select(four.o{o}, vec4<f32>(values.o{o}), component);\n");
    });
    text += "}\nfn store(at: u32) {\n";
    for o in 0..outputs {
        let four = if form.half {
            format!("vec2<u32>(pack2x16float(four.o{o}.xy), pack2x16float(four.o{o}.zw))")
        } else if form.pairs {
            format!("vec2<u64>(pair(four.o{o}.xy), pair(four.o{o}.zw))")
        } else {
            format!("four.o{o}")
        };
        text += &format!("    out{o}[at] = {four};\n");
    }
    text += "}\nfn store_one(at: u32, a: Values) {\n";
    (0..outputs).for_each(|o| text += &format!("    out{o}[at] = a.o{o};\n"));
    text += "}\n";
    if form.table {
        text += "@group(0) @binding(3) var<storage, read> table: array<u32>;\nfn load(entry: u32) {\n";
        uses.iter().for_each(|part| text += &part.load);
        text += "}\n";
    }
    let kept = || uses.iter().enumerate().flat_map(|(n, part)| part.kept.iter().map(move |(m, _)| (n, m)));
    text += "struct Kept {\n";
    kept().for_each(|(n, m)| text += &format!("    u{n}_{m}: package::use{n}::{m}::State,\n"));
    text += "}\n@group(0) @binding(5) var<storage, read_write> states: array<Kept>;\n";
    text += "fn restore(lane: u32) {\n    let kept = states[lane];\n";
    // Windows in registers have their values outside of the structure that is kept.
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
