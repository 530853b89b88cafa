"""The optional packages that simulate and render, imported when they are first needed."""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import Any, NamedTuple


class Simulator(NamedTuple):
  """Two modules."""

  mujoco: Any
  suite: Any  # dm_control.suite


def load_simulator() -> Simulator:
  """Imports MuJoCo and dm_control, which render without a screen unless MUJOCO_GL says otherwise.

  Raises: ImportError if one of them is not installed, or if there is no library to render with.
  """
  for module, name in (("mujoco", "MuJoCo"), ("dm_control", "dm-control")):
    if importlib.util.find_spec(module) is None:
      raise ImportError(
        f"environments for policies need {name}, which is not installed; run: pip install 'ssl_jax[control]'"
      )
  os.environ.setdefault("MUJOCO_GL", "egl")
  try:
    return Simulator(importlib.import_module("mujoco"), importlib.import_module("dm_control.suite"))
  except (ImportError, AttributeError, OSError, RuntimeError) as error:
    raise cannot_render(error) from error


def cannot_render(error: Exception) -> ImportError:
  """The error that says how to render without a screen."""
  kind = os.environ.get("MUJOCO_GL", "egl")
  return ImportError(
    f"MuJoCo cannot render by MUJOCO_GL={kind} ({type(error).__name__}: {error}); without a screen install "
    "Debian's libegl1, libegl-mesa0 and libgl1-mesa-dri, or libosmesa6 and set MUJOCO_GL=osmesa"
  )
