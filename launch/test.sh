#!/usr/bin/env bash
# Installs what the tests need into .venv and runs them; further words go to pytest: launch/test.sh -k moco
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/install.sh
install "[test]"
if [ -n "${CI:-}" ] && ! command -v chromium > /dev/null && command -v apt-get > /dev/null && [ "$(id -u)" = 0 ]; then
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } > /dev/null 2>&1 ||
    echo "no Chromium could be installed: the tests of the report in a browser will be skipped" >&2
fi
exec python -m pytest -n 2 "$@"
