#!/usr/bin/env bash
# Called by tpu_pod.sh on the workers of a slice. Usage: worker.sh install [BUCKET...] | start COMMAND... | follow
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

running() { [ -f job/pid ] && kill -0 "$(cat job/pid)" 2> /dev/null; }

case ${1:-} in
  install)
    shift
    source launch/install.sh
    install "[tpu]"
    for bucket; do mount_bucket "$bucket"; done
    ;;
  start)  # starts the command, unless it is running; it is detached, so a lost connection does not stop it
    shift
    running && exit
    mkdir -p job
    rm -f job/status
    SSL_JAX_DISTRIBUTED=1 nohup setsid bash -c '"$@"; echo $? > job/status' _ \
      "${SSL_JAX:-.venv/bin/ssl-jax}" "$@" > job/log 2>&1 < /dev/null &
    echo $! > job/pid
    ;;
  follow)  # prints the log until the command ends; exits with the status of the command
    tail -n +1 -F job/log &
    while running && [ ! -f job/status ]; do sleep "${SSL_JAX_POLL:-5}"; done
    sleep 1
    kill %1
    exit "$(cat job/status 2> /dev/null || echo 1)"
    ;;
  *)
    sed -n 2p "${BASH_SOURCE[0]}" >&2
    exit 2
    ;;
esac
