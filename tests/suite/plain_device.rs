//! The application's own device, with nothing but WebGPU's guaranteed limits and no optional feature.

use phalanx::env::{Episodes, Trading, TradingSettings};
use phalanx::gpu::{Gpu, Recorder};
use phalanx::indicators::{Indicators, Series};
use phalanx::mappo::{Config, Trainer};
use phalanx::market::{ExtraFeatures, MarketData, Scaling};
use phalanx::random::Stream;

use crate::common;

fn plain_gpu() -> Gpu {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions {
        force_fallback_adapter: false,
        ..Default::default()
    }));
    let descriptor = wgpu::DeviceDescriptor {
        required_features: wgpu::Features::empty(),
        required_limits: wgpu::Limits::default(),
        ..Default::default()
    };
    let (device, queue) = pollster::block_on(adapter.unwrap().request_device(&descriptor)).unwrap();
    assert_eq!(device.limits().max_storage_buffers_per_shader_stage, 8);
    Gpu::from_device(device, queue).unwrap()
}

#[test]
fn training_needs_no_feature_and_no_larger_limit() {
    let gpu = plain_gpu();
    let mut stream = Stream::new(21, 3);
    let candles = common::candles(3, 150, |_, _| 0.01 * stream.normal());
    let data = MarketData::new(&gpu, &candles, &ExtraFeatures::default(), &Scaling::Fit(0..150)).unwrap();
    let rules = TradingSettings { episode_length: 10, ..Default::default() };
    let market = Trading::new(&data, &rules, &Episodes::Random(data.first_bar()..150)).unwrap();
    let config =
        Config { num_envs: 4, rollout_steps: 8, iterations: 2, hidden: vec![16], ..Config::default() };
    let mut trainer = Trainer::new(&gpu, &market, &config).unwrap();
    let mut iterations = 0;
    trainer
        .train(|progress| -> phalanx::Result<()> {
            iterations = progress.iteration;
            assert!(
                progress.record.entropy > 0.5 && progress.record.actor_norm > 0.0,
                "{:?}",
                progress.record
            );
            Ok(())
        })
        .unwrap();
    assert_eq!(iterations, 2);
    assert!(trainer.weights().unwrap().iter().all(|weight| weight.is_finite()));
}

#[test]
fn the_classic_indicators_are_two_dispatches() {
    let gpu = plain_gpu();
    let mut stream = Stream::new(22, 3);
    let candles = common::candles(3, 150, |_, _| 0.01 * stream.normal());
    let series = Series::upload(&gpu, candles.high.view(), candles.low.view(), candles.close.view()).unwrap();
    let indicators = Indicators::classic(&gpu);
    let panel = indicators.panel(&series).unwrap();
    assert_eq!(panel.commands().len(), 2);
    Recorder::new(&gpu).run(&panel.commands()).unwrap();
    let values = panel.read(&gpu).unwrap();
    assert!(values.names().all(|name| values.get(name).unwrap()[[2, 149]].is_finite()));
    let mut live = indicators.live(3).unwrap();
    let bars = live.push(candles.high.view(), candles.low.view(), candles.close.view(), None).unwrap();
    assert!(bars.names().eq(values.names()));
}
