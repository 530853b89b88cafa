#!/usr/bin/env bash
#SBATCH --job-name=ssl_jax
#SBATCH --output=slurm-%j.log
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
# Runs one ssl-jax command on GPU nodes under Slurm, one process a GPU, and puts itself in the queue again when its time is up.
set -euo pipefail

usage() {
  cat <<'END'
Usage: launch/slurm.sh --nodes=N --gpus=N [sbatch options] [--dry-run] -- COMMAND...

  launch/slurm.sh --nodes=4 --gpus=8 --time=24:00:00 --partition=gpu -- train --config=configs/pretrain/moco.py:e --workdir=/shared/moco

Call it from the checkout, whose .venv has the extra cuda12 or cuda13, on a file system that all nodes see, as they must the data and
the workdir. --nodes: machines; --gpus: on each. Other options go to sbatch as they are. Five minutes before the time limit, and when
the job is preempted, every process saves and stops; the job queues again and the same command goes on. --dry-run prints the commands.
END
}

die() { echo "launch/slurm.sh: $1" >&2; exit 2; }

if [ -n "${SLURM_JOB_ID:-}" ] && [ "${SSL_JAX_SLURM:-}" = inside ]; then
  again=''
  srun --kill-on-bad-exit=1 env SSL_JAX_DISTRIBUTED=1 "${SSL_JAX:-.venv/bin/ssl-jax}" "$@" &
  step=$!
  trap 'again=1; kill -TERM "$step" 2> /dev/null || true' USR1 TERM  # srun hands it on to the processes
  status=0
  wait "$step" || status=$?
  if [ -n "$again" ]; then  # the trap ended the wait, not the step
    status=0
    wait "$step" || status=$?
  fi
  if [ "$status" -eq 75 ] || { [ -n "$again" ] && [ "$status" -ne 0 ]; }; then
    echo "launch/slurm.sh: stopped before the end; the job queues again"
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
    *) die "$1 is no option; the command comes after --" ;;
  esac
  shift
done
[[ $nodes =~ ^[1-9][0-9]*$ ]] || die "--nodes=$nodes is not a number of machines"
[[ $gpus =~ ^[1-9][0-9]*$ ]] || die "--gpus=$gpus is not a number of GPUs of a machine"
[ $# -gt 0 ] || die "there is no command after --, such as: train --config=... --workdir=..."
submit=(sbatch "--nodes=$nodes" "--ntasks-per-node=$gpus" "--gpus-per-node=$gpus" "--export=ALL,SSL_JAX_SLURM=inside"
  ${options[@]+"${options[@]}"} "${BASH_SOURCE[0]}" "$@")
printf '+' >&2
printf ' %q' "${submit[@]}" >&2
printf '\n' >&2
[ -n "$dry" ] || "${submit[@]}"
