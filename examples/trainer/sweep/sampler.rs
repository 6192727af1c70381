//! The values of the next trial: random ones first, then those of a tree-structured Parzen estimator (Bergstra et al. 2011).

use anyhow::{Result, anyhow};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use toml::Value;
use tpe::density_estimation::DefaultEstimatorBuilder;
use tpe::{
    TpeOptimizer, TpeOptimizerBuilder, categorical_range, histogram_estimator, parzen_estimator, range,
};

use super::space::{Domain, Parameters, Space};

/// Values of a trial that has ended, and its score: more is better. A failed one has negative infinity.
pub struct Told<'a> {
    pub parameters: &'a Parameters,
    pub score: f64,
}

/// The trials that a new one follows.
#[derive(Default)]
pub struct Known<'a> {
    pub ended: Vec<Told<'a>>,
    /// The values of those that other processes train.
    pub running: Vec<&'a Parameters>,
}

impl Known<'_> {
    /// The best tenth of the trials that ended, as a share of all that the optimiser is told: running ones must not make it larger.
    fn good_share(&self) -> f64 {
        let ended = self.ended.len();
        let told = ended + self.running.len();
        // The optimiser rounds share times number up to a whole trial.
        ((0.1 * ended as f64).ceil() - 0.5).max(0.0) / told.max(1) as f64
    }
}

/// The values of trial `number` with the seed of the sweep. The same arguments give the same values. The first `startup` trials to end
/// are random. Running ones count as the worst (a constant liar): without a score they would be
/// forgotten, and processes that ask at the same time would all try the same place.
pub fn sample(
    space: &Space,
    (seed, number): (u64, u64),
    startup: usize,
    known: &Known<'_>,
) -> Result<Parameters> {
    let ended = known.ended.iter().map(|told| (told.parameters, told.score));
    let told: Vec<_> = ended.chain(known.running.iter().map(|it| (*it, f64::NEG_INFINITY))).collect();
    let draw = |(name, domain): (&String, &Domain)| {
        // A stream of its own for every trial and setting.
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&number.to_le_bytes());
        key[16..20].copy_from_slice(&crc32fast::hash(name.as_bytes()).to_le_bytes());
        let mut rng = StdRng::from_seed(key);
        let axis = Axis::of(domain);
        let at = if known.ended.len() < startup {
            rng.random_range(axis.start..axis.end)
        } else {
            let mut optimizer =
                axis.optimizer(known.good_share()).map_err(|error| anyhow!("setting `{name}`: {error}"))?;
            for (parameters, score) in &told {
                let Some(at) = parameters.get(name).and_then(|value| axis.place(domain, value)) else {
                    continue;
                };
                // The optimiser minimises.
                optimizer.tell(at, -score).map_err(|error| anyhow!("setting `{name}`: {error}"))?;
            }
            let Ok(at) = optimizer.ask(&mut rng);
            at
        };
        Ok((name.clone(), axis.value(domain, at)))
    };
    space.iter().map(draw).collect()
}

/// The line of numbers on which the values of a setting lie: logarithms, or indices of choices.
struct Axis {
    start: f64,
    end: f64,
    log: bool,
    choices: Option<usize>,
}

impl Axis {
    fn of(domain: &Domain) -> Self {
        let (start, end, log, choices) = match domain {
            Domain::Float { from, to, log } => (*from, *to, *log, None),
            // Every integer has an interval of length 1 around it.
            Domain::Integer { from, to, log } => (*from as f64 - 0.5, *to as f64 + 0.5, *log, None),
            Domain::Choices(choices) => (0.0, choices.len() as f64, false, Some(choices.len())),
        };
        let scaled = |value: f64| if log { value.ln() } else { value };
        Self { start: scaled(start), end: scaled(end), log, choices }
    }

    /// `good` is the share of trials that are told whose values are sought.
    fn optimizer(&self, good: f64) -> Result<TpeOptimizer<DefaultEstimatorBuilder>> {
        let mut builder = TpeOptimizerBuilder::new();
        builder.gamma(good);
        Ok(match self.choices {
            Some(count) => builder.build(histogram_estimator(), categorical_range(count)?)?,
            None => builder.build(parzen_estimator(), range(self.start, self.end)?)?,
        })
    }

    /// The place of a value.
    fn place(&self, domain: &Domain, value: &Value) -> Option<f64> {
        let at = match (domain, value) {
            (Domain::Choices(choices), _) => choices.iter().position(|choice| choice == value)? as f64,
            (_, Value::Integer(value)) => *value as f64,
            (_, Value::Float(value)) => *value,
            _ => return None,
        };
        let at = if self.log { at.ln() } else { at };
        // The end itself is outside.
        Some(at.clamp(self.start, self.end.next_down()))
    }

    /// The value at a place.
    fn value(&self, domain: &Domain, at: f64) -> Value {
        let number = if self.log { at.exp() } else { at };
        match domain {
            Domain::Float { from, to, .. } => Value::Float(rounded(number).clamp(*from, *to)),
            Domain::Integer { from, to, .. } => Value::Integer((number.round() as i64).clamp(*from, *to)),
            Domain::Choices(choices) => choices[(number as usize).min(choices.len() - 1)].clone(),
        }
    }
}

