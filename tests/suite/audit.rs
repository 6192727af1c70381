//! `trainer audit`.

use ndarray::Array2;
use phalanx::env::{Episodes, Trading, TradingSettings};
use phalanx::mappo::{Config, Trainer};
use phalanx::market::{Candles, ExtraFeatures, GapPolicy, MarketData, Scaling};
use phalanx::policy::{MarketMetadata, TrainingBars};
use phalanx::research::{Moved, moved_decisions};

use crate::common::program::{DEMO, Workplace, refused, succeeded};
use crate::testing::unchecked_gpu;

#[test]
fn an_audit_has_the_figures_of_the_backtest_and_finds_no_look_ahead() {
    let place = Workplace::new();
    place.trained("run");
    let output = place.run(&["audit", "--run", "run", "--data", DEMO, "--quick"]);
    succeeded(&output);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = |start: &str| {
        let line = said.lines().find(|line| line.starts_with(start));
        line.unwrap_or_else(|| panic!("no line `{start}` in {said}")).to_string()
    };
    assert!(line("Later candles altered: earlier features").ends_with("passed"));
    let decisions = line("Later candles altered: earlier decisions");
    assert!(decisions.contains("0 changed; of later ones") && decisions.ends_with("passed"), "{decisions}");
    let rewards = line("Later candles altered: earlier rewards");
    assert!(rewards.contains("0 changed; of later ones") && rewards.ends_with("passed"), "{rewards}");
    // The ladder's rung without costs, and the account as it was traded, against backtests.
    succeeded(&place.backtest(DEMO, "run", &[]));
    let metrics = std::fs::read_to_string(place.path("run/metrics.json")).unwrap();
    let metrics: serde_json::Value = serde_json::from_str(&metrics).unwrap();
    let sharpe = metrics["strategy"]["sharpe"].as_f64().unwrap();
    assert!(said.starts_with(&format!("Held-out Sharpe ratio {sharpe:.2}, ")), "{said}");
    let sharpes: Vec<f64> = said
        .lines()
        .filter(|line| line.starts_with("Orders cost"))
        .map(|line| line.split("Sharpe ").nth(1).unwrap().split(',').next().unwrap().parse().unwrap())
        .collect();
    assert_eq!(sharpes.len(), 6);
    assert!(sharpes.windows(2).all(|pair| pair[0] >= pair[1]), "higher costs, lower ratio: {sharpes:?}");
    // The demo's market costs 7 bps an order: between the rungs of 5 and 10.
    assert!(sharpes[3] >= sharpe - 0.005 && sharpe + 0.005 >= sharpes[4], "{sharpe} {sharpes:?}");
    assert!(line("History of 500 bars").contains("Sharpe"));

    refused(&place.run(&["audit", "--run", "none", "--data", DEMO]), &["none holds no trained model"]);
}

