//! Snapshots of markets by versions that did not write the scaling statistics.
//!
//! The identity of a market includes them, and another version's fit may differ in its last digits. Such a snapshot is compared with the
//! candles by the observations that it holds: the features of a bar for every environment.

use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors};

use super::format::SnapshotMetadata;
use crate::Result;
use crate::env::MARKET_BAR;
use crate::mappo::Trainer;
use crate::market::MarketData;

/// Largest difference of two values of a feature, in standard deviations, and beside it as a fraction of the value: f16 rounds by up to
/// half of that.
const TOLERANCE: f32 = 1e-3;

impl Trainer {
    /// Like [`Trainer::resume`], for a trainer in the market of `data`. Snapshots of versions that did not write the
    /// [statistics](SnapshotMetadata::scaling) are resumed if the features that their environments saw last agree with `data` within a
    /// thousandth of a standard deviation and of the feature. Candles that differ elsewhere only are not noticed in them.
    ///
    /// # Errors
    /// As [`Trainer::resume`].
    pub fn resume_market(&mut self, path: &Path, data: &MarketData) -> Result<SnapshotMetadata> {
        let gpu = self.gpu.clone();
        self.resume_if(path, |metadata, file| {
            if metadata.scaling.is_some() {
                return Ok(false);
            }
            let count = data.bars() * data.instruments() * data.features();
            let bytes = gpu.read_range(data.buffer(), 0, count as u64 * 4)?;
            let features: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);
            let same = saw(metadata, file, &features, [data.instruments(), data.features()]).unwrap_or(false);
            if same {
                tracing::warn!(
                    snapshot = %path.display(),
                    "the snapshot has no scaling statistics, which are computed anew: results may differ in the last digits, and the \
                     candles are compared by the last observations only"
                );
            }
            Ok(same)
        })
    }
}

/// Whether the environments of a snapshot saw `features` `[bar][instrument][feature]`, with the numbers of instruments and features. `None` if
/// it is no snapshot of such a market.
fn saw(
    metadata: &SnapshotMetadata,
    file: &SafeTensors<'_>,
    features: &[f32],
    [instruments, count]: [usize; 2],
) -> Option<bool> {
    let envs = metadata.envs as usize;
    let bytes = file.tensor("environment 0").ok()?.data();
    let state: Vec<u32> = bytemuck::pod_collect_to_vec(bytes.get(..bytes.len() / 4 * 4)?);
    let bars = state.get(MARKET_BAR as usize * envs..)?.get(..envs)?;
    let view = file.tensor("raw observations").or_else(|_| file.tensor("observations")).ok()?;
    let observed = reals(view.dtype(), view.data())?;
    // Those of the position follow the features of the bar.
    let size = observed.len().checked_div(instruments * envs).filter(|size| *size == count + 2)?;
    let near = |saved: f32, here: f32| (saved - here).abs() <= TOLERANCE * (1.0 + here.abs());
    for (env, bar) in bars.iter().enumerate() {
        let row = features.chunks_exact(instruments * count).nth(*bar as usize)?;
        for (index, here) in row.iter().enumerate() {
            let (agent, feature) = (index / count, index % count);
            if !near(observed[(agent * size + feature) * envs + env], *here) {
                return Some(false);
            }
        }
    }
    Some(true)
}

