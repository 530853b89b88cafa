"""Miners. Each file in this folder is one miner; it defines the function `make(*, options...) -> Miner`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable

from ssl_jax.config.checked import call_checked, nearest
from ssl_jax.mining.miner import Miner


def known() -> list[str]:
  """Returns the names of all miners, sorted."""
  return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg)


def factory(name: str) -> Callable[..., Miner]:
  """Returns the function `make` of the file called `name`.

  Raises: ValueError for an unknown name, with the nearest known ones.
  """
  if name not in known():
    raise ValueError(f"no miner is called {name!r}{nearest(name, known())}")
  return importlib.import_module(f"{__name__}.{name}").make


def make(name: str, **options) -> Miner:
  """Builds the miner in `miners/<name>.py`.

  Raises: ValueError for an unknown name, an unknown option or an option of the wrong type, with the nearest
    known names.
  """
  return call_checked(factory(name), options, name)
