#!/usr/bin/env bash
# Several workers on one study as a SLURM array, without submitit: each task is one worker, and the
# workers share the cells among themselves. A task saves and puts itself in the queue again before
# its time limit; a preempted one is requeued by SLURM; both go on where they were.
#   Change: the #SBATCH lines (partition, GPUs, time), and how python is found.
#   Submit, from the repository, with a workdir on a file system that all nodes share:
#     sbatch --array=0-29 launch/slurm_array.sh --config=configs/grid.py --workdir=/shared/grid
#SBATCH --job-name=reprojax
#SBATCH --array=0-3
#SBATCH --time=12:00:00
#SBATCH --cpus-per-task=4
#SBATCH --mem=32G
##SBATCH --partition=gpu
##SBATCH --gpus-per-task=1
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
#SBATCH --open-mode=append
#SBATCH --output=%x-%A_%a.log
set -uo pipefail

if [[ "$*" != *--config=* || "$*" != *--workdir=* ]]; then
  echo "usage: sbatch [--array=0-N] launch/slurm_array.sh --config=FILE[:scale] --workdir=DIR [flags of reprojax.main]" >&2
  exit 2
fi

main="" signalled="" requeue=""

# The time limit is near: SLURM tells this shell alone (B:), which tells main.
# shellcheck disable=SC2317 # the trap below calls it
on_usr1() {
  signalled=1 requeue=1
  [[ -z $main ]] || kill -TERM "$main"
}
trap on_usr1 USR1
# Preempted or cancelled: SLURM tells main too, and a second SIGTERM would end it unsaved.
trap 'signalled=1' TERM

python -m reprojax.main "$@" &
main=$!
while :; do # a trapped signal ends `wait`, not main
  signalled="" code=0
  wait "$main" || code=$?
  [[ -n $signalled ]] || break
done

if [[ -n $requeue && $code -eq 130 ]]; then
  echo "saved at the time limit; requeued"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
