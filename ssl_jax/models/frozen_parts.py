"""Parameters that a method does not train: they are kept in the model state under "frozen", where neither the
optimiser nor its weight decay reaches them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax

from ssl_jax.core import PyTree, Weights
from ssl_jax.models import Network

FROZEN = "frozen"
Path = tuple[str, ...]


def take_out(weights: Weights, is_frozen: Callable[[Path], bool]) -> Weights:
  """Moves the parameters whose path `is_frozen` from the parameters to the state.

  Args:
    weights: of a network, as nested dicts.
    is_frozen: of the path of a leaf, such as ("encoder", "conv_stem", "kernel").
  """
  trained, kept = _split(weights.params, is_frozen, ())
  return Weights(trained, {**weights.model_state, FROZEN: kept} if kept else weights.model_state)


def whole(params: PyTree, model_state: PyTree) -> Weights:
  """The weights of the network, frozen parameters among them: undoes `take_out`."""
  state = {name: leaf for name, leaf in model_state.items() if name != FROZEN}
  return Weights(joined(params, model_state.get(FROZEN, {})), state)


def read_encoder(encoder: Network, params: PyTree, model_state: PyTree, images: jax.Array, **call):
  """The features of a network's encoder, frozen or not, or with `pyramid=True` its feature maps."""
  weights = whole(params, model_state)
  return encoder.apply(Weights(weights.params["encoder"], weights.model_state["encoder"]), images, **call)[0]


def joined(first: PyTree, second: PyTree) -> PyTree:
  """The union of nested dicts that share no leaf."""
  if not (isinstance(first, Mapping) and isinstance(second, Mapping)):
    raise ValueError("a parameter is both trained and frozen")
  both = {name: joined(first[name], second[name]) for name in first.keys() & second.keys()}
  return {**first, **second, **both}


def _split(tree: PyTree, is_frozen: Callable[[Path], bool], path: Path) -> tuple[PyTree, PyTree]:
  """(The other leaves, the frozen leaves); dicts without a leaf are left out."""
  parts: tuple[dict, dict] = ({}, {})
  for name, node in tree.items():
    below = (*path, name)
    if isinstance(node, Mapping):
      found = _split(node, is_frozen, below)
      for part, inner in zip(parts, found, strict=True):
        if inner:
          part[name] = inner
    else:
      parts[is_frozen(below)][name] = node
  return parts
