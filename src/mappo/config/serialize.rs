//! The settings in files: one flat object, whatever group a setting belongs to.
//!
//! Written by hand, because `serde(flatten)` collects unknown keys before it rejects them and reads values from a buffer: errors
//! would no longer have the path of the setting, by which programs find the line of a wrong value.

use std::fmt;

use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::ser::{SerializeStruct as _, Serializer};
use serde::{Deserialize, Serialize};

use super::{Config, DeviceConfig, NetworkConfig, OptimizerConfig, PpoConfig};

/// Implements `Serialize` and `Deserialize` for a list of `group.key`, in the order of the files. A missing key keeps its default;
/// an unknown or repeated one is an error.
macro_rules! flat_settings {
    ($($group:ident.$key:ident)*) => {
        const KEYS: &[&str] = &[$(stringify!($key)),*];

        /// A key of the file. The names of the variants are the keys.
        #[derive(Clone, Copy, Deserialize)]
        #[serde(field_identifier)]
        #[allow(non_camel_case_types)]
        enum Key { $($key),* }

        impl Serialize for Config {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut object = serializer.serialize_struct("Config", KEYS.len())?;
                $(object.serialize_field(stringify!($key), &self.$group.$key)?;)*
                object.end()
            }
        }

        impl<'de> Visitor<'de> for ConfigVisitor {
            type Value = Config;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("the settings of `Config`")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Config, M::Error> {
                let mut config = Config::default();
                let mut seen = [false; KEYS.len()];
                while let Some(key) = map.next_key::<Key>()? {
                    let place = key as usize;
                    if std::mem::replace(&mut seen[place], true) {
                        return Err(de::Error::duplicate_field(KEYS[place]));
                    }
                    match key {
                        $(Key::$key => config.$group.$key = map.next_value()?,)*
                    }
                }
                Ok(config)
            }
        }

        const _: fn(Config) = |config| every_field!(config [] [] [] []: $($group.$key)*);
    };
}

/// Takes a [`Config`] apart into the listed fields. A field that is not listed does not compile: it would be missing in files.
macro_rules! every_field {
    ($config:ident [$($p:ident)*] $n:tt $o:tt $d:tt: ppo.$key:ident $($rest:tt)*) => {
        every_field!($config [$($p)* $key] $n $o $d: $($rest)*)
    };
    ($config:ident $p:tt [$($n:ident)*] $o:tt $d:tt: network.$key:ident $($rest:tt)*) => {
        every_field!($config $p [$($n)* $key] $o $d: $($rest)*)
    };
    ($config:ident $p:tt $n:tt [$($o:ident)*] $d:tt: optimizer.$key:ident $($rest:tt)*) => {
        every_field!($config $p $n [$($o)* $key] $d: $($rest)*)
    };
    ($config:ident $p:tt $n:tt $o:tt [$($d:ident)*]: device.$key:ident $($rest:tt)*) => {
        every_field!($config $p $n $o [$($d)* $key]: $($rest)*)
    };
    ($config:ident [$($p:ident)*] [$($n:ident)*] [$($o:ident)*] [$($d:ident)*]:) => {{
        let Config { ppo, network, optimizer, device } = $config;
        let PpoConfig { $($p: _),* } = ppo;
        let NetworkConfig { $($n: _),* } = network;
        let OptimizerConfig { $($o: _),* } = optimizer;
        let DeviceConfig { $($d: _),* } = device;
    }};
}

struct ConfigVisitor;

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ConfigVisitor)
    }
}

flat_settings! {
    ppo.seed
    ppo.algorithm
    ppo.num_envs
    ppo.rollout_steps
    ppo.epochs
    ppo.minibatches
    ppo.advantage_norm
    device.accumulation
    ppo.reward_scale
    ppo.gamma
    ppo.gae_lambda
    ppo.clip
    ppo.ratio
    ppo.value_clip
    ppo.huber_delta
    ppo.entropy
    ppo.entropy_end
    ppo.target_kl
    ppo.value_coefficient
    optimizer.max_grad_norm
    optimizer.actor_learning_rate
    optimizer.critic_learning_rate
    optimizer.learning_rate_decay
    ppo.iterations
    optimizer.adam_beta1
    optimizer.adam_beta2
    optimizer.adam_epsilon
    optimizer.weight_decay
    network.observation_norm
    ppo.value_norm
    ppo.value_norm_beta
    ppo.value_norm_floor
    network.hidden
    network.activation
    network.input_norm
    network.hidden_norm
    network.recurrent
    network.chunk_length
    network.squash
    network.networks
    network.agent_identity
    network.critic_input
    device.precision
    device.memory_budget_mb
    device.shrink_envs
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checkpoints and model files hold the settings as one flat object.
    #[test]
    fn files_hold_flat_keys_and_unknown_ones_are_rejected() {
        let config = Config {
            ppo: PpoConfig { target_kl: 0.5, ..Default::default() },
            network: NetworkConfig { hidden: vec![7], ..Default::default() },
            ..Default::default()
        };
        let json = serde_json::to_value(&config).unwrap();
        assert_eq!((&json["target_kl"], &json["hidden"][0]), (&0.5.into(), &7.into()));
        assert_eq!(json.as_object().unwrap().len(), KEYS.len());
        assert_eq!(serde_json::from_value::<Config>(json).unwrap(), config);
        let older: Config = serde_json::from_str(r#"{"seed": 1}"#).unwrap();
        assert_eq!(older, Config::default(), "missing settings have their defaults");
        let error = |text| serde_json::from_str::<Config>(text).unwrap_err().to_string();
        assert!(
            error(r#"{"gama": 0.9}"#).contains("unknown field `gama`, expected one of `seed`, `algorithm`")
        );
        assert!(error(r#"{"gamma": 0.9, "gamma": 0.8}"#).contains("duplicate field `gamma`"));
        assert!(error("1").contains("expected the settings"));
        assert!(error("[5, 12]").contains("expected the settings"));
    }

    #[test]
    fn errors_have_the_path_of_the_setting() {
        for (text, path) in [
            (r#"{"hidden": [64, 3.5]}"#, "hidden[1]"),
            (r#"{"precision": "f8"}"#, "precision"),
            (r#"{"gama": 0.9}"#, "gama"),
        ] {
            let input = &mut serde_json::Deserializer::from_str(text);
            let error = serde_path_to_error::deserialize::<_, Config>(input).unwrap_err();
            assert_eq!(error.path().to_string(), path, "{error}");
        }
    }
}
