"""What is said where the simulator is missing, or cannot render."""

import importlib.util
import os
import subprocess
import sys

import pytest

from ssl_jax.control import simulator
from tests.conftest import REPOSITORY


@pytest.mark.parametrize("module, name", [("mujoco", "MuJoCo"), ("dm_control", "dm-control")])
def test_a_missing_package_is_named_with_the_extra(monkeypatch, module, name):
  found = importlib.util.find_spec
  monkeypatch.setattr(importlib.util, "find_spec", lambda wanted: None if wanted == module else found("json"))
  with pytest.raises(ImportError, match=rf"need {name}, .*run: pip install 'ssl_jax\[control\]'$"):
    simulator.load_simulator()


def test_importing_the_folder_imports_no_simulator():
  program = (
    "import sys; from ssl_jax.control import trajectories; from ssl_jax.tasks import deployment; "
    "assert not {'mujoco', 'dm_control'} & set(sys.modules)"
  )
  subprocess.run([sys.executable, "-c", program], check=True, cwd=REPOSITORY)


def test_a_machine_that_cannot_render_is_told_what_to_install():
  pytest.importorskip("dm_control", reason="dm_control is not installed: extra `control`")
  program = (
    "from ssl_jax.control.environment import Environment, Setup\n"
    "try: Environment(Setup(size=16))\n"
    "except ImportError as error: print(error)"
  )
  settings = {**os.environ, "MUJOCO_GL": "glfw", "DISPLAY": ""}
  found = subprocess.run(
    [sys.executable, "-W", "ignore", "-c", program],
    env=settings,
    cwd=REPOSITORY,
    capture_output=True,
    text=True,
  )
  assert "MuJoCo cannot render by MUJOCO_GL=glfw" in found.stdout, found.stderr
  assert "libegl1" in found.stdout and "MUJOCO_GL=osmesa" in found.stdout
