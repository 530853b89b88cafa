# shellcheck shell=bash
# Sourced by the other scripts. Defines `install EXTRAS`, for example install "" or install "[test]", which
# creates .venv in the checkout, installs the project there with these extras, and puts it on the PATH.
# A second call with the same extras installs nothing and needs no network.

install() {
  local python=${PYTHON:-python3} extras=$1 venv=.venv stamp
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "ssl_jax needs Python 3.11 or newer; $python is $("$python" --version 2>&1). Set PYTHON=..." >&2
    return 1
  }
  stamp="$venv/.installed$extras"
  [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
  if ! cmp -s setup.py "$stamp"; then
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".$extras"
    cp setup.py "$stamp"
  fi
  PATH="$PWD/$venv/bin:$PATH"
}
