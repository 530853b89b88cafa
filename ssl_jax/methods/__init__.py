"""Ways to learn. One file here is one method: `make(encoder, data, *, options...) -> Method`, and ABILITIES,
the abilities that it can have.

The folder is the registry: a new file is found by `make`, the command line and the conformance tests without
  being listed anywhere. Packages are not
methods: `pretext/` holds what several pretext tasks share.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import TypeVar

from ssl_jax.config.checked import call_checked, nearest
from ssl_jax.core import DataSpec, Method
from ssl_jax.models import Network

Ability = TypeVar("Ability")


class MissingAbility(ValueError):
  """A method was asked for an ability that it does not have."""


def known() -> list[str]:
  """Names of all methods, sorted."""
  return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg)


def factory(name: str) -> Callable[..., Method]:
  """Returns `make` of the file called `name`. Raises ValueError with the nearest known names."""
  if name not in known():
    raise ValueError(f"config.method.name: no method is called {name!r}{nearest(name, known())}")
  return importlib.import_module(f"{__name__}.{name}").make


def make(name: str, encoder: Network, data: DataSpec, **options) -> Method:
  """Builds the method in `methods/<name>.py`.

  Raises: ValueError for an unknown name, an unknown option or one of the wrong type, naming the nearest known
    ones.
  """
  return call_checked(factory(name), options, "config.method", encoder, data)


def with_ability(kind: type) -> list[str]:
  """Names of the methods that can have an ability, sorted."""
  return [name for name in known() if kind in importlib.import_module(f"{__name__}.{name}").ABILITIES]


def ability(method: Method, kind: type[Ability], *, owner: str, user: str, cure: str = "") -> Ability:
  """Returns the method's ability of this type, such as `Classifier`.

  Args:
    owner: what the method is called in the error message.
    user: what needs the ability.
    cure: what to do without it.
  Raises: MissingAbility, naming the methods that have the ability.
  """
  if kind in method.abilities:
    return method.abilities[kind]
  raise MissingAbility(
    f"{user} needs a network with the ability {kind.__name__}, which {owner!r} does not have; methods with it: "
    + ", ".join(with_ability(kind))
    + (f"; {cure}" if cure else "")
  )
