# shellcheck shell=bash
# Sourced by the other scripts. Defines `install EXTRAS`, for example install "" or install "[test]", which
# creates .venv in the checkout, installs the project there with these extras, and puts it on the PATH.
# A second call with the same extras installs nothing and needs no network.
#
# Python is $PYTHON, or the first of python3, python3.13, python3.12 and python3.11 that is new enough. If there
# is none, uv provides Python 3.11: the Ubuntu 22.04 of Cloud TPU VMs has 3.10.

install() {
  local extras=$1 venv=.venv stamp
  stamp="$venv/.installed$extras"
  [ -x "$venv/bin/python" ] || make_venv "$venv" || return
  if ! cmp -s setup.py "$stamp"; then
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".$extras"
    cp setup.py "$stamp"
  fi
  PATH="$PWD/$venv/bin:$PATH"
}

make_venv() {
  local python
  for python in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then
      "$python" -m venv "$1" && return
      rm -rf "$1"  # Debian's Python without its package python3-venv leaves half a folder
    fi
  done
  if [ -n "${PYTHON:-}" ]; then
    echo "ssl_jax needs Python 3.11 or newer; PYTHON=$PYTHON is $("$PYTHON" --version 2>&1)" >&2
    return 1
  fi
  echo "no python3 of 3.11 or newer with venv on this machine: uv provides Python 3.11" >&2
  get_uv && uv venv --quiet --python 3.11 --seed "$1"
}

get_uv() {  # from PyPI, which the project needs anyway; by uv's own installer where pip is missing
  PATH="$HOME/.local/bin:$PATH"
  command -v uv > /dev/null && return
  python3 -m pip install --quiet --disable-pip-version-check --user uv 2> /dev/null ||
    curl -fsSL https://astral.sh/uv/install.sh | env UV_NO_MODIFY_PATH=1 UV_INSTALL_DIR="$HOME/.local/bin" sh
}
