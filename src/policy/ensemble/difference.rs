//! The first difference that keeps two policies from deciding together.

use super::Ensemble;
use crate::policy::{ActionSpec, ModelMetadata, Policy};

impl Ensemble {
    /// The first difference between two policies that keeps them from deciding together, as a part of a sentence about `other`: `it trades
    /// A, B instead of A, C`. `None` if there is none.
    ///
    /// They need the same agents, features and actions. In a market these are the instruments, and the rules of the account have to be
    /// the same too: all settings but those of episodes and rewards, which only training uses. Bars have to be of one kind, and scaling
    /// statistics have to agree within a ten-thousandth of a standard deviation: seeds of one training have the same, on any device.
    #[must_use]
    pub fn difference(first: &Policy, other: &Policy) -> Option<String> {
        let (first, other) = (first.metadata(), other.metadata());
        of_markets(first, other)
            .or_else(|| of_sizes(first, other))
            .or_else(|| (first.features.len() != other.features.len()).then(|| features(first, other)))
            .or_else(|| {
                let pairs = first.features.iter().zip(&other.features).enumerate();
                let (index, (own, found)) = pairs.into_iter().find(|(_, (own, found))| own != found)?;
                Some(format!("its feature {} is `{found}` instead of `{own}`", index + 1))
            })
            .or_else(|| {
                let [own, found] = [first, other].map(|it| actions(&it.actions));
                (first.actions != other.actions).then(|| format!("its actions are {found} instead of {own}"))
            })
            .or_else(|| of_scaling(first, other))
    }
}

fn of_sizes(first: &ModelMetadata, other: &ModelMetadata) -> Option<String> {
    let pairs = [
        ("agents", first.network.agents, other.network.agents),
        ("features", first.network.obs_dim, other.network.obs_dim),
    ];
    let (what, own, found) = pairs.into_iter().find(|(_, own, found)| own != found)?;
    Some(format!("it has {found} {what} instead of {own}"))
}

fn features(first: &ModelMetadata, other: &ModelMetadata) -> String {
    let [own, found] = [first, other].map(|it| match it.features.is_empty() {
        true => "no names for its features".into(),
        false => format!("the features {}", it.features.join(", ")),
    });
    format!("it has {found} instead of {own}")
}

fn actions(spec: &ActionSpec) -> String {
    match spec {
        ActionSpec::Discrete { choices } => {
            let sizes: Vec<_> = choices.iter().map(u32::to_string).collect();
            format!("choices of {} options", sizes.join(", "))
        }
        ActionSpec::Continuous { numbers, squashed } => {
            format!("{numbers} real numbers{}", if *squashed { " squashed by tanh" } else { "" })
        }
    }
}

#[cfg(feature = "market")]
mod of_market {
    use super::ModelMetadata;
    use crate::env::TradingSettings;
    use crate::policy::MarketMetadata;

    /// Settings that only training uses.
    const OF_TRAINING: [&str; 4] =
        ["episode_length", "own_reward_weight", "reward_scale", "drawdown_penalty"];

    /// Largest difference of scaling statistics, in standard deviations.
    const TOLERANCE: f32 = 1e-4;

    /// The difference of instruments, rules and bars.
    pub fn of_markets(first: &ModelMetadata, other: &ModelMetadata) -> Option<String> {
        let (own, found) = match (&first.market, &other.market) {
            (Some(own), Some(found)) => (own, found),
            (None, None) => return None,
            (Some(_), None) => return Some("it is not the policy of a market".into()),
            (None, Some(_)) => return Some("it is the policy of a market".into()),
        };
        let symbols = |market: &MarketMetadata| market.scaling.symbols.join(", ");
        if own.scaling.symbols != found.scaling.symbols {
            return Some(format!("it trades {} instead of {}", symbols(found), symbols(own)));
        }
        let bars = own.bars.zip(found.bars).and_then(|(own, found)| own.difference(&found));
        of_rules(&own.settings, &found.settings)
            .or_else(|| bars.map(|difference| format!("it was trained on {difference}")))
    }

    fn of_rules(own: &TradingSettings, found: &TradingSettings) -> Option<String> {
        let [own, found] = [own, found].map(|settings| serde_json::to_value(settings).unwrap_or_default());
        let keys = own.as_object().into_iter().flatten();
        let (key, value) = keys
            .filter(|(key, _)| !OF_TRAINING.contains(&key.as_str()))
            .find(|(key, value)| found[key.as_str()] != **value)?;
        Some(format!("its `market.{key}` is {} instead of {value}", found[key.as_str()]))
    }

    /// The difference of scaling statistics of the same instruments and features.
    pub fn of_scaling(first: &ModelMetadata, other: &ModelMetadata) -> Option<String> {
        let (own, found) = first.market.as_ref().zip(other.market.as_ref())?;
        let near = |own: f32, found: f32, deviation: f32| (own - found).abs() <= TOLERANCE * deviation;
        let pairs = own.scaling.moments.iter().zip(&found.scaling.moments);
        let alike = |([mean, deviation], [other_mean, other_deviation]): (&[f32; 2], &[f32; 2])| {
            near(*mean, *other_mean, *deviation) && near(*deviation, *other_deviation, *deviation)
        };
        (!pairs.into_iter().all(alike)).then(|| {
            format!(
                "its features are scaled by statistics of the bars from {} to {}, those of the first by others, from {} to {}",
                found.train_from, found.train_to, own.train_from, own.train_to
            )
        })
    }
}

#[cfg(feature = "market")]
use of_market::{of_markets, of_scaling};

/// A build without markets keeps their metadata as it finds them.
#[cfg(not(feature = "market"))]
fn of_markets(first: &ModelMetadata, other: &ModelMetadata) -> Option<String> {
    (first.market != other.market).then(|| "it is the policy of another market".into())
}

#[cfg(not(feature = "market"))]
fn of_scaling(_: &ModelMetadata, _: &ModelMetadata) -> Option<String> {
    None
}
