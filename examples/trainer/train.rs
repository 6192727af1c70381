//! `train`: candles in, a trained model out.

use std::time::Instant;

use anyhow::{Context, Result};
use phalanx::env::{Episodes, Trading};
use phalanx::files::write_atomically;
use phalanx::gpu::Gpu;
use phalanx::mappo::{Snapshots, Trainer};
use phalanx::market::{Candles, Clock, ExtraFeatures, MarketData, Scaling, Splits};
use phalanx::nn::tuning::Tuning;
use phalanx::policy::{Head, TrainedPolicy};

use crate::TrainArgs;
use crate::metrics::{Row, Writer};
use crate::progress::{Line, Progress};
use crate::run::{Folder, Settings, Summary};
use crate::settings::{resolve, write_resolved};

pub fn train(args: &TrainArgs, open: impl Fn() -> phalanx::Result<Gpu>) -> Result<()> {
    let folder = Folder::new(&args.out);
    let settings =
        if args.resume { resolve(Some(&folder.unfinished()?.settings()), &[])? } else { given(args)? };
    settings.mappo.validate()?;
    settings.market.validate()?;
    let candles = settings.data.load(&args.data)?;
    let splits = settings.data.split(&candles)?;
    let gpu = open()?;
    let data =
        MarketData::new(&gpu, &candles, &ExtraFeatures::default(), &Scaling::Fit(splits.train.clone()))?;
    let bars = splits.train.start.max(data.first_bar())..splits.train.end;
    let environment = Trading::new(&data, &settings.market, &Episodes::Random(bars.clone()))?;
    let mut trainer = match &args.tune {
        None => Trainer::new(&gpu, &environment, &settings.mappo)?,
        Some(file) => Trainer::tuned(&gpu, &environment, &settings.mappo, &mut Tuning::open(file)?)?,
    };
    let staging = if args.resume { folder.unfinished()? } else { folder.stage(args.force)? };
    write_resolved(&staging.settings(), &settings)?;
    let every = settings.checkpoints.every;
    let snapshots = match every {
        0 => None,
        _ => Some(Snapshots::open(&staging.checkpoints(), settings.checkpoints.keep)?),
    };
    let latest = snapshots.as_ref().map(Snapshots::latest).transpose()?.flatten();
    if let Some(path) = &latest {
        trainer.resume(path)?;
    }
    announce(&gpu, &candles, &splits, &trainer);

    let mut metrics = Writer::resume(&staging.metrics(), trainer.iteration())?;
    let mut progress = Progress::new(u64::from(settings.mappo.iterations));
    let started = Instant::now();
    let mut last_return = f64::NAN;
    let mut report = |done: &phalanx::mappo::Progress| -> Result<()> {
        metrics.write(&Row::new(done, started.elapsed().as_secs_f64()))?;
        last_return = done.mean_return().unwrap_or(last_return);
        progress.update(&Line {
            iteration: u64::from(done.iteration),
            env_steps: done.env_steps,
            steps_per_second: done.steps_per_second,
            mean_return: last_return,
            policy_loss: f64::from(done.record.policy_loss),
            value_loss: f64::from(done.record.value_loss),
            entropy: f64::from(done.record.entropy),
            approx_kl: f64::from(done.record.approx_kl),
        });
        Ok(())
    };
    while trainer.iteration() < settings.mappo.iterations {
        let next =
            trainer.iteration().saturating_add(every).checked_div(every).map_or(u32::MAX, |n| n * every);
        trainer.train_until(next, &mut report)?;
        if let Some(snapshots) = &snapshots {
            snapshots.save(&trainer, None)?;
        }
    }
    progress.finish();
    let env_steps = trainer.env_steps();

    let head = Head {
        config: settings.mappo.clone(),
        market: settings.market.clone(),
        scaling: data.scaling().clone(),
        train_from: candles.timestamps[bars.start],
        train_to: candles.timestamps[bars.end - 1],
        test_from: candles.timestamps[splits.test.start],
        version: env!("CARGO_PKG_VERSION").into(),
    };
    TrainedPolicy::new(head, trainer.weights()?)?.save(&staging.model())?;
    let summary = Summary {
        adapter: crate::doctor::adapter(&gpu),
        env_steps,
        seconds: started.elapsed().as_secs_f64(),
        gpu_bytes: trainer.plan().bytes(),
    };
    let json = serde_json::to_vec_pretty(&summary).context("writing training.json")?;
    write_atomically(&staging.summary(), &json)?;
    folder.publish(&staging)?;
    println!(
        "Trained {env_steps} environment steps in {:.1} s. The model is {}.",
        summary.seconds,
        folder.model().display()
    );
    Ok(())
}

/// The settings that the command line asks for.
fn given(args: &TrainArgs) -> Result<Settings> {
    let mut sets = args.sets.clone();
    sets.extend(args.seed.map(|seed| format!("mappo.seed={seed}")));
    sets.extend(args.iterations.map(|iterations| format!("mappo.iterations={iterations}")));
    resolve(args.config.as_deref(), &sets)
}

fn announce(gpu: &Gpu, candles: &Candles, splits: &Splits, trainer: &Trainer) {
    let sizes = trainer.sizes();
    let clock = Clock::of(&candles.timestamps);
    let date = |bar: usize| clock.show(candles.timestamps[bar]);
    eprintln!("GPU       {}", crate::doctor::adapter(gpu));
    eprintln!(
        "Candles   {} x {} bars; trained on {} to {}, held out from {}",
        candles.symbols.join(" "),
        candles.bars(),
        date(splits.train.start),
        date(splits.train.end - 1),
        date(splits.test.start),
    );
    eprintln!(
        "Plan      {} environments x {} steps, micro-batches of {} rows, {} parameters, {:.1} MiB on the device",
        sizes.envs,
        sizes.steps,
        sizes.micro_quads() * 4,
        trainer.layout().parameters(),
        trainer.plan().bytes() as f64 / 1048576.0,
    );
}
