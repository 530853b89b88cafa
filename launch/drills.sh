#!/usr/bin/env bash
# Runs the long form of the drills, half an hour on two cores: 30 kills, 30 damaged checkpoints, a full disk
# (only as root), 20,000 steps, and thousands of invalid options. Results are printed as they are measured.
# Then it checks the dependencies for known vulnerabilities.
# Usage: launch/drills.sh [ARGUMENTS OF PYTEST]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/install.sh
install "[test]"
SSL_JAX_DRILLS=long python -m pytest -n 0 -rA -s -m drills tests/drills "$@"
python -m pip install --quiet --disable-pip-version-check pip-audit
python -m pip_audit --local --skip-editable --strict --progress-spinner off ||
  echo "pip-audit found vulnerabilities, or could not reach its database: see above" >&2
