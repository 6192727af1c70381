//! Layered settings: defaults, then a TOML file, then `--set key=value`. Errors name the layer at fault.
//!
//! The default value of the settings type is also their schema: its keys are the known keys, and its values give the types. The key
//! of an `Option` whose default is `None` is known too, but its type is checked by serde. Since TOML has no null, an `Option`
//! whose default is `Some` cannot be set to `None`. Enums without fields are strings; enums with fields and `skip_serializing_if`
//! are not supported.

use std::path::Path;

use anyhow::{Context as _, bail};
use phalanx::files::write_atomically;
use serde::{Deserialize as _, Serialize, de::DeserializeOwned};
use serde_json::Value as Json;
use toml::de::{DeTable, DeValue, ValueDeserializer};
use toml::{Spanned, Table, Value};

/// Similarity (Jaro-Winkler, 0 to 1) above which a known key is suggested for an unknown one.
const SIMILAR: f64 = 0.8;

/// A value given by the user, and its origin.
struct Given {
    path: Vec<String>,
    value: Value,
    /// The text after `--set key=`, for string settings.
    raw: Option<String>,
    /// Origin of each part of the path: file and line, or the `--set` argument.
    places: Vec<String>,
}

impl Given {
    /// Name and origin of the first `depth` parts of the path: the setting, or a section above it.
    fn at(&self, depth: usize) -> (String, &str) {
        let place = depth.checked_sub(1).and_then(|n| self.places.get(n)).map_or("", String::as_str);
        (self.path.iter().take(depth).cloned().collect::<Vec<_>>().join("."), place)
    }

    fn here(&self) -> (String, &str) {
        self.at(self.path.len())
    }
}

/// Resolves settings of type `T`: its defaults, overridden by the TOML `file`, overridden by each `key=value` of `sets`
/// in order (dotted keys address tables; a value that is not valid TOML is a string).
///
/// # Errors
/// If the file cannot be read or is not valid TOML, and for unknown keys, wrong types and values that `T` rejects;
/// the message names the file and line or the `--set` argument, and the expected value.
pub fn resolve<T>(file: Option<&Path>, sets: &[String]) -> anyhow::Result<T>
where
    T: Default + Serialize + DeserializeOwned,
{
    let defaults = Table::try_from(T::default()).context("the default settings cannot be written as TOML")?;
    // Unlike TOML, JSON keeps keys whose value is `None`.
    let shape =
        serde_json::to_value(T::default()).context("the default settings cannot be written as JSON")?;

    let mut given = Vec::new();
    if let Some(path) = file {
        read_file(path, &mut given)?;
    }
    for set in sets {
        read_set(set, &mut given)?;
    }
    for one in &mut given {
        check(one, &shape)?;
    }

    let error = match layered(&defaults, &given) {
        Ok(settings) => return Ok(settings),
        Err(error) => error,
    };
    // The culprit is the last value before which the settings were acceptable.
    let culprit = (0..given.len()).rev().find(|&n| layered::<T>(&defaults, &given[..n]).is_ok());
    match culprit {
        Some(n) => {
            let reason = layered::<T>(&defaults, &given[..=n]).err().unwrap_or(error);
            let (setting, place) = given[n].here();
            bail!("{place}: setting `{setting}`: {}", reason.message())
        }
        None => bail!("the default settings are not acceptable: {}", error.message()),
    }
}

/// Writes `settings` as TOML to `path`, atomically.
///
/// # Errors
/// If `settings` cannot be represented in TOML or the file cannot be written.
pub fn write_resolved<T: Serialize>(path: &Path, settings: &T) -> anyhow::Result<()> {
    let text = toml::to_string_pretty(settings).context("the settings cannot be written as TOML")?;
    Ok(write_atomically(path, text.as_bytes())?)
}

fn layered<T: DeserializeOwned>(defaults: &Table, given: &[Given]) -> Result<T, toml::de::Error> {
    let mut table = defaults.clone();
    for one in given {
        put(&mut table, &one.path, &one.value);
    }
    T::deserialize(Value::Table(table))
}

fn put(table: &mut Table, path: &[String], value: &Value) {
    match path {
        [] => {}
        [key] => match (table.get(key), value) {
            // An empty section must not replace the defaults.
            (Some(Value::Table(_)), Value::Table(given)) if given.is_empty() => {}
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

fn read_file(path: &Path, given: &mut Vec<Given>) -> anyhow::Result<()> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("{}: cannot be read", path.display()))?;
    let place = |start: usize| {
        let before = text.as_bytes().get(..start).unwrap_or(text.as_bytes());
        format!("{}:{}", path.display(), 1 + before.iter().filter(|&&byte| byte == b'\n').count())
    };
    let root = DeTable::parse(&text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        anyhow::anyhow!("{}: {}", place(start), error.message())
    })?;
    flatten_file(root.get_ref(), &mut Vec::new(), &mut Vec::new(), &place, given)
}

fn flatten_file(
    table: &DeTable<'_>,
    path: &mut Vec<String>,
    places: &mut Vec<String>,
    place: &dyn Fn(usize) -> String,
    given: &mut Vec<Given>,
) -> anyhow::Result<()> {
    let mut entries: Vec<_> = table.iter().collect();
    // In file order, so that the first mistake is reported first.
    entries.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in entries {
        path.push(key.get_ref().to_string());
        places.push(place(key.span().start));
        match value.get_ref() {
            DeValue::Table(inner) if !inner.is_empty() => flatten_file(inner, path, places, place, given)?,
            _ => {
                let value = to_value(value.clone()).with_context(|| place(key.span().start))?;
                given.push(Given { path: path.clone(), value, raw: None, places: places.clone() });
            }
        }
        path.pop();
        places.pop();
    }
    Ok(())
}

