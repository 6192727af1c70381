//! Indicators: the kernels against plain loops, and against numpy where Python has it.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use ndarray::Array2;
use phalanx::gpu::{Gpu, Recorder};
use phalanx::indicators::{Indicators, Series};
use phalanx::ndarray;
use phalanx::random::Stream;

use super::{Promise, plain};

/// Series and bars of a call.
const SERIES: usize = 4;
const BARS: usize = 20_000;

/// Calls, of which the fastest counts.
const CALLS: usize = 10;

const NUMPY: &str = include_str!("numpy_peer.py");

pub fn measure(gpu: &Gpu, quick: bool) -> Result<Vec<Promise>> {
    let mut random = Stream::new(3, 9);
    let mut close = Array2::from_elem((SERIES, BARS), 100.0);
    for mut row in close.rows_mut() {
        for t in 1..BARS {
            row[t] = row[t - 1] * (0.01 * random.normal()).exp();
        }
    }
    let high = close.mapv(|price| price * (1.0 + 0.01 * random.uniform()));
    let low = close.mapv(|price| price * (1.0 - 0.01 * random.uniform()));
    let indicators = Indicators::classic(gpu);
    let series = Series::upload(gpu, high.view(), low.view(), close.view())?;
    let panel = indicators.panel(&series)?;
    let mut recorder = Recorder::new(gpu);
    let best = |call: &mut dyn FnMut() -> Result<()>| -> Result<f64> {
        let mut best = f64::INFINITY;
        for _ in 0..CALLS {
            let start = Instant::now();
            call()?;
            best = best.min(start.elapsed().as_secs_f64());
        }
        Ok(best)
    };
    let device = best(&mut || {
        recorder.run(&panel.commands())?;
        Ok(gpu.wait()?)
    })?;
    let mut computed = Vec::new();
    let loops = best(&mut || {
        let rows = close.rows().into_iter().zip(high.rows()).zip(low.rows());
        computed = rows
            .filter_map(|((close, high), low)| {
                Some(plain::classic(high.as_slice()?, low.as_slice()?, close.as_slice()?))
            })
            .collect();
        Ok(())
    })?;
    same(&panel.read(gpu)?, &computed)?;
    let (ratio, device_ms, loops_ms) = (loops / device, device * 1e3, loops * 1e3);
    let mut promises = vec![
        Promise::new(
            "Six indicators against plain loops in Rust",
            "10 times as fast",
            format!("{ratio:.1} times ({loops_ms:.2} ms and {device_ms:.2} ms for {SERIES} x {BARS} bars)"),
            ratio >= 10.0,
            2,
        ),
        Promise::new(
            "A call of the six indicators",
            "under 5 ms",
            format!("{device_ms:.2} ms"),
            device_ms < 5.0,
            2,
        ),
    ];
    let promise = "Six indicators against numpy";
    promises.push(match if quick { Err("left out by --quick".into()) } else { numpy(&close, &high, &low) } {
        Ok(seconds) => {
            let ratio = seconds / device;
            let measured = format!("{ratio:.1} times ({:.1} ms)", seconds * 1e3);
            Promise::new(promise, "10 times as fast", measured, ratio >= 10.0, 1)
        }
        Err(why) => Promise::not_measured(promise, "10 times as fast", why, 1),
    });
    Ok(promises)
}

/// Checks that the plain loops compute the same, so that times can be compared.
fn same(values: &phalanx::indicators::Values, computed: &[Vec<(&'static str, Vec<f64>)>]) -> Result<()> {
    for (row, outputs) in computed.iter().enumerate() {
        for (name, expected) in outputs {
            let own = values.get(name).with_context(|| format!("no output `{name}`"))?;
            for t in [BARS / 2, BARS - 1] {
                let (got, expected) = (own[[row, t]], expected[t]);
                ensure!(
                    (got - expected).abs() <= 1e-3 * expected.abs().max(0.1),
                    "`{name}` of series {row} at bar {t} is {got} on the device and {expected} in the loop"
                );
            }
        }
    }
    Ok(())
}

/// Seconds of numpy for the same series.
fn numpy(close: &Array2<f64>, high: &Array2<f64>, low: &Array2<f64>) -> Result<f64, String> {
    let run = || -> Result<String> {
        let mut child = Command::new("python3")
            .args(["-c", NUMPY])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut bytes = format!("{SERIES} {BARS}\n").into_bytes();
        for array in [close, high, low] {
            array.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
        }
        // Python may end before it has read everything.
        let _ = child.stdin.take().context("no input")?.write_all(&bytes);
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "Python has no numpy");
        Ok(String::from_utf8(output.stdout)?)
    };
    let text = run().map_err(|error| format!("no numpy: {error:#}"))?;
    text.trim().parse().map_err(|_| "numpy's time could not be read".to_string())
}
