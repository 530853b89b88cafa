#!/usr/bin/env bash
# Runs one ssl-jax command on every worker of a Cloud TPU VM slice; after a preemption it creates a new slice and
# runs the command again, until the command has finished.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'END'
Usage: launch/tpu_pod.sh --name=NAME --zone=ZONE --type=TYPE [options] -- COMMAND...

Example:
  launch/tpu_pod.sh --name=moco --zone=us-west4-a --type=v5litepod-64 --spot -- \
    train --config=configs/pretrain/moco.py:e \
    --config.data.data_dir=gs://BUCKET/tfds --workdir=gs://BUCKET/runs/moco

The script creates the slice unless a slice of this name exists, copies the tracked files of the checkout, installs
the project, starts the command on every worker, and prints the log of worker 0. If the slice is preempted, it is
replaced, and the command resumes from its last checkpoint. Buckets in the command (gs://BUCKET/PATH) are mounted
with gcsfuse and passed to the command as folders. The slice is deleted when the command has finished.

  --name=NAME        name of the slice
  --zone=ZONE        zone of the slice, such as us-west4-a
  --type=TYPE        accelerator type, such as v5litepod-64
  --project=ID       Google Cloud project (default: that of the gcloud configuration)
  --version=IMAGE    software of the TPU VM (default: v2-alpha-tpuv5-lite for v5litepod, v2-alpha-tpuv6e for v6e,
                     v2-alpha-tpuv5 for v5p, tpu-ubuntu2204-base otherwise)
  --spot             use a spot slice, which is cheaper and can be preempted
  --keep             do not delete the slice at the end; another call reuses it
  --restarts=N       give up after N preemptions or failures (default: 20)
  --follow           only print the log of the running command; the command keeps running when this script ends
  --delete           only delete the slice
  --dry-run          print every command and run none
END
}

die() { echo "launch/tpu_pod.sh: $1" >&2; exit 2; }

name='' zone='' type='' project='' version='' spot='' keep='' restarts=20 only='' dry=''
while [ $# -gt 0 ]; do
  case $1 in
    --name=*) name=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --type=*) type=${1#*=} ;;
    --project=*) project=${1#*=} ;;
    --version=*) version=${1#*=} ;;
    --restarts=*) restarts=${1#*=} ;;
    --spot) spot=1 ;;
    --keep) keep=1 ;;
    --follow | --delete) only=${1#--} ;;
    --dry-run) dry=1 ;;
    -h | --help) usage; exit 0 ;;
    --) shift; break ;;
    *) die "unknown option $1; see --help. The command must follow --" ;;
  esac
  shift
done
[ -n "$name" ] || die "--name is missing: the name of the slice"
[ -n "$zone" ] || die "--zone is missing: the zone of the slice, such as us-west4-a"
[ -n "$type" ] || [ -n "$only" ] || die "--type is missing: the accelerator type, such as v5litepod-64"
[ $# -gt 0 ] || [ -n "$only" ] ||
  die "the command after -- is missing, for example: train --config=... --workdir=gs://..."
[[ $restarts =~ ^[0-9]+$ ]] || die "--restarts=$restarts is not a number; use an integer of at least 0"
if [ -z "$version" ]; then
  case $type in
    v5litepod-*) version=v2-alpha-tpuv5-lite ;;
    v5p-*) version=v2-alpha-tpuv5 ;;
    v6e-*) version=v2-alpha-tpuv6e ;;
    *) version=tpu-ubuntu2204-base ;;
  esac
fi
place=("--zone=$zone")
[ -z "$project" ] || place+=("--project=$project")

run() {  # prints the command, and runs it unless this is a dry run
  printf '+' >&2
  printf ' %q' "$@" >&2
  printf '\n' >&2
  [ -n "$dry" ] || "$@"
}

tpu() { run gcloud compute tpus tpu-vm "$@" "${place[@]}"; }

on() {  # on WORKER SHELL-LINE: runs the line there; WORKER may be "all"
  tpu ssh "$name" "--worker=$1" "--command=$2"
}

state() {  # prints the state of the slice, READY, PREEMPTED, ..., or nothing if it does not exist
  [ -z "$dry" ] || return 0
  gcloud compute tpus tpu-vm describe "$name" "${place[@]}" --format='value(state)' 2>/dev/null || true
}

# Replaces gs://BUCKET/PATH in the command by /tmp/gcs/BUCKET/PATH, and collects the buckets to mount.
words=() buckets=()
for word in "$@"; do
  while [[ $word =~ gs://([a-z0-9._-]+) ]]; do
    bucket=${BASH_REMATCH[1]}
    word=${word/"gs://$bucket"/"/tmp/gcs/$bucket"}
    [[ " ${buckets[*]-} " == *" $bucket "* ]] || buckets+=("$bucket")
  done
  words+=("$word")
done

prepare() {  # makes sure that the slice is ready, and installs this checkout on every worker
  local found archive
  found=$(state)
  if [ -n "$found" ] && [ "$found" != READY ]; then
    echo "launch/tpu_pod.sh: the slice is $found and will be replaced" >&2
    tpu delete "$name" --quiet || return
    found=''
  fi
  [ -n "$found" ] || tpu create "$name" "--accelerator-type=$type" "--version=$version" ${spot:+--spot} || return
  archive=$(mktemp)
  run git archive --format=tar "--output=$archive" HEAD || return
  tpu scp "$archive" "$name:ssl_jax.tar" --worker=all || return
  rm -f "$archive"
  on all "rm -rf ssl_jax/ssl_jax && mkdir -p ssl_jax && tar -xf ssl_jax.tar -C ssl_jax &&\
 bash ssl_jax/launch/worker.sh install ${buckets[*]-}"
}

start() { on all "bash ssl_jax/launch/worker.sh start$(printf ' %q' "${words[@]}")"; }

# Prints the log of worker 0 until the command ends; returns the exit status of the command.
follow() { on 0 'bash ssl_jax/launch/worker.sh follow'; }

clean_up() { [ -n "$keep" ] || tpu delete "$name" --quiet; }

case $only in
  delete) tpu delete "$name" --quiet; exit ;;
  follow) follow && clean_up; exit ;;
esac
failures=0
for ((try = 0; try <= restarts; try++)); do
  if prepare && start && follow; then
    clean_up
    exit 0
  fi
  found=$(state)
  [ "$found" != READY ] || failures=$((failures + 1))
  if [ "$failures" -eq 3 ]; then
    echo "launch/tpu_pod.sh: the command failed three times on a slice that is ready; see its log above." \
      "The slice is kept; --delete removes it" >&2
    exit 1
  fi
  echo "launch/tpu_pod.sh: interrupted, the slice is ${found:-gone}; the command is started again" >&2
  sleep "${SSL_JAX_PAUSE:-30}"
done
echo "launch/tpu_pod.sh: gave up after $restarts restarts" >&2
exit 1
