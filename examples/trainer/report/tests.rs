use jiff::{ToSpan, civil::date};
use ndarray::Array2;
use phalanx::backtest::{PeriodsPerYear, ReplayOptions};
use phalanx::env::ledger::Costs;
use phalanx::market::Candles;
use phalanx::research::{AssessmentOptions, SharpeEstimate};

use super::*;

mod parts;

/// An account that is not judged.
const UNJUDGED: Result<&Assessment, &str> = Err("fewer than 20 bars");

/// A backtest of oscillating instruments, with targets `decide(bar, instrument)`.
pub fn backtest(symbols: &[&str], bars: usize, decide: impl Fn(usize, usize) -> f64) -> Backtest {
    replayed(symbols, bars, decide).2
}

/// A backtest of two instruments with its judgement, as the seventh trial.
pub fn judged(bars: usize) -> (Backtest, Assessment) {
    let decide = |bar: usize, i: usize| [1.0, 0.0, -1.0][(bar / 20 + i) % 3];
    judged_with(bars, 7.0, decide)
}

fn judged_with(bars: usize, trials: f64, decide: impl Fn(usize, usize) -> f64) -> (Backtest, Assessment) {
    let (candles, targets, backtest) = replayed(&["AAA", "BBB"], bars, decide);
    let estimate = SharpeEstimate::from_returns(&backtest.returns());
    let deflated = estimate.and_then(|it| it.deflated(trials, 0.03)).ok();
    let options = AssessmentOptions { draws: 10, resamples: 500, ..Default::default() };
    let replay = options_of_replay();
    let assessment =
        Assessment::new(&backtest, &candles, &(0..bars), targets.view(), &replay, deflated, &options)
            .unwrap();
    (backtest, assessment)
}

fn options_of_replay() -> ReplayOptions {
    ReplayOptions {
        costs: Costs::default(),
        max_leverage: None,
        starting_equity: 10_000.0,
        bankruptcy_level: 0.1,
        periods_per_year: PeriodsPerYear::given(252.0).unwrap(),
    }
}

fn replayed(
    symbols: &[&str],
    bars: usize,
    decide: impl Fn(usize, usize) -> f64,
) -> (Candles, Array2<f64>, Backtest) {
    let start = date(2022, 5, 2).at(0, 0, 0, 0);
    let wave =
        |(i, bar): (usize, usize)| 100.0 + 30.0 * (bar as f64 / 9.0 + i as f64).sin() + bar as f64 * 0.05;
    let prices = Array2::from_shape_fn((symbols.len(), bars), wave);
    let candles = Candles {
        symbols: symbols.iter().map(ToString::to_string).collect(),
        timestamps: (0..bars as i64).map(|day| start + day.days()).collect(),
        open: prices.clone(),
        high: prices.clone(),
        low: prices.clone(),
        close: prices,
        volume: None,
        filled: None,
        funding: None,
        dropped: Vec::new(),
    };
    let targets = Array2::from_shape_fn((bars - 1, symbols.len()), |(bar, i)| decide(bar, i));
    let backtest = Backtest::replay(&candles, 0..bars, targets.view(), &options_of_replay()).unwrap();
    (candles, targets, backtest)
}

fn training() -> TrainingCurves {
    let env_steps: Vec<f64> = (0..40).map(|i| f64::from(i) * 25_600.0).collect();
    let noisy = |i: usize| if i % 7 == 3 { f64::NAN } else { (i as f64).sqrt() };
    let curves = vec![
        ("Mean return".into(), "Reward of an episode.".into(), (0..40).map(noisy).collect()),
        ("Approx KL".into(), "How far the policy moved.".into(), vec![f64::NAN; 40]),
        ("Entropy".into(), "How undecided the policy is.".into(), vec![1.0986; 40]),
    ];
    TrainingCurves { env_steps, curves }
}

fn run() -> RunInfo {
    RunInfo {
        title: "Demo".into(),
        seed: 7,
        adapter: "llvmpipe <Vulkan>".into(),
        precision: "f16".into(),
        parameters: 123_456,
        env_steps: 1_024_000,
        wall_time: Duration::from_secs(3_725),
        training_period: Some((date(2018, 1, 2).at(0, 0, 0, 0), date(2022, 4, 29).at(0, 0, 0, 0))),
        known: false,
        version: "0.1.0".into(),
        folds: Vec::new(),
        audit: None,
        more: vec![("Episodes".into(), "2,048".into())],
    }
}

