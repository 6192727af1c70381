#!/bin/bash
# A sweep on several machines: every task of the array works on the same one. From the root of the repository:
#
#     cargo build --release --example trainer
#     sbatch --array=1-8 examples/slurm/sweep.sh
#
# A task that is preempted or reaches its time limit saves a checkpoint; another task, or the same command later, goes on with
# its trial. OUT has to be on a file system that all nodes share, with file locks.
#SBATCH --job-name=phalanx-sweep
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=2
#SBATCH --mem=8G
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --output=sweep-%A-%a.log

set -euo pipefail

DATA=${DATA:-examples/data/us4_daily.csv.gz}
SPACE=${SPACE:-examples/trainer/sweep.toml}
CONFIG=${CONFIG:-examples/trainer/demo.toml}
TRIALS=${TRIALS:-100}
OUT=${OUT:-runs/sweep}

# `srun` passes signals on to the trainer.
srun target/release/examples/trainer sweep \
    --data "$DATA" --space "$SPACE" --config "$CONFIG" --trials "$TRIALS" --out "$OUT" --set checkpoints.every=10
