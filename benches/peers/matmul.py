"""Measures PyTorch's 4096 x 4096 x 4096 product in f16 with f32 accumulation, the peer of `benches/learning.rs`.

    pip install torch
    python benches/peers/matmul.py
"""

import time

import torch

N = 4096
device = "cuda" if torch.cuda.is_available() else "cpu"
if device == "cpu":
    N = 1024
dtype = torch.float16 if device == "cuda" else torch.float32
torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
a, b = (torch.randn(N, N, device=device, dtype=dtype) for _ in range(2))


def run():
    a @ b
    if device == "cuda":
        torch.cuda.synchronize()


run()
best = float("inf")
for _ in range(20):
    start = time.perf_counter()
    run()
    best = min(best, time.perf_counter() - start)
name = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} cores"
print(f"PyTorch {torch.__version__}, {name}, {dtype}: {2 * N**3 / best / 1e9:.0f} GFLOP/s")
