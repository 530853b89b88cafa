#!/usr/bin/env bash
# Runs one ssl-jax command on every worker of Cloud TPU slices: see --help. The launcher is ssl_jax/launching,
# because it checks the command with the project itself before anything is created; it runs in .venv, which is
# made here if there is none.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ ! -x .venv/bin/python ]; then
  source launch/install.sh
  install ""
fi
exec .venv/bin/python -m ssl_jax.launching "$@"
