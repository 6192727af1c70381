use super::*;

/// Every setting with a range: values outside are refused before anything is done, and the message has origin and key.
#[test]
fn values_out_of_range_are_refused_when_given() {
    for (key, values) in [
        ("data.periods_per_year", "0 -1 nan inf -inf 1e300 0.009 9e11"),
        ("data.train_fraction", "0 1 -1 2 nan inf"),
        ("data.test_from", "garbage 2020-13-01 -1-01-01"),
        ("data.test_to", "garbage 2020-13-01"),
        ("data.train_from", "garbage 2020-13-01"),
        ("data.train_to", "garbage 2020-13-01"),
        ("data.held_out", "[[\"2020-01-01\"]] [[]] 1"),
        ("checkpoints.keep", "0 -1 9223372036854775807"),
        ("checkpoints.every", "-1 4294967296 1.5 nan"),
        ("evaluation.every", "-1 4294967296"),
        ("evaluation.fraction", "0 0.95 -1 nan inf"),
        ("live.latency_limit_ms", "0 -1 nan inf 1e9"),
        ("validate.seconds", "0 -1 nan inf"),
        ("validate.min_return", "-2 nan inf"),
        ("validate.max_drawdown", "-1 2 nan"),
        ("validate.max_violations", "-1 2 nan"),
        ("validate.min_device_agreement", "-1 2 nan"),
        ("validate.min_f16_agreement", "-1 2 nan"),
        ("logging.tensorboard", "1 maybe"),
        ("logging.phase_times_every", "-1 4294967296 1.5"),
        ("market.commission_bps", "-1 10000 nan inf 1e300"),
        ("market.slippage_bps", "-1 10000 nan"),
        ("market.commission_per_unit", "-1 nan inf 1e300"),
        ("market.min_commission", "-1 nan inf 1e300"),
        ("market.spread_bps", "-1 10000 nan"),
        ("market.spreads_bps", "{AAA=-1} {AAA=nan} {AAA=1e9}"),
        ("market.borrow_rate", "-1 11 nan"),
        ("market.cash_rate", "-2 11 nan"),
        ("market.margin_rate", "-1 11 inf"),
        ("market.max_leverage", "0 -1 101 nan"),
        ("market.starting_equity", "0 -1 nan 1e300 1e-300"),
        ("market.positions", "[] [0] [0,nan] [0,11] [0,2]"),
        ("market.episode_length", "0 -1 4294967295"),
        ("market.bankruptcy_level", "-1 1 nan"),
        ("market.own_reward_weight", "-1 2 nan"),
        ("market.reward_scale", "0 1e300 nan"),
        ("market.drawdown_penalty", "-1 1e300 nan"),
        ("mappo.seed", "-1 9223372036854775808 18446744073709551615 0xffffffffffffffff"),
        ("mappo.num_envs", "0 -1 1048577 18446744073709551616"),
        ("mappo.rollout_steps", "0 65537"),
        ("mappo.epochs", "0 1001"),
        ("mappo.minibatches", "0 1025"),
        ("mappo.accumulation", "0 65537"),
        ("mappo.iterations", "0 1000000001 4294967296"),
        ("mappo.reward_scale", "0 -1 nan inf 1e300"),
        ("mappo.gamma", "-0.1 1.1 nan"),
        ("mappo.gae_lambda", "-0.1 1.1 nan"),
        ("mappo.clip", "0 11 nan"),
        ("mappo.value_clip", "0 1e7 nan"),
        ("mappo.huber_delta", "0 1e7 nan"),
        ("mappo.entropy", "-1 11 nan"),
        ("mappo.entropy_end", "-1 11 nan"),
        ("mappo.target_kl", "-1 1e7 nan"),
        ("mappo.value_coefficient", "-1 101 nan"),
        ("mappo.value_norm_beta", "-1 1 nan"),
        ("mappo.value_norm_floor", "0 1e7 nan"),
        ("mappo.max_grad_norm", "-1 1e7 nan"),
        ("mappo.actor_learning_rate", "-1 2 nan"),
        ("mappo.critic_learning_rate", "-1 2 nan"),
        ("mappo.adam_beta1", "-1 1 nan"),
        ("mappo.adam_beta2", "-1 1 nan"),
        ("mappo.adam_epsilon", "0 2 nan"),
        ("mappo.weight_decay", "-1 2 nan"),
        ("mappo.hidden", "[] [0] [1025] [4294967295,4294967295] [1,1,1,1,1] [99999999999999999999]"),
        ("mappo.chunk_length", "0 65537"),
        ("mappo.memory_budget_mb", "0 -1 10000001 18446744073709551615"),
    ] {
        for value in values.split(' ') {
            let set = format!("{key}={value}");
            let error = match Settings::read(None, &["mappo.gamma=0.9".into(), set.clone()]) {
                Ok(_) => panic!("{set} is accepted"),
                Err(error) => format!("{error:#}"),
            };
            assert!(error.starts_with(&format!("--set {set}: setting `{key}")), "{error}");
            assert!(error.len() < 400, "{error}");
        }
    }
}

