//! All indicators over one panel of instruments.

use ndarray::Array2;

use super::{Parameters, Series, atr, bollinger, macd, momentum, rsi, stochastic};
use crate::gpu::{Arena, Command, Gpu, Kernel, Plan};
use crate::{Error, Result};

/// The compiled kernels with their periods.
#[derive(Clone, Debug)]
pub struct Indicators {
    gpu: Gpu,
    parameters: Parameters,
    rsi: Kernel,
    macd: Kernel,
    bollinger: Kernel,
    atr: Kernel,
    momentum: Kernel,
    stochastic: Kernel,
}

impl Indicators {
    /// Checks the parameters and compiles the kernels.
    ///
    /// # Errors
    /// [`Error::Config`] as [`Parameters::validate`], [`Error::Shader`], [`Error::Gpu`].
    pub fn new(gpu: &Gpu, parameters: Parameters) -> Result<Self> {
        parameters.validate()?;
        Ok(Self {
            gpu: gpu.clone(),
            parameters,
            rsi: rsi::kernel(gpu)?,
            macd: macd::kernel(gpu)?,
            bollinger: bollinger::kernel(gpu)?,
            atr: atr::kernel(gpu)?,
            momentum: momentum::kernel(gpu)?,
            stochastic: stochastic::kernel(gpu)?,
        })
    }

    /// The periods.
    #[must_use]
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Output buffers for so many series of so many bars.
    #[must_use]
    pub fn plan(series: u32, bars: u32) -> Plan {
        let mut plan = Plan::new();
        for name in NAMES.iter().copied().chain(["bb_offset", "bb_width"]) {
            plan.words(name, u64::from(series) * u64::from(bars));
        }
        plan
    }

