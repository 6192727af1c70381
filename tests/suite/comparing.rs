//! `trainer compare` on the results of backtests.

use crate::common::program::{DEMO, Workplace, columns, refused, succeeded};

#[test]
fn accounts_are_compared_on_the_bars_that_they_share() {
    let place = Workplace::new();
    place.trained("one");
    place.trained("copy");
    succeeded(&place.train(DEMO, "other", &["--seed", "9"]));
    refused(&place.run(&["compare", "one", "copy"]), &["one holds no account", "trainer backtest"]);
    succeeded(&place.backtest(DEMO, "one", &[]));
    succeeded(&place.backtest(DEMO, "copy", &[]));
    // Another period; the end is shared.
    succeeded(&place.backtest(DEMO, "other", &["--from", "2012-01-03"]));
    let arguments = ["compare", "one", "copy", "other", "--out", "page.html", "--resamples", "200"];
    let output = place.run(&arguments);
    succeeded(&output);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let bars = columns(&place.path("other/equity.csv"), "equity").len();
    assert!(
        said.starts_with(&format!("{bars} bars, 2012-01-03 to 2013-03-01; differences from one\n")),
        "{said}"
    );
    // The copy is level with the original, on the later bars.
    let copy = said.split_once("\ncopy\n").unwrap().1.split_once("\nother\n").unwrap().0;
    assert!(copy.contains("p = 1.000") && copy.contains("adjusted for the number of runs: 1.000"), "{copy}");
    let other = said.split_once("\nother\n").unwrap().1;
    let account = columns(&place.path("other/equity.csv"), "equity");
    let gain = account.last().unwrap() / account[0] - 1.0;
    assert!(other.contains(&format!("{:.2} %", gain * 100.0)), "{gain} {other}");
    let page = std::fs::read_to_string(place.path("page.html")).unwrap();
    for text in ["<h2>max drawdown</h2>", "p, adjusted", ">copy<", ">other<"] {
        assert!(page.contains(text), "{text}");
    }
    assert!(!page.contains("NaN") && !page.contains("<script"));
    assert_eq!(place.run(&arguments).stdout, output.stdout, "the same numbers again");

    refused(&place.run(&["compare", "one", "one"]), &["named twice"]);
    let path = place.path("copy/equity.csv");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen("100000", "nan", 1)).unwrap();
    refused(&place.run(&["compare", "one", "copy"]), &["copy/equity.csv:2: `equity` is NaN, not finite"]);
    let lines: Vec<_> =
        text.lines().enumerate().filter(|(line, _)| *line != 300).map(|(_, line)| line).collect();
    std::fs::write(&path, lines.join("\n")).unwrap();
    refused(&place.run(&["compare", "one", "copy"]), &["one and copy have different bars"]);
}
