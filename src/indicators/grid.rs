//! The division of a panel into chunks and dispatches, as pure functions.

use super::compose::Loops;
use crate::gpu::Class;

/// Loop iterations that an invocation may use on llvmpipe, which silently stops the loops of an invocation after 65,535
/// iterations in total (`LP_MAX_TGSI_LOOP_ITERATIONS`). The iteration that ends a loop counts too.
const LOOPS: u32 = 50_000;

/// Most groups of four bars that one dispatch processes on a GPU: the watchdog resets a GPU after a few seconds.
const PATIENCE: u32 = 1 << 18;

/// Shortest chunk of a sum over all bars, in groups of four: every chunk is read twice, and three dispatches take some time.
const MIN_SUM_CHUNK: u32 = 64;

/// Whether four bars fit into the loop limit of the adapter.
#[must_use]
pub fn possible(class: Class, loops: Loops) -> bool {
    class == Class::Hardware || loops.burst.saturating_add(loops.bar.saturating_mul(4)) < LOOPS - 2
}

/// Most groups of four bars that one dispatch processes.
#[must_use]
pub fn most(class: Class, loops: Loops) -> u32 {
    match class {
        Class::Hardware => (PATIENCE / (1 + loops.bar)).max(1),
        Class::Software => (LOOPS.saturating_sub(loops.burst + 1) / (1 + 4 * loops.bar)).max(1),
    }
}

/// Fewest invocations that chunks are made for, whatever their warm-ups cost, and those beyond which more bring nothing.
fn occupied(class: Class) -> [u32; 2] {
    match class {
        // 512 subgroups of 32: three for each scheduler of a T4 (160), one for each of an H100 (528). With fewer, schedulers idle, and the
        // longest chunk decides the time rather than the work.
        Class::Hardware => [1 << 14, 1 << 16],
        Class::Software => [64, 64],
    }
}

/// Bars of a row for each bar that its warm-ups process together: a quarter more work.
const FAIR: u32 = 4;

/// Length of a chunk for `rows` rows of `fours` groups of four bars and a warm-up of `halo`. More chunks occupy more of the adapter and end
/// earlier, but all of them except the first of a row warm up, which is work that whole rows do not have.
///
/// A row has as many chunks as warm up over a quarter of its bars together. It has more where these are fewer invocations than the smaller
/// number of [`occupied`]: as many as that takes, but chunks stay as long as half a warm-up (as a whole one on software
/// rasterisers). It has fewer where these are more than the larger number, or more than there is memory for.
fn length(class: Class, rows: u32, fours: u32, halo: u32, lanes: u32) -> u32 {
    let rows = rows.max(1);
    let [enough, full] = occupied(class).map(|wanted| wanted.div_ceil(rows).min(lanes / rows).max(1));
    let fair = fours.checked_div(halo.saturating_mul(FAIR)).map_or(fours, |warm_ups| warm_ups + 1);
    let least = match class {
        Class::Hardware => (halo / 2).max(16),
        Class::Software => halo.max(64),
    };
    fours.div_ceil(fair.max(enough).min(full).max(1)).max(least)
}

/// Work division of one kernel over a panel. Lengths are in groups of four bars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Chunks of a row that are processed in parallel.
    pub chunks: u32,
    /// Length of a chunk, or of the part that each dispatch processes if there are several.
    pub length: u32,
    /// Number of earlier groups that a chunk processes to warm up.
    pub halo: u32,
    /// Number of dispatches, each of which resumes from the state that the previous one saved.
    pub parts: u32,
    /// Whether chunks start from states that are computed before, rather than warm up.
    pub seeded: bool,
}

