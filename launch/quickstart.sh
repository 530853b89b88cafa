#!/usr/bin/env bash
# Installs the project into .venv, pre-trains MoCo v2 on the embedded sample, compares it with raw pixels and
# the untrained network, and writes an HTML report: a few minutes on two CPU cores. If the script is run again,
# training resumes from its last checkpoint, or is skipped if it has finished.
# Usage: launch/quickstart.sh [WORKDIR]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/install.sh
install "[report]"
workdir=${1:-runs/quickstart}
ssl-jax show augmentations --config=configs/pretrain/moco_sample.py --index=95 \
  --output="$workdir/augmentations.png"
ssl-jax train --config=configs/pretrain/moco_sample.py --workdir="$workdir"
ssl-jax evaluate --config=configs/transfer/small.py --workdir="$workdir"
ssl-jax report --workdir="$workdir"
echo "Open $workdir/report.html in a browser."
