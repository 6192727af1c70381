//! Compiles an environment's text together with everything generated for it, without a device, and says what is wrong in it.

use naga::Module;
use naga::front::wgsl;
use naga::valid::{Capabilities, GlobalUse, ModuleInfo, ValidationFlags, Validator};

use super::outline::Outline;

/// A function that an environment may have: name, parameter types, result types (the first is the one to write), purpose.
struct Expected {
    name: &'static str,
    parameters: &'static [&'static str],
    results: &'static [&'static str],
    required: bool,
    header: &'static str,
    purpose: &'static str,
}

const FUNCTIONS: [Expected; 5] = [
    Expected {
        name: "reset",
        parameters: &[],
        results: &[""],
        required: true,
        header: "fn reset()",
        purpose: "it starts an episode",
    },
    Expected {
        name: "step",
        parameters: &[],
        results: &["Outcome", "u32"],
        required: true,
        header: "fn step() -> Outcome",
        purpose: "it applies the actions, calls `reward` for every agent and returns CONTINUES or TERMINATED",
    },
    Expected {
        name: "observe",
        parameters: &["u32"],
        results: &[""],
        required: true,
        header: "fn observe(agent: u32)",
        purpose: "it calls `feature` for every feature that the agent sees",
    },
    Expected {
        name: "action_mask",
        parameters: &["u32"],
        results: &["u32"],
        required: false,
        header: "fn action_mask(agent: u32) -> u32",
        purpose: "it returns one bit per action that the agent may take",
    },
    Expected {
        name: "global_state",
        parameters: &[],
        results: &[""],
        required: false,
        header: "fn global_state()",
        purpose: "it calls `global_feature` for every number of the global state",
    },
];

/// Checks declarations and signatures. `taken` are the texts whose names an environment cannot declare again.
///
/// # Errors
/// A sentence with the line and what to write instead.
pub(super) fn declarations(outline: &Outline, taken: &[&Outline]) -> Result<(), String> {
    for it in outline.declarations() {
        let line = it.line;
        match it.keyword {
            "struct" | "fn" | "const" | "alias" | "const_assert" => {}
            "var" | "override" => {
                return Err(format!(
                    "line {line}: `{}` is a module-scope `{}`: an environment remembers what is in `State` and `AgentState`, and reads `Parameters` and the data that Rust gives to it; use `const` for constants",
                    it.name, it.keyword
                ));
            }
            "import" => {
                return Err(format!(
                    "line {line}: an environment imports nothing: the functions listed in docs/environments.md are there without"
                ));
            }
            other => {
                return Err(format!(
                    "line {line}: `{other}` is not allowed here: an environment consists of structures, constants and functions"
                ));
            }
        }
        if it.keyword == "fn" && it.attributes && !it.name.is_empty() {
            return Err(format!(
                "line {line}: `{}` has attributes: phalanx writes the entry points, an environment has plain functions",
                it.name
            ));
        }
        let defined = taken.iter().any(|text| text.declarations().iter().any(|other| other.name == it.name));
        if !it.name.is_empty() && (defined || it.name.starts_with("phalanx_")) {
            return Err(format!(
                "line {line}: `{}` is a name that phalanx defines: choose another one",
                it.name
            ));
        }
    }
    for expected in &FUNCTIONS {
        let Expected { name, header, purpose, .. } = expected;
        let Some(found) = outline.find("fn", name) else {
            if expected.required {
                return Err(format!("`{header}` is missing: {purpose}"));
            }
            continue;
        };
        let (parameters, result) = found.signature();
        if parameters != expected.parameters || !expected.results.contains(&result.as_str()) {
            return Err(format!(
                "line {}: `fn {name}{}` must be `{header}`: {purpose}",
                found.line, found.header
            ));
        }
    }
    Ok(())
}

/// Refuses declarations of names that WGSL itself uses: they would replace WGSL's own in all text around the environment's, that of
/// the networks too.
///
/// # Errors
/// A sentence.
pub(super) fn predeclared(outline: &Outline) -> Result<(), String> {
    let expected = |name: &str| name.is_empty() || FUNCTIONS.iter().any(|expected| expected.name == name);
    match outline.declarations().iter().find(|it| !expected(it.name) && is_predeclared(it.name)) {
        Some(it) => {
            Err(format!("line {}: `{}` has a meaning in WGSL itself: choose another name", it.line, it.name))
        }
        None => Ok(()),
    }
}

/// Whether WGSL gives this name a meaning: a keyword or reserved word, or a type or function that every module has. A declaration of
/// the name would be refused, or hide the function from all text that calls it.
pub(super) fn is_predeclared(name: &str) -> bool {
    let unknown = |error: wgsl::ParseError| error.message().contains("no definition in scope");
    let called = wgsl::parse_str(&format!("fn phalanx_probe() {{ {name}(); }}"));
    wgsl::parse_str(&format!("fn {name}() {{}}")).is_err() || !called.is_err_and(unknown)
}

/// Refuses line breaks that end a comment for WGSL and not for most editors: what follows them would not be seen.
///
/// # Errors
/// A sentence.
pub(super) fn line_breaks(source: &str) -> Result<(), String> {
    for (number, line) in source.split('\n').enumerate() {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if let Some(odd) = line.chars().find(|it| "\r\u{b}\u{c}\u{85}\u{2028}\u{2029}".contains(*it)) {
            return Err(format!(
                "line {}: U+{:04X} is not allowed: end lines with U+000A",
                number + 1,
                odd as u32
            ));
        }
    }
    Ok(())
}