#[test]
fn values_out_of_range_are_found_in_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    let error = |text: &str| {
        std::fs::write(&path, text).unwrap();
        format!("{:#}", Settings::read(Some(&path), &[]).unwrap_err())
    };
    let place = path.display();
    let got = error("[data]\n\nperiods_per_year = 0.0\n");
    assert_eq!(
        got,
        format!("{place}:3: setting `data.periods_per_year`: 0 is out of range: from 0.01 to 100000000000")
    );
    let got = error("[mappo]\nseed = 18446744073709551615\n");
    let range = "integers in settings go from -9223372036854775808 to 9223372036854775807";
    assert_eq!(
        got,
        format!("{place}:2: setting `mappo.seed`: 18446744073709551615 is out of range: {range}")
    );
    assert!(
        error("market = {spreads_bps = {AAA = -1}}\n")
            .starts_with(&format!("{place}:1: setting `market.spreads_bps.AAA`"))
    );
    assert!(error(&"#".repeat((1 << 20) + 1)).contains("more than 1048576 bytes"));
    // A backtest uses the settings of the data only: runs of older versions stay readable.
    std::fs::write(&path, "[checkpoints]\nkeep = 0\n").unwrap();
    assert!(Settings::of_run(&path, &[]).is_ok());
    std::fs::write(&path, "[data]\nperiods_per_year = nan\n").unwrap();
    let got = format!("{:#}", Settings::of_run(&path, &[]).unwrap_err());
    assert!(got.starts_with(&format!("{place}:2: setting `data.periods_per_year`: NaN")), "{got}");
    // The largest seed survives the file.
    let settings = Settings::read(None, &[format!("mappo.seed={}", i64::MAX)]).unwrap();
    crate::settings::write_resolved(&path, &settings).unwrap();
    assert_eq!(Settings::read(Some(&path), &[]).unwrap(), settings);
}

#[test]
fn settings_round_trip_and_unknown_keys_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    let settings: Settings = Settings::read(
        None,
        &["mappo.gamma=0.9".into(), "data.test_from=\"2011-01-03\"".into(), "market.shorting=false".into()],
    )
    .unwrap();
    assert_eq!((settings.mappo.ppo.gamma, settings.market.shorting), (0.9, false));
    crate::settings::write_resolved(&path, &settings).unwrap();
    assert_eq!(Settings::read(Some(&path), &[]).unwrap(), settings);
    let error = Settings::read(None, &["mappo.gama=0.9".into()]).unwrap_err();
    assert!(format!("{error:#}").contains("did you mean `mappo.gamma`"), "{error:#}");
}

#[test]
fn a_day_counts_whole_and_a_time_is_a_moment() {
    let next = end_of("2024-02-29").unwrap();
    assert_eq!(next, parse_timestamp("2024-03-01").unwrap());
    let moment = parse_timestamp("2024-02-29 16:00").unwrap();
    assert!(end_of("2024-02-29 16:00").unwrap() > moment);
    assert!(end_of("2024-02-29 16:00").unwrap() < moment + 1.second());
    assert_eq!(end_of("20240229").unwrap(), next);
    for text in ["20240229 160000", "1709222400"] {
        let moment = parse_timestamp(text).unwrap();
        assert!(end_of(text).unwrap() < moment + 1.second(), "{text}");
    }
}
