#!/usr/bin/env bash
# Installs the project and the dependencies of its tests into .venv, checks style and types, and runs the tests.
# Usage: launch/test.sh [ARGUMENTS OF PYTEST], for example launch/test.sh -k moco
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/install.sh
install "[test]"
if [ -n "${CI:-}" ] && ! command -v chromium > /dev/null && command -v apt-get > /dev/null && [ "$(id -u)" = 0 ]; then
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } > /dev/null 2>&1 ||
    echo "Chromium could not be installed: the browser tests of the report will be skipped" >&2
fi
if [ -n "${CI:-}" ] && ! ldconfig -p | grep -q libEGL.so.1 && command -v apt-get > /dev/null && [ "$(id -u)" = 0 ]; then
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends libegl1 libegl-mesa0 libgl1-mesa-dri; } > /dev/null 2>&1 ||
    echo "Mesa's EGL could not be installed: the tests that render environments will be skipped" >&2
fi
ruff check --quiet .
ruff format --quiet --check .
pyright --warnings > "$PWD/.venv/pyright.log" || { cat "$PWD/.venv/pyright.log" >&2; exit 1; }
exec python -m pytest -n 2 --dist loadgroup "$@"
