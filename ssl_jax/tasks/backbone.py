"""The object of a measurement: a frozen network."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax import methods
from ssl_jax.augment.crops import to_float
from ssl_jax.core import Aux, Init, Method, PyTree, Weights, keep_extra
from ssl_jax.methods import Ability
from ssl_jax.parallel import placement

# (params, model_state, f32 images in [0, 1]) -> f32[B, ...]
Encode = Callable[[PyTree, PyTree, jax.Array], jax.Array]


class Backbone(NamedTuple):
  """A network in evaluation mode. Two backbones of the same architecture should share `method`, because its
  functions then compile only once.
  """

  weights: Weights
  method: Method
  protocol: Mapping[str, Any] = {}  # method, checkpoint, step: repeated in the protocol of every result
  class_names: tuple[str, ...] = ()  # of the images it was trained on, whose numbers its classifier uses

  @property
  def name(self) -> str:
    """The name of the backbone in tables and messages."""
    return str(self.protocol.get("backbone", "this backbone"))

  def ability(self, kind: type[Ability], user: str, cure: str = "") -> Ability:
    """Returns an ability of the method for `user`, such as "task 'ttt'"; see `methods.ability`."""
    return methods.ability(self.method, kind, owner=self.name, user=user, cure=cure)

  def features(self, images: np.ndarray) -> np.ndarray:
    """f32[B, D]: the output of the encoder for images [B, H, W, 3], uint8 or f32 in [0, 1]."""
    return np.asarray(_encode(*self.weights, images, encode=self.method.encode))

  def reading(self, encode: Encode) -> Backbone:
    """Returns the backbone with the same weights and another encoder (params, model_state, images)."""
    return self._replace(method=self.method._replace(encode=encode))


@functools.partial(jax.jit, static_argnames="encode")
def _encode(params: PyTree, model_state: PyTree, images: jax.Array, *, encode: Encode) -> jax.Array:
  return encode(params, model_state, to_float(images))


def encoder_only(encode: Encode, abilities: Mapping[type, Any] | None = None) -> Method:
  """Returns a method that encodes but cannot be trained, for baselines and for external networks."""

  def init(key, batch):
    return Init({}, {})

  def loss(params, model_state, extra, batch, key):
    return jnp.zeros(()), Aux(model_state)

  return Method(init, loss, keep_extra, encode, abilities or {})


def digest(backbone: Backbone) -> str:
  """Returns the SHA-256 over the names, shapes, dtypes and bytes of the parameters and the model state."""
  found = hashlib.sha256()
  leaves, _ = jax.tree_util.tree_flatten_with_path(tuple(backbone.weights))
  for path, leaf in leaves:
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      leaf = jax.random.key_data(leaf)
    array = placement.fetch(leaf) if isinstance(leaf, jax.Array) else np.asarray(leaf)
    found.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\n".encode())
    found.update(np.ascontiguousarray(array).tobytes())
  return found.hexdigest()
