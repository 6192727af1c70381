//! Mistakes in an environment are named with their line, and with what to write instead.

use super::PARAMETERS;
use crate::env::{DeviceEnv, DeviceEnvBuilder, Spec};

const SPEC: Spec = Spec { agents: 2, obs_dim: 1, actions: 3 };

const RIGHT: &str = "struct State {
    x: f32,
}

fn reset() {
    state.x = 1.0;
}

fn step() -> Outcome {
    reward(0u, state.x);
    return CONTINUES;
}

fn observe(agent: u32) {
    feature(0u, state.x);
}
";

fn with(from: &str, to: &str) -> DeviceEnvBuilder {
    assert!(RIGHT.contains(from), "{from}");
    DeviceEnv::builder("mine", RIGHT.replacen(from, to, 1), SPEC)
}

fn message(builder: DeviceEnvBuilder) -> String {
    builder.build().unwrap_err().to_string()
}

#[test]
fn mistakes_in_the_text_have_their_line() {
    with("x: f32", "x: f32").build().unwrap();
    for (from, to, wanted) in [
        // The compiler's own messages.
        ("state.x = 1.0;", "state.y = 1.0;", "line 6: error: invalid field accessor `y`"),
        (
            "return CONTINUES;",
            "return CONTINUE;",
            "line 11: error: no definition in scope for identifier: `CONTINUE`",
        ),
        ("return CONTINUES;", "return TRUNCATED;", "no definition in scope for identifier: `TRUNCATED`"),
        ("return CONTINUES;", "return 1.5;", "line 11: error"),
        ("feature(0u, state.x);", "feature(0u, 1u);", "line 15: error"),
        ("feature(0u, state.x)", "feature(0u state.x)", "line 15"),
        ("x: f32,", "x: float,", "line 2: error"),
        // It would replace the logarithm of the networks in the same kernel.
        (
            "fn observe(agent: u32) {",
            "fn log(x: f32) -> f32 { return x; }\nfn observe(agent: u32) {",
            "line 14: `log` has a meaning in WGSL itself",
        ),
        // Text that the compiler sees and most editors do not, and writes in another function.
        ("x: f32,", "x: f32, // \u{2028}", "line 2: U+2028 is not allowed"),
        ("feature(0u, state.x);", "feature(0u, state.x); // \r more", "line 15: U+000D is not allowed"),
        (
            "fn observe(agent: u32) {",
            "fn bump(p: ptr<private, State>) { (*p).x += 1.0; }\nfn observe(agent: u32) {\n    bump(&state);",
            "line 14: `bump` takes a pointer to a private variable",
        ),
        (
            "feature(0u, state.x);",
            "feature(0u, state.x); global_feature(0u, 1.0);",
            "`observe` calls `global_feature`, which belongs in `global_state`",
        ),
        // Declarations.
        (
            "fn observe(agent: u32) {\n    feature(0u, state.x);\n}",
            "",
            "`fn observe(agent: u32)` is missing: it calls `feature`",
        ),
        ("fn step() -> Outcome", "fn advance() -> Outcome", "`fn step() -> Outcome` is missing"),
        ("fn reset()", "fn start()", "`fn reset()` is missing"),
        (
            "fn observe(agent: u32)",
            "fn observe()",
            "line 14: `fn observe()` must be `fn observe(agent: u32)`",
        ),
        (
            "fn step() -> Outcome",
            "fn step(env: u32) -> Outcome",
            "line 9: `fn step(env: u32) -> Outcome` must be `fn step() -> Outcome`",
        ),
        ("fn step() -> Outcome", "fn step() -> f32", "line 9"),
        (
            "fn reset()",
            "fn action_mask(agent: u32) {}\nfn reset()",
            "must be `fn action_mask(agent: u32) -> u32`",
        ),
        ("fn reset()", "fn reward(x: f32) {}\nfn reset()", "line 5: `reward` is a name that phalanx defines"),
        ("fn reset()", "const AGENTS = 2;\nfn reset()", "line 5: `AGENTS` is a name that phalanx defines"),
        ("fn reset()", "var<private> mine: f32;\nfn reset()", "line 5: `mine` is a module-scope `var`"),
        (
            "fn reset()",
            "@group(0) @binding(0) var<storage, read_write> all: array<u32>;\nfn reset()",
            "line 5: `all` is a module-scope `var`",
        ),
        (
            "fn reset()",
            "@compute @workgroup_size(1) fn main() {}\nfn reset()",
            "line 5: `main` has attributes",
        ),
        (
            "struct State",
            "import package::lib::random::unit;\nstruct State",
            "line 1: an environment imports nothing",
        ),
        ("struct State", "enable f16;\nstruct State", "line 1: `enable` is not allowed here"),
        ("    state.x = 1.0;\n}", "    state.x = 1.0;\n", "this bracket has no partner"),
        // Types.
        (
            "x: f32,",
            "x: f32,\n    b: bool,",
            "line 1: member `b` of `State` has a type that cannot be stored",
        ),
        ("x: f32,", "x: f32,\n    m: mat2x2<f32>,", "member `m` of `State`"),
        ("x: f32,", "x: f32,\n    a: array<u32, 200>,", "line 1: `State` has more than 128 words of 32 bits"),
        (
            "fn reset()",
            "struct AgentState { a: array<f32, 2> }\nfn reset()",
            "line 5: member `a` of `AgentState` is an array",
        ),
        // Functions that do what belongs elsewhere.
        (
            "feature(0u, state.x);",
            "feature(0u, state.x); state.x += 1.0;",
            "line 14: `observe` changes the state, which only `reset` and `step` may",
        ),
        (
            "feature(0u, state.x);",
            "feature(0u, state.x); reward(0u, 1.0);",
            "line 14: `observe` calls `reward`",
        ),
        ("feature(0u, state.x);", "feature(0u, f32(action(agent)));", "line 14: `observe` reads actions"),
        ("state.x = 1.0;", "state.x = 1.0; feature(0u, 1.0);", "line 5: `reset` calls `feature`"),
        ("reward(0u, state.x);", "feature(0u, 1.0);", "line 9: `step` calls `feature`"),
        // In `AgentState`, and through a function.
        (
            "fn observe(agent: u32) {",
            "struct AgentState { y: f32 }\nfn clear(agent: u32) { set_y(agent, 0.0); }\nfn observe(agent: u32) {\n    clear(agent);",
            "line 16: `observe` changes the state",
        ),
    ] {
        let error = message(with(from, to));
        assert!(error.contains("`mine`") && error.contains(wanted), "{wanted}\n{error}");
    }
}

