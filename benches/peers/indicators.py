"""Times other libraries on the six classic indicators, all on the CPU and in f64.

    pip install TA-Lib==0.8.2 numba==0.68.1 llvmlite==0.50.0 numpy==2.4.6
    python benches/peers/indicators.py [--threads 2]

Python 3.11. The indicators follow TA-Lib's rules and have 11 outputs: RSI 14 (1), MACD 12 26 9 (3), Bollinger 20
2 (3), ATR 14 (1), momentum 10 (1) and the fast stochastic 14 3 (2). Results are nanoseconds per bar: the wall time
of a run that computes all outputs for every series, divided by series x bars, best of several runs.

A shape is series x bars. 1 x 500 is one live chart, dominated by call overhead; 1 x 100000 is one long history;
64 x 100000 is a few long histories; 1024 x 4096 is a training panel; 100000 x 100 is a sweep over many short
windows.

Every peer keeps all its outputs until the run is over. Tuned numba writes them to preallocated memory; the others
allocate them during the run, as in normal use. glibc is configured to keep freed memory for the next run, because
otherwise page faults would cost the wheel more time than its arithmetic.
"""
import argparse
import ctypes
import importlib.metadata
import itertools
import json
import math
import pathlib
import platform
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import talib
from numpy.lib.stride_tricks import sliding_window_view

SHAPES = [(1, 500), (1, 100_000), (64, 100_000), (1024, 4096), (100_000, 100)]
NAMES = [
    *("RSI", "MACD", "MACD signal", "MACD histogram", "upper band", "middle band", "lower band"),
    *("ATR", "momentum", "%K", "%D"),
]
OUTPUTS = len(NAMES)
RSI = 14
FAST, SLOW, SIGNAL = 12, 26, 9
BANDS, DEVIATIONS = 20, 2.0
ATR = 14
MOMENTUM = 10
STOCHASTIC, PERCENT_D = 14, 3
# Bars before MACD is valid, the longest wait of the six. A series must have more.
LONGEST_WARM_UP = SLOW + SIGNAL - 2
SMA = 0

# Seconds that one combination of peer and shape may take.
BUDGET = 20.0
# A combination is repeated this often and for this long, within its budget.
RUNS, SECONDS = 5, 1.0
TOLERANCE = 1e-9


def random_walk(series, bars):
    """High, low and close of random walks about 100, the same ones every time."""
    random = np.random.default_rng(1)
    close = 100.0 * np.cumprod(1.0 + 0.02 * (random.random((series, bars)) - 0.5), axis=1)
    before = np.concatenate([np.full((series, 1), 100.0), close[:, :-1]], axis=1)
    high = np.maximum(before, close) * (1.0 + 0.005 * random.random((series, bars)))
    low = np.minimum(before, close) * (1.0 - 0.005 * random.random((series, bars)))
    return high, low, close


# The TA-Lib wheel.


def talib_series(high, low, close):
    return (
        talib.RSI(close, RSI),
        *talib.MACD(close, FAST, SLOW, SIGNAL),
        *talib.BBANDS(close, BANDS, DEVIATIONS, DEVIATIONS, SMA),
        talib.ATR(high, low, close, ATR),
        talib.MOM(close, MOMENTUM),
        *talib.STOCHF(high, low, close, STOCHASTIC, PERCENT_D, SMA),
    )


def talib_releases_the_gil():
    """Whether other Python code runs while a TA-Lib function does."""
    # A falling series makes MAX search its whole window again at every bar, so one call takes long enough.
    falling = -np.arange(400_000.0)
    span = []

    def call():
        started = time.perf_counter()
        talib.MAX(falling, 2000)
        span.append(time.perf_counter() - started)

    thread = threading.Thread(target=call)
    # Before the start, which may itself have to wait for the GIL.
    last, pause = time.perf_counter(), 0.0
    thread.start()
    while not span:
        now = time.perf_counter()
        last, pause = now, max(pause, now - last)
    thread.join()
    # With the GIL held, this thread would have stood still for the whole call.
    return pause < 0.5 * span[0]