fn reals(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    match dtype {
        Dtype::F32 => Some(bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()),
        Dtype::F16 => Some(
            bytes.as_chunks::<2>().0.iter().map(|bytes| half::f16::from_le_bytes(*bytes).to_f32()).collect(),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;
    use jiff::civil::date;
    use ndarray::Array2;

    use super::super::format;
    use super::*;
    use crate::env::{Episodes, Trading, TradingSettings};
    use crate::gpu::Gpu;
    use crate::mappo::{Config, Precision};
    use crate::market::{Candles, ExtraFeatures, Scaling, ScalingStatistics};
    use crate::model::envelope::{NamedTensor, read_file};
    use crate::random::Stream;

    const BARS: usize = 160;

    fn data(gpu: &Gpu, seed: u64, scaling: Option<&ScalingStatistics>) -> MarketData {
        let mut stream = Stream::new(seed, 3);
        let close = Array2::from_shape_simple_fn((2, BARS), || 40.0 + 10.0 * stream.uniform());
        let start = date(2001, 1, 1).at(0, 0, 0, 0);
        let days = (0..BARS).map(|bar| start.checked_add((bar as i64).days()).unwrap()).collect();
        let (open, high, low) = (&close * 0.999, &close * 1.01, &close * 0.99);
        let volume = Some(&close * 100.0);
        let symbols = vec!["A".into(), "B".into()];
        let candles = Candles::new(symbols, days, open, high, low, close, volume).unwrap();
        let scaling = scaling.cloned().map_or(Scaling::Fit(0..BARS), Scaling::Given);
        MarketData::new(gpu, &candles, &ExtraFeatures::default(), &scaling).unwrap()
    }

    fn trainer(gpu: &Gpu, data: &MarketData, config: &Config) -> Trainer {
        let settings = TradingSettings { episode_length: 8, ..TradingSettings::default() };
        let market = Trading::new(data, &settings, &Episodes::Random(data.first_bar()..BARS)).unwrap();
        Trainer::new(gpu, &market, config).unwrap()
    }

    fn configs() -> [Config; 2] {
        let mut config = Config::default();
        config.ppo.num_envs = 8;
        config.ppo.rollout_steps = 5;
        config.ppo.epochs = 1;
        config.ppo.iterations = 3;
        config.network.hidden = vec![4];
        config.device.precision = Precision::F32;
        let mut other = config.clone();
        other.network.observation_norm = true;
        other.device.precision = Precision::F16;
        [config, other]
    }

    /// The statistics with other last digits, as another order of summation gives them.
    fn in_another_order(statistics: &ScalingStatistics) -> ScalingStatistics {
        let mut other = statistics.clone();
        for value in other.moments.as_flattened_mut() {
            *value = f32::from_bits(value.to_bits() + 2);
        }
        other
    }

    #[test]
    fn a_run_goes_on_with_the_statistics_of_its_snapshot_on_the_same_candles_only() {
        let gpu = crate::testing::unchecked_gpu();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("saved");
        let fitted = data(&gpu, 1, None);
        let statistics = in_another_order(fitted.scaling());
        for config in configs() {
            let mut saved = trainer(&gpu, &data(&gpu, 1, Some(&statistics)), &config);
            saved.train_until(1, |_| -> Result<()> { Ok(()) }).unwrap();
            saved.save(&path, None).unwrap();
            let given = format::read_metadata(&path).unwrap().scaling.unwrap();
            assert_eq!(given, statistics);
            let resume = |data: &MarketData| trainer(&gpu, data, &config).resume_market(&path, data);
            assert_eq!(resume(&data(&gpu, 1, Some(&given))).unwrap().iteration, 1);
            for other in [data(&gpu, 2, Some(&given)), fitted.clone()] {
                let error = resume(&other).unwrap_err().to_string();
                assert!(
                    error.contains("it is from another environment: `market of 2 instruments, "),
                    "{error}"
                );
            }
        }
    }

    #[test]
    fn a_snapshot_without_statistics_is_compared_by_what_its_environments_saw() {
        let gpu = crate::testing::unchecked_gpu();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("older");
        let fitted = data(&gpu, 1, None);
        for config in configs() {
            let own = data(&gpu, 1, Some(&in_another_order(fitted.scaling())));
            let mut saved = trainer(&gpu, &own, &config);
            saved.train_until(2, |_| -> Result<()> { Ok(()) }).unwrap();
            saved.save(&path, None).unwrap();
            let bytes = read_file(&path).unwrap();
            let (mut metadata, file) = format::read(&bytes).unwrap();
            metadata.scaling = None;
            let tensors = file.tensors().into_iter().map(|(name, view)| {
                let (dtype, shape) = (view.dtype(), view.shape().to_vec());
                NamedTensor { name, dtype, shape, bytes: view.data().to_vec() }
            });
            format::write(&path, &metadata, &tensors.collect::<Vec<_>>()).unwrap();

            let mut here = trainer(&gpu, &fitted, &config);
            let before = here.weights().unwrap();
            let refusal = here.resume(&path).unwrap_err().to_string();
            assert!(refusal.contains("it is from another environment"), "{refusal}");
            for other in [data(&gpu, 2, None), data(&gpu, 2, Some(fitted.scaling()))] {
                let mut trainer = trainer(&gpu, &other, &config);
                let error = trainer.resume_market(&path, &other).unwrap_err().to_string();
                assert!(error.contains("it is from another environment"), "{error}");
                assert_eq!(trainer.iteration(), 0);
            }
            assert!(here.weights().unwrap() == before);
            let metadata = here.resume_market(&path, &fitted).unwrap();
            assert_eq!((metadata.iteration, here.iteration()), (2, 2));
            assert!(here.weights().unwrap() == saved.weights().unwrap());
            // From here on its snapshots have the statistics of this fit.
            here.save(&path, None).unwrap();
            assert_eq!(&format::read_metadata(&path).unwrap().scaling.unwrap(), fitted.scaling());
        }
    }
}
