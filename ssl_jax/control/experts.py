"""Policies that see the state of an environment, from which policies that see pictures are cloned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ssl_jax.config.checked import nearest
from ssl_jax.config.named_functions import import_function
from ssl_jax.control import cartpole

# (dm_control environment, control steps for which an action is held) -> (physics -> f64[A], in its units)
MakeExpert = Callable[[Any, int], Callable[[Any], Any]]
EXPERTS: dict[str, MakeExpert] = {"cartpole/swingup": cartpole.make_expert}


def find_expert(name: str, environment: str) -> MakeExpert | None:
  """Returns the function that makes an expert; None if there is none for this environment.

  Args:
    name: "MODULE:FUNCTION", or "" for the one that comes with the environment.
  Raises: ValueError if the module or the function does not exist.
  """
  return import_function(name, "expert") if name else EXPERTS.get(environment)


def need_expert(name: str, environment: str) -> None:
  """Raises ValueError if there is no expert for this environment."""
  if find_expert(name, environment) is None:
    raise ValueError(
      f"there is no expert for {environment!r}{nearest(environment, EXPERTS)}; give one of your own as "
      "expert=MODULE:FUNCTION, which takes (environment, repeat) and returns a function of its physics"
    )
