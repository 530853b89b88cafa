#!/usr/bin/env bash
# What tpu_pod.sh does on each worker of a slice: worker.sh install BUCKET... | start COMMAND... | follow
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
GCSFUSE=2.12.2

mount_bucket() {  # as the folder /tmp/gcs/BUCKET
  local folder=/tmp/gcs/$1 package
  mountpoint -q "$folder" && return
  if ! command -v gcsfuse > /dev/null; then
    package=$(mktemp --suffix=.deb)
    curl -fsSLo "$package" "https://github.com/GoogleCloudPlatform/gcsfuse/releases/download/v$GCSFUSE/gcsfuse_${GCSFUSE}_amd64.deb"
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
  start)  # detached: a lost connection does not stop it; one that runs already is left alone
    shift
    running && exit
    mkdir -p job
    rm -f job/status
    SSL_JAX_DISTRIBUTED=1 nohup setsid bash -c '"$@"; echo $? > job/status' _ "${SSL_JAX:-.venv/bin/ssl-jax}" "$@" > job/log 2>&1 < /dev/null &
    echo $! > job/pid
    ;;
  follow)  # prints the log until the command ends; its exit status is that of the command
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