/// The verdicts of an audit that trains again: on the answer, on noise, and the ratios of its seeds.
fn retrained(place: &Workplace, learning_rate: &str) -> (bool, [String; 3]) {
    let rates = ["actor", "critic"].map(|net| format!("mappo.{net}_learning_rate={learning_rate}"));
    let sets = [
        "mappo.num_envs=16",
        "mappo.rollout_steps=32",
        "mappo.epochs=4",
        "mappo.hidden=[16]",
        "mappo.gamma=0.5",
        "mappo.iterations=5",
        "market.episode_length=64",
        &rates[0],
        &rates[1],
    ];
    let sets = sets.iter().flat_map(|set| ["--set", set]).collect::<Vec<_>>();
    succeeded(&place.run(&[&["train", "--data", DEMO, "--out", "run", "--force"], &sets[..]].concat()));
    let output = place.run(&["audit", "--run", "run", "--data", DEMO, "--seeds", "2"]);
    let record = std::fs::read_to_string(place.path("run/audit.json")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    let rows = record["rows"].as_array().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let found = ["Told the next return", "Bars in random order", "Trained with 2 seeds"].map(|start| {
        let line = said.lines().find(|line| line.starts_with(start));
        let line = line.unwrap_or_else(|| panic!("no line `{start}` in {said} {output:?}")).to_string();
        let row = rows.iter().find(|row| row["check"].as_str().unwrap().starts_with(start)).unwrap();
        assert!(line.contains(row["figure"].as_str().unwrap()), "{line}, {row}");
        line
    });
    (output.status.success(), found)
}

#[test]
fn agents_win_when_they_are_told_the_answer_and_not_on_noise() {
    let place = Workplace::new();
    let (sound, [told, noise, seeds]) = retrained(&place, "0.003");
    assert!(sound && told.ends_with("passed") && noise.ends_with("passed"), "{told}\n{noise}");
    assert!(seeds.contains("Sharpe") && seeds.contains("median"), "{seeds}");
    // Agents that never learn.
    let (sound, [told, noise, _]) = retrained(&place, "0");
    assert!(
        !sound && told.contains("FAILED: training is broken") && noise.ends_with("passed"),
        "{told}\n{noise}"
    );
    // On other candles the run cannot be trained again.
    let mut command = vec!["audit", "--run", "run", "--data", DEMO];
    refused(&place.run(&[&command[..], &["--seeds", "0"]].concat()), &["--seeds 0: out of range"]);
    let text = std::fs::read_to_string(place.path("run/config.toml")).unwrap();
    let shorter = text.replace("train_fraction = 0.75", "train_fraction = 0.7");
    assert_ne!(shorter, text);
    std::fs::write(place.path("run/config.toml"), shorter).unwrap();
    command.extend(["--seeds", "2"]);
    let output = place.run(&command);
    assert!(String::from_utf8_lossy(&output.stdout).contains("the candles lack the bars"), "{output:?}");
}

/// The audit of a policy that is always long, on candles with a funding rate of the user's own: of candles, instrument and bar.
fn funded(rate: fn(&Candles, usize, usize) -> f64) -> Moved {
    let gpu = unchecked_gpu();
    let candles = Candles::load(&[DEMO], GapPolicy::Reject).unwrap().slice(0..400).unwrap();
    let bars = 250..400;
    let data = |candles: &Candles, scaling: &Scaling| {
        let shape = (candles.instruments(), candles.bars());
        let rates = Array2::from_shape_fn(shape, |(i, bar)| 0.01 * rate(candles, i, bar));
        let funded = candles.clone().with_funding(rates)?;
        MarketData::new(&gpu, &funded, &ExtraFeatures::default(), scaling)
    };
    let fitted = data(&candles, &Scaling::Fit(100..250)).unwrap();
    let settings = TradingSettings { positions: vec![1.0, 0.0], ..TradingSettings::default() };
    let environment = Trading::new(&fitted, &settings, &Episodes::Whole(bars.clone())).unwrap();
    let mut config = Config::default();
    (config.ppo.num_envs, config.ppo.rollout_steps, config.network.hidden) = (4, 8, vec![8]);
    let trainer = Trainer::new(&gpu, &environment, &config).unwrap();
    // Of equal logits the first is chosen.
    let zeros = vec![0.0; trainer.weights().unwrap().len()];
    let [train_from, train_to, test_from] = [100, 249, 250].map(|bar| candles.timestamps[bar]);
    let (scaling, kind) = (fitted.scaling().clone(), Some(TrainingBars::of(&candles)));
    let market = MarketMetadata { settings, scaling, train_from, train_to, test_from, bars: kind };
    let policy = trainer.policy_of(zeros, vec![]).unwrap().with_market(market).unwrap();
    let given = Scaling::Given(fitted.scaling().clone());
    let decide = |candles: &Candles| policy.decisions(&gpu, &data(candles, &given)?, &bars);
    assert!(decide(&candles).unwrap().targets.iter().all(|target| *target == 1.0));
    for cut in [249, 399, 400] {
        moved_decisions(&candles, &bars, &[cut], 1, decide).unwrap_err();
    }
    moved_decisions(&candles, &(250..399), &[300], 1, decide).unwrap_err();
    moved_decisions(&candles, &bars, &[287, 324, 361], 1, decide).unwrap()
}

fn change(candles: &Candles, i: usize, from: usize, to: usize) -> f64 {
    (candles.close[[i, to]] / candles.close[[i, from]]).ln()
}

/// Funding is no feature, and the agents never change their minds: a rate that knows the next bar shows in the rewards alone.
#[test]
fn rewards_that_know_the_future_move() {
    let past = funded(|candles, i, bar| change(candles, i, bar.saturating_sub(1), bar));
    assert_eq!((past.earlier_rewards, past.earlier_decisions, past.later_decisions), (0, 0, 0));
    assert!(past.later_rewards > 400, "{past:?}");
    let leak = funded(|candles, i, bar| change(candles, i, bar, (bar + 1).min(399)));
    // The last reward before each of three cuts, of four instruments.
    assert_eq!((leak.earlier_rewards, leak.earlier_decisions, leak.later_decisions), (12, 0, 0));
}
