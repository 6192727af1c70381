//! Sections that only some reports have.

use super::*;

#[test]
fn folds_have_a_row_each_and_a_caution_of_their_own() {
    let backtest = backtest(&["AAA"], 300, |bar, _| [1.0, 0.0][bar / 50 % 2]);
    let (first, last) = (backtest.timestamps[0], backtest.timestamps[299]);
    let fold = FoldRow {
        train: Some((first, first)),
        test: (last, last),
        agents: backtest.metrics,
        buy_and_hold: backtest.benchmark,
        bankrupt_at: None,
    };
    let page = |folds: Vec<FoldRow>| {
        render(&backtest, None, UNJUDGED, &training(), &RunInfo { folds, ..run() }).unwrap()
    };
    let ruined = page(vec![fold.clone(), FoldRow { bankrupt_at: Some(last), ..fold.clone() }]);
    let page = page(vec![fold.clone(), fold]);
    let section = |page: &str| {
        let section = page.split_once("<h2>Folds").unwrap().1.split_once("</section>").unwrap().0;
        section.to_string()
    };
    assert_eq!(section(&page).matches("<tr>").count(), 3);
    assert!(!section(&page).contains("Bankrupt"));
    assert!(section(&ruined).contains("Bankrupt") && section(&ruined).contains(&format::moment(last)));
    assert!(!page.contains("formula-training"), "no curves, no formulas of theirs");
    assert!(page.contains("These are 2 held-out periods") && !page.contains("one training run"));
    assert!(!page.contains("No training curves"));
}

#[test]
fn an_audit_has_its_rows_and_says_that_a_check_failed() {
    use crate::audit::{Record, Row};
    let backtest = backtest(&["AAA"], 60, |bar, _| [1.0, 0.0][bar / 10 % 2]);
    let period = [backtest.timestamps[5], backtest.timestamps[59]];
    let rows = vec![
        Row::new("Told the next return (must win)", "Sharpe 0.10", "FAILED: training is broken", Some(false)),
        Row::new("Orders cost 5 bps", "Sharpe 0.20", "earns", None),
    ];
    let page = |rows: Vec<Row>| {
        let audit = Some(Record { run: Some(7), period, rows });
        let info = RunInfo { audit, ..run() };
        render(&backtest, None, Err("fewer bars"), &TrainingCurves::default(), &info).unwrap()
    };
    let bad = page(rows.clone());
    assert!(bad.contains("<strong>1 of 2 checks failed</strong>") && bad.contains("Orders cost 5 bps"));
    assert!(
        bad.contains("<strong>FAILED: training is broken</strong>") && bad.contains("id=\"formula-audit\"")
    );
    assert!(page(rows[1..].to_vec()).contains("No check failed."));
}
