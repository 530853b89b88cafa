"""Learning methods. Each file in this folder is one method. It defines the function
`make(encoder, data, *, options...) -> Method`, and ABILITIES, the abilities that the method can have.

The folder is the registry: `make`, the command line and the conformance tests find a new file without any
list of names. Packages are not methods: `pretext/` holds the code that several pretext tasks share. A method
from outside of the package is named as MODULE:FUNCTION, see examples/simsiam.py.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import TypeVar

from ssl_jax.config.checked import call_checked, nearest
from ssl_jax.config.named_functions import import_function, names_function
from ssl_jax.core import DataSpec, Method
from ssl_jax.models import Network

Ability = TypeVar("Ability")


class MissingAbility(ValueError):
  """A caller needs an ability that the method does not have."""


def known() -> list[str]:
  """Returns the names of all methods, sorted."""
  return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg)


def factory(name: str) -> Callable[..., Method]:
  """Returns the function `make` of the file called `name`, or the function MODULE:FUNCTION.

  Raises: ValueError for an unknown name, with the nearest known ones, or as `import_function`.
  """
  if names_function(name):
    return import_function(name, "config.method.name")
  if name not in known():
    raise ValueError(
      f"config.method.name: no method is called {name!r}{nearest(name, known())}, or MODULE:FUNCTION"
    )
  return importlib.import_module(f"{__name__}.{name}").make


def make(name: str, encoder: Network, data: DataSpec, **options) -> Method:
  """Builds the method in `methods/<name>.py`, or that of a function MODULE:FUNCTION.

  Raises: ValueError for an unknown name, an unknown option or an option of the wrong type, with the nearest
    known names.
  """
  return call_checked(factory(name), options, "config.method", encoder, data)


def with_ability(kind: type) -> list[str]:
  """Returns the names of the methods that can have an ability, sorted."""
  return [name for name in known() if kind in importlib.import_module(f"{__name__}.{name}").ABILITIES]


def ability(method: Method, kind: type[Ability], *, owner: str, user: str, cure: str = "") -> Ability:
  """Returns the method's ability of this type, such as `Classifier`.

  Args:
    owner: the name of the method in the error message.
    user: what needs the ability, for the error message.
    cure: what the reader of the error message can do without the ability.
  Raises: MissingAbility, naming the methods that have the ability.
  """
  if kind in method.abilities:
    return method.abilities[kind]
  raise MissingAbility(
    f"{user} needs a network with the ability {kind.__name__}, which {owner!r} does not have; "
    "methods with it: " + ", ".join(with_ability(kind)) + (f"; {cure}" if cure else "")
  )
