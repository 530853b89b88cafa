"""Raw pixels, the baseline that every network must beat, in their strongest form."""

from __future__ import annotations

import math

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from ssl_jax.core import PyTree, Weights
from ssl_jax.tasks import knn
from ssl_jax.tasks.backbone import Backbone, encoder_only
from ssl_jax.tasks.features import extract
from ssl_jax.tasks.task import Batches, TaskData

MEAN, TWICE = "mean image of the training set", "mean image of the training set, then each image's own mean"
PILOT = 2000  # training images that decide the form
K, TEMPERATURE = 20, 0.07


def strongest_pixels(data: TaskData, mesh: Mesh) -> Backbone:
  """Raw pixels, flattened, centred in the way that suits k-NN on the training images best.

  The mean training image is taken away, which makes cosines more telling. Taking each image's own mean away
  as well helps where brightness says little about the class, and hurts where it says much. The top-1 accuracy
  of pixels as they are / centred once / twice, with 8,000 training and 2,000 test images and k = 20, is 32.3
  / 41.4 / 42.2 on CIFAR-10 and 22.9 / 35.4 / 27.5 on the embedded sample. PILOT or more training images are
  classified among each other both ways, and the better one is taken. Without classes both means are taken
  away.

  Raises: ValueError if there are no valid images (checked with one process only).
  """
  mean, scores = mean_image(data.train), {}
  some = thinned(data.train, max(data.train_size // PILOT, 1))
  for form in (TWICE, MEAN):
    found = extract(pixels(mean, own_mean=form == TWICE), some, mesh)
    if found.y.ndim > 1 or found.y.min() < 0 or len(found.y) <= K:
      return pixels(mean)
    near = knn.nearest(found.x, found.x, k=K, mesh=mesh, exclude_self=True)
    votes = knn.vote(near, found.y, k=K, temperature=TEMPERATURE, num_classes=int(found.y.max()) + 1)
    scores[form] = float((votes.argmax(1) == found.y).mean())
  best = max(scores, key=scores.__getitem__)  # the first of equal ones
  chosen = pixels(mean, own_mean=best == TWICE)
  return chosen._replace(protocol={**chosen.protocol, "forms": scores})


def pixels(mean: np.ndarray | None = None, *, own_mean: bool = True) -> Backbone:
  """Raw pixels, flattened and centred.

  The result is divided by sqrt(3 H W), which makes it as small as the pooled features of a network, so that
  the learning rates of their linear probes suit it.

  Args:
    mean: f32[H, W, 3] in [0, 1], taken away from every image: `mean_image(data.train)`.
    own_mean: take away the mean over all values of the resulting image, too.
  """
  centred = (MEAN if mean is not None else "no") if not own_mean else "each image's own mean"
  protocol = {
    "backbone": "raw pixels",
    "centred": TWICE if mean is not None and own_mean else centred,
    "scaled": "1 / sqrt(3 H W)",
  }
  model_state = {} if mean is None else {"mean": np.asarray(mean, np.float32)}
  return Backbone(Weights({}, model_state), _TWICE if own_mean else _SHIFTED, protocol)


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


def thinned(batches: Batches, every: int) -> Batches:
  """Returns batches of which only each `every`-th image of the split is valid."""

  def thinned():
    read = 0
    for batch in batches():
      index = np.asarray(batch.get("index", np.arange(read, read + len(batch["image"]))))
      read += len(index)
      valid = np.asarray(batch.get("valid", np.ones(len(index), bool)))
      yield {**batch, "valid": valid & (index % every == 0)}

  return thinned


def _shifted(params: PyTree, model_state: PyTree, images: jax.Array) -> jax.Array:
  if "mean" in model_state:
    images = images - model_state["mean"][None]
  flat = images.reshape(len(images), -1)
  return flat / math.sqrt(flat.shape[1])


def _twice(params: PyTree, model_state: PyTree, images: jax.Array) -> jax.Array:
  flat = _shifted(params, model_state, images)
  return flat - flat.mean(axis=1, keepdims=True)


_SHIFTED, _TWICE = encoder_only(_shifted), encoder_only(_twice)
