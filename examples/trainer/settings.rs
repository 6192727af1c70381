//! Layered settings: the defaults, then a TOML file, then `--set key=value`.
//!
//! serde validates the values. `serde_path_to_error` names the rejected setting, and this module finds its origin: file and line,
//! or the `--set` argument. A settings type must deny unknown fields. Because TOML has no null, an `Option` whose default is
//! `Some` cannot be set to `None`.

use std::path::Path;

use anyhow::{Context as _, bail};
use phalanx::files::write_atomically;
use serde::{Deserialize as _, Serialize, de::DeserializeOwned};
use serde_json::Value as Json;
use serde_path_to_error::Segment;
use toml::de::{DeTable, DeValue, ValueDeserializer};
use toml::{Spanned, Table, Value};

use crate::checked::{Fault, read_text};

/// Most bytes of a settings file.
const MOST_BYTES: u64 = 1 << 20;

/// Similarity (Jaro-Winkler, 0 to 1) above which a known key is suggested for an unknown one.
const SIMILAR: f64 = 0.8;

/// A value given by the user, and its origin.
#[derive(Clone, Debug)]
pub struct Given {
    pub path: Vec<String>,
    pub value: Value,
    /// The text after `--set key=`, unless TOML parses it as a string, array or table.
    raw: Option<String>,
    /// Origin of each part of the path: file and line, or the `--set` argument.
    pub places: Vec<String>,
}

impl Given {
    /// A value with the places of the parts of its path.
    pub fn new(path: Vec<String>, value: Value, places: Vec<String>) -> Self {
        Self { path, value, raw: None, places }
    }
}

/// Resolves settings of type `T`: its defaults, overridden by the TOML `file`, overridden by each `key=value` of `sets` in order,
/// overridden by `more`. Dotted keys address tables; a value that is not valid TOML is a string. `check` finds values out of range.
///
/// # Errors
/// If the file cannot be read, is longer than 1 MiB or is not valid TOML, and for unknown keys and values that `T` or `check` rejects.
/// The message names the file and line, or the `--set`, and the setting.
pub fn resolve<T>(
    file: Option<&Path>,
    sets: &[String],
    more: &[Given],
    check: impl Fn(&T) -> Result<(), Fault>,
) -> anyhow::Result<T>
where
    T: Default + Serialize + DeserializeOwned,
{
    let defaults = Table::try_from(T::default()).context("the default settings cannot be written as TOML")?;
    let mut given = Vec::new();
    if let Some(path) = file {
        read_file(path, &mut given)?;
    }
    for set in sets {
        read_set(set, &mut given)?;
    }
    given.extend_from_slice(more);
    let mut settings = match layered::<T>(&defaults, &[]) {
        Ok(settings) => settings,
        Err(error) => bail!("the default settings are invalid: {error}"),
    };
    // One after the other: a value that a later one replaces has to be valid too.
    for n in 0..given.len() {
        let error = match layered(&defaults, &given[..=n]) {
            Ok(valid) => {
                settings = valid;
                continue;
            }
            Err(error) => error,
        };
        // `--set name=12` is a string if the setting is a string.
        if let Some(raw) = given[n].raw.take() {
            given[n].value = Value::String(raw);
            if let Ok(valid) = layered(&defaults, &given[..=n]) {
                settings = valid;
                continue;
            }
        }
        let (mut setting, mut keys) = rejected(&error);
        if keys.is_empty() {
            keys.clone_from(&given[n].path);
            setting = keys.join(".");
        }
        let places = &given[n].places;
        let place = places.get(keys.len().saturating_sub(1)).or(places.last());
        let place = place.map_or("", String::as_str);
        let message = error.inner().message();
        if message.starts_with("unknown field") {
            // Unlike TOML, JSON keeps keys whose value is `None`.
            let shape = serde_json::to_value(T::default()).context("the default settings as JSON")?;
            bail!("{place}: unknown setting `{setting}`; {}", hint(&keys, &shape));
        }
        bail!("{place}: setting `{setting}`: {message}");
    }
    match check(&settings) {
        Ok(()) => Ok(settings),
        Err(Fault { key, reason }) => bail!("{}setting `{key}`: {reason}", origin(&key, &given)),
    }
}

