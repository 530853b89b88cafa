"""The object of a measurement: a frozen network, or raw pixels, the baseline that every network must beat."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from ssl_jax import methods
from ssl_jax.augment.crops import to_float
from ssl_jax.core import Aux, Init, Method, PyTree, Weights, keep_extra
from ssl_jax.methods import Ability
from ssl_jax.parallel import placement
from ssl_jax.tasks.task import Batches

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
  """Returns a method that encodes but cannot be trained, for raw pixels and for external networks."""

  def init(key, batch):
    return Init({}, {})

  def loss(params, model_state, extra, batch, key):
    return jnp.zeros(()), Aux(model_state)

  return Method(init, loss, keep_extra, encode, abilities or {})


def pixels(mean: np.ndarray | None = None) -> Backbone:
  """Raw pixels, flattened: the baseline.

  `mean` (if given) is subtracted from every image, and then the mean over all values of the resulting image.
  Both steps make cosine k-NN stronger, and a baseline should be as strong as possible. With 8,000
  training and 2,000 test images and k=20, the top-1 accuracy without / with both steps is 30.4 / 41.5 on
  CIFAR-10 and 80.0 / 83.4 on Fashion-MNIST. The result is divided by sqrt(3 H W), which makes it as small as
  the pooled features of a network, so that the learning rates of their linear probes suit it.

  Args:
    mean: f32[H, W, 3] in [0, 1], the mean of the training images: `mean_image(data.train)`.
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
  """f32[H, W, 3] in [0, 1]: the mean over the valid images of all processes.

  Raises: ValueError if there are no valid images (checked with one process only).
  """
  total, count = 0.0, 0
  for batch in batches():
    images = batch["image"][batch["valid"]] if "valid" in batch else batch["image"]
    total, count = total + images.sum(axis=0, dtype=np.int64), count + len(images)
  if jax.process_count() > 1:
    own = np.asarray(total, np.float32) / 255, np.asarray(count)
    totals, counts = multihost_utils.process_allgather(own)
    return totals.sum(axis=0) / counts.sum()
  if not count:
    raise ValueError("there are no images to compute a mean image from: the split is empty")
  return np.asarray(total / (255 * count), np.float32)


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