fn to_value(value: Spanned<DeValue<'_>>) -> Result<Value, toml::de::Error> {
    Value::deserialize(ValueDeserializer::from(value))
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
    let value = match DeValue::parse(raw).and_then(to_value) {
        Ok(value) => value,
        Err(error) if raw.starts_with(['[', '{', '"', '\'']) => bail!("{place}: {}", error.message()),
        Err(_) => Value::String(raw.to_owned()),
    };
    flatten_set(path, value, raw, &place, given);
    Ok(())
}

fn flatten_set(path: Vec<String>, value: Value, raw: &str, place: &str, given: &mut Vec<Given>) {
    match value {
        Value::Table(inner) if !inner.is_empty() => {
            for (key, value) in inner {
                let path = path.iter().cloned().chain([key]).collect();
                let raw = value.to_string();
                flatten_set(path, value, &raw, place, given);
            }
        }
        value => {
            let places = vec![place.to_owned(); path.len()];
            given.push(Given { path, value, raw: Some(raw.to_owned()), places });
        }
    }
}

/// Checks the value against the schema and converts it to the setting's type.
fn check(given: &mut Given, shape: &Json) -> anyhow::Result<()> {
    let mut at = shape;
    for (depth, key) in given.path.iter().enumerate() {
        at = match at {
            // The keys of an optional section or a free-form map are checked by serde.
            Json::Null => return Ok(()),
            Json::Object(known) if known.is_empty() && depth > 0 => return Ok(()),
            Json::Object(known) => match known.get(key) {
                Some(next) => next,
                None => {
                    let (name, place) = given.at(depth + 1);
                    bail!("{place}: unknown setting `{name}`; {}", hint(&given.path[..=depth], known, shape))
                }
            },
            _ => {
                let (setting, place) = given.at(depth);
                bail!("{place}: setting `{setting}`: expected {}, got a table", kind(at))
            }
        };
    }
    let fitted = match (at, &given.value, &given.raw) {
        (Json::String(_), Value::Array(_) | Value::Table(_) | Value::String(_), _) => fit(at, &given.value),
        (Json::String(_), _, Some(raw)) => Some(Value::String(raw.clone())),
        _ => fit(at, &given.value),
    };
    let Some(value) = fitted else {
        let (setting, place) = given.here();
        bail!("{place}: setting `{setting}`: expected {}, got {}", kind(at), got(&given.value))
    };
    given.value = value;
    Ok(())
}

fn fit(shape: &Json, value: &Value) -> Option<Value> {
    Some(match (shape, value) {
        // TOML parses a bare date as a date; settings store dates as text.
        (Json::Null | Json::String(_), Value::Datetime(date)) => Value::String(date.to_string()),
        (Json::Number(number), Value::Integer(integer)) if number.is_f64() => Value::Float(*integer as f64),
        (Json::Number(number), Value::Float(_)) if number.is_f64() => value.clone(),
        (Json::Number(number), Value::Integer(_)) if !number.is_f64() => value.clone(),
        (Json::Array(shapes), Value::Array(values)) => {
            // Arrays have any length, and further elements follow the last one of the schema; serde checks the length of tuples.
            let like = |n: usize| shapes.get(n).or(shapes.last()).unwrap_or(&Json::Null);
            Value::Array(
                values.iter().enumerate().map(|(n, value)| fit(like(n), value)).collect::<Option<_>>()?,
            )
        }
        (Json::Null, _)
        | (Json::Bool(_), Value::Boolean(_))
        | (Json::String(_), Value::String(_))
        | (Json::Object(_), Value::Table(_)) => value.clone(),
        _ => return None,
    })
}

fn kind(shape: &Json) -> String {
    match shape {
        Json::Null => "a value".to_owned(),
        Json::Bool(_) => "`true` or `false`".to_owned(),
        Json::Number(number) if number.is_f64() => "a number".to_owned(),
        Json::Number(_) => "an integer".to_owned(),
        Json::String(_) => "a string".to_owned(),
        Json::Array(like) if like.is_empty() => "an array".to_owned(),
        Json::Array(_) => format!("an array like `{shape}`"),
        Json::Object(_) => "a table".to_owned(),
    }
}

fn got(value: &Value) -> String {
    match value {
        Value::Table(_) => "a table".to_owned(),
        Value::Datetime(date) => format!("the date `{date}`"),
        other => format!("the {} `{other}`", other.type_str()),
    }
}

/// Suggests a replacement for the unknown key at the end of `path`, whose section has the keys `known`.
fn hint(path: &[String], known: &serde_json::Map<String, Json>, shape: &Json) -> String {
    let (Some(key), section) = (path.last(), &path[..path.len().saturating_sub(1)]) else {
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
    match best {
        Some(((likeness, _), candidate)) if likeness > SIMILAR => {
            format!("did you mean `{}`?", candidate.join("."))
        }
        _ => format!("known here: {}", known.keys().cloned().collect::<Vec<_>>().join(", ")),
    }
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