fn check(page: &str) {
    assert!(page.starts_with("<!DOCTYPE html>"));
    assert!(!page.contains("NaN") && !page.contains("inf,") && !page.contains(">inf"), "no made-up numbers");
    let outside = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
    // Links within the page lead to what is on it.
    let links: Vec<&str> = page.split("href=\"#").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(links.len() >= 20, "{}", links.len());
    for anchor in links {
        assert_eq!(page.matches(&format!(" id=\"{anchor}\"")).count(), 1, "{anchor}");
    }
    let outside = outside.replace("href=\"#", "");
    for request in ["http", "//", "@import", "url(", "src=", "href=", "<script"] {
        assert!(!outside.contains(request), "the page must not need `{request}`");
    }
    assert_eq!(page.matches("<svg").count(), page.matches("role=\"img\"").count());
    assert_eq!(page.matches("<svg").count(), page.matches("aria-label=\"").count());
    let sections = [
        "Equity",
        "Drawdown",
        "Positions",
        "Metrics",
        "Skill or luck",
        "Resampled Sharpe ratios",
        "Returns by month",
        "Rolling Sharpe ratio",
        "Exposure",
        "Worst drawdowns",
        "Holding times",
        "Profit by instrument",
        "Training",
        "The run",
        "Definitions",
        "proves little",
    ];
    for section in sections {
        assert!(page.contains(section), "{section}");
    }
}

#[test]
fn everything_is_on_the_page() {
    let backtest = backtest(&["AAA", "BBB"], 400, |bar, i| [1.0, 0.0, -1.0][(bar / 20 + i) % 3]);
    let page = render(
        &backtest,
        Some(&self::backtest(&["AAA", "BBB"], 300, |_, _| 1.0)),
        UNJUDGED,
        &training(),
        &run(),
    )
    .unwrap();
    check(&page);
    for text in [
        "In sample and out of sample",
        "Agents, out of sample",
        "lang=\"en\"",
        "name=\"viewport\"",
        "prefers-color-scheme: dark",
        "AAA, BBB",
        "Buy-and-hold",
        "Sortino ratio",
        "123,456",
        "1,024,000",
        "llvmpipe &lt;Vulkan&gt;",
        "f16",
        "1\u{a0}h 02\u{a0}min",
        "2 January 2018 to 29 April 2022",
        "commission 5 bps, slippage 2 bps",
        "Episodes",
        "Mean return",
        "How far the policy moved.",
        "This curve has no finite value.",
    ] {
        assert!(page.contains(text), "{text}");
    }
    assert_eq!(
        page.matches("<svg").count(),
        7,
        "three of the account, two of the tear sheet, two of three curves"
    );
}

/// The figures of a section, from its heading to the next one.
fn section<'a>(page: &'a str, anchor: &str) -> &'a str {
    let from = page.split_once(&format!(" id=\"{anchor}\"")).unwrap().1;
    from.split("<h2").next().unwrap()
}

#[test]
fn the_tear_sheet_has_the_figures_of_the_library() {
    let (backtest, assessment) = judged(400);
    let page = render(&backtest, None, Ok(&assessment), &training(), &run()).unwrap();
    check(&page);
    let months = section(&page, "months");
    assert_eq!(months.matches("<tr>").count(), 3, "a header and two years");
    assert!(months.contains(">2022<") && months.contains(">2023<"));
    let sheet = phalanx::backtest::TearSheet::new(&backtest);
    let total = format::number(sheet.months[0].total.unwrap() * 100.0, 1);
    assert!(months.contains(&format!("<td class=\"total\">{total}</td>")), "{months}");
    assert!(section(&page, "rolling").contains("Over the last 126 returns"));
    assert_eq!(section(&page, "drawdowns").matches("<tr>").count(), 1 + sheet.drawdowns.len());
    assert!(section(&page, "holdings").contains(&format!("{}, ", sheet.holding_times.count)));
    let profits = section(&page, "attribution");
    for symbol in ["AAA", "BBB", "Account"] {
        assert!(profits.contains(symbol), "{symbol}");
    }
    assert!(!profits.contains("Borrowing") && !profits.contains("Interest"), "nothing was borrowed");
    assert!(section(&page, "bootstrap").contains("500 resamples"));
    assert!(section(&page, "bootstrap").contains("the best that 7 trials without skill"));
    assert_eq!(page.matches("Histogram of 500").count(), 1);
}

