import sys
import time

import numpy as np

series, bars = map(int, sys.stdin.buffer.readline().split())
close, high, low = (
    np.frombuffer(sys.stdin.buffer.read(8 * series * bars)).reshape(series, bars) for _ in range(3)
)


def windows(values, length):
    return np.lib.stride_tricks.sliding_window_view(values, length, axis=1)


def recursive(values, share, seed):
    """An exponential average: numpy has no recursion, so all series advance together, bar by bar."""
    out = np.empty_like(values)
    last = values[:, :seed].mean(axis=1)
    for t in range(values.shape[1]):
        last = last + (values[:, t] - last) * share
        out[:, t] = last
    return out


def classic():
    change = np.diff(close, axis=1)
    gain = recursive(np.maximum(change, 0), 1 / 14, 14)
    loss = recursive(np.maximum(-change, 0), 1 / 14, 14)
    rsi = 100 * gain / (gain + loss)
    macd = recursive(close, 2 / 13, 12) - recursive(close, 2 / 27, 26)
    signal = recursive(macd, 2 / 10, 9)
    recent = windows(close, 20)
    middle, deviation = recent.mean(axis=2), recent.std(axis=2)
    bands = middle + 2 * deviation, middle, middle - 2 * deviation
    before = close[:, :-1]
    atr = recursive(np.maximum(high[:, 1:], before) - np.minimum(low[:, 1:], before), 1 / 14, 14)
    momentum = close[:, 10:] - close[:, :-10]
    highest, lowest = windows(high, 14).max(axis=2), windows(low, 14).min(axis=2)
    k = 100 * (close[:, 13:] - lowest) / (highest - lowest)
    d = windows(k, 3).mean(axis=2)
    return rsi, macd, signal, macd - signal, bands, atr, momentum, k, d


best = float("inf")
for _ in range(3):
    start = time.perf_counter()
    classic()
    best = min(best, time.perf_counter() - start)
print(best)