/// The last place that gave the setting, if one did: it may be a default that does not go with other settings.
fn origin(key: &str, given: &[Given]) -> String {
    let keys: Vec<&str> = key.split('.').collect();
    // A whole section, or an entry of the setting, may have been given.
    let related = |one: &&Given| one.path.iter().zip(&keys).all(|(own, key)| own == key);
    let places = given.iter().rev().find(related).map(|one| &one.places);
    places
        .and_then(|places| places.get(keys.len() - 1).or(places.last()))
        .map_or(String::new(), |place| format!("{place}: "))
}

type Rejection = serde_path_to_error::Error<toml::de::Error>;

/// The rejected setting, for instance `mappo.hidden[1]`, and its keys without array indices.
fn rejected(error: &Rejection) -> (String, Vec<String>) {
    let (mut name, mut keys) = (String::new(), Vec::new());
    for segment in error.path().iter() {
        match segment {
            Segment::Map { key } => {
                if !name.is_empty() {
                    name.push('.');
                }
                name += key;
                keys.push(key.clone());
            }
            Segment::Seq { index } => name += &format!("[{index}]"),
            // The value itself, as the variant of an enum.
            Segment::Enum { .. } | Segment::Unknown => break,
        }
    }
    (name, keys)
}

/// Writes `settings` as TOML to `path`, atomically.
///
/// # Errors
/// If `settings` cannot be represented in TOML or the file cannot be written.
pub fn write_resolved<T: Serialize>(path: &Path, settings: &T) -> anyhow::Result<()> {
    let text = toml::to_string_pretty(settings).context("the settings cannot be written as TOML")?;
    Ok(write_atomically(path, text.as_bytes())?)
}

fn layered<T: DeserializeOwned>(defaults: &Table, given: &[Given]) -> Result<T, Rejection> {
    let mut table = defaults.clone();
    for one in given {
        put(&mut table, &one.path, &one.value);
    }
    serde_path_to_error::deserialize(Value::Table(table))
}

fn put(table: &mut Table, path: &[String], value: &Value) {
    match path {
        [] => {}
        [key] => match (table.get_mut(key), value) {
            (Some(Value::Table(section)), Value::Table(given)) => {
                given.iter().for_each(|(key, value)| put(section, std::slice::from_ref(key), value));
            }
            _ => {
                table.insert(key.clone(), value.clone());
            }
        },
        [key, rest @ ..] => {
            let section = table.entry(key.clone()).or_insert_with(|| Value::Table(Table::new()));
            if !section.is_table() {
                *section = Value::Table(Table::new());
            }
            if let Value::Table(section) = section {
                put(section, rest, value);
            }
        }
    }
}

/// Adds the values of a TOML file, each with the lines of its keys.
///
/// # Errors
/// If the file cannot be read, is longer than 1 MiB or is not valid TOML.
pub fn read_file(path: &Path, given: &mut Vec<Given>) -> anyhow::Result<()> {
    let text = read_text(path, MOST_BYTES)?;
    let place = |start: usize| {
        let before = text.as_bytes().get(..start).unwrap_or(text.as_bytes());
        format!("{}:{}", path.display(), 1 + before.iter().filter(|&&byte| byte == b'\n').count())
    };
    let root = DeTable::parse(&text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        anyhow::anyhow!("{}: {}", place(start), error.message())
    })?;
    flatten(root.get_ref(), &mut Vec::new(), &mut Vec::new(), &place, given)
}

/// Collects the values of `table`, each with the lines of its keys.
fn flatten(
    table: &DeTable<'_>,
    path: &mut Vec<String>,
    places: &mut Vec<String>,
    place: &dyn Fn(usize) -> String,
    given: &mut Vec<Given>,
) -> anyhow::Result<()> {
    for (key, value) in table {
        path.push(key.get_ref().to_string());
        places.push(place(key.span().start));
        match value.get_ref() {
            DeValue::Table(inner) if !inner.is_empty() => flatten(inner, path, places, place, given)?,
            _ => {
                let here = || place(key.span().start);
                if let Some(integer) = too_large(value.get_ref()) {
                    bail!("{}: setting `{}`: {integer}", here(), path.join("."));
                }
                let value = to_value(value.clone()).with_context(here)?;
                given.push(Given::new(path.clone(), value, places.clone()));
            }
        }
        path.pop();
        places.pop();
    }
    Ok(())
}