#[test]
fn mistakes_in_the_numbers_are_named() {
    let same = || with("x: f32", "x: f32");
    let parameters = "struct Parameters {\n    start: vec2<f32>,\n    size: f32,\n}\nfn reset()";
    with("fn reset()", parameters).parameters(&PARAMETERS).build().unwrap();
    for (builder, wanted) in [
        (with("fn reset()", parameters), "`Parameters` is declared: give its values with `parameters`"),
        (
            with("fn reset()", parameters).parameters(&[0f32; 3]),
            "`Parameters` has 16 bytes in WGSL and 12 in Rust: give the `#[repr(C)]` structure the same members and padding (start at 0, size at 8)",
        ),
        (same().parameters(&1u32), "`struct Parameters` is missing"),
        (same().state_dim(3), "`fn global_state()` is missing: `state_dim` is 3"),
        (with("fn reset()", "fn global_state() {}\nfn reset()"), "give their number with `state_dim`"),
        (same().choices(&[2, 2]), "together 3 as `actions` says"),
        (same().choices(&[2, 1]), "at least 2 options"),
        (same().time_limit(0), "`time_limit`"),
        (same().truncates(0), "`truncates`"),
        (same().data_f32("a b", [1.0]), "`a b` is not a name of a WGSL function"),
        (same().data_f32("empty", []), "`empty` is empty"),
        (
            same().data_f32("a", [1.0]).data_f32("b", [1.0]).data_f32("c", [1.0]),
            "`data`: 3 is out of range: from 0 to 2",
        ),
        (same().data_f32("x", [1.0]).data_u32("reset", [1]), "`reset` is a name that phalanx defines"),
        (DeviceEnv::builder("mine", RIGHT, Spec { agents: 0, ..SPEC }), "`agents`"),
        (DeviceEnv::builder("mine", RIGHT, Spec { agents: 1025, ..SPEC }), "`agents`"),
        (DeviceEnv::builder("mine", RIGHT, Spec { obs_dim: 0, ..SPEC }), "`obs_dim`"),
        (DeviceEnv::builder("mine", RIGHT, Spec { actions: 33, ..SPEC }), "`actions`"),
        (DeviceEnv::builder("mine", RIGHT, Spec { actions: 17, ..SPEC }).continuous(), "`actions`"),
    ] {
        let error = message(builder);
        assert!(error.contains(wanted), "{wanted}\n{error}");
    }
}

/// Constants of an environment may be outcomes.
#[test]
fn outcomes_have_names_of_the_environments_own() {
    with("fn reset()", "const GOES_ON: Outcome = CONTINUES;\n\nfn reset()").build().unwrap();
}

#[test]
fn data_do_not_have_the_names_of_wgsl_itself() {
    // Types, functions, keywords and reserved words.
    for name in [
        "array",
        "f32",
        "vec2",
        "vec4u",
        "ptr",
        "min",
        "select",
        "bitcast",
        "atomicAdd",
        "fn",
        "true",
        "self",
    ] {
        let error = message(with("x: f32", "x: f32").data_f32(name, [1.0]));
        assert!(error.contains(&format!("`{name}` has a meaning in WGSL itself")), "{error}");
    }
    for name in ["minimum", "array_of_gains", "F32", "prices"] {
        with("x: f32", "x: f32").data_f32(name, [1.0]).build().unwrap();
    }
}

#[test]
fn every_function_of_data_has_a_name_of_its_own() {
    let right = || with("x: f32", "x: f32");
    right().data_f32("table", [1.0]).build().unwrap();
    for builder in [
        right().data_f32("table", [1.0]).data_u32("table", [1]),
        right().data_f32("reward", [1.0]),
        right().data_f32("action", [1.0]),
    ] {
        let error = message(builder);
        assert!(
            error.contains("is the name of other data, or of a function that phalanx defines"),
            "{error}"
        );
    }
}
