//! The space of a sweep: settings with the ranges and choices that trials take their values from.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::run::Settings;
use crate::settings::{Given, read_file};

/// Keys of a range and of a choice.
const KEYS: [&str; 4] = ["from", "to", "log", "choices"];

/// Sections that decide which bars are traded and scored.
const FIXED: [&str; 2] = ["data", "evaluation"];

/// The values of a setting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Domain {
    /// Numbers from `from` to `to`, uniform or, with `log`, uniform in their logarithm.
    Float { from: f64, to: f64, log: bool },
    /// Integers from `from` to `to`, both included.
    Integer { from: i64, to: i64, log: bool },
    /// One of some values.
    Choices(Vec<Value>),
}

/// A setting and its values, by its name with sections.
pub type Space = BTreeMap<String, Domain>;

/// The values of a trial, by the names of the settings.
pub type Parameters = BTreeMap<String, Value>;

/// Settings that all trials have in common.
pub struct Base<'a> {
    pub file: Option<&'a Path>,
    pub sets: &'a [String],
}

impl Base<'_> {
    /// The settings of a trial.
    pub fn with(&self, parameters: &Parameters) -> Result<Settings> {
        let given = |(name, value): (&String, &Value)| {
            let path: Vec<String> = name.split('.').map(String::from).collect();
            let places = vec!["the trial".to_string(); path.len()];
            Given::new(path, value.clone(), places)
        };
        let more: Vec<_> = parameters.iter().map(given).collect();
        Settings::read_with(self.file, self.sets, &more)
    }
}

/// The lines of the file about one setting.
struct Entry {
    /// File and line of every part of the setting's name.
    places: Vec<String>,
    keys: BTreeMap<String, Value>,
}

/// Reads a space. Both ends of every range and every choice have to be valid beside the settings of `base`.
///
/// # Errors
/// With file, line and setting.
pub fn read(path: &Path, base: &Base<'_>) -> Result<Space> {
    let mut space = Space::new();
    for (name, entry) in entries(path)? {
        let here = entry.places.last().map_or("", String::as_str);
        let keys: Vec<String> = name.split('.').map(String::from).collect();
        let set = base.sets.iter().find(|set| set.split('=').next().is_some_and(|key| overlaps(key, &keys)));
        if let Some(set) = set {
            bail!("{here}: setting `{name}`: it is also given by --set {set}");
        }
        let domain = domain(&entry.keys).with_context(|| format!("{here}: setting `{name}`"));
        let mut domain = domain.map_err(|error| anyhow::anyhow!("{error:#}"))?;
        let values = match &domain {
            Domain::Float { from, to, .. } => vec![Value::Float(*from), Value::Float(*to)],
            Domain::Integer { from, to, .. } => vec![Value::Integer(*from), Value::Integer(*to)],
            Domain::Choices(choices) => choices.clone(),
        };
        let mut is_float = false;
        for value in values {
            let text = value.to_string();
            let given = Given::new(keys.clone(), value, entry.places.clone());
            let settings = Settings::read_with(base.file, base.sets, &[given]).map_err(|error| {
                let reason = format!("{error:#}");
                match reason.starts_with(here) {
                    true => error,
                    // A fault of another setting, which does not go with this value.
                    false => anyhow::anyhow!("{here}: setting `{name}`: with {text}: {reason}"),
                }
            })?;
            let (every, iterations) = (settings.evaluation.every, settings.mappo.ppo.iterations);
            ensure!(
                name != "mappo.iterations" || every <= iterations,
                "{here}: setting `{name}`: with {text} there is no evaluation, because `evaluation.every` is {every}"
            );
            is_float |=
                Table::try_from(&settings).is_ok_and(|table| at(&table, &keys).is_some_and(Value::is_float));
        }
        ensure!(
            !FIXED.contains(&keys[0].as_str()),
            "{here}: setting `{name}`: it decides which bars trials are scored on, so all trials have to share it: give it with --set"
        );
        if let (Domain::Integer { from, to, log }, true) = (&domain, is_float) {
            domain = Domain::Float { from: *from as f64, to: *to as f64, log: *log };
        }
        space.insert(name, domain);
    }
    ensure!(
        !space.is_empty(),
        "{}: no setting has a range or choices, for instance `[mappo]` with `epochs = {{ from = 1, to = 8 }}`",
        path.display()
    );
    Ok(space)
}

