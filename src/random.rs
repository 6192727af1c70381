//! Counter-based random numbers on the CPU, bit-identical to `shaders/lib/random.wgsl`.
//!
//! Public for rules written in Rust ([`crate::env::CpuEnv`]) and for synthetic data that has to be reproducible.

/// Threefry-2x32 with 20 rounds: 64 random bits for a key and a counter.
///
/// Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC11.
#[must_use]
pub fn threefry(key: [u32; 2], counter: [u32; 2]) -> [u32; 2] {
    const ROTATIONS: [[u32; 4]; 2] = [[13, 15, 26, 6], [17, 29, 16, 24]];
    let keys = [key[0], key[1], 0x1BD1_1BDA ^ key[0] ^ key[1]];
    let mut x = [counter[0].wrapping_add(keys[0]), counter[1].wrapping_add(keys[1])];
    for block in 0..5u32 {
        for rotation in ROTATIONS[block as usize % 2] {
            x[0] = x[0].wrapping_add(x[1]);
            x[1] = x[1].rotate_left(rotation) ^ x[0];
        }
        let at = block as usize + 1;
        x[0] = x[0].wrapping_add(keys[at % 3]);
        x[1] = x[1].wrapping_add(keys[(at + 1) % 3]).wrapping_add(block + 1);
    }
    x
}

/// A reproducible stream of random numbers.
///
/// ```
/// use phalanx::random::Stream;
///
/// let (mut first, mut second) = (Stream::new(7, 0), Stream::new(7, 0));
/// assert_eq!(first.uniform(), second.uniform());
/// ```
#[derive(Clone, Debug)]
pub struct Stream {
    key: [u32; 2],
    counter: [u32; 2],
}

impl Stream {
    /// Stream number `name` of a seed. Streams of one seed are independent.
    #[must_use]
    pub fn new(seed: u64, name: u32) -> Self {
        Self { key: [seed as u32, (seed >> 32) as u32], counter: [0, name] }
    }

    /// Draws from the uniform distribution on (0, 1).
    pub fn uniform(&mut self) -> f64 {
        let [high, low] = threefry(self.key, self.counter);
        self.counter[0] = self.counter[0].wrapping_add(1);
        (((u64::from(high) << 32 | u64::from(low)) >> 12) as f64 + 0.5) / (1u64 << 52) as f64
    }

    /// Draws from the standard normal distribution (Box-Muller transform).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known-answer vectors of the Random123 library for threefry2x32 with 20 rounds.
    #[test]
    fn known_answers() {
        assert_eq!(threefry([0, 0], [0, 0]), [0x6b20_0159, 0x99ba_4efe]);
        assert_eq!(threefry([!0, !0], [!0, !0]), [0x1cb9_96fc, 0xbb00_2be7]);
        assert_eq!(
            threefry([0x1319_8a2e, 0x0370_7344], [0x243f_6a88, 0x85a3_08d3]),
            [0xc492_3a9c, 0x483d_f7a0]
        );
    }

    #[test]
    fn normals_have_the_right_moments() {
        let mut stream = Stream::new(5, 0);
        let draws: Vec<f64> = (0..20_000).map(|_| stream.normal()).collect();
        let mean = draws.iter().sum::<f64>() / 20_000.0;
        let square = draws.iter().map(|x| x * x).sum::<f64>() / 20_000.0;
        assert!(mean.abs() < 0.03 && (square - 1.0).abs() < 0.04, "{mean} {square}");
    }
}
