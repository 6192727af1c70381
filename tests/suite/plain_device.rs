//! Training on an application's device with WebGPU's default limits and no optional feature.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use phalanx::Error;
use phalanx::env::{Episodes, Trading, TradingSettings};
use phalanx::gpu::{Class, Gpu, Recorder};
use phalanx::indicators::{Indicators, Series};
use phalanx::mappo::{Config, Trainer};
use phalanx::market::{ExtraFeatures, MarketData, Scaling};
use phalanx::random::Stream;

use crate::common;

fn plain_device(required_limits: wgpu::Limits) -> (wgpu::Device, wgpu::Queue) {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions {
        force_fallback_adapter: false,
        ..Default::default()
    }));
    let descriptor = wgpu::DeviceDescriptor {
        required_features: wgpu::Features::empty(),
        required_limits,
        ..Default::default()
    };
    pollster::block_on(adapter.unwrap().request_device(&descriptor)).unwrap()
}

fn plain_gpu() -> Gpu {
    let (device, queue) = plain_device(wgpu::Limits::default());
    assert_eq!(device.limits().max_storage_buffers_per_shader_stage, 8);
    Gpu::from_device(device, queue).unwrap()
}

#[test]
fn a_device_with_too_low_limits_is_rejected() {
    for (limits, name) in [
        (
            wgpu::Limits { max_storage_buffers_per_shader_stage: 7, ..Default::default() },
            "`max_storage_buffers_per_shader_stage` is 7",
        ),
        (
            wgpu::Limits { max_compute_invocations_per_workgroup: 128, ..Default::default() },
            "`max_compute_invocations_per_workgroup` is 128",
        ),
    ] {
        let (device, queue) = plain_device(limits);
        let error = Gpu::from_device(device, queue).unwrap_err();
        assert!(matches!(error, Error::Limit { .. }) && error.to_string().contains(name), "{error}");
    }
}

#[test]
fn the_applications_error_handler_stays_in_place() {
    let (device, queue) = plain_device(wgpu::Limits::default());
    let seen = Arc::new(AtomicU32::new(0));
    let counter = seen.clone();
    device.on_uncaptured_error(Arc::new(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
    }));
    let gpu = Gpu::from_device(device.clone(), queue).unwrap();
    let size = device.limits().max_buffer_size + 16;
    assert!(gpu.buffer("ours", size, wgpu::BufferUsages::STORAGE).is_err());
    assert_eq!(seen.load(Ordering::Relaxed), 0, "an error of phalanx is returned");
    let _ = device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size,
        usage: wgpu::BufferUsages::STORAGE,
        mapped_at_creation: false,
    });
    assert_eq!(seen.load(Ordering::Relaxed), 1, "an error of the application reaches its handler");
}

#[test]
fn training_needs_no_feature_and_no_larger_limit() {
    for class in [Class::Hardware, Class::Software] {
        train(&plain_gpu().with_class(class));
    }
}

fn train(gpu: &Gpu) {
    let mut stream = Stream::new(21, 3);
    let candles = common::candles(3, 150, |_, _| 0.01 * stream.normal());
    let data = MarketData::new(gpu, &candles, &ExtraFeatures::default(), &Scaling::Fit(0..150)).unwrap();
    let rules = TradingSettings { episode_length: 10, ..Default::default() };
    let market = Trading::new(&data, &rules, &Episodes::Random(data.first_bar()..150)).unwrap();
    let mut config = Config::default();
    config.ppo.num_envs = 4;
    config.ppo.rollout_steps = 8;
    config.ppo.iterations = 2;
    config.network.hidden = vec![16];
    let mut trainer = Trainer::new(gpu, &market, &config).unwrap();
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
