//! Candles on the device in the layout that the indicators read.

use std::sync::Arc;

use ndarray::{Array2, ArrayView2};

use crate::gpu::{Class, Gpu};
use crate::{Error, Result};

/// Candles of several series on the device, `[series][bars]`.
///
/// A bar consists of four f32: the close minus the previous close, the high minus the close, the close minus the low, and
/// the close. The differences are computed in f64, so that they have full f32 precision at any price level. The change of
/// the first close, and of a close after a missing one, is 0. A NaN or infinite price counts as missing. Rows are padded
/// with missing bars to [`Series::stride`]. No bar depends on a later one.
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
            fill(row, f64::NAN, (0..bars).map(|t| [high[[s, t]], low[[s, t]], close[[s, t]]]));
            let runs = row.split(|bar| bar[0] != 0.0).map(|run| run.len() as u32);
            still = runs.fold(still, u32::max);
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

/// Converts a row of prices (high, low, close) that follows the close `before` to the device's layout. Returns the last
/// close.
pub(super) fn fill(row: &mut [[f32; 4]], before: f64, prices: impl Iterator<Item = [f64; 3]>) -> f64 {
    let mut before = before;
    for (bar, [high, low, close]) in row.iter_mut().zip(prices) {
        // `0.0 * close` is NaN if the close is not finite: then the change is missing too.
        let change = if before.is_finite() { close - before } else { 0.0 * close };
        *bar = [change, high - close, close - low, close].map(|value| finite(value as f32));
        // A close beyond the range of f32 counts as missing.
        if bar[3].is_nan() {
            bar[0] = f32::NAN;
        }
        before = if bar[3].is_nan() { f64::NAN } else { close };
    }
    before
}

/// Maps infinities to NaN, which marks a missing value.
pub(super) fn finite(value: f32) -> f32 {
    if value.is_finite() { value } else { f32::NAN }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn differences_have_full_f32_precision() {
        let prices = [[1e6 + 3.0, 1e6 - 1.0, 1e6 + 1.0 / 3.0], [1e6 + 7.2, 1e6, 1e6 + 7.1]];
        let mut row = [[0.0; 4]; 2];
        let last = fill(&mut row, f64::NAN, prices.into_iter());
        assert_eq!(last, 1e6 + 7.1);
        for (got, want) in row.as_flattened().iter().zip([
            0.0,
            8.0 / 3.0,
            4.0 / 3.0,
            1e6 + 1.0 / 3.0,
            7.1 - 1.0 / 3.0,
            0.1,
            7.1,
            1e6 + 7.1,
        ]) {
            assert!((f64::from(*got) - want).abs() <= 1e-7 * want, "{got}, not {want}");
        }
    }

    #[test]
    fn non_finite_prices_are_missing_and_the_next_close_has_no_change() {
        let (nan, inf) = (f64::NAN, f64::INFINITY);
        let prices = [[2.0, 1.0, nan], [3.0, 2.0, 2.5], [nan, 2.0, 3.0], [4.0, 3.0, inf], [4.0, 3.0, 3.5]];
        let mut row = [[0.0; 4]; 5];
        fill(&mut row, 5.0, prices.into_iter());
        let shown = row.map(|bar| bar.map(|x| if x.is_nan() { -1.0 } else { x }));
        let missing = [-1.0; 4];
        let expected = [missing, [0.0, 0.5, 0.5, 2.5], [0.5, -1.0, 1.0, 3.0], missing, [0.0, 0.5, 0.5, 3.5]];
        assert_eq!(shown, expected);
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