/// A sentence says what is missing.
#[test]
fn poor_accounts_have_sentences() {
    let page = |backtest: &Backtest, assessment: Result<&Assessment, &str>| {
        let page = render(backtest, None, assessment, &training(), &run()).unwrap();
        check(&page);
        page
    };
    let few = page(&backtest(&["AAA"], 12, |_, _| 1.0), UNJUDGED);
    assert!(few.contains("This account is not judged, and not counted as a trial: fewer than 20 bars."));
    assert!(few.contains("takes at least 40 returns; this account has 11."));
    assert!(few.contains("Only accounts that are judged are resampled."));

    let (one, assessment) = judged_with(100, 1.0, |bar, _| f64::from(u8::from(bar % 9 < 4)));
    assert!(page(&one, Ok(&assessment)).contains("This is the only trial on these bars"));

    let (idle, assessment) = judged_with(100, 1.0, |_, _| 0.0);
    let idle = page(&idle, Ok(&assessment));
    for sentence in [
        "there is no Sharpe ratio to resample",
        "No p: in too many resamples the returns of the agents do not vary",
        "no window has a Sharpe ratio",
        "No position was held at a close",
        "never fell below an earlier maximum",
        "No position was held.",
    ] {
        assert!(idle.contains(sentence), "{sentence}");
    }

    let ruined = page(&backtest(&["AAA"], 100, |_, _| -8.0), UNJUDGED);
    assert!(
        section(&ruined, "months").contains("The account was closed on ") && ruined.contains("not recovered")
    );
    assert!(section(&ruined, "months").contains(">–<"));
}

#[test]
fn every_colour_of_the_plots_follows_the_scheme() {
    let backtest = backtest(&["AAA"], 300, |bar, _| [1.0, -1.0, 0.0][bar / 9 % 3]);
    let page = render(&backtest, None, UNJUDGED, &training(), &run()).unwrap();
    let body = page.split_once("</style>").unwrap().1;
    let rules = plot::colour_rules();
    for part in body.replace("href=\"#", "").split("=\"#").skip(1) {
        assert!(rules.contains(&format!("=\"#{}\"", &part[..6])), "{}", &part[..6]);
    }
    let style = include_str!("style.css");
    for (_, name, colour) in plot::PALETTE {
        let (hex, variable) =
            (format!("{:02x}{:02x}{:02x}", colour.0, colour.1, colour.2), format!("--{name}: #"));
        assert_eq!(style.matches(&variable).count(), 2, "{variable} in the light and in the dark scheme");
        assert!(style.contains(&format!("{variable}{hex};")), "{name} is #{hex} in the light scheme");
    }
}

#[test]
fn symbols_and_names_are_escaped() {
    let backtest = backtest(&["<b>&\"A", "'x'<script>"], 30, |_, _| 1.0);
    let mut training = training();
    training.curves[0].0 = "<i>\"return\"".into();
    let page =
        render(&backtest, None, UNJUDGED, &training, &RunInfo { title: "<u>".into(), ..run() }).unwrap();
    check(&page);
    for raw in ["<b>", "<i>\"", "<u>", "&\"A"] {
        assert!(!page.contains(raw), "{raw}");
    }
    assert!(page.contains("&lt;b&gt;&amp;&quot;A"));
}

#[test]
fn verdicts_are_honest() {
    let verdict = |backtest: &Backtest| {
        let page = render(backtest, None, UNJUDGED, &training(), &run()).unwrap();
        check(&page);
        page
    };
    let none = verdict(&backtest(&["AAA"], 60, |_, _| 0.0));
    assert!(none.contains("The agents never traded") && none.contains("stayed at 10,000"));
    assert!(none.contains("always flat"));

    let hold = verdict(&backtest(&["AAA"], 60, |_, _| 1.0));
    assert!(hold.contains("Level with buy-and-hold") && hold.contains("holding AAA"));

    // Short into the rise of the first 14 bars.
    let lost = verdict(&backtest(&["AAA"], 15, |_, _| -1.0));
    assert!(lost.contains("A loss, and behind buy-and-hold") && lost.contains("short 100%"));
    assert!(lost.contains("percentage points behind"));

    // Long while it rises, flat while it falls.
    let won = verdict(&backtest(&["AAA"], 43, |bar, _| if bar < 13 { 1.0 } else { 0.0 }));
    assert!(won.contains("Ahead of buy-and-hold") && won.contains("percentage points ahead"));

    let ruined = verdict(&backtest(&["AAA"], 15, |_, _| -8.0));
    assert!(ruined.contains("The account went bankrupt") && ruined.contains("closed for good on"));
}