/// Compiles the whole kernel, which begins with the environment's own text, and checks that every function does only what its moment
/// allows.
///
/// # Errors
/// The compiler's message with the place in the environment's text, or a sentence.
pub(super) fn kernel(name: &str, outline: &Outline, text: &str) -> Result<(), String> {
    let module = wgsl::parse_str(text).map_err(|error| located(name, &error, text))?;
    let info = Validator::new(ValidationFlags::all(), Capabilities::empty())
        .validate(&module)
        .map_err(|error| invalid(name, &error, text))?;
    let rules = [
        ("observe", "phalanx_words", "changes the state, which only `reset` and `step` may"),
        ("observe", "state", "changes the state, which only `reset` and `step` may"),
        ("observe", "phalanx_rewards", "calls `reward`, which belongs in `step`"),
        ("observe", "phalanx_mean", "calls `mean_reward`, which belongs in `step`"),
        ("reset", "phalanx_rewards", "calls `reward`, which belongs in `step`"),
        ("reset", "phalanx_mean", "calls `mean_reward`, which belongs in `step`"),
        ("reset", "observations", "calls `feature`, which belongs in `observe`"),
        ("step", "observations", "calls `feature`, which belongs in `observe`"),
        ("action_mask", "observations", "calls `feature`, which belongs in `observe`"),
    ];
    // Writes through a pointer in another function would not be seen below.
    for (_, it) in module.functions.iter() {
        let private = |argument: &naga::FunctionArgument| {
            let inner = &module.types[argument.ty].inner;
            matches!(inner, naga::TypeInner::Pointer { space: naga::AddressSpace::Private, .. })
        };
        if it.arguments.iter().any(private) {
            let name = it.name.as_deref().unwrap_or_default();
            return Err(broken(outline, name, "takes a pointer to a private variable: use `state` itself"));
        }
    }
    for (function, variable, reason) in [
        ("observe", "phalanx_slot", "calls `global_feature`, which belongs in `global_state`"),
        ("global_state", "phalanx_first", "calls `feature`, which belongs in `observe`"),
    ] {
        if uses(&module, &info, function, variable).contains(GlobalUse::READ) {
            return Err(broken(outline, function, reason));
        }
    }
    for (function, variable, reason) in rules {
        // Masks and the global state are computed together with the observations.
        let others: &[&str] = if function == "observe" { &["action_mask", "global_state"] } else { &[] };
        for function in others.iter().chain([&function]) {
            if uses(&module, &info, function, variable).contains(GlobalUse::WRITE) {
                return Err(broken(outline, function, reason));
            }
        }
    }
    for function in ["reset", "observe", "action_mask", "global_state"] {
        for (variable, what) in [("phalanx_actions", "actions"), ("phalanx_rewards", "rewards")] {
            if uses(&module, &info, function, variable).contains(GlobalUse::READ) {
                let reason =
                    format!("reads {what}, which exist in `step` only: keep what it needs in the state");
                return Err(broken(outline, function, &reason));
            }
        }
    }
    Ok(())
}

fn broken(outline: &Outline, function: &str, reason: &str) -> String {
    let line = outline.find("fn", function).map_or(1, |it| it.line);
    format!("line {line}: `{function}` {reason}")
}

/// Uses of a global variable by a function and all that it calls. Variables of imported modules have the module's path before their
/// name.
fn uses(module: &Module, info: &ModuleInfo, function: &str, variable: &str) -> GlobalUse {
    let function = module.functions.iter().find(|(_, it)| it.name.as_deref() == Some(function));
    let imported = format!("_{variable}");
    let named = |name: &str| name == variable || (variable == "observations" && name.ends_with(&imported));
    let variable = module.global_variables.iter().find(|(_, it)| it.name.as_deref().is_some_and(named));
    match (function, variable) {
        (Some((function, _)), Some((variable, _))) => info[function][variable],
        _ => GlobalUse::empty(),
    }
}

/// The compiler's message, with the place in the environment's text.
pub(super) fn located(name: &str, error: &wgsl::ParseError, text: &str) -> String {
    // Some messages also have places that are nowhere in the text.
    let place = error.labels().find_map(|(span, _)| span.to_range().filter(|place| !place.is_empty()));
    let line = place.map_or(1, |place| 1 + text[..place.start].matches('\n').count());
    format!("line {line}: {}", error.emit_to_string_with_path(text, &file(name)))
}

/// The validator's message, with the line of the smallest of the places that it names.
fn invalid(name: &str, error: &naga::WithSpan<naga::valid::ValidationError>, text: &str) -> String {
    let places = error.spans().filter_map(|(span, _)| span.to_range());
    let smallest = places.min_by_key(|place| place.end - place.start);
    let line = smallest.map_or(1, |place| 1 + text[..place.start].matches('\n').count());
    format!("line {line}: {}", error.emit_to_string_with_path(text, &file(name)))
}

fn file(name: &str) -> String {
    format!("{name}.wgsl")
}
