//! The structures of an environment, by naga's reflection: the words of its state, and the layout of its parameters.

use naga::front::wgsl;
use naga::{ArraySize, Handle, Module, ScalarKind, Type, TypeInner, VectorSize};

use super::MAX_WORDS;
use super::outline::Outline;

/// Type of a 32-bit word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    F32,
    U32,
    I32,
}

impl Scalar {
    pub(super) fn name(self) -> &'static str {
        ["f32", "u32", "i32"][self as usize]
    }
}

/// A word of a structure's member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// The expression that selects it in the structure, `velocity[1].x`.
    pub(super) path: String,
    pub(super) scalar: Scalar,
}

/// A member of a structure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) words: Vec<Word>,
    /// Components of a vector, 1 for a scalar, 0 for an array.
    pub(super) components: usize,
}

/// Structures of an environment; those that it does not declare are empty.
#[derive(Clone, Debug, Default)]
pub(super) struct Structures {
    pub(super) state: Vec<Member>,
    pub(super) agent: Vec<Member>,
    /// Size of `Parameters` in bytes, and offset and name of every member.
    pub(super) parameters: Option<(usize, Vec<(usize, String)>)>,
}

impl Structures {
    /// Reads `State`, `AgentState` and `Parameters`. `constants` are further declarations that they may use.
    ///
    /// # Errors
    /// A sentence with the line of the structure or member at fault.
    pub(super) fn read(name: &str, outline: &Outline, constants: &str) -> Result<Self, String> {
        let text = format!("{}\n{constants}", outline.types());
        let module = wgsl::parse_str(&text).map_err(|error| super::check::located(name, &error, &text))?;
        let of = |name: &str| module.types.iter().find(|(_, ty)| ty.name.as_deref() == Some(name));
        let mut structures = Self::default();
        for (name, into) in [("State", &mut structures.state), ("AgentState", &mut structures.agent)] {
            let Some((_, ty)) = of(name) else {
                continue;
            };
            let line = outline.find("struct", name).map_or(1, |it| it.line);
            *into = members(&module, ty, name).map_err(|reason| format!("line {line}: {reason}"))?;
            let words: usize = into.iter().map(|member| member.words.len()).sum();
            if words > MAX_WORDS {
                return Err(format!(
                    "line {line}: `{name}` has more than {MAX_WORDS} words of 32 bits: numbers that exist per agent belong in `AgentState`, constant ones into data"
                ));
            }
            if let Some(array) = into.iter().find(|member| name == "AgentState" && member.components == 0) {
                return Err(format!(
                    "line {line}: member `{}` of `AgentState` is an array; use scalars and vectors",
                    array.name
                ));
            }
        }
        if let Some((_, Type { inner: TypeInner::Struct { members, span }, .. })) = of("Parameters") {
            let places = members.iter().map(|it| (it.offset as usize, it.name.clone().unwrap_or_default()));
            structures.parameters = Some((*span as usize, places.collect()));
        }
        Ok(structures)
    }

    /// Words of the state that exists once per environment.
    pub(super) fn state_words(&self) -> impl Iterator<Item = &Word> {
        self.state.iter().flat_map(|member| &member.words)
    }

    /// Words of one agent's state.
    pub(super) fn agent_words(&self) -> impl Iterator<Item = &Word> {
        self.agent.iter().flat_map(|member| &member.words)
    }
}

fn members(module: &Module, ty: &Type, structure: &str) -> Result<Vec<Member>, String> {
    let TypeInner::Struct { members, .. } = &ty.inner else {
        return Err(format!("`{structure}` is not a structure"));
    };
    let member = |it: &naga::StructMember| {
        let name = it.name.clone().unwrap_or_default();
        let mut words = Vec::new();
        let components = flatten(module, it.ty, &name, &mut words).ok_or_else(|| {
            format!(
                "member `{name}` of `{structure}` has a type that cannot be stored: use f32, u32, i32, their vectors, and in `State` arrays of these (a bool is a u32 of 0 or 1)"
            )
        })?;
        Ok(Member { name, words, components })
    };
    members.iter().map(member).collect()
}

/// Appends the words of a value and returns the components of a vector, 1 for a scalar, 0 for an array.
fn flatten(module: &Module, ty: Handle<Type>, path: &str, words: &mut Vec<Word>) -> Option<usize> {
    match &module.types[ty].inner {
        TypeInner::Scalar(scalar) => {
            words.push(Word { path: path.into(), scalar: scalar_of(*scalar)? });
            Some(1)
        }
        TypeInner::Vector { size, scalar } => {
            let scalar = scalar_of(*scalar)?;
            let count =
                [VectorSize::Bi, VectorSize::Tri, VectorSize::Quad].iter().position(|it| it == size)? + 2;
            words.extend(
                "xyzw".chars().take(count).map(|axis| Word { path: format!("{path}.{axis}"), scalar }),
            );
            Some(count)
        }
        TypeInner::Array { base, size: ArraySize::Constant(count), .. } => {
            // Longer ones are refused by their number of words; here they would only take time and memory.
            for index in 0..count.get() {
                if words.len() > MAX_WORDS {
                    break;
                }
                flatten(module, *base, &format!("{path}[{index}]"), words)?;
            }
            Some(0)
        }
        _ => None,
    }
}

fn scalar_of(scalar: naga::Scalar) -> Option<Scalar> {
    match (scalar.kind, scalar.width) {
        (ScalarKind::Float, 4) => Some(Scalar::F32),
        (ScalarKind::Uint, 4) => Some(Scalar::U32),
        (ScalarKind::Sint, 4) => Some(Scalar::I32),
        _ => None,
    }
}