def talib_wheel(threads):
    pool = ThreadPoolExecutor(threads)

    def prepare(high, low, close):
        def share(rows):
            return [talib_series(high[s], low[s], close[s]) for s in rows]

        series = len(close)
        if series == 1 or threads == 1:
            return lambda: share(range(series))
        # One task a thread: a task a series would pay for the queue every time.
        ends = [series * i // threads for i in range(threads + 1)]
        shares = [range(*pair) for pair in itertools.pairwise(ends)]
        return lambda: list(itertools.chain.from_iterable(pool.map(share, shares)))

    return prepare


# Numba, tuned: one pass over a series, nothing in it that grows with a period.


@numba.njit(inline="always")
def larger(a, b):
    # Unlike max(), this is one machine instruction, because it need not care for NaNs.
    return a if a > b else b


@numba.njit(inline="always")
def smaller(a, b):
    return a if a < b else b


@numba.njit
def fused_series(high, low, close, out):
    rsi, line, signal, histogram, upper, middle, lower, atr, momentum, percent_k, percent_d = out
    bars = len(close)
    out[:, :LONGEST_WARM_UP] = np.nan

    gain = loss = true_range = 0.0
    fast = slow = smooth = 0.0
    mean = squares = 0.0
    # Extremes by van Herk and Gil-Werman: time is cut into blocks as long as the window, so that a window is
    # the end of one block and the beginning of the next. The end has its extremes in `highest` and `lowest`,
    # set when the block was full; the beginning has them in `top` and `bottom`. No branch depends on prices.
    highest = np.full(STOCHASTIC + 1, -np.inf)
    lowest = np.full(STOCHASTIC + 1, np.inf)
    top, bottom = -np.inf, np.inf
    place = 0
    before_last = last = 0.0

    for t in range(bars):
        price = close[t]
        change = price - close[t - 1] if t > 0 else 0.0
        rise, fall = larger(change, 0.0), larger(-change, 0.0)
        if t > RSI:
            gain = gain * ((RSI - 1) / RSI) + rise * (1 / RSI)
            loss = loss * ((RSI - 1) / RSI) + fall * (1 / RSI)
        else:
            gain += rise * (1 / RSI)
            loss += fall * (1 / RSI)
        if t >= RSI:
            total = gain + loss
            rsi[t] = 100.0 * gain / total if total > 0.0 else 0.0

        if t > 0:
            previous = close[t - 1]
            span = larger(high[t], previous) - smaller(low[t], previous)
            if t > ATR:
                true_range = true_range * ((ATR - 1) / ATR) + span * (1 / ATR)
            else:
                true_range += span * (1 / ATR)
            if t >= ATR:
                atr[t] = true_range

        if t >= SLOW:
            fast = fast * (1 - 2 / (FAST + 1)) + price * (2 / (FAST + 1))
            slow = slow * (1 - 2 / (SLOW + 1)) + price * (2 / (SLOW + 1))
        else:
            slow += price * (1 / SLOW)
            # Both averages start at the same bar.
            if t >= SLOW - FAST:
                fast += price * (1 / FAST)
        if t >= SLOW - 1:
            difference = fast - slow
            if t > LONGEST_WARM_UP:
                smooth = smooth * (1 - 2 / (SIGNAL + 1)) + difference * (2 / (SIGNAL + 1))
            else:
                smooth += difference * (1 / SIGNAL)
            if t >= LONGEST_WARM_UP:
                line[t] = difference
                signal[t] = smooth
                histogram[t] = difference - smooth

        if t >= BANDS:
            # Welford's update with one price in and one out: no difference of large squares.
            leaving = close[t - BANDS]
            old = mean
            mean += (price - leaving) * (1 / BANDS)
            squares += (price - leaving) * (price - mean + leaving - old)
        else:
            old = mean
            mean += (price - mean) / (t + 1)
            squares += (price - old) * (price - mean)
        if t >= BANDS - 1:
            width = DEVIATIONS * math.sqrt(larger(squares, 0.0) * (1 / BANDS))
            upper[t] = mean + width
            middle[t] = mean
            lower[t] = mean - width

        if t >= MOMENTUM:
            momentum[t] = price - close[t - MOMENTUM]

        top, bottom = larger(top, high[t]), smaller(bottom, low[t])
        place += 1
        maximum, minimum = larger(highest[place], top), smaller(lowest[place], bottom)
        if place == STOCHASTIC:
            top, bottom, place = -np.inf, np.inf, 0
            for i in range(STOCHASTIC):
                top, bottom = larger(top, high[t - i]), smaller(bottom, low[t - i])
                highest[STOCHASTIC - 1 - i], lowest[STOCHASTIC - 1 - i] = top, bottom
            top, bottom = -np.inf, np.inf
        height = maximum - minimum
        current = 100.0 * (price - minimum) / height if height > 0.0 else 0.0
        if t >= STOCHASTIC + PERCENT_D - 2:
            percent_k[t] = current
            percent_d[t] = (before_last + last + current) * (1 / PERCENT_D)
        before_last, last = last, current


def fused_panel(high, low, close, out):
    for s in numba.prange(len(close)):
        fused_series(high[s], low[s], close[s], out[s])


fused_panel_alone = numba.njit(fused_panel)
fused_panel_parallel = numba.njit(parallel=True)(fused_panel)


def numba_tuned(high, low, close):
    series, bars = close.shape
    # The 40 more keep rows of a power of two out of each other's cache sets: without them 1024 x 4096 takes
    # three times as long.
    out = np.zeros((series, OUTPUTS, bars + 40))
    # Waking the other threads for one series would only cost.
    panel = fused_panel_alone if series == 1 else fused_panel_parallel

    def run():
        panel(high, low, close, out)
        return out[:, :, :bars]

    return run


# Numba as notebooks have it: a function for each indicator, a loop over bars, a slice for each window.


@numba.njit
def notebook_rsi(close, n):
    out = np.full(len(close), np.nan)
    change = np.diff(close)
    gains = np.where(change > 0, change, 0.0)
    losses = np.where(change < 0, -change, 0.0)
    gain = gains[:n].mean()
    loss = losses[:n].mean()
    for i in range(n, len(close)):
        if i > n:
            gain = (gain * (n - 1) + gains[i - 1]) / n
            loss = (loss * (n - 1) + losses[i - 1]) / n
        if gain + loss > 0:
            out[i] = 100 * gain / (gain + loss)
        else:
            out[i] = 0.0
    return out


@numba.njit
def notebook_ema(values, n, first):
    out = np.full(len(values), np.nan)
    alpha = 2 / (n + 1)
    out[first] = values[first - n + 1 : first + 1].mean()
    for i in range(first + 1, len(values)):
        out[i] = alpha * values[i] + (1 - alpha) * out[i - 1]
    return out


@numba.njit
def notebook_macd(close, fast, slow, signal):
    first = slow + signal - 2
    line = notebook_ema(close, fast, slow - 1) - notebook_ema(close, slow, slow - 1)
    smooth = notebook_ema(line, signal, first)
    line[:first] = np.nan
    return line, smooth, line - smooth


@numba.njit
def notebook_bands(close, n, k):
    upper = np.full(len(close), np.nan)
    middle = np.full(len(close), np.nan)
    lower = np.full(len(close), np.nan)
    for i in range(n - 1, len(close)):
        mean = close[i - n + 1 : i + 1].mean()
        deviation = close[i - n + 1 : i + 1].std()
        upper[i] = mean + k * deviation
        middle[i] = mean
        lower[i] = mean - k * deviation
    return upper, middle, lower


@numba.njit
def notebook_atr(high, low, close, n):
    ranges = np.empty(len(close))
    ranges[0] = high[0] - low[0]
    for i in range(1, len(close)):
        ranges[i] = max(high[i] - low[i], abs(high[i] - close[i - 1]), abs(low[i] - close[i - 1]))
    out = np.full(len(close), np.nan)
    out[n] = ranges[1 : n + 1].mean()
    for i in range(n + 1, len(close)):
        out[i] = (out[i - 1] * (n - 1) + ranges[i]) / n
    return out


@numba.njit
def notebook_momentum(close, n):
    out = np.full(len(close), np.nan)
    for i in range(n, len(close)):
        out[i] = close[i] - close[i - n]
    return out


@numba.njit
def notebook_stochastic(high, low, close, n, d):
    percent_k = np.full(len(close), np.nan)
    percent_d = np.full(len(close), np.nan)
    for i in range(n - 1, len(close)):
        top = high[i - n + 1 : i + 1].max()
        bottom = low[i - n + 1 : i + 1].min()
        if top > bottom:
            percent_k[i] = 100 * (close[i] - bottom) / (top - bottom)
        else:
            percent_k[i] = 0.0
    for i in range(n + d - 2, len(close)):
        percent_d[i] = percent_k[i - d + 1 : i + 1].mean()
    percent_k[: n + d - 2] = np.nan
    return percent_k, percent_d


def notebook_series(high, low, close):
    return (
        notebook_rsi(close, RSI),
        *notebook_macd(close, FAST, SLOW, SIGNAL),
        *notebook_bands(close, BANDS, DEVIATIONS),
        notebook_atr(high, low, close, ATR),
        notebook_momentum(close, MOMENTUM),
        *notebook_stochastic(high, low, close, STOCHASTIC, PERCENT_D),
    )


def numba_notebook(high, low, close):
    return lambda: [notebook_series(high[s], low[s], close[s]) for s in range(len(close))]


# NumPy, vectorised over series. Bars are rows, as in a data frame: a step of a recurrence reads neighbours.


def windows(values, n):
    return sliding_window_view(values, n, axis=0)


def after_warm_up(values, bars):
    """Puts NaNs before values, so that there are as many as bars."""
    out = np.full((bars, *values.shape[1:]), np.nan)
    out[bars - len(values) :] = values
    return out


def recursive_average(values, n, weight, first):
    """Starts at bar `first` with the mean of n values; then each value counts for `weight` of the average."""
    out = weight * values
    out[:first] = np.nan
    out[first] = values[first - n + 1 : first + 1].mean(axis=0)
    for t in range(first + 1, len(out)):
        out[t] += (1 - weight) * out[t - 1]
    return out


def numpy_macd(close):
    fast = recursive_average(close, FAST, 2 / (FAST + 1), SLOW - 1)
    slow = recursive_average(close, SLOW, 2 / (SLOW + 1), SLOW - 1)
    line = fast - slow
    signal = recursive_average(line, SIGNAL, 2 / (SIGNAL + 1), LONGEST_WARM_UP)
    line[:LONGEST_WARM_UP] = np.nan
    return line, signal, line - signal


def numpy_rsi_and_atr(high, low, close):
    bars, series = close.shape
    change = np.diff(close, axis=0)
    # One loop over time for all three averages, which is possible because RSI and ATR have the same period.
    moves = np.zeros((bars, 3, series))
    np.maximum(change, 0.0, out=moves[1:, 0])
    np.maximum(-change, 0.0, out=moves[1:, 1])
    np.subtract(np.maximum(high[1:], close[:-1]), np.minimum(low[1:], close[:-1]), out=moves[1:, 2])
    averages = recursive_average(moves, RSI, 1 / RSI, RSI)
    gain, loss, atr = averages[:, 0], averages[:, 1], averages[:, 2]
    return 100.0 * gain / (gain + loss), atr


def numpy_bands(close):
    window = windows(close, BANDS)
    middle, width = window.mean(axis=-1), DEVIATIONS * window.std(axis=-1)
    return [after_warm_up(band, len(close)) for band in (middle + width, middle, middle - width)]


def numpy_stochastic(high, low, close):
    top, bottom = windows(high, STOCHASTIC).max(axis=-1), windows(low, STOCHASTIC).min(axis=-1)
    percent_k = 100.0 * (close[STOCHASTIC - 1 :] - bottom) / (top - bottom)
    percent_d = windows(percent_k, PERCENT_D).mean(axis=-1)
    return [after_warm_up(values, len(close)) for values in (percent_k[PERCENT_D - 1 :], percent_d)]


def numpy_panel(high, low, close):
    rsi, atr = numpy_rsi_and_atr(high, low, close)
    momentum = after_warm_up(close[MOMENTUM:] - close[:-MOMENTUM], len(close))
    return rsi, *numpy_macd(close), *numpy_bands(close), atr, momentum, *numpy_stochastic(high, low, close)


def numpy_vectorised(high, low, close):
    high, low, close = (np.ascontiguousarray(prices.T) for prices in (high, low, close))
    return lambda: numpy_panel(high, low, close)


# The comparison.


def check(peers):
    """Fails unless every peer has the wheel's values, NaNs included. It also makes numba compile."""
    # More than one series take the tuned version's parallel path.
    for series, bars in [(1, 20_000), (3, 2_000)]:
        prices = random_walk(series, bars)
        expected = talib_series(*(values[-1] for values in prices))
        for name, prepare in peers.items():
            result = prepare(*prices)()
            last = [values[:, -1] for values in result] if prepare is numpy_vectorised else result[-1]
            for output, ours, theirs in zip(NAMES, last, expected, strict=True):
                # Some outputs cross zero, where a relative error means nothing.
                near_zero = TOLERANCE * np.nanmedian(np.abs(theirs))
                message = f"{name}, {output}"
                np.testing.assert_allclose(ours, theirs, rtol=TOLERANCE, atol=near_zero, err_msg=message)


def seconds(run):
    started = time.perf_counter()
    result = run()
    elapsed = time.perf_counter() - started
    # Not before the clock has stopped: freeing the outputs is no part of computing them.
    del result
    return elapsed


def estimate(prepare, prices):
    """Seconds of one run, from a tenth of it."""
    series, bars = prices[0].shape
    rows, columns = (series, max(bars // 10, 100)) if bars > series else (max(series // 10, 1), bars)
    part = [np.ascontiguousarray(values[:rows, :columns]) for values in prices]
    return seconds(prepare(*part)) * (series * bars) / (rows * columns)


def measure(prepare, prices):
    """Nanoseconds per bar, as text."""
    expected = estimate(prepare, prices)
    if expected > BUDGET:
        return f"skipped (would take {expected:.0f} s)"
    run = prepare(*prices)
    best, spent, runs = math.inf, 0.0, 0
    while runs == 0 or (spent + best < BUDGET and (runs < RUNS or spent < SECONDS)):
        elapsed = seconds(run)
        best, spent, runs = min(best, elapsed), spent + elapsed, runs + 1
    return f"{best / prices[0].size * 1e9:.1f}"


def keep_freed_memory():
    """Asks glibc not to give memory back to the system. All other platforms are left as they are."""
    if platform.libc_ver()[0] != "glibc":
        return False
    trim_threshold, mmap_threshold, arenas = -1, -3, -8
    mallopt = ctypes.CDLL(None).mallopt
    # Only the main arena, which the threads then share, can keep what is freed.
    settings = [(trim_threshold, -1), (mmap_threshold, 1 << 25), (arenas, 1)]
    return all(mallopt(setting, value) == 1 for setting, value in settings)


def cpu_name():
    information = pathlib.Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def print_row(cells):
    first, *others = cells
    print(f"{first:<14}" + "".join(f"{cell:>27}" for cell in others), flush=True)


def main():
    parser = argparse.ArgumentParser(description="Times other libraries on the six classic indicators.")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--once", nargs=2, type=int, metavar=("SERIES", "BARS"), help="one panel only, as lines of JSON")
    options = parser.parse_args()
    threads = min(options.threads, numba.config.NUMBA_NUM_THREADS)
    numba.set_num_threads(threads)
    kept = keep_freed_memory()
    released = talib_releases_the_gil()
    talib_threads = threads if released else 1

    # Both, since over short series the hand-over of the GIL can cost more than a second thread brings.
    peers = {f"TA-Lib wheel, threads: {n}": talib_wheel(n) for n in sorted({1, talib_threads})}
    peers |= {
        f"numba tuned, threads: {threads}": numba_tuned,
        "numba notebook shape": numba_notebook,
        "numpy": numpy_vectorised,
    }
    check(peers)
    if options.once:
        prices = random_walk(*options.once)
        for name, prepare in peers.items():
            try:
                time = float(measure(prepare, prices))
            except ValueError:
                # It would take too long.
                continue
            print(json.dumps({"name": name, "device": "CPU", "ns_per_bar": time}))
        return
    packages = ("TA-Lib", "numba", "llvmlite", "numpy")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    print(f"CPU: {cpu_name()}, {numba.config.NUMBA_NUM_THREADS} threads, {threads} used")
    print(f"Python {platform.python_version()}, {versions}")
    print(f"TA-Lib {'releases' if released else 'holds'} the GIL while it computes.")
    print(f"Freed memory {'stays with the process' if kept else 'may go back to the system'}.")
    print(f"All agree with TA-Lib to {TOLERANCE:g}. Nanoseconds per bar for all six indicators:\n")
    print_row(["series x bars", *peers])
    for series, bars in SHAPES:
        prices = random_walk(series, bars)
        print_row([f"{series} x {bars}", *(measure(prepare, prices) for prepare in peers.values())])
    print("\nOne series uses one thread, whatever the column says; the last two columns always do.")


if __name__ == "__main__":
    main()