impl Grid {
    /// Divides `rows` rows of `fours` groups of four bars. `memory` is the largest [`super::Spec::memory`] of the
    /// indicators; `lanes` is the number of invocations for whose windows there is memory.
    #[must_use]
    pub fn new(class: Class, rows: u32, fours: u32, memory: Option<u32>, loops: Loops, lanes: u32) -> Self {
        let most = most(class, loops);
        let whole = Self { chunks: 1, length: fours, halo: 0, parts: 1, seeded: false };
        let halo = memory.map(|bars| bars.div_ceil(4));
        // A row stays whole if it is too short to be worth the halo, or if the rows alone occupy the adapter.
        if let Some(halo) = halo.filter(|halo| *halo < most / 2) {
            let length = length(class, rows, fours, halo, lanes).min(most - halo);
            let chunks = fours.div_ceil(length);
            if chunks > 1 {
                return Self { chunks, length, halo, ..whole };
            }
        }
        if fours <= most {
            return whole;
        }
        Self { length: most, parts: fours.div_ceil(most), ..whole }
    }

    /// Divides rows of a sum over all bars, whose chunks start from the sums over those before, on a GPU; `None` if the rows alone occupy
    /// it, or are shorter than two chunks.
    #[must_use]
    pub fn of_sums(class: Class, rows: u32, fours: u32) -> Option<Self> {
        let [enough, full] = occupied(class);
        if class == Class::Software || rows >= enough {
            return None;
        }
        let length = fours.div_ceil(full.div_ceil(rows.max(1))).max(MIN_SUM_CHUNK);
        let chunks = fours.div_ceil(length);
        (chunks > 1).then_some(Self { chunks, length, halo: 0, parts: 1, seeded: true })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Atr, Indicator, Macd, Rsi};
    use super::*;

    #[test]
    fn every_bar_is_in_one_chunk_or_part() {
        for class in [Class::Hardware, Class::Software] {
            for rows in [1, 7, 1024, 100_000] {
                for fours in [1, 2, 63, 125, 1024, 25_000, 2_500_000] {
                    for memory in [Some(0), Some(9), Some(260), Some(1_900_000), None] {
                        for (bar, burst) in [(0, 0), (3, 30), (4_000, 30_000)] {
                            let loops = Loops { bar, burst };
                            let grid = Grid::new(class, rows, fours, memory, loops, u32::MAX);
                            let covered = u64::from(grid.length) * u64::from(grid.chunks * grid.parts);
                            assert!(covered >= u64::from(fours), "{grid:?}");
                            assert!(covered - u64::from(grid.length) < u64::from(fours), "{grid:?}");
                            assert!(grid.chunks == 1 || grid.parts == 1, "{grid:?}");
                            let halo = grid.chunks == 1 || grid.halo * 4 >= memory.unwrap();
                            assert!(halo, "{grid:?}");
                            let turns =
                                burst.saturating_add((grid.length + grid.halo).saturating_mul(1 + 4 * bar));
                            assert!(class == Class::Hardware || turns <= LOOPS, "{grid:?}");
                        }
                    }
                }
            }
        }
    }

    /// With the memory of the six classic indicators in bars, or another one.
    fn of(rows: u32, bars: u32, memory: u32) -> Grid {
        Grid::new(Class::Hardware, rows, bars / 4, Some(memory), Loops::default(), u32::MAX)
    }

    /// Groups of four bars that are processed, for each group of the row.
    fn work(grid: &Grid, fours: u32) -> f64 {
        1.0 + f64::from((grid.chunks - 1) * grid.halo) / f64::from(fours)
    }

    fn classic() -> u32 {
        let (rsi, macd, atr) = (Rsi::default().spec(), Macd::default().spec(), Atr::default().spec());
        [rsi, macd, atr].into_iter().filter_map(|spec| spec.unwrap().memory).max().unwrap()
    }

    #[test]
    fn few_long_series_occupy_the_adapter() {
        let enough = |rows, bars| {
            let grid = of(rows, bars, classic());
            // Chunks of whole groups of bars are a little longer.
            assert!(rows * grid.chunks >= 16_000, "{rows} x {bars}: {grid:?}");
            grid
        };
        let long = enough(1, 40_000_000);
        assert!(work(&long, 10_000_000) <= 1.25, "{long:?}");
        enough(1, 10_000_000);
        enough(8, 1_000_000);
        enough(64, 100_000);
        // Too short for that: chunks of half a warm-up.
        for (rows, bars, chunks) in [(1, 100_000, 511), (1, 400_000, 2041), (8, 100_000, 511)] {
            let short = of(rows, bars, classic());
            assert!(short.chunks == chunks && short.length == short.halo / 2, "{short:?}");
        }
        let grid = Grid::new(Class::Software, 1, 25_000, Some(260), Loops::default(), u32::MAX);
        assert_eq!((grid.chunks, grid.halo), (64, 65));
        assert_eq!(Grid::new(Class::Software, 1024, 1024, Some(260), Loops::default(), u32::MAX).chunks, 1);
    }

