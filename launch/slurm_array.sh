#!/usr/bin/env bash
# Runs several workers on one study as a SLURM array, without submitit. Each task is one worker, and
# the workers share the cells among themselves. Before its time limit a task saves and requeues
# itself; SLURM requeues a preempted task. Both resume.
#   Change: the #SBATCH lines (partition, GPUs, time), and the command python, if it is elsewhere.
#   Submit from the repository, with a workdir on a file system that all nodes share:
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

main="" interrupted="" requeue=""

# Near the time limit SLURM signals only this shell (B:), which passes the signal on to main.
# shellcheck disable=SC2317 # the trap below calls it
on_usr1() {
  interrupted=1 requeue=1
  [[ -z $main ]] || kill -TERM "$main"
}
trap on_usr1 USR1
# At preemption or scancel SLURM signals main too, and a second SIGTERM would end main unsaved.
trap 'interrupted=1' TERM

python -m reprojax.main "$@" &
main=$!
while :; do # a trapped signal ends `wait`, but not main
  interrupted="" code=0
  wait "$main" || code=$?
  [[ -n $interrupted ]] || break
done

if [[ -n $requeue && $code -eq 130 ]]; then
  echo "saved at the time limit; requeued"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