#[test]
fn the_smallest_and_the_longest() {
    check(
        &render(&backtest(&["AAA"], 2, |_, _| 1.0), None, UNJUDGED, &TrainingCurves::default(), &run())
            .unwrap(),
    );
    let one = backtest(&["AAA"], 50, |bar, _| f64::from(u8::from(bar > 30)));
    assert_eq!(one.trades.len(), 1);
    check(&render(&one, None, UNJUDGED, &training(), &run()).unwrap());
    let long = backtest(&["AAA", "BBB", "CCC"], 20_000, |bar, i| [1.0, 0.0, -1.0][(bar * 7 + i) % 11 % 3]);
    let page = render(&long, None, UNJUDGED, &training(), &run()).unwrap();
    check(&page);
    assert!(page.len() < 400_000, "{} bytes", page.len());
}

#[test]
fn training_on_the_held_out_period_is_not_hidden() {
    let backtest = backtest(&["AAA"], 20, |_, _| 1.0);
    let page = |training_period, known| {
        render(&backtest, None, UNJUDGED, &training(), &RunInfo { training_period, known, ..run() }).unwrap()
    };
    const WARNING: &str = "Warning: some bars of the held-out period";
    assert!(page(run().training_period, false).contains("ended before the held-out period began"));
    assert!(page(run().training_period, true).contains(WARNING));
    let later = run().training_period.map(|(first, _)| (first, backtest.timestamps[19]));
    let around = page(later, false);
    assert!(!around.contains(WARNING) && around.contains("saw none of its bars"));
    assert!(page(later, true).contains(WARNING));
    let unknown = page(None, false);
    assert!(!unknown.contains(WARNING) && !unknown.contains("ended before"));
}

#[test]
fn a_curve_of_another_length_is_named() {
    let mut training = training();
    training.curves[2].2.pop();
    let backtest = backtest(&["AAA"], 20, |_, _| 1.0);
    let error = render(&backtest, None, UNJUDGED, &training, &run()).unwrap_err().to_string();
    assert!(error.contains("`Entropy` has 39 values for 40"), "{error}");
}

/// `metrics.csv` is a file like any other: its numbers may be anything that parses.
#[test]
fn hostile_metrics_do_not_stop_the_report() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.csv");
    let header = "iteration,env_steps,seconds,steps_per_second,mean_return,episodes,mean_length,terminated,mean_reward,policy_loss,\
                  value_loss,entropy,approx_kl,clip_fraction,actor_grad_norm,critic_grad_norm,learning_rate,value_mean,\
                  value_deviation,skipped_updates,loss_scale";
    let row = |iteration: usize, env_steps: u64, value: &str| {
        let values = [value; 18].join(",");
        format!("{iteration},{env_steps},{},{values}", if value.is_empty() { "0" } else { value })
    };
    let values = [
        "NaN",
        "inf",
        "-inf",
        "1e308",
        "-1e308",
        "1.7976931348623157e308",
        "1e-308",
        "5e-324",
        "0",
        "-0",
        "1e99",
        "-1e99",
        "1",
    ];
    let render = |rows: &[String]| {
        std::fs::write(&path, format!("{header}\n{}\n", rows.join("\n"))).unwrap();
        let curves = crate::metrics::curves(&path).unwrap();
        assert_eq!(curves.env_steps.len(), rows.len());
        check(&super::render(&backtest(&["AAA"], 40, |_, _| 1.0), None, UNJUDGED, &curves, &run()).unwrap());
    };
    let all: Vec<_> = values.iter().enumerate().map(|(i, value)| row(i + 1, 64 * i as u64, value)).collect();
    render(&all);
    for one in values {
        // A single row, two rows with one step count, and the largest one.
        render(&[row(1, 64, one)]);
        render(&[row(1, 64, one), row(2, 64, one)]);
        render(&[row(1, 0, one), row(2, u64::MAX, "1")]);
        for other in values {
            render(&[row(1, 64, one), row(2, 128, other)]);
        }
    }
    render(&[]);
    for (text, wanted) in [("", "missing field"), ("a,b\n1,2\n", "missing field")] {
        std::fs::write(&path, text).unwrap();
        match crate::metrics::curves(&path) {
            Ok(curves) => assert!(text.is_empty() && curves.env_steps.is_empty()),
            Err(error) => assert!(format!("{error:#}").contains(wanted), "{error:#}"),
        }
    }
    std::fs::write(&path, format!("{header}\n{}\n", row(1, 1, "x"))).unwrap();
    let error = format!("{:#}", crate::metrics::curves(&path).unwrap_err());
    assert!(error.contains("metrics.csv") && error.contains("line: 2"), "{error}");
    #[cfg(unix)]
    assert!(
        crate::metrics::curves(std::path::Path::new("/dev/zero"))
            .unwrap_err()
            .to_string()
            .contains("regular file")
    );
}
