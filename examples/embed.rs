//! Embeds phalanx in an application that has its own wgpu device.
//!
//! `cargo run --release --example embed`

use jiff::ToSpan;
use jiff::civil::date;
use ndarray::Array2;
use phalanx::env::{Episodes, Trading, TradingSettings};
use phalanx::gpu::Gpu;
use phalanx::mappo::{Config, Trainer};
use phalanx::market::{Candles, ExtraFeatures, MarketData, Scaling};

/// The application's device, which a real application also uses for its own work.
fn application_device() -> Option<(wgpu::Device, wgpu::Queue)> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter =
        pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default())).ok()?;
    // phalanx needs WebGPU's default limits and no optional feature. Larger limits allow larger batches.
    let descriptor = wgpu::DeviceDescriptor { required_limits: adapter.limits(), ..Default::default() };
    pollster::block_on(adapter.request_device(&descriptor)).ok()
}

/// Candles that the application has in memory.
fn application_candles(bars: usize) -> phalanx::Result<Candles> {
    let price = |bar: usize| 100.0 + 10.0 * (bar as f64 / 15.0).sin();
    let close = Array2::from_shape_fn((1, bars), |(_, bar)| price(bar + 1));
    let open = Array2::from_shape_fn((1, bars), |(_, bar)| price(bar));
    let pair = |pick: fn(f64, f64) -> f64| {
        Array2::from_shape_fn((1, bars), |(_, bar)| pick(open[[0, bar]], close[[0, bar]]))
    };
    let (high, low) = (pair(f64::max), pair(f64::min));
    let start = date(2020, 1, 1).at(0, 0, 0, 0);
    let timestamps = (0..bars).map(|bar| start.saturating_add((bar as i64).days())).collect();
    Candles::new(vec!["WAVE".into()], timestamps, open, high, low, close, None)
}

fn main() -> phalanx::Result<()> {
    let Some((device, queue)) = application_device() else {
        eprintln!("no GPU adapter found");
        return Ok(());
    };
    let gpu = Gpu::from_device(device, queue)?;
    let candles = application_candles(600)?;
    let data = MarketData::new(&gpu, &candles, &ExtraFeatures::default(), &Scaling::Fit(0..500))?;
    let bars = data.first_bar()..500;
    let environment = Trading::new(&data, &TradingSettings::default(), &Episodes::Random(bars))?;
    let mut config = Config::default();
    config.ppo.num_envs = 16;
    config.ppo.rollout_steps = 32;
    config.ppo.iterations = 20;
    config.network.hidden = vec![32];
    let mut trainer = Trainer::new(&gpu, &environment, &config)?;
    trainer.train(|progress| -> phalanx::Result<()> {
        let record = progress.record;
        println!(
            "iteration {:>2}: reward {:+.4} per step, entropy {:.3}, {:.0} steps/s",
            progress.iteration, record.reward, record.entropy, progress.steps_per_second
        );
        Ok(())
    })
}
