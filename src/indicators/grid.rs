//! The division of a panel into chunks and dispatches, as pure functions.

use super::compose::Loops;
use crate::gpu::Class;

/// Loop iterations that an invocation may use on llvmpipe, which silently stops the loops of an invocation after 65,535
/// iterations in total (`LP_MAX_TGSI_LOOP_ITERATIONS`). The iteration that ends a loop counts too.
const LOOPS: u32 = 50_000;

/// Most groups of four bars that one dispatch processes on a GPU: the watchdog resets a GPU after a few seconds.
const PATIENCE: u32 = 1 << 18;

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

/// Numbers of invocations with which an adapter is busy, and beyond which more bring nothing.
fn occupied(class: Class) -> [u32; 2] {
    match class {
        // Two or three subgroups on every scheduler of a GPU of the middle class; as many on those of the largest.
        Class::Hardware => [1 << 14, 1 << 16],
        Class::Software => [64, 64],
    }
}

/// Lengths of a chunk's warm-up in the length of a chunk from which it costs little: a quarter more work.
const FAIR: u32 = 4;

/// Length of a chunk for `rows` rows of `fours` groups of four bars and a warm-up of `halo`. More chunks occupy more of the adapter
/// and end earlier, but all of them warm up. As many as the adapter can take are made if the warm-up is at most a quarter of each; fewer
/// than keep it busy are not made for that, unless a warm-up would be twice the chunk or, on software rasterisers, as long as it.
fn length(class: Class, rows: u32, fours: u32, halo: u32, lanes: u32) -> u32 {
    let [busy, full] =
        occupied(class).map(|wanted| fours.div_ceil(wanted.min(lanes).div_ceil(rows.max(1)).max(1)));
    let least = match class {
        Class::Hardware => (halo / 2).max(16),
        Class::Software => halo.max(64),
    };
    halo.saturating_mul(FAIR).min(busy).max(full).max(least)
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
}

impl Grid {
    /// Divides `rows` rows of `fours` groups of four bars. `memory` is the largest [`super::Spec::memory`] of the
    /// indicators; `lanes` is the number of invocations for whose windows there is memory.
    #[must_use]
    pub fn new(class: Class, rows: u32, fours: u32, memory: Option<u32>, loops: Loops, lanes: u32) -> Self {
        let most = most(class, loops);
        let whole = Self { chunks: 1, length: fours, halo: 0, parts: 1 };
        let halo = memory.map(|bars| bars.div_ceil(4));
        // A row stays whole if it is too short to be worth the halo, or if the rows alone occupy the adapter.
        if let Some(halo) = halo.filter(|halo| *halo < most / 2) {
            let length = length(class, rows, fours, halo, lanes).min(most - halo);
            let chunks = fours.div_ceil(length);
            if chunks > 1 {
                return Self { chunks, length, halo, parts: 1 };
            }
        }
        if fours <= most {
            return whole;
        }
        Self { length: most, parts: fours.div_ceil(most), ..whole }
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn one_long_series_occupies_the_adapter() {
        let grid = Grid::new(Class::Hardware, 1, 2_500_000, Some(260), Loops::default(), u32::MAX);
        assert!(grid.chunks >= 16_000, "{grid:?}");
        let grid = Grid::new(Class::Software, 1, 25_000, Some(260), Loops::default(), u32::MAX);
        assert_eq!((grid.chunks, grid.halo), (64, 65));
        assert_eq!(Grid::new(Class::Software, 1024, 1024, Some(260), Loops::default(), u32::MAX).chunks, 1);
    }

    /// Warm-ups cost at most a quarter where the series are long enough to keep the adapter busy without them.
    #[test]
    fn warm_ups_cost_a_quarter_unless_the_adapter_would_idle() {
        for class in [Class::Hardware, Class::Software] {
            let [busy, full] = occupied(class);
            for rows in [1, 3, 64, 1000, 1024, 5000, 16_384, 100_000] {
                for fours in [16, 100, 1024, 1030, 25_000, 40_000] {
                    for bars in [0, 9, 40, 260, 1000] {
                        let loops = Loops::default();
                        let grid = Grid::new(class, rows, fours, Some(bars), loops, u32::MAX);
                        if grid.chunks == 1 {
                            continue;
                        }
                        let name = format!("{class:?}, {rows} x {fours}, {bars}: {grid:?}");
                        let fair = grid.halo * FAIR <= grid.length;
                        // Chunks of equal length, of which the last may be shorter.
                        let enough =
                            |lanes: u32| rows * grid.chunks.min(fours.div_ceil(grid.length)) <= 2 * lanes;
                        // Long series: as many chunks as keep the adapter busy have a warm-up of a quarter.
                        let long = u64::from(rows) * u64::from(fours)
                            >= u64::from(busy) * u64::from(grid.halo * FAIR)
                                + u64::from(rows * grid.halo * FAIR);
                        assert!(fair || !long, "{name}");
                        assert!(fair || enough(busy.max(rows)), "{name}");
                        assert!(enough(full.max(rows)), "{name}");
                        let most = if class == Class::Hardware { 3 } else { 2 };
                        assert!(grid.halo + grid.length <= most * grid.length + most, "{name}");
                    }
                }
            }
        }
        // The work of 1,024 series of 4,096 bars with a warm-up of 260: twice that of the bars, where chunks of half a warm-up did
        // three times as much; that of 8,192 series: a quarter more.
        let of = |rows, fours| Grid::new(Class::Hardware, rows, fours, Some(260), Loops::default(), u32::MAX);
        assert_eq!(of(1024, 1024), Grid { chunks: 16, length: 64, halo: 65, parts: 1 });
        assert_eq!(of(8192, 1024), Grid { chunks: 4, length: 260, halo: 65, parts: 1 });
        // Without a warm-up, as many chunks as the largest adapters can take.
        let short = Grid::new(Class::Hardware, 1, 2_500_000, Some(4), Loops::default(), u32::MAX);
        assert!(short.chunks > 60_000, "{short:?}");
    }
}
