//! Candles on the device in the layout that the indicators read.

use std::sync::Arc;

use ndarray::{Array2, ArrayView2};

use crate::gpu::{Class, Gpu};
use crate::{Error, Result};

/// Candles of several series on the device, `[series][bars]`.
///
/// A bar consists of four f32: the close, the rounding error of that f32, and the high and the low, each as its difference
/// from the close, or as a price where that has more of its digits. So closes have 48 bits, and differences of prices have the
/// precision of f32 at any price level. A NaN or infinite price counts as missing. Rows are padded with missing bars to
/// [`Series::stride`]. No bar depends on another one.
#[derive(Clone, Debug)]
pub struct Series {
    pub(super) candles: Store,
    pub(super) volumes: Option<Store>,
    close: Arc<Array2<f64>>,
    /// Length of the longest run of equal closes.
    still: u32,
}

/// Device memory of input values: a buffer, or a texture on adapters that read textures faster.
#[derive(Clone, Debug)]
pub(super) enum Store {
    Buffer(wgpu::Buffer),
    Texture(wgpu::Texture, wgpu::TextureView),
}

impl Store {
    /// Uploads `data`, which has `channels` (1 or 4) values per bar.
    fn new(gpu: &Gpu, label: &str, data: &[f32], channels: u32) -> Result<Self> {
        if gpu.class() == Class::Hardware {
            return Ok(Self::Buffer(gpu.upload(label, data)?));
        }
        let width = width(gpu);
        let bars = data.len() as u32 / channels;
        let size = wgpu::Extent3d { width, height: bars.div_ceil(width), depth_or_array_layers: 1 };
        let format =
            if channels == 4 { wgpu::TextureFormat::Rgba32Float } else { wgpu::TextureFormat::R32Float };
        let texture = gpu.texture(label, size, format)?;
        let row = (width * channels) as usize;
        let full = data.len() / row;
        for (first, rows, values) in [(0, full, &data[..full * row]), (full, 1, &data[full * row..])] {
            if values.is_empty() {
                continue;
            }
            gpu.guard(&format!("writing `{label}`"), || {
                gpu.queue().write_texture(
                    wgpu::TexelCopyTextureInfo {
                        origin: wgpu::Origin3d { x: 0, y: first as u32, z: 0 },
                        ..texture.as_image_copy()
                    },
                    bytemuck::cast_slice(values),
                    wgpu::TexelCopyBufferLayout {
                        offset: 0,
                        bytes_per_row: Some(row as u32 * 4),
                        rows_per_image: Some(rows as u32),
                    },
                    wgpu::Extent3d {
                        width: width.min(values.len() as u32 / channels),
                        height: rows as u32,
                        depth_or_array_layers: 1,
                    },
                );
            })?;
        }
        let view = texture.create_view(&wgpu::TextureViewDescriptor::default());
        Ok(Self::Texture(texture, view))
    }

    pub(super) fn resource(&self) -> wgpu::BindingResource<'_> {
        match self {
            Self::Buffer(buffer) => buffer.as_entire_binding(),
            Self::Texture(_, view) => wgpu::BindingResource::TextureView(view),
        }
    }

    /// The buffer, if it is one.
    pub(super) fn buffer(&self) -> Option<&wgpu::Buffer> {
        match self {
            Self::Buffer(buffer) => Some(buffer),
            Self::Texture(..) => None,
        }
    }

    /// Width of the texture in texels, 0 for a buffer.
    pub(super) fn width(&self) -> u32 {
        match self {
            Self::Buffer(_) => 0,
            Self::Texture(texture, _) => texture.width(),
        }
    }
}

/// Width of textures in texels: the largest power of two that the device supports.
fn width(gpu: &Gpu) -> u32 {
    1 << gpu.device().limits().max_texture_dimension_2d.max(64).ilog2()
}

impl Series {
    /// Uploads candles without volume, `[series][bars]`, in any unit.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes differ, are empty, or exceed the device's largest binding;
    /// [`Error::OutOfMemory`].
    pub fn upload(
        gpu: &Gpu,
        high: ArrayView2<'_, f64>,
        low: ArrayView2<'_, f64>,
        close: ArrayView2<'_, f64>,
    ) -> Result<Self> {
        Self::new(gpu, high, low, close, None)
    }

    /// Uploads candles with volume, `[series][bars]`, in any units.
    ///
    /// # Errors
    /// As [`Series::upload`].
    pub fn with_volume(
        gpu: &Gpu,
        high: ArrayView2<'_, f64>,
        low: ArrayView2<'_, f64>,
        close: ArrayView2<'_, f64>,
        volume: ArrayView2<'_, f64>,
    ) -> Result<Self> {
        Self::new(gpu, high, low, close, Some(volume))
    }

