#!/usr/bin/env bash
# Called on the workers of a slice by tpu_pod.sh.
# Usage: worker.sh install [BUCKET...] | start KEEP COMMAND... | state | follow | logs [LINES]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
GCSFUSE=2.12.2

mount_bucket() {  # mounts a bucket as the folder /tmp/gcs/BUCKET; installs gcsfuse if it is missing
  local folder=/tmp/gcs/$1 package
  mountpoint -q "$folder" && return
  if ! command -v gcsfuse > /dev/null; then
    package=$(mktemp --suffix=.deb)
    curl -fsSLo "$package" \
      "https://github.com/GoogleCloudPlatform/gcsfuse/releases/download/v$GCSFUSE/gcsfuse_${GCSFUSE}_amd64.deb"
    chmod a+r "$package"
    sudo apt-get -qq install "$package"
  fi
  mkdir -p "$folder"
  gcsfuse --implicit-dirs --rename-dir-limit=100000 "$1" "$folder"
}

running() {  # whether the process of job/pid is ours: after a reboot another one may have its number
  [ -f job/pid ] && grep -qs job/status "/proc/$(cat job/pid)/cmdline"
}

stop() {  # ends what is left of an earlier command: a process whose peers are dead may wait for them
  local signal seconds
  for signal in TERM KILL; do
    for ((seconds = 0; seconds < 60; seconds++)); do
      running || return 0
      [ "$seconds" -gt 0 ] || kill "-$signal" -- "-$(cat job/pid)" 2> /dev/null || true
      sleep 1
    done
  done
}

case ${1:-} in
  install)
    shift
    source launch/install.sh
    install "[tpu]"
    for bucket; do mount_bucket "$bucket"; done
    ;;
  start)  # the command is detached, so a lost connection does not stop it
    stop
    mkdir -p job
    rm -f job/status
    [ ! -f job/log ] || mv job/log job/log.before
    echo "$2" > job/keep
    shift 2
    echo "$*" > job/command
    SSL_JAX_DISTRIBUTED=1 nohup setsid bash -c '"$@"; echo $? > job/status' _ \
      "${SSL_JAX:-.venv/bin/ssl-jax}" "$@" > job/log 2>&1 < /dev/null &
    echo $! > job/pid
    ;;
  state)  # what the launcher asks: lines NAME=VALUE
    [ -f job/command ] || exit 0
    if running && [ ! -f job/status ]; then echo "state=running"; else echo "state=ended"; fi
    echo "status=$(cat job/status 2> /dev/null || echo 1)"
    echo "keep=$(cat job/keep)"
    echo "command=$(cat job/command)"
    ;;
  follow)  # prints the log until the command ends
    tail -n +1 -F job/log &
    while running && [ ! -f job/status ]; do sleep "${SSL_JAX_POLL:-5}"; done
    sleep 1
    kill %1
    ;;
  logs)  # the last lines of the log, each with the name of this worker
    tail -n "${2:-100}" job/log | sed "s/^/$(hostname): /"
    ;;
  *)
    sed -n 3p "${BASH_SOURCE[0]}" >&2
    exit 2
    ;;
esac