    #[test]
    fn warm_ups_cost_a_quarter_of_the_work_of_wide_panels() {
        for memory in [9, 20, 40, 260, classic(), 780] {
            let grid = of(8192, 4096, memory);
            assert!(grid.chunks > 1 && work(&grid, 1024) <= 1.25, "{memory}: {grid:?}");
        }
        let three = Grid { chunks: 3, length: 342, halo: 98, parts: 1, seeded: false };
        assert_eq!(of(8192, 4096, classic()), three);
        assert!((work(&three, 1024) - 1.19).abs() < 0.005);
        // A quarter would leave 3,072 invocations.
        let many = of(1024, 4096, classic());
        assert_eq!(many, Grid { chunks: 16, length: 64, ..three });
        assert!((work(&many, 1024) - 2.44).abs() < 0.005);
        assert_eq!(of(1024, 4096, 260), Grid { halo: 65, ..many });
        // Without a warm-up, as many chunks as the largest adapters can take.
        let short = of(1, 10_000_000, 4);
        assert!(short.chunks > 60_000, "{short:?}");
    }

    #[test]
    fn warm_ups_cost_more_only_if_the_adapter_would_idle() {
        for class in [Class::Hardware, Class::Software] {
            for rows in [1, 3, 64, 1000, 1024, 5000, 16_384, 100_000] {
                let [enough, full] = occupied(class).map(|wanted| wanted.div_ceil(rows).max(1));
                for fours in [16, 100, 1024, 1030, 25_000, 40_000] {
                    for bars in [0, 9, 40, 260, 1000] {
                        let loops = Loops::default();
                        let grid = Grid::new(class, rows, fours, Some(bars), loops, u32::MAX);
                        let name = format!("{class:?}, {rows} x {fours}, {bars}: {grid:?}");
                        assert!(work(&grid, fours) <= 1.25 || grid.chunks <= enough, "{name}");
                        assert!(grid.chunks <= full, "{name}");
                        let most = if class == Class::Hardware { 3 } else { 2 };
                        assert!(grid.halo + grid.length <= most * grid.length + most, "{name}");
                    }
                }
            }
        }
    }

    #[test]
    fn sums_over_few_long_rows_are_divided() {
        let of = |rows, fours| Grid::of_sums(Class::Hardware, rows, fours);
        for (rows, fours, chunks) in [(1, 2_500_000, 39_000), (64, 25_000, 390), (1024, 1024, 16)] {
            let grid = of(rows, fours).unwrap();
            assert!(grid.seeded && grid.halo == 0 && grid.chunks >= chunks, "{rows} x {fours}: {grid:?}");
            let covered = grid.chunks * grid.length;
            assert!(covered >= fours && covered - grid.length < fours, "{grid:?}");
            assert!(rows * grid.chunks <= 1 << 17, "{grid:?}");
        }
        for (rows, fours) in [(1, 64), (1, 0), (16_384, 1_000_000)] {
            assert_eq!(of(rows, fours), None);
        }
        assert_eq!(Grid::of_sums(Class::Software, 1, 1_000_000), None);
    }

    #[test]
    fn there_are_no_more_chunks_than_windows_have_memory() {
        for (rows, lanes) in [(1, 100), (7, 100), (60, 100), (200, 100)] {
            let grid = Grid::new(Class::Hardware, rows, 25_000, Some(40), Loops::default(), lanes);
            assert!(grid.chunks == 1 || rows * grid.chunks <= lanes, "{rows}: {grid:?}");
        }
    }
}