fn to_value(value: Spanned<DeValue<'_>>) -> Result<Value, toml::de::Error> {
    Value::deserialize(ValueDeserializer::from(value)).map(dates_as_text)
}

/// The message about an integer beyond 64 bits with a sign, the integers of TOML.
fn too_large(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::Integer(integer) if i64::from_str_radix(integer.as_str(), integer.radix()).is_err() => {
            Some(format!(
                "{} is out of range: integers in settings go from {} to {}",
                integer.as_str(),
                i64::MIN,
                i64::MAX
            ))
        }
        DeValue::Array(values) => values.iter().find_map(|value| too_large(value.get_ref())),
        DeValue::Table(table) => table.iter().find_map(|(_, value)| too_large(value.get_ref())),
        _ => None,
    }
}

/// TOML reads a bare date as a date; the settings hold dates as text.
fn dates_as_text(value: Value) -> Value {
    match value {
        Value::Datetime(date) => Value::String(date.to_string()),
        Value::Array(values) => Value::Array(values.into_iter().map(dates_as_text).collect()),
        Value::Table(table) => {
            Value::Table(table.into_iter().map(|(key, value)| (key, dates_as_text(value))).collect())
        }
        other => other,
    }
}

fn read_set(set: &str, given: &mut Vec<Given>) -> anyhow::Result<()> {
    let place = format!("--set {set}");
    let Some((key, raw)) = set.split_once('=') else {
        bail!("{place}: expected `key=value`, for instance `--set seed=7`");
    };
    let path: Vec<String> = key.split('.').map(|part| part.trim().to_owned()).collect();
    if path.iter().any(String::is_empty) {
        bail!("{place}: `{key}` is not a valid key; expected `name` or `section.name`");
    }
    let raw = raw.trim();
    let parsed = DeValue::parse(raw);
    if let Some(integer) = parsed.as_ref().ok().and_then(|value| too_large(value.get_ref())) {
        bail!("{place}: setting `{key}`: {integer}");
    }
    let value = match parsed.and_then(to_value) {
        Ok(value) => value,
        Err(error) if raw.starts_with(['[', '{', '"', '\'']) => bail!("{place}: {}", error.message()),
        Err(_) => Value::String(raw.to_owned()),
    };
    let scalar = !(value.is_str() || value.is_array() || value.is_table());
    let places = vec![place; path.len()];
    given.push(Given { path, value, raw: scalar.then(|| raw.to_owned()), places });
    Ok(())
}

/// A replacement for the unknown key at the end of `path`, or the keys that its section has.
fn hint(path: &[String], shape: &Json) -> String {
    let Some((key, section)) = path.split_last() else {
        return String::new();
    };
    let mut all = Vec::new();
    all_paths(shape, &mut Vec::new(), &mut all);
    let rank = |candidate: &Vec<String>| {
        let likeness = candidate.last().map_or(0.0, |name| strsim::jaro_winkler(key, name));
        (likeness, candidate.starts_with(section) && candidate.len() == path.len())
    };
    let best = all.iter().map(|candidate| (rank(candidate), candidate)).max_by(|(a, _), (b, _)| {
        // Ties prefer a key of the same section.
        a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))
    });
    if let Some(((likeness, _), candidate)) = best
        && likeness > SIMILAR
    {
        return format!("did you mean `{}`?", candidate.join("."));
    }
    let here = all.iter().filter(|candidate| candidate.starts_with(section) && candidate.len() == path.len());
    let names: Vec<_> = here.filter_map(|candidate| candidate.last()).map(String::as_str).collect();
    format!("known here: {}", names.join(", "))
}

fn all_paths(shape: &Json, path: &mut Vec<String>, all: &mut Vec<Vec<String>>) {
    if let Json::Object(known) = shape {
        for (key, inner) in known {
            path.push(key.clone());
            all.push(path.clone());
            all_paths(inner, path, all);
            path.pop();
        }
    }
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