    /// Allocates the outputs for `series` and records the kernels. They run when the application replays
    /// [`Panel::commands`].
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::Gpu`], [`Error::DeviceLost`].
    pub fn panel(&self, series: &Series) -> Result<Panel> {
        let gpu = &self.gpu;
        let arena = Arena::allocate(gpu, &Self::plan(series.series(), series.bars()))?;
        let buffers = Buffers::of(&arena)?;
        let Parameters { macd_fast, macd_slow, macd_signal, .. } = self.parameters;
        let Parameters { bollinger_period, bollinger_deviations, .. } = self.parameters;
        let Parameters { rsi_period, atr_period, momentum_period, .. } = self.parameters;
        let Parameters { stochastic_k, stochastic_d, .. } = self.parameters;
        let lines = [&buffers.macd, &buffers.macd_signal, &buffers.macd_hist];
        let Buffers { bb_upper, bb_middle, bb_lower, bb_offset, bb_width, .. } = &buffers;
        let bands = [bb_upper, bb_middle, bb_lower, bb_offset, bb_width];
        let percents = [&buffers.stoch_k, &buffers.stoch_d];
        let width = (bollinger_period, bollinger_deviations);
        let windows = (stochastic_k, stochastic_d);
        let commands = vec![
            rsi::record(gpu, &self.rsi, rsi_period, series, &buffers.rsi)?,
            macd::record(gpu, &self.macd, [macd_fast, macd_slow, macd_signal], series, lines)?,
            bollinger::record(gpu, &self.bollinger, width, series, bands)?,
            atr::record(gpu, &self.atr, atr_period, series, &buffers.atr)?,
            momentum::record(gpu, &self.momentum, momentum_period, series, &buffers.mom)?,
            stochastic::record(gpu, &self.stochastic, windows, series, percents)?,
        ];
        Ok(Panel { buffers, commands, bytes: arena.bytes(), series: series.clone() })
    }
}

/// Declares the outputs once: their names, their buffers and their values.
macro_rules! outputs {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];

        /// Outputs on the device, f32 `[series][bars]` each, NaN where there is no value yet.
        #[derive(Clone, Debug)]
        pub struct Buffers {
            $($(#[$doc])* pub $name: wgpu::Buffer,)*
            /// Middle of the Bollinger bands minus the close, in the unit of the price: right to the last digits at any
            /// distance from the base.
            pub bb_offset: wgpu::Buffer,
            /// Half the distance of the Bollinger bands, in the unit of the price.
            pub bb_width: wgpu::Buffer,
        }

        impl Buffers {
            fn of(arena: &Arena) -> Result<Self> {
                Ok(Self {
                    $($name: arena.get(stringify!($name))?.clone(),)*
                    bb_offset: arena.get("bb_offset")?.clone(),
                    bb_width: arena.get("bb_width")?.clone(),
                })
            }
        }

        /// Outputs on the host, `[series][bars]` each, NaN where there is no value yet. All have the precision of
        /// f32; the Bollinger bands that of their distance to the close.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Values {
            $($(#[$doc])* pub $name: Array2<f64>,)*
        }

        impl Values {
            /// Names and values in the order of their declaration.
            #[must_use]
            pub fn columns(&self) -> Vec<(&'static str, &Array2<f64>)> {
                vec![$((stringify!($name), &self.$name)),*]
            }
        }
    };
}

outputs! {
    /// Relative strength index, 0 to 100.
    rsi,
    /// MACD line, in the unit of the price.
    macd,
    /// MACD signal, in the unit of the price.
    macd_signal,
    /// MACD histogram, in the unit of the price.
    macd_hist,
    /// Upper Bollinger band, a price: on the device relative to the base of its series, on the host absolute.
    bb_upper,
    /// Middle of the Bollinger bands, a price: on the device relative to the base, on the host absolute.
    bb_middle,
    /// Lower Bollinger band, a price: on the device relative to the base, on the host absolute.
    bb_lower,
    /// Average true range, in the unit of the price.
    atr,
    /// Momentum, in the unit of the price.
    mom,
    /// Stochastic %K, 0 to 100.
    stoch_k,
    /// Stochastic %D, 0 to 100.
    stoch_d,
}

/// Outputs of all indicators for one [`Series`], and the commands that compute them.
#[derive(Clone, Debug)]
pub struct Panel {
    /// The outputs. They stay on the device, for other kernels to bind.
    pub buffers: Buffers,
    commands: Vec<Command>,
    series: Series,
    bytes: u64,
}

impl Panel {
    /// What computes the outputs from the series, recorded once. Any number of replays gives the same bytes.
    #[must_use]
    pub fn commands(&self) -> Vec<Command> {
        self.commands.clone()
    }

    /// Bytes of the outputs on the device.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Copies the outputs to the host, where the Bollinger bands become prices. Call it after the commands were
    /// submitted; it waits for them.
    ///
    /// # Errors
    /// [`Error::DeviceLost`], [`Error::OutOfMemory`].
    pub fn read(&self, gpu: &Gpu) -> Result<Values> {
        let shape = (self.series.series() as usize, self.series.bars() as usize);
        let get = |buffer: &wgpu::Buffer| read(gpu, buffer, shape);
        // The bands from the close rather than from the base, which may be thousands of times the price.
        let mut middle = get(self.series.close())? + get(self.series.close_tail())?;
        for (mut row, base) in middle.rows_mut().into_iter().zip(self.series.base()) {
            row += *base;
        }
        middle += &get(&self.buffers.bb_offset)?;
        let width = get(&self.buffers.bb_width)?;
        Ok(Values {
            rsi: get(&self.buffers.rsi)?,
            macd: get(&self.buffers.macd)?,
            macd_signal: get(&self.buffers.macd_signal)?,
            macd_hist: get(&self.buffers.macd_hist)?,
            bb_upper: &middle + &width,
            bb_lower: &middle - &width,
            bb_middle: middle,
            atr: get(&self.buffers.atr)?,
            mom: get(&self.buffers.mom)?,
            stoch_k: get(&self.buffers.stoch_k)?,
            stoch_d: get(&self.buffers.stoch_d)?,
        })
    }
}

fn read(gpu: &Gpu, buffer: &wgpu::Buffer, (series, bars): (usize, usize)) -> Result<Array2<f64>> {
    let values: Vec<f32> = gpu.read(buffer)?;
    let values = values.into_iter().take(series * bars).map(f64::from).collect();
    Array2::from_shape_vec((series, bars), values)
        .map_err(|error| Error::shape("output buffer", format!("{series} x {bars} values"), error))
}

#[cfg(test)]
mod tests {
    use super::super::reference::{Prices, upload_close};
    use super::*;
    use crate::gpu::{GpuOptions, Recorder};
    use ndarray::array;

    fn open() -> Gpu {
        Gpu::open(&GpuOptions { checked: true, ..Default::default() }).unwrap()
    }

    #[test]
    fn the_plan_is_what_gets_allocated() {
        let gpu = open();
        let prices = Prices::walk("walk", 3, 7, 10.0, 0.01);
        let panel = Indicators::new(&gpu, Parameters::default())
            .unwrap()
            .panel(&upload_close(&gpu, prices.close.view()))
            .unwrap();
        let plan = Indicators::plan(3, 7);
        assert_eq!((panel.bytes(), plan.entries().len()), (13 * 96, 13));
        assert_eq!(panel.bytes(), plan.bytes());
        assert_eq!(panel.buffers.stoch_d.size(), 96);
    }

    #[test]
    fn values_have_names_base_prices_and_their_warm_up_and_replay_gives_the_same_bytes() {
        let gpu = open();
        let prices = Prices::walk("walk", 2, 60, 1e5, 0.001);
        let [high, low, close] = [&prices.high, &prices.low, &prices.close].map(|prices| prices.view());
        let series = Series::upload(&gpu, high, low, close).unwrap();
        let panel = Indicators::new(&gpu, Parameters::default()).unwrap().panel(&series).unwrap();
        let mut recorder = Recorder::new(&gpu);
        recorder.run(&panel.commands()).unwrap();
        assert_eq!((recorder.counts().dispatches, recorder.counts().submits), (6, 1));
        let values = panel.read(&gpu).unwrap();
        let created = gpu.buffers_created();
        recorder.run(&panel.commands()).unwrap();
        assert_eq!(gpu.buffers_created(), created, "a replay allocates nothing");
        let again = panel.read(&gpu).unwrap();
        let first_valid: Vec<_> = values
            .columns()
            .iter()
            .zip(again.columns())
            .map(|((name, values), (_, again))| {
                let bits = |array: &Array2<f64>| array.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(values), bits(again), "{name}");
                (*name, values.row(1).iter().position(|x| !x.is_nan()).unwrap())
            })
            .collect();
        let expected = [
            ("rsi", 14),
            ("macd", 33),
            ("macd_signal", 33),
            ("macd_hist", 33),
            ("bb_upper", 19),
            ("bb_middle", 19),
            ("bb_lower", 19),
            ("atr", 14),
            ("mom", 10),
            ("stoch_k", 15),
            ("stoch_d", 15),
        ];
        assert_eq!(first_valid, expected);
        for s in 0..2 {
            let mean = prices.close.row(s).iter().skip(21).take(20).sum::<f64>() / 20.0;
            assert!((values.bb_middle[[s, 40]] - mean).abs() < 1e-4, "{}", values.bb_middle[[s, 40]]);
        }
    }

    #[test]
    fn parameters_reach_their_kernels() {
        let gpu = open();
        let parameters = Parameters {
            rsi_period: 2,
            macd_fast: 2,
            macd_slow: 4,
            macd_signal: 3,
            bollinger_period: 5,
            bollinger_deviations: 1.0,
            atr_period: 3,
            momentum_period: 1,
            stochastic_k: 7,
            stochastic_d: 2,
        };
        let close = array![[1.0, 2.0, 4.0, 3.0, 5.0, 9.0, 8.0, 7.0, 10.0]];
        let indicators = Indicators::new(&gpu, parameters.clone()).unwrap();
        assert_eq!(indicators.parameters(), &parameters);
        let panel = indicators.panel(&upload_close(&gpu, close.view())).unwrap();
        Recorder::new(&gpu).run(&panel.commands()).unwrap();
        let values = panel.read(&gpu).unwrap();
        let first = |array: &Array2<f64>| array.iter().position(|x| !x.is_nan()).unwrap();
        let starts: Vec<_> = values.columns().iter().map(|(_, array)| first(array)).collect();
        assert_eq!(starts, [2, 5, 5, 5, 4, 4, 4, 3, 1, 7, 7]);
        // Mean 3 and population deviation sqrt 2 of 1, 2, 4, 3, 5.
        assert!((values.bb_upper[[0, 4]] - (3.0 + 2f64.sqrt())).abs() < 1e-6);
        assert_eq!(indicators.parameters().warm_up(), 7);
    }

    #[test]
    fn invalid_parameters_are_refused_before_anything_is_compiled() {
        let parameters = Parameters { rsi_period: 0, ..Parameters::default() };
        let error = Indicators::new(&open(), parameters).unwrap_err();
        assert!(matches!(error, Error::Config { .. }), "{error}");
    }
}
