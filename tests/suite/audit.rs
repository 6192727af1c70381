//! `trainer audit`.

use crate::common::program::{DEMO, Workplace, refused, succeeded};

#[test]
fn an_audit_has_the_figures_of_the_backtest_and_finds_no_look_ahead() {
    let place = Workplace::new();
    place.trained("run");
    let output = place.run(&["audit", "--run", "run", "--data", DEMO]);
    succeeded(&output);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = |start: &str| {
        let line = said.lines().find(|line| line.starts_with(start));
        line.unwrap_or_else(|| panic!("no line `{start}` in {said}")).to_string()
    };
    assert!(line("Later candles altered: earlier features").ends_with("passed"));
    let decisions = line("Later candles altered: earlier decisions");
    assert!(decisions.contains("0 changed; of later ones") && decisions.ends_with("passed"), "{decisions}");
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
