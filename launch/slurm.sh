#!/usr/bin/env bash
#SBATCH --job-name=ssl_jax
#SBATCH --output=slurm-%j.log
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
# Runs one ssl-jax command on GPU nodes under Slurm, with one process per GPU. The job requeues itself before its
# time limit and when it is preempted.
set -euo pipefail

usage() {
  cat <<'END'
Usage: launch/slurm.sh --nodes=N --gpus=N [SBATCH OPTIONS] [--dry-run] -- COMMAND...

Example:
  launch/slurm.sh --nodes=4 --gpus=8 --time=24:00:00 --partition=gpu -- \
    train --config=configs/pretrain/moco.py:e --workdir=/shared/moco

Run the script in the checkout. Its .venv must have the extra cuda12 or cuda13. All nodes must have access to the
checkout, the data and the workdir through a shared file system. Five minutes before the time limit, and when the
job is preempted, every process saves a checkpoint and stops; the job is requeued, and the same command resumes.

  --nodes=N   number of machines
  --gpus=N    number of GPUs per machine
  --dry-run   print the sbatch command and do not run it
Other options are passed on to sbatch.
END
}

die() { echo "launch/slurm.sh: $1" >&2; exit 2; }

if [ -n "${SLURM_JOB_ID:-}" ] && [ "${SSL_JAX_SLURM:-}" = inside ]; then
  again=''
  srun --kill-on-bad-exit=1 env SSL_JAX_DISTRIBUTED=1 "${SSL_JAX:-.venv/bin/ssl-jax}" "$@" &
  step=$!
  trap 'again=1; kill -TERM "$step" 2> /dev/null || true' USR1 TERM  # srun forwards SIGTERM to the processes
  status=0
  wait "$step" || status=$?
  if [ -n "$again" ]; then  # the signal ended `wait`, but the step may still be running
    status=0
    wait "$step" || status=$?
  fi
  if [ "$status" -eq 75 ] || { [ -n "$again" ] && [ "$status" -ne 0 ]; }; then
    echo "launch/slurm.sh: stopped before the end; the job is requeued"
    scontrol requeue "$SLURM_JOB_ID"
  fi
  exit "$status"
fi

nodes='' gpus='' dry='' options=()
while [ $# -gt 0 ]; do
  case $1 in
    --nodes=*) nodes=${1#*=} ;;
    --gpus=*) gpus=${1#*=} ;;
    --dry-run) dry=1 ;;
    -h | --help) usage; exit 0 ;;
    --) shift; break ;;
    -*) options+=("$1") ;;
    *) die "unknown option $1; the command must follow --" ;;
  esac
  shift
done
[[ $nodes =~ ^[1-9][0-9]*$ ]] || die "--nodes=$nodes is not a number of machines; use a positive integer"
[[ $gpus =~ ^[1-9][0-9]*$ ]] || die "--gpus=$gpus is not a number of GPUs per machine; use a positive integer"
[ $# -gt 0 ] || die "the command after -- is missing, for example: train --config=... --workdir=..."
submit=(sbatch "--nodes=$nodes" "--ntasks-per-node=$gpus" "--gpus-per-node=$gpus"
  "--export=ALL,SSL_JAX_SLURM=inside"
  ${options[@]+"${options[@]}"} "${BASH_SOURCE[0]}" "$@")
printf '+' >&2
printf ' %q' "${submit[@]}" >&2
printf '\n' >&2
[ -n "$dry" ] || "${submit[@]}"