    fn new(
        gpu: &Gpu,
        high: ArrayView2<'_, f64>,
        low: ArrayView2<'_, f64>,
        close: ArrayView2<'_, f64>,
        volume: Option<ArrayView2<'_, f64>>,
    ) -> Result<Self> {
        let others =
            [("low prices", Some(&low)), ("close prices", Some(&close)), ("volumes", volume.as_ref())];
        for (what, values) in others {
            if let Some(values) = values.filter(|values| values.dim() != high.dim()) {
                let expected = format!("{:?} [series, bars] like the high prices", high.shape());
                return Err(Error::shape(what, expected, format!("{:?}", values.shape())));
            }
        }
        let (series, bars) = high.dim();
        if series == 0 || bars == 0 {
            let got = format!("{series} series of {bars} bars");
            return Err(Error::shape("prices", "at least one series of at least one bar", got));
        }
        let most = most_bars(gpu);
        let stride = Self::row(bars);
        if bars as u64 > most || series.checked_mul(stride).is_none_or(|all| all as u64 > most) {
            let expected =
                format!("at most {most} bars in all series together, this device's largest binding");
            return Err(Error::shape("prices", expected, format!("{series} series of {bars} bars")));
        }
        let mut candles = vec![[f32::NAN; 4]; series * stride];
        let mut still = 0;
        for s in 0..series {
            let row = &mut candles[s * stride..][..bars];
            let mut run = 0;
            for (t, bar) in row.iter_mut().enumerate() {
                *bar = encode([high[[s, t]], low[[s, t]], close[[s, t]]]);
                run = if t > 0 && close[[s, t]] == close[[s, t - 1]] { run + 1 } else { 0 };
                still = still.max(run);
            }
        }
        let candles = Store::new(gpu, "candles", bytemuck::cast_slice(&candles), 4)?;
        let volumes = match volume {
            None => None,
            Some(volume) => {
                let mut padded = vec![f32::NAN; series * stride];
                for (row, values) in padded.chunks_exact_mut(stride).zip(volume.rows()) {
                    row.iter_mut().zip(values).for_each(|(to, from)| *to = finite(*from as f32));
                }
                Some(Store::new(gpu, "volumes", &padded, 1)?)
            }
        };
        Ok(Self { candles, volumes, close: Arc::new(close.to_owned()), still })
    }

    /// Closing prices in f64, `[series][bars]`.
    #[must_use]
    pub fn close(&self) -> &Array2<f64> {
        &self.close
    }

    /// Whether some series has such a long run of equal closes that quotients of averages depend on the bars before it.
    pub(super) fn is_still(&self) -> bool {
        self.still > 64
    }

    /// Number of series.
    #[must_use]
    pub fn series(&self) -> u32 {
        self.close.nrows() as u32
    }

    /// Number of bars of a series.
    #[must_use]
    pub fn bars(&self) -> u32 {
        self.close.ncols() as u32
    }

    /// [`Series::stride`] for `bars` bars.
    pub(crate) fn row(bars: usize) -> usize {
        stride(u32::try_from(bars).unwrap_or(u32::MAX).min(u32::MAX / 2)) as usize
    }

    /// Distance between two rows of an output, in values: the number of bars, rounded up to a multiple of 4, or to an odd
    /// number of cache lines for long series.
    #[must_use]
    pub fn stride(&self) -> u32 {
        stride(self.bars())
    }
}

/// Invocations process rows in parallel; with a stride that is a power of two, their accesses would map to the same cache
/// sets.
fn stride(bars: u32) -> u32 {
    const LINE: u32 = 16;
    if bars < 16 * LINE { bars.next_multiple_of(4) } else { (bars.div_ceil(LINE) | 1) * LINE }
}

/// Most bars, over all series, that the inputs and outputs of one panel may have.
fn most_bars(gpu: &Gpu) -> u64 {
    let limits = gpu.device().limits();
    let bytes = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
    let bars = match gpu.class() {
        Class::Hardware => bytes / 16,
        Class::Software => {
            (u64::from(width(gpu)) * u64::from(limits.max_texture_dimension_2d)).min(bytes / 4)
        }
    };
    bars.min(u64::from(u32::MAX / 4))
}

/// Converts prices (high, low, close) to the device's layout: see `shaders/lib/bar.wgsl`.
pub(super) fn encode([high, low, close]: [f64; 3]) -> [f32; 4] {
    let rounded = close as f32;
    // A close beyond the range of f32 counts as missing, and without a close the other prices mean nothing.
    if !rounded.is_finite() {
        return [f32::NAN; 4];
    }
    [rounded, (close - f64::from(rounded)) as f32, edge(high, close), edge(low, close)]
}

