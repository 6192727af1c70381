"""Measures phalanx and its peers in turn, several rounds of each task, and prints medians, their spread, and ratios.

    python benches/peers/compare.py [--rounds 3] [--seconds 10] [--only training indicators decisions]

Every measurement is a process of its own, one at a time. A ratio is taken within a round, so that what slows the machine down slows both
sides; its spread is the least and the greatest of the rounds. Benchmarks of phalanx have to be built (`make peers` builds them).
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]


def cpu():
    information = pathlib.Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.*)$", information.read_text(), re.M) if information.exists() else []
    return names[0] if names else platform.processor()


def output(command):
    result = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if result.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{result.stdout[-2000:]}{result.stderr[-4000:]}")
    return result.stdout


def all_rows(commands):
    """Lines of JSON that commands print, one command after the other."""
    lines = (line for command in commands for line in output(command).splitlines())
    return [json.loads(line) for line in lines if line.startswith("{")]


def bench(name, *arguments):
    cargo = ["cargo", "bench", "--quiet", "--locked", "--package", "phalanx-benches", "--bench", name, "--"]
    return [*cargo, *map(str, arguments)]


def script(name, *arguments):
    return [sys.executable, HERE / name, *map(str, arguments)]


def training(envs, seconds):
    options = ("--envs", envs, "--seconds", seconds)
    return [
        bench("training", "--once", envs, seconds),
        script("training_torch.py", "vectorised", *options),
        script("training_jax.py", *options),
        script("training_torch.py", "notebook", *options),
    ]


def indicators(series, bars):
    threads = os.cpu_count()
    return [bench("indicators", "--once", series, bars), script("indicators.py", "--threads", threads, "--once", series, bars)]


def decisions():
    """Median and 99th percentile of a decision; the benchmark itself takes turns between both."""
    text = output(bench("policy", "--once", "--peer", sys.executable))
    found = []
    line = r"^(phalanx, CPU|ONNX Runtime, Python), (\S+) +([\d.]+) +[\d.]+ +([\d.]+) +[\d.]+ +[\d.]+$"
    for name, shape, median, tail in re.findall(line, text, re.M):
        found.append({"name": f"{name.split(',')[0]}, {shape}", "device": "CPU, 1 thread", "median": float(median), "p99": float(tail)})
    if len(found) != 4:
        sys.exit(f"{len(found)} rows instead of 4 in the output of the benchmark of decisions:\n{text[-4000:]}")
    return found


def summary(values, digits):
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def table(title, unit, rounds, key, faster, digits, ours=lambda name: "phalanx"):
    """A table in Markdown. `faster` is 1 if more is faster, else -1; with a speed-up above 1 phalanx is faster."""
    print(f"\n{title}\n\n| | device | {unit}, median (range) | speed-up over the peer |\n|---|---|---|---|")
    for name, first in rounds[0].items():
        # A peer may choose its threads anew, and with them its name.
        complete = [each for each in rounds if name in each]
        values = [each[name][key] for each in complete]
        base = [each[ours(name)][key] for each in complete]
        ratios = [(own / value) ** faster for own, value in zip(base, values)]
        ratio = "" if ours(name) == name else summary(ratios, 2)
        print(f"| {name} | {first['device']} | {summary(values, digits)} | {ratio} |", flush=True)


def measured(label, count, measure):
    rounds = []
    for number in range(count):
        print(f"{label}, round {number + 1} of {count}; load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
        rounds.append({row["name"]: row for row in measure()})
    return rounds


def main():
    parser = argparse.ArgumentParser(description="Measures phalanx beside its peers.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a measurement of training")
    parser.add_argument("--envs", type=int, nargs="+", default=[128])
    parser.add_argument("--shapes", nargs="+", default=["1024x4096"], metavar="SERIESxBARS")
    tasks = ["training", "indicators", "decisions"]
    parser.add_argument("--only", nargs="+", choices=tasks, default=tasks)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    machine = f"{cpu()}, {os.cpu_count()} cores, load {load:.1f} at the start"
    print(f"{datetime.date.today()}, {machine}; Python {platform.python_version()}; {options.rounds} rounds in turn.")
    if "training" in options.only:
        for envs in options.envs:
            commands = training(envs, options.seconds)
            # With more, an iteration the way of notebooks takes minutes, and a step as long.
            commands = commands if envs <= 128 else commands[:-1]
            rounds = measured(f"training, {envs}", options.rounds, lambda: all_rows(commands))
            table(f"Training on simple_spread, {envs} environments", "environment steps a second", rounds, "steps_per_second", 1, 0)
    if "indicators" in options.only:
        for shape in options.shapes:
            commands = indicators(*map(int, shape.split("x")))
            rounds = measured(f"indicators, {shape}", options.rounds, lambda: all_rows(commands))
            table(f"Six indicators together, {shape} (series x bars)", "nanoseconds a bar", rounds, "ns_per_bar", -1, 1)
    if "decisions" in options.only:
        rounds = measured("decisions", options.rounds, decisions)
        for key, title in (("median", "median"), ("p99", "99th percentile")):
            title = f"A decision of one agent, {title}"
            table(title, "microseconds", rounds, key, -1, 2, lambda name: f"phalanx, {name.split(', ')[1]}")


if __name__ == "__main__":
    main()
