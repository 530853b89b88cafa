"""Ways to learn. One file here is one method: `make(encoder, data, *, options...) -> Method`.

The folder is the registry: a new file is found by `make`, the command line and the conformance tests unaided.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable

from ssl_jax.config.checked import call_checked, nearest
from ssl_jax.core import DataSpec, Method
from ssl_jax.models import Network


def known() -> list[str]:
  """Names of all methods, sorted."""
  return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg)


def factory(name: str) -> Callable[..., Method]:
  """`make` of the file called `name`; raises ValueError with the nearest known names."""
  if name not in known():
    raise ValueError(f"config.method.name: no method is called {name!r}{nearest(name, known())}")
  return importlib.import_module(f"{__name__}.{name}").make


def make(name: str, encoder: Network, data: DataSpec, **options) -> Method:
  """Builds the method in `methods/<name>.py`.

  Raises: ValueError for an unknown name, an unknown option or one of the wrong type, naming the nearest known ones.
  """
  return call_checked(factory(name), options, "config.method", encoder, data)
