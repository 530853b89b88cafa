#!/usr/bin/env bash
# Installs what the tests need into .venv and runs them; further words go to pytest: launch/test.sh -k moco
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/install.sh
install "[test]"
exec python -m pytest -n 2 "$@"
