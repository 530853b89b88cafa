#!/usr/bin/env bash
# The long drills, half an hour on two cores: 30 kills, 30 damaged checkpoints, a full disk (as root), 20,000 steps, thousands of senseless
# options; then known faults of the dependencies. The figures are printed as they come. Usage: launch/drills.sh [words for pytest]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/install.sh
install "[test]"
SSL_JAX_DRILLS=long python -m pytest -n 0 -rA -s -m drills tests/drills "$@"
python -m pip install --quiet --disable-pip-version-check pip-audit
python -m pip_audit --local --skip-editable --strict --progress-spinner off || echo "pip-audit found faults, or reached no data base of them: see above" >&2
