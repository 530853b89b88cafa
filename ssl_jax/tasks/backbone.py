"""What is measured: a frozen network, or raw pixels as the baseline that every network has to beat."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from ssl_jax import methods
from ssl_jax.core import Aux, Init, Method, PyTree, Weights, keep_extra
from ssl_jax.methods import Ability
from ssl_jax.parallel import placement
from ssl_jax.tasks.task import Batches

# (params, model_state, f32 images in [0, 1]) -> f32[B, ...]
Encode = Callable[[PyTree, PyTree, jax.Array], jax.Array]


class Backbone(NamedTuple):
  """A network in evaluation mode. Two of one architecture should share `method`: its functions then compile
  once.
  """

  weights: Weights
  method: Method
  protocol: Mapping[str, Any] = {}  # method, checkpoint, step: repeated in the protocol of every result

  @property
  def name(self) -> str:
    """What the backbone is called in tables and messages."""
    return str(self.protocol.get("backbone", "this backbone"))

  def ability(self, kind: type[Ability], user: str, cure: str = "") -> Ability:
    """The ability of its method that `user`, such as "task 'ttt'", needs. See `methods.ability`."""
    return methods.ability(self.method, kind, owner=self.name, user=user, cure=cure)

  def reading(self, encode: Encode) -> Backbone:
    """The same weights read by another function of (params, model_state, images)."""
    return self._replace(method=self.method._replace(encode=encode))


def encoder_only(encode: Encode, abilities: Mapping[type, Any] | None = None) -> Method:
  """A method that encodes and never learns: for raw pixels and for networks from elsewhere."""

  def init(key, batch):
    return Init({}, {})

  def loss(params, model_state, extra, batch, key):
    return jnp.zeros(()), Aux(model_state)

  return Method(init, loss, keep_extra, encode, abilities or {})


def pixels(mean: np.ndarray | None = None) -> Backbone:
  """Raw pixels, flattened: the baseline.

  From every image is subtracted first `mean` (if given), then the mean of the rest of that image. Both make
  cosine k-NN stronger, and a
  baseline should be as strong as it can be: 8,000 + 2,000 images, k=20, top-1 without / with both: CIFAR-10
    30.4 / 41.5, Fashion-MNIST
  80.0 / 83.4. The result is divided by sqrt(3 H W): it is then as small as a network's pooled features, and
  the learning rates of their linear probes suit it.

  Args:
    mean: f32[H, W, 3] in [0, 1], of the training images: `mean_image(data.train)`.
  """
  protocol = {
    "backbone": "raw pixels",
    "centred": "each image's own mean"
    if mean is None
    else "mean image of the training set, then each image's own mean",
    "scaled": "1 / sqrt(3 H W)",
  }
  model_state = {} if mean is None else {"mean": np.asarray(mean, np.float32)}
  return Backbone(Weights({}, model_state), _PIXELS, protocol)


def _centred_pixels(params: PyTree, model_state: PyTree, images: jax.Array) -> jax.Array:
  if "mean" in model_state:
    images = images - model_state["mean"][None]
  flat = images.reshape(len(images), -1)
  return (flat - flat.mean(axis=1, keepdims=True)) / math.sqrt(flat.shape[1])


_PIXELS = encoder_only(_centred_pixels)


def mean_image(batches: Batches) -> np.ndarray:
  """f32[H, W, 3] in [0, 1]: the mean over the images that count, of all processes."""
  total, count = 0.0, 0
  for batch in batches():
    images = batch["image"][batch["valid"]] if "valid" in batch else batch["image"]
    total, count = total + images.sum(axis=0, dtype=np.int64), count + len(images)
  if jax.process_count() > 1:
    share = np.asarray(total, np.float32) / 255, np.asarray(count)
    shares, counts = multihost_utils.process_allgather(share)
    return shares.sum(axis=0) / counts.sum()
  if not count:
    raise ValueError("the mean image of no images: the split is empty")
  return (total / (255 * count)).astype(np.float32)


def digest(backbone: Backbone) -> str:
  """SHA-256 over names, shapes, dtypes and bytes of parameters and model state."""
  found = hashlib.sha256()
  leaves, _ = jax.tree_util.tree_flatten_with_path(tuple(backbone.weights))
  for path, leaf in leaves:
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      leaf = jax.random.key_data(leaf)
    array = placement.fetch(leaf) if isinstance(leaf, jax.Array) else np.asarray(leaf)
    found.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\n".encode())
    found.update(np.ascontiguousarray(array).tobytes())
  return found.hexdigest()
