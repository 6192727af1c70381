//! The section on the audit of a run.

use maud::{Markup, html};

use super::definitions::heading;
use super::format::moment;
use crate::audit::Record;

pub fn section(record: &Record) -> Markup {
    let [from, to] = record.period;
    let failed = record.rows.iter().filter(|row| row.passed == Some(false)).count();
    html! {
        section {
            (heading("audit", "Audit"))
            p.intro {
                "Traded from " (moment(from)) " to " (moment(to)) ". "
                @if failed == 0 { "No check failed." } @else {
                    strong { (failed) " of " (record.rows.len()) " checks failed" }
                    ": the results above mean little."
                }
            }
            table.words {
                thead { tr { th scope="col" { "Check" } th scope="col" { "Result" } th scope="col" { "Verdict" } } }
                tbody {
                    @for row in &record.rows {
                        tr {
                            th scope="row" { (row.check) }
                            td { (row.figure) }
                            td { @if row.passed == Some(false) { strong { (row.verdict) } } @else { (row.verdict) } }
                        }
                    }
                }
            }
        }
    }
}
