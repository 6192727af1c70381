use super::*;

fn account<'a>(equity: &'a [f64], zeros: &'a [f64]) -> Account<'a> {
    Account {
        equity,
        gross_book: zeros,
        traded_value: zeros,
        invested: zeros,
        years: 1.0,
        trades: 0,
        commission: 0.0,
        slippage: 0.0,
    }
}

fn close_to(what: &str, got: impl Into<Option<f64>>, want: f64) {
    let got = got.into().unwrap_or(f64::NAN);
    assert!((got - want).abs() <= 1e-11 * want.abs(), "{what}: got {got}, want {want}");
}

#[test]
fn by_hand() {
    // Returns +10 %, -20 %, +25 %: mean 0.05; deviations .05, -.25, .2 -> variance .105/2.
    let equity = [100.0, 110.0, 88.0, 110.0];
    let account = Account {
        equity: &equity,
        gross_book: &[0.0, 110.0, 90.0, 0.0],
        traded_value: &[0.0, 100.0, 20.0, 90.0],
        invested: &[0.0, 1.0, 0.5, 0.0],
        years: 0.5,
        trades: 4,
        commission: 1.5,
        slippage: 0.5,
    };
    let metrics = Metrics::new(&account, 4.0).unwrap();
    close_to("total return", metrics.total_return, 0.1);
    close_to("cagr", metrics.cagr, 1.1_f64.powi(2) - 1.0);
    close_to("volatility", metrics.volatility, 2.0 * 0.0525_f64.sqrt());
    close_to("sharpe", metrics.sharpe, 2.0 * 0.05 / 0.0525_f64.sqrt());
    close_to("sortino", metrics.sortino, 2.0 * 0.05 / (0.04_f64 / 3.0).sqrt());
    close_to("max drawdown", metrics.max_drawdown, -0.2);
    assert_eq!(metrics.max_drawdown_bars, 1);
    close_to("calmar", metrics.calmar, (1.1_f64.powi(2) - 1.0) / 0.2);
    close_to("win rate", metrics.win_rate, 2.0 / 3.0);
    close_to("turnover", metrics.turnover, (100.0 / 55.0 + 20.0 / 100.0 + 90.0 / 45.0) / 3.0);
    close_to("exposure", metrics.exposure, 0.5);
    assert_eq!((metrics.trades, metrics.commission, metrics.slippage, metrics.bars), (4, 1.5, 0.5, 3));
}

#[derive(Deserialize)]
struct Golden {
    periods_per_year: f64,
    equity: Vec<f64>,
    gross_book: Vec<f64>,
    traded_value: Vec<f64>,
    total_return: f64,
    cagr: f64,
    volatility: f64,
    sharpe: f64,
    sortino: f64,
    max_drawdown: f64,
    max_drawdown_bars: usize,
    calmar: f64,
    win_rate: f64,
    turnover: f64,
}

#[test]
fn numbers_of_empyrical_quantstats_and_pyfolio() {
    let cases: Vec<Golden> =
        serde_json::from_str(include_str!("../../../tests/fixtures/metrics.json")).unwrap();
    assert_eq!(cases.len(), 3);
    for golden in cases {
        let zeros = vec![0.0; golden.equity.len()];
        let account = Account {
            gross_book: &golden.gross_book,
            traded_value: &golden.traded_value,
            // empyrical takes the number of returns for the time that passed.
            years: (golden.equity.len() - 1) as f64 / golden.periods_per_year,
            ..account(&golden.equity, &zeros)
        };
        let metrics = Metrics::new(&account, golden.periods_per_year).unwrap();
        close_to("total return", metrics.total_return, golden.total_return);
        close_to("cagr", metrics.cagr, golden.cagr);
        close_to("volatility", metrics.volatility, golden.volatility);
        close_to("sharpe", metrics.sharpe, golden.sharpe);
        close_to("sortino", metrics.sortino, golden.sortino);
        close_to("max drawdown", metrics.max_drawdown, golden.max_drawdown);
        assert_eq!(metrics.max_drawdown_bars, golden.max_drawdown_bars);
        close_to("calmar", metrics.calmar, golden.calmar);
        close_to("win rate", metrics.win_rate, golden.win_rate);
        close_to("turnover", metrics.turnover, golden.turnover);
    }
}

#[test]
fn a_flat_account_has_no_ratios() {
    let metrics = Metrics::new(&account(&[5.0; 4], &[0.0; 4]), 252.0).unwrap();
    assert_eq!((metrics.total_return, metrics.cagr, metrics.volatility), (0.0, Some(0.0), Some(0.0)));
    assert_eq!((metrics.sharpe, metrics.sortino, metrics.calmar), (None, None, None));
    assert_eq!((metrics.win_rate, metrics.turnover, metrics.exposure), (None, None, 0.0));
    assert_eq!((metrics.max_drawdown, metrics.max_drawdown_bars), (0.0, 0));
}

#[test]
fn steady_growth_is_not_an_astronomic_sharpe() {
    let equity: Vec<f64> = (0..50).map(|bar| 1.01_f64.powi(bar)).collect();
    let metrics = Metrics::new(&account(&equity, &[0.0; 50]), 252.0).unwrap();
    assert_eq!((metrics.sharpe, metrics.sortino, metrics.calmar), (None, None, None));
    close_to("cagr", metrics.cagr, 1.01_f64.powi(49) - 1.0);
}

#[test]
fn a_single_return_has_no_deviation() {
    let metrics = Metrics::new(&account(&[1.0, 0.5], &[0.0; 2]), 252.0).unwrap();
    assert_eq!((metrics.volatility, metrics.sharpe), (None, None));
    close_to("sortino", metrics.sortino, -(252.0_f64.sqrt()));
}

#[test]
fn an_account_below_zero_is_finite_or_undefined() {
    let metrics = Metrics::new(&account(&[100.0, 50.0, -20.0, -20.0], &[0.0; 4]), 252.0).unwrap();
    close_to("total return", metrics.total_return, -1.2);
    assert_eq!((metrics.cagr, metrics.calmar), (None, None));
    close_to("max drawdown", metrics.max_drawdown, -1.2);
    assert_eq!(metrics.max_drawdown_bars, 3);
    let json = serde_json::to_string(&metrics).unwrap();
    assert!(json.contains("\"cagr\":null"), "{json}");
    assert_eq!(serde_json::from_str::<Metrics>(&json).unwrap(), metrics);
}

#[test]
fn faults_are_named() {
    let message = |result: Result<Metrics>| result.unwrap_err().to_string();
    assert!(message(Metrics::new(&account(&[1.0], &[0.0]), 252.0)).contains("at least two bars"));
    assert!(message(Metrics::new(&account(&[1.0, 2.0], &[0.0]), 252.0)).contains("gross_book"));
    assert!(message(Metrics::new(&account(&[0.0, 2.0], &[0.0; 2]), 252.0)).contains("equity at bar 0 is 0"));
    assert!(message(Metrics::new(&account(&[1.0, f64::NAN], &[0.0; 2]), 252.0)).contains("bar 1 is NaN"));
    assert!(message(Metrics::new(&account(&[1.0, 2.0], &[0.0; 2]), 0.0)).contains("periods_per_year"));
    let timeless = Account { years: 0.0, ..account(&[1.0, 2.0], &[0.0; 2]) };
    assert!(message(Metrics::new(&timeless, 252.0)).contains("setting `years`: 0 is not positive"));
}
