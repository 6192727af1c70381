//! Prices on the device.

use ndarray::ArrayView2;

use crate::gpu::Gpu;
use crate::{Error, Result};

/// High, low and close of several instruments on the device, `[series][bars]` in f32.
///
/// A price p is kept relative to its series' base b, the first finite close: the head is p - b rounded to f32, the tail
/// is what that left out. Head and tail together carry 48 bits of p - b, so that differences of prices are right to the
/// last digit of f32 wherever the price level is. Consumers for which 24 bits of p - b will do bind the heads alone. A
/// NaN or infinite price is a NaN head with tail 0.
#[derive(Clone, Debug)]
pub struct Series {
    high: [wgpu::Buffer; 2],
    low: [wgpu::Buffer; 2],
    close: [wgpu::Buffer; 2],
    base: Vec<f64>,
    series: u32,
    bars: u32,
}

impl Series {
    /// Uploads prices of shape `[series][bars]`, in any unit.
    ///
    /// # Errors
    /// [`Error::Shape`] if the three shapes differ, hold no series or no bar, or exceed the device's largest binding;
    /// [`Error::OutOfMemory`].
    pub fn upload(
        gpu: &Gpu,
        high: ArrayView2<'_, f64>,
        low: ArrayView2<'_, f64>,
        close: ArrayView2<'_, f64>,
    ) -> Result<Self> {
        for (what, prices) in [("low prices", &low), ("close prices", &close)] {
            if prices.dim() != high.dim() {
                let expected = format!("{:?} [series, bars] as the high prices", high.shape());
                return Err(Error::shape(what, expected, format!("{:?}", prices.shape())));
            }
        }
        let (series, bars) = (high.nrows(), high.ncols());
        if series == 0 || bars == 0 {
            let got = format!("{series} series of {bars} bars");
            return Err(Error::shape("prices", "at least one series of at least one bar", got));
        }
        let limits = gpu.device().limits();
        let most = (limits.max_storage_buffer_binding_size.min(limits.max_buffer_size) / 4)
            .min(u64::from(u32::MAX / 4)) as usize;
        if series.checked_mul(bars).is_none_or(|values| values > most) {
            let expected = format!("at most {most} values, this device's largest binding");
            return Err(Error::shape("prices", expected, format!("{series} series of {bars} bars")));
        }
        let base: Vec<f64> = close.rows().into_iter().map(|row| first_finite(row.iter().copied())).collect();
        let pair = |name: &str, prices: &ArrayView2<'_, f64>| -> Result<[wgpu::Buffer; 2]> {
            let (heads, tails) = split(prices, &base);
            Ok([gpu.upload(name, &heads)?, gpu.upload(&format!("{name} tail"), &tails)?])
        };
        Ok(Self {
            high: pair("high", &high)?,
            low: pair("low", &low)?,
            close: pair("close", &close)?,
            base,
            series: series as u32,
            bars: bars as u32,
        })
    }

    /// High prices minus the base.
    #[must_use]
    pub fn high(&self) -> &wgpu::Buffer {
        &self.high[0]
    }

    /// What the f32 of [`Series::high`] could not hold.
    #[must_use]
    pub fn high_tail(&self) -> &wgpu::Buffer {
        &self.high[1]
    }

    /// Low prices minus the base.
    #[must_use]
    pub fn low(&self) -> &wgpu::Buffer {
        &self.low[0]
    }

    /// What the f32 of [`Series::low`] could not hold.
    #[must_use]
    pub fn low_tail(&self) -> &wgpu::Buffer {
        &self.low[1]
    }

    /// Closing prices minus the base.
    #[must_use]
    pub fn close(&self) -> &wgpu::Buffer {
        &self.close[0]
    }

    /// What the f32 of [`Series::close`] could not hold.
    #[must_use]
    pub fn close_tail(&self) -> &wgpu::Buffer {
        &self.close[1]
    }

    /// Base price of every series; 0 for one without a finite close.
    #[must_use]
    pub fn base(&self) -> &[f64] {
        &self.base
    }

    /// Number of series.
    #[must_use]
    pub fn series(&self) -> u32 {
        self.series
    }

    /// Bars of a series.
    #[must_use]
    pub fn bars(&self) -> u32 {
        self.bars
    }

    /// Checks that a buffer holds one f32 a bar and series.
    pub(super) fn check(&self, what: &str, buffer: &wgpu::Buffer) -> Result<()> {
        let needed = u64::from(self.series) * u64::from(self.bars) * 4;
        if buffer.size() < needed {
            return Err(Error::shape(what, format!("at least {needed} bytes"), buffer.size()));
        }
        Ok(())
    }
}