/// Six significant digits, which a person can read and copy.
fn rounded(value: f64) -> f64 {
    format!("{value:.5e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> Space {
        let choices = [8, 16, 32].map(|width| Value::Array(vec![Value::Integer(width)])).to_vec();
        Space::from([
            ("rate".into(), Domain::Float { from: 1e-5, to: 1e-1, log: true }),
            ("epochs".into(), Domain::Integer { from: 1, to: 8, log: false }),
            ("envs".into(), Domain::Integer { from: 1, to: 1024, log: true }),
            ("hidden".into(), Domain::Choices(choices)),
        ])
    }

    fn told(trials: &[(Parameters, f64)]) -> Known<'_> {
        let ended = trials.iter().map(|(parameters, score)| Told { parameters, score: *score });
        Known { ended: ended.collect(), running: Vec::new() }
    }

    /// Best at a rate of 1e-3, 4 epochs and 16 units.
    fn score(parameters: &Parameters) -> f64 {
        let rate = parameters["rate"].as_float().unwrap().log10() + 3.0;
        let epochs = parameters["epochs"].as_integer().unwrap() as f64 - 4.0;
        let hidden = parameters["hidden"].as_array().unwrap()[0].as_integer().unwrap();
        -rate * rate - 0.1 * epochs * epochs - if hidden == 16 { 0.0 } else { 0.5 }
    }

    #[test]
    fn values_lie_in_their_ranges_and_logarithms_are_even() {
        let space = space();
        let mut trials = Vec::new();
        let (mut small, mut widths, mut epochs) = (0, [0; 3], [0; 9]);
        for number in 1..=400 {
            let parameters = sample(&space, (7, number), 1000, &told(&trials)).unwrap();
            let rate = parameters["rate"].as_float().unwrap();
            assert!((1e-5..=1e-1).contains(&rate));
            small += usize::from(rate < 1e-3);
            assert!((1..=1024).contains(&parameters["envs"].as_integer().unwrap()));
            epochs[parameters["epochs"].as_integer().unwrap() as usize] += 1;
            let place =
                |value: &Value| ["[8]", "[16]", "[32]"].iter().position(|it| *it == value.to_string());
            widths[place(&parameters["hidden"]).unwrap()] += 1;
            trials.push((parameters, 0.0));
        }
        assert!((150..250).contains(&small), "half of the logarithms: {small}");
        assert!(widths.iter().all(|count| *count > 90), "{widths:?}");
        assert!(epochs[0] == 0 && epochs[1..].iter().all(|count| *count > 25), "{epochs:?}");
    }

    /// Processes that ask while others train try other places, and the random start waits for scores.
    #[test]
    fn running_trials_count_as_the_worst() {
        let space = space();
        let at = |number: u64| sample(&space, (3, number), 1000, &Known::default()).unwrap();
        let trials: Vec<_> = (1..=30).map(at).map(|it| (it.clone(), score(&it))).collect();
        let wide = |parameters: &Parameters| parameters["hidden"].to_string() == "[16]";
        let rate = |parameters: &Parameters| parameters["rate"].as_float().unwrap().log10();
        let asked = |running: Vec<&Parameters>, startup: usize| -> Vec<Parameters> {
            let known = Known { running, ..told(&trials) };
            (100..300).map(|number| sample(&space, (3, number), startup, &known).unwrap()).collect()
        };
        let alone = asked(vec![], 5);
        let best = trials.iter().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap().0.clone();
        let beside = asked(vec![&best; 12], 5);
        let near = |all: &[Parameters]| {
            let near = |it: &&Parameters| wide(it) && (rate(it) - rate(&best)).abs() < 0.3;
            all.iter().filter(near).count()
        };
        assert!(2 * near(&beside) < near(&alone), "{} beside, {} alone", near(&beside), near(&alone));
        // Many that run beside few that ended do not make bad ones good: the good tenth of five is one.
        let few = &trials[..5];
        let best = few.iter().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap().0.clone();
        let elsewhere = at(77);
        let known = Known { running: vec![&elsewhere; 63], ..told(few) };
        let asked_of_few: Vec<_> =
            (100..300).map(|number| sample(&space, (3, number), 5, &known).unwrap()).collect();
        let close =
            |to: &Parameters| asked_of_few.iter().filter(|it| (rate(it) - rate(to)).abs() < 0.3).count();
        assert!(close(&best) > close(&elsewhere), "{} and {}", close(&best), close(&elsewhere));
        let known = Known { running: vec![&elsewhere; 63], ..told(&trials[..5]) };
        assert!((known.good_share() * 68.0 - 0.5).abs() < 1e-12);
        // Trials without scores do not end the random start.
        let random = sample(&space, (3, 100), 31, &told(&trials)).unwrap();
        assert_eq!(asked(vec![&best; 12], 31)[0], random);
        assert_ne!(beside[0], random);
    }

    #[test]
    fn the_same_history_gives_the_same_values_and_good_ones_are_found() {
        let space = space();
        let run = |seed: u64, startup: usize| {
            let mut trials: Vec<(Parameters, f64)> = Vec::new();
            for number in 1..=40 {
                let parameters = sample(&space, (seed, number), startup, &told(&trials)).unwrap();
                let score = if number == 3 { f64::NEG_INFINITY } else { score(&parameters) };
                trials.push((parameters, score));
            }
            trials
        };
        assert_eq!(run(1, 5), run(1, 5));
        assert_ne!(run(1, 5)[0], run(2, 5)[0]);
        let mean = |startup: usize| {
            let best =
                |seed| run(seed, startup).iter().map(|(_, score)| *score).fold(f64::NEG_INFINITY, f64::max);
            (1..=20).map(best).sum::<f64>() / 20.0
        };
        let (guided, random) = (mean(5), mean(1000));
        assert!(guided > random / 2.0, "{guided} of the optimiser, {random} at random");
    }
}