/// The settings of a file with their ranges and choices, unchecked.
fn entries(path: &Path) -> Result<BTreeMap<String, Entry>> {
    let mut given = Vec::new();
    read_file(path, &mut given)?;
    let mut entries: BTreeMap<String, Entry> = BTreeMap::new();
    let mut others = Vec::new();
    for Given { path: mut keys, value, mut places, .. } in given {
        if let Some(dotted) = keys.iter().find(|key| key.contains(['.', '='])) {
            bail!("{}: `{dotted}`: names with `.` or `=` cannot be swept", places[places.len() - 1]);
        }
        let whole = keys.join(".");
        let last = keys.pop().unwrap_or_default();
        if keys.is_empty() || !KEYS.contains(&last.as_str()) {
            others.push((keys.join("."), last, whole, places));
            continue;
        }
        places.pop();
        let entry = entries.entry(keys.join("."));
        entry.or_insert_with(|| Entry { places, keys: BTreeMap::new() }).keys.insert(last, value);
    }
    if let Some((section, key, whole, places)) = others.into_iter().next() {
        let here = &places[places.len() - 1];
        if entries.contains_key(&section) {
            bail!("{here}: setting `{section}`: unknown key `{key}`; known here: {}", KEYS.join(", "));
        }
        bail!(
            "{here}: setting `{whole}`: expected a range, such as `{{ from = 1, to = 8 }}`, or `{{ choices = [1, 2, 4] }}`; a fixed value \
             is given with --set or --config"
        );
    }
    Ok(entries)
}

/// The values that the keys of a setting describe.
fn domain(keys: &BTreeMap<String, Value>) -> Result<Domain> {
    let get = |key: &str| keys.get(key);
    if let Some(choices) = get("choices") {
        ensure!(keys.len() == 1, "`choices` stand alone, without `from`, `to` and `log`");
        let choices = choices.as_array().context("`choices` have to be an array")?;
        ensure!(!choices.is_empty(), "`choices` are empty");
        return Ok(Domain::Choices(choices.clone()));
    }
    let (Some(from), Some(to)) = (get("from"), get("to")) else {
        bail!("a range needs both `from` and `to`");
    };
    let log = match get("log") {
        None => false,
        Some(log) => log.as_bool().context("`log` has to be true or false")?,
    };
    let number = |value: &Value| value.as_float().or(value.as_integer().map(|integer| integer as f64));
    let (Some(low), Some(high)) = (number(from), number(to)) else {
        bail!("`from` and `to` have to be numbers; other values are `choices`");
    };
    ensure!((high - low).is_finite(), "`from` and `to` have to be finite, and so has their distance");
    ensure!(low < high, "`from` ({low}) has to be less than `to` ({high})");
    ensure!(!log || low > 0.0, "with `log = true`, `from` ({low}) has to be positive");
    let apart = !log || low.ln() < high.ln();
    ensure!(apart, "`from` ({low}) and `to` ({high}) are too close for a logarithmic range");
    Ok(match (from.as_integer(), to.as_integer()) {
        (Some(from), Some(to)) => Domain::Integer { from, to, log },
        _ => Domain::Float { from: low, to: high, log },
    })
}

/// Whether a `--set` of `key` gives the setting at `path`, a part of it, or the section around it.
fn overlaps(key: &str, path: &[String]) -> bool {
    key.split('.').zip(path).all(|(one, other)| one.trim() == other)
}

/// The value at a path.
fn at<'a>(table: &'a Table, path: &[String]) -> Option<&'a Value> {
    let (key, rest) = path.split_first()?;
    let value = table.get(key)?;
    if rest.is_empty() { Some(value) } else { at(value.as_table()?, rest) }
}

#[cfg(test)]
#[path = "space_tests.rs"]
mod tests;
