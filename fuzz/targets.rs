//! The targets of the fuzzers, and of the tests that replay their corpus. An input may be refused; it must not panic, and what is
//! accepted has to be sound. The targets return whether it was accepted.

use std::io::Write as _;
use std::sync::{LazyLock, Mutex, PoisonError};

use phalanx::env::Spread;
use phalanx::env::spread::Definition;
use phalanx::files::faults::IgnoredChecksums;
use phalanx::gpu::{Gpu, GpuOptions};
use phalanx::indicators::{Indicators, Live, NAMES, parse};
use phalanx::mappo::{Config, Trainer};
use phalanx::market::{Candles, GapPolicy, LoadOptions};
use phalanx::ndarray::{Array2, s};
use phalanx::policy::Policy;
use tempfile::NamedTempFile;

/// A candle file: CSV, gzip or Parquet, which the reader tells apart by itself.
pub fn candles(data: &[u8]) -> bool {
    let mut accepted = false;
    for gaps in [GapPolicy::Reject, GapPolicy::Drop, GapPolicy::ForwardFill] {
        let options = LoadOptions { gaps, ..LoadOptions::default() };
        let candles = match Candles::load_bytes(&[("AAA.csv", data)], &options) {
            Ok(loaded) => loaded.candles,
            Err(error) => {
                let text = error.to_string();
                assert!(!text.is_empty() && text.len() <= 2048, "{} bytes of error", text.len());
                assert!(!text.chars().any(char::is_control), "{text:?}");
                continue;
            }
        };
        accepted = true;
        assert!(candles.bars() > 0 && candles.instruments() > 0);
        assert!(candles.timestamps.is_sorted_by(|a, b| a < b));
        let prices = [&candles.open, &candles.high, &candles.low, &candles.close];
        for prices in prices {
            assert_eq!(prices.dim(), (candles.instruments(), candles.bars()));
            assert!(prices.iter().all(|price| price.is_finite() && *price > 0.0));
        }
        assert!(candles.high.iter().zip(&candles.low).all(|(high, low)| high >= low));
        let volume = candles.volume.iter().flatten();
        assert!(volume.into_iter().all(|volume| volume.is_finite() && *volume >= 0.0));
    }
    accepted
}

fn file(data: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(data).unwrap();
    file
}

/// A model file, whatever its checksum. What is accepted is saved and loaded again.
pub fn model(data: &[u8]) -> bool {
    let _ignored = IgnoredChecksums::new();
    let file = file(data);
    let Ok(policy) = Policy::load(file.path()) else { return false };
    policy.save(file.path()).unwrap();
    Policy::load(file.path()).unwrap();
    true
}

/// The smallest trainer, with the settings of the corpus.
pub fn trainer() -> Trainer {
    let gpu = Gpu::open(&GpuOptions { checked: true, ..GpuOptions::default() }).unwrap();
    let mut config = Config::default();
    config.ppo.num_envs = 4;
    config.ppo.rollout_steps = 4;
    config.ppo.epochs = 1;
    config.ppo.iterations = 1000;
    config.network.hidden = vec![4];
    config.network.observation_norm = true;
    Trainer::new(&gpu, &Spread::new(Definition::Mpe2), &config).unwrap()
}

/// A snapshot of training, whatever its checksum. What is accepted is trained on from.
pub fn checkpoint(data: &[u8]) -> bool {
    static TRAINER: LazyLock<Mutex<Trainer>> = LazyLock::new(|| Mutex::new(trainer()));
    let _ignored = IgnoredChecksums::new();
    let file = file(data);
    let mut trainer = TRAINER.lock().unwrap_or_else(PoisonError::into_inner);
    let before = trainer.iteration();
    let Ok(metadata) = trainer.resume(file.path()) else {
        assert_eq!(trainer.iteration(), before, "a refused snapshot changes nothing");
        return false;
    };
    assert_eq!(trainer.iteration(), metadata.iteration);
    // Training may find that it cannot learn from such a state.
    let _ = trainer.train_until(metadata.iteration + 1, |_| ());
    true
}

/// Bars for indicators that are computed bar by bar: one byte for the bars of a push, then high, low, close and volume of each as f32.
/// Pushes of any size give the same values.
pub fn live_bars(data: &[u8]) -> bool {
    static LIVE: LazyLock<Mutex<Live>> = LazyLock::new(|| Mutex::new(live()));
    let Some((size, rest)) = data.split_first() else { return false };
    let numbers: Vec<f64> =
        rest.as_chunks::<4>().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect();
    let bars = numbers.len() / 4;
    let columns =
        [0, 1, 2, 3].map(|field| Array2::from_shape_fn((1, bars), |(_, bar)| numbers[4 * bar + field]));
    let mut live = LIVE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut values = |step: usize| -> Vec<Vec<u64>> {
        live.reset();
        let mut outputs = Vec::new();
        for from in (0..bars).step_by(step.max(1)) {
            let to = bars.min(from + step);
            let [high, low, close, volume] = columns.each_ref().map(|column| column.slice(s![.., from..to]));
            let pushed = live.push(high, low, close, Some(volume)).unwrap();
            let names: Vec<_> = pushed.names().map(String::from).collect();
            outputs.resize(names.len(), Vec::new());
            for (output, name) in outputs.iter_mut().zip(names) {
                output.extend(pushed.get(&name).unwrap().iter().map(|value| {
                    // NaNs have no order of bits.
                    if value.is_nan() { u64::MAX } else { value.to_bits() }
                }));
            }
        }
        outputs
    };
    assert_eq!(values(bars), values(1 + usize::from(*size) % 9));
    bars > 0
}

fn live() -> Live {
    let gpu = Gpu::open(&GpuOptions { checked: true, ..GpuOptions::default() }).unwrap();
    let mut indicators = Indicators::new(&gpu);
    for name in NAMES {
        indicators = indicators.with(parse(name).unwrap());
    }
    indicators.live(1).unwrap()
}