/// The first finite price: unlike a mean or a midpoint it knows nothing of later bars, so that no later bar can change
/// an earlier output, not even in its last bit.
fn first_finite(mut prices: impl Iterator<Item = f64>) -> f64 {
    prices.find(|price| price.is_finite()).unwrap_or(0.0)
}

fn split(prices: &ArrayView2<'_, f64>, base: &[f64]) -> (Vec<f32>, Vec<f32>) {
    let rows = prices.rows();
    rows.into_iter()
        .zip(base)
        .flat_map(|(row, base)| row.into_iter().map(move |price| price - base))
        .map(|price| {
            let head = price as f32;
            if head.is_finite() { (head, (price - f64::from(head)) as f32) } else { (f32::NAN, 0.0) }
        })
        .unzip()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::GpuOptions;
    use ndarray::{Array2, array};

    #[test]
    fn head_and_tail_keep_48_bits_about_the_base() {
        let gpu = Gpu::open(&GpuOptions { checked: true, ..Default::default() }).unwrap();
        let close = array![[1e6, 1e6 + 1.0 / 3.0, f64::NAN, 1e6 + 7.1], [0.25, 0.75, f64::INFINITY, 0.3]];
        let high = &close * 1.01;
        let series = Series::upload(&gpu, high.view(), close.view(), close.view()).unwrap();
        assert_eq!((series.series(), series.bars()), (2, 4));
        assert_eq!(series.base(), [1e6, 0.25]);
        for (heads, tails, prices) in [
            (series.high(), series.high_tail(), &high),
            (series.low(), series.low_tail(), &close),
            (series.close(), series.close_tail(), &close),
        ] {
            let heads: Vec<f32> = gpu.read(heads).unwrap();
            let tails: Vec<f32> = gpu.read(tails).unwrap();
            for (i, price) in prices.iter().enumerate() {
                let relative = price - series.base()[i / 4];
                if price.is_finite() {
                    let got = f64::from(heads[i]) + f64::from(tails[i]);
                    assert!((got - relative).abs() <= relative.abs() * 2f64.powi(-48), "{i}: {got}");
                    assert_eq!(heads[i], relative as f32);
                } else {
                    assert!(heads[i].is_nan() && tails[i] == 0.0, "{i}");
                }
            }
        }
    }

    #[test]
    fn columns_may_lie_in_any_order_in_memory() {
        let gpu = Gpu::open(&GpuOptions { checked: true, ..Default::default() }).unwrap();
        let bars_first = array![[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]];
        let view = bars_first.t();
        let series = Series::upload(&gpu, view, view, view).unwrap();
        let close: Vec<f32> = gpu.read(series.close()).unwrap();
        assert_eq!(close[..6], [0.0, 1.0, 3.0, 0.0, 10.0, 30.0]);
    }

    #[test]
    fn wrong_shapes_are_explained() {
        let gpu = Gpu::open(&GpuOptions { checked: true, ..Default::default() }).unwrap();
        let [full, short, none] = [(2, 5), (2, 4), (0, 5)].map(Array2::<f64>::zeros);
        let error = Series::upload(&gpu, full.view(), short.view(), full.view()).unwrap_err().to_string();
        assert!(
            error.contains("low prices") && error.contains("[2, 5]") && error.contains("[2, 4]"),
            "{error}"
        );
        let error = Series::upload(&gpu, none.view(), none.view(), none.view()).unwrap_err().to_string();
        assert!(error.contains("at least one series") && error.contains("0 series of 5 bars"), "{error}");
    }

    #[test]
    fn later_bars_leave_earlier_ones_as_they_are() {
        let gpu = Gpu::open(&GpuOptions { checked: true, ..Default::default() }).unwrap();
        let long = array![[f64::NAN, 10.1, 10.7, 9.3, 1e4]];
        let short = long.slice(ndarray::s![.., ..4]);
        let [long, short] = [long.view(), short].map(|close| {
            let series = Series::upload(&gpu, close, close, close).unwrap();
            assert_eq!(series.base(), [10.1]);
            let read = |buffer| gpu.read::<u32>(buffer).unwrap()[..4].to_vec();
            (read(series.close()), read(series.close_tail()))
        });
        assert_eq!(long, short);
    }

    #[test]
    fn a_series_without_a_price_has_base_zero() {
        let gpu = Gpu::open(&GpuOptions { checked: true, ..Default::default() }).unwrap();
        let nothing = Array2::from_elem((1, 3), f64::NAN);
        let series = Series::upload(&gpu, nothing.view(), nothing.view(), nothing.view()).unwrap();
        assert_eq!(series.base(), [0.0]);
    }
}