/// The code of a high or low: its difference from the close, the last bit being 0, or the price itself, the last bit being 1,
/// if the price is less than half as large. Either way its error is below the last digit of the smaller of the two.
fn edge(price: f64, close: f64) -> f32 {
    if price.abs() >= 0.5 * close.abs() {
        return with_last_bit(price - close, 0);
    }
    // Below the smallest normal number devices may take a value for 0.
    with_last_bit(if price.abs() < 1e-37 { 1e-37 } else { price }, 1)
}

/// The f32 next to `value` among those with the given last bit; NaN if it is not finite.
fn with_last_bit(value: f64, bit: u32) -> f32 {
    let rounded = finite(value as f32);
    if rounded.is_nan() || rounded.to_bits() & 1 == bit {
        return rounded;
    }
    let neighbours = [rounded.to_bits() - 1, rounded.to_bits() + 1].map(f32::from_bits);
    let [inside, outside] = neighbours.map(|neighbour| (f64::from(neighbour) - value).abs());
    if inside < outside { neighbours[0] } else { finite(neighbours[1]) }
}

/// Maps infinities to NaN, which marks a missing value.
pub(super) fn finite(value: f32) -> f32 {
    if value.is_finite() { value } else { f32::NAN }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    /// The price that the device decodes.
    fn decoded(code: f32, [close, rest]: [f32; 2]) -> f64 {
        let close = if code.to_bits() & 1 == 1 { 0.0 } else { f64::from(close) + f64::from(rest) };
        close + f64::from(code)
    }

    #[test]
    fn prices_keep_their_digits_whatever_the_close_is() {
        let prices = [
            [1e6 + 3.0, 1e6 - 1.0, 1e6 + 1.0 / 3.0],
            [98_110.37, 98.11, 98_110.37],
            [98.23, 0.098_11, 98.17],
            [98.23, 0.098_11, 0.098_11],
            [1e-6, -37.63, -37.63],
            [5.0, 0.0, 5.0],
            [7.1, 7.1, 7.1],
        ];
        for [high, low, close] in prices {
            let [rounded, rest, codes @ ..] = encode([high, low, close]);
            let pair = f64::from(rounded) + f64::from(rest);
            assert!((pair - close).abs() <= 2f64.powi(-48) * close.abs(), "{pair}, not {close}");
            for (code, price) in codes.into_iter().zip([high, low]) {
                let got = decoded(code, [rounded, rest]);
                let allowed = 1.2e-7 * price.abs().min((price - close).abs()) + 2f64.powi(-48) * close.abs();
                assert!((got - price).abs() <= allowed.max(1e-36), "{got}, not {price}, at {close}");
            }
        }
        let flat = encode([7.1; 3]);
        assert_eq!(flat[2..], [0.0; 2]);
    }

    #[test]
    fn non_finite_prices_are_missing() {
        let (nan, inf) = (f64::NAN, f64::INFINITY);
        let prices = [[2.0, 1.0, nan], [3.0, 2.0, 2.5], [nan, 2.0, 3.0], [4.0, -inf, inf], [4.0, 3.0, 1e39]];
        let shown = prices.map(|bar| encode(bar).map(|x| if x.is_nan() { -1.0 } else { x }));
        let missing = [-1.0; 4];
        assert_eq!(shown, [missing, [2.5, 0.0, 0.5, -0.5], [3.0, 0.0, -1.0, -1.0], missing, missing]);
    }

    #[test]
    fn strides_are_multiples_of_four_and_no_powers_of_two() {
        for (bars, expected) in [(1, 4), (100, 100), (255, 256), (256, 272), (4096, 4112), (100_000, 100_016)]
        {
            assert_eq!(stride(bars), expected);
        }
    }

    #[test]
    fn wrong_shapes_are_explained() {
        let gpu = crate::testing::gpu();
        let [full, short, none] = [(2, 5), (2, 4), (0, 5)].map(Array2::<f64>::zeros);
        let error = Series::upload(&gpu, full.view(), short.view(), full.view()).unwrap_err().to_string();
        assert!(
            error.contains("low prices") && error.contains("[2, 5]") && error.contains("[2, 4]"),
            "{error}"
        );
        let all = full.view();
        let error = Series::with_volume(&gpu, all, all, all, short.view()).unwrap_err().to_string();
        assert!(error.contains("volumes") && error.contains("[2, 4]"), "{error}");
        let error = Series::upload(&gpu, none.view(), none.view(), none.view()).unwrap_err().to_string();
        assert!(error.contains("at least one series") && error.contains("0 series of 5 bars"), "{error}");
    }

    #[test]
    fn arrays_may_have_any_memory_layout() {
        let gpu = crate::testing::gpu();
        let bars_first = array![[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]];
        let view = bars_first.t();
        let series = Series::upload(&gpu, view, view, view).unwrap();
        assert_eq!((series.series(), series.bars(), series.stride()), (2, 3, 4));
        assert_eq!(series.close(), &array![[1.0, 2.0, 4.0], [10.0, 20.0, 40.0]]);
    }
}
