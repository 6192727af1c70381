//! The WGSL that is generated for an environment: sizes, the state and its accessors, and the functions of actions and data.

use std::fmt::Write;

use super::Rows;
use super::builder::{ActionKind, Rules, Values};
use super::fields::{Scalar, Structures};

/// First `@binding` after those of `shaders/env/functions.wgsl`.
const FIRST_BINDING: usize = 7;

/// Names that the structures and constants of an environment may use: sizes, and outcomes of a step.
pub(super) fn constants(rules: &Rules) -> String {
    let spec = rules.spec;
    let mut text = format!(
        "const AGENTS: u32 = {}u;\nconst FEATURES: u32 = {}u;\nconst ACTIONS: u32 = {}u;\n",
        spec.agents, spec.obs_dim, spec.actions
    );
    text.push_str("alias Outcome = u32;\nconst CONTINUES: Outcome = 0u;\nconst TERMINATED: Outcome = 1u;\n");
    if rules.truncates {
        text.push_str("const TRUNCATED: Outcome = 2u;\n");
    }
    text
}

/// Everything but [`constants`].
pub(super) fn declarations(
    rules: &Rules,
    structures: &Structures,
    rows: &Rows,
    masks: bool,
    global: bool,
) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let mut line = |it: std::fmt::Arguments<'_>| {
        let _ = writeln!(text, "{it}");
    };
    let shortest = if rules.truncates { rules.shortest_truncated } else { 0 };
    line(format_args!("const phalanx_SHORTEST: u32 = {shortest}u;"));
    for (name, row) in ["TAKEN", "BEGUN", "CUT", "RETURN"].iter().zip(rows.counters) {
        line(format_args!("const phalanx_{name}_ROW: u32 = {row}u;"));
    }
    let all = if rules.actions == ActionKind::Continuous { 1 } else { u32::MAX >> (32 - rules.spec.actions) };
    // Bits of actions that do not exist would make an agent active without an action.
    let mask = if masks { format!("action_mask(agent) & {all}u") } else { format!("{all}u") };
    line(format_args!("fn phalanx_mask(agent: u32) -> u32 {{ return {mask}; }}"));
    line(format_args!("fn phalanx_global() {{ {} }}", if global { "global_state();" } else { "" }));
    state(&mut line, structures, rows);
    agents(&mut line, structures, rows);
    actions(&mut line, rules);
    let mut binding = FIRST_BINDING;
    if structures.parameters.is_some() {
        line(format_args!("@group(0) @binding({binding}) var<uniform> parameters: Parameters;"));
        binding += 1;
    }
    for (name, values) in &rules.data {
        let element = match values {
            Values::F32(_) | Values::Buffer(_) => Scalar::F32.name(),
            Values::U32(_) => Scalar::U32.name(),
        };
        line(format_args!(
            "@group(0) @binding({binding}) var<storage, read> phalanx_data_{name}: array<{element}>;"
        ));
        line(format_args!("fn {name}(index: u32) -> {element} {{ return phalanx_data_{name}[index]; }}"));
        binding += 1;
    }
    text
}

/// The private copy of the state, loaded before a step and stored after it.
fn state(line: &mut impl FnMut(std::fmt::Arguments<'_>), structures: &Structures, rows: &Rows) {
    if structures.state.is_empty() {
        line(format_args!("fn phalanx_load_state() {{}}\nfn phalanx_store_state() {{}}"));
        return;
    }
    line(format_args!("var<private> state: State;\nfn phalanx_load_state() {{"));
    let words = || rows.state.iter().zip(structures.state_words());
    for (row, word) in words() {
        line(format_args!(
            "    state.{} = {};",
            word.path,
            from_bits(word.scalar, &format!("phalanx_load({row}u)"))
        ));
    }
    line(format_args!("}}\nfn phalanx_store_state() {{"));
    for (row, word) in words() {
        line(format_args!(
            "    phalanx_store({row}u, {});",
            to_bits(word.scalar, &format!("state.{}", word.path))
        ));
    }
    line(format_args!("}}"));
}

/// `get_x(agent)` and `set_x(agent, value)` for every member of `AgentState`, and the function that clears them all.
fn agents(line: &mut impl FnMut(std::fmt::Arguments<'_>), structures: &Structures, rows: &Rows) {
    let clear = if structures.state.is_empty() { "" } else { "    state = State();\n" };
    line(format_args!("fn phalanx_clear() {{\n{clear}    for (var a = 0u; a < agents(); a++) {{"));
    for [first, stride] in &rows.agents {
        line(format_args!("        phalanx_store({first}u + {stride}u * a, 0u);"));
    }
    line(format_args!("    }}\n}}"));
    let mut places = rows.agents.iter();
    for member in &structures.agent {
        let scalar = member.words[0].scalar;
        let places: Vec<String> = places
            .by_ref()
            .take(member.words.len())
            .map(|[first, stride]| format!("{first}u + {stride}u * agent"))
            .collect();
        let ty = match member.components {
            1 => scalar.name().to_string(),
            components => format!("vec{components}<{}>", scalar.name()),
        };
        let loads: Vec<String> =
            places.iter().map(|at| from_bits(scalar, &format!("phalanx_load({at})"))).collect();
        let name = &member.name;
        line(format_args!("fn get_{name}(agent: u32) -> {ty} {{ return {ty}({}); }}", loads.join(", ")));
        line(format_args!("fn set_{name}(agent: u32, value: {ty}) {{"));
        for (place, axis) in places.iter().zip([".x", ".y", ".z", ".w"]) {
            let value = if member.components == 1 { "value".into() } else { format!("value{axis}") };
            line(format_args!("    phalanx_store({place}, {});", to_bits(scalar, &value)));
        }
        line(format_args!("}}"));
    }
}

/// The functions that return an agent's action.
fn actions(line: &mut impl FnMut(std::fmt::Arguments<'_>), rules: &Rules) {
    let choices = match &rules.actions {
        ActionKind::Continuous => {
            line(format_args!(
                "const phalanx_NUMBERS: u32 = ACTIONS;\nfn real(agent: u32, number: u32) -> f32 {{ return bitcast<f32>(phalanx_action(agent, number)); }}"
            ));
            return;
        }
        ActionKind::Choices(choices) => choices,
    };
    line(format_args!("const phalanx_NUMBERS: u32 = 1u;"));
    if let [_] = choices.as_slice() {
        line(format_args!("fn action(agent: u32) -> u32 {{ return phalanx_action(agent, 0u); }}"));
    }
    // Mixed radix, the first choice fastest.
    line(format_args!(
        "fn choice(agent: u32, number: u32) -> u32 {{\n    let all = phalanx_action(agent, 0u);\n    switch (number) {{"
    ));
    let mut before = 1u64;
    for (number, size) in choices.iter().enumerate() {
        line(format_args!("        case {number}u: {{ return all / {before}u % {size}u; }}"));
        before *= u64::from(*size);
    }
    line(format_args!("        default: {{ return 0u; }}\n    }}\n}}"));
}

fn from_bits(scalar: Scalar, word: &str) -> String {
    if scalar == Scalar::U32 { word.into() } else { format!("bitcast<{}>({word})", scalar.name()) }
}

fn to_bits(scalar: Scalar, value: &str) -> String {
    if scalar == Scalar::U32 { value.into() } else { format!("bitcast<u32>({value})") }
}
