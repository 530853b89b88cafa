"""Detects objects in batches of images of any size on all devices."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ssl_jax import parallel
from ssl_jax.abilities import ObjectDetector
from ssl_jax.augment.crops import to_float
from ssl_jax.data import instance_masks
from ssl_jax.detect.masks import paste_masks
from ssl_jax.parallel import placement
from ssl_jax.tasks.backbone import Backbone
from ssl_jax.tasks.densepose_scores import DenseDetected
from ssl_jax.tasks.detection_scores import Detected
from ssl_jax.tasks.one_ahead import one_ahead, to_devices


class Found(NamedTuple):
  """What was computed for one global batch; the same on every process. Boxes are in pixels of full size."""

  boxes: np.ndarray  # f32[B, N, 4]
  scores: np.ndarray  # f32[B, N]
  classes: np.ndarray  # i32[B, N]
  detected: np.ndarray  # bool[B, N]
  masks: np.ndarray  # uint8[B, N, H, W / 8]: bits of the full image; N is 0 without masks
  full_size: np.ndarray  # i32[B, 2]
  index: np.ndarray  # i32[B]
  valid: np.ndarray  # bool[B]
  parts: np.ndarray  # uint8[B, N, S, S] of the best detections, see `DenseDetected`; N is 0 without DensePose
  uv: np.ndarray  # uint8[B, N, S, S, 2], times 255

  def bodies(self, row: int) -> DenseDetected:
    """The surfaces of the best detections of one image."""
    kept = np.flatnonzero(self.detected[row, : self.parts.shape[1]])
    uv = self.uv[row, kept] / np.float32(255)
    return DenseDetected(self.boxes[row, kept], self.scores[row, kept], self.parts[row, kept], uv)

  def detections(self, row: int) -> Detected:
    """The detections of one image."""
    kept = np.flatnonzero(self.detected[row])
    masks = None
    if self.masks.shape[1]:
      height, width = self.full_size[row]
      bits = np.unpackbits(self.masks[row, kept], axis=-1)[:, :height, :width]
      masks = tuple(instance_masks.from_pixels(mask) for mask in bits.astype(bool))
    return Detected(self.boxes[row, kept], self.classes[row, kept], self.scores[row, kept], masks)


def has_masks(backbone: Backbone, detector: ObjectDetector, canvas: tuple[int, int]) -> bool:
  """Whether the network predicts masks."""
  image = jax.ShapeDtypeStruct((1, *canvas, 3), jnp.float32)
  size = jax.ShapeDtypeStruct((1, 2), jnp.int32)
  return jax.eval_shape(detector.predict, *backbone.weights, image, size).masks is not None


def detecting(
  backbone: Backbone, detector: ObjectDetector, canvas: tuple[int, int], mesh: Mesh, *, bodies: int = 0
):
  """Returns a function of the rows of this process that starts the computation of `Found`.

  Args:
    canvas: (height, width) that holds the masks of all images at full size; (0, 0): masks are not computed.
    bodies: of how many detections of an image the surface is computed, those of the highest scores; needs a
      network with the ability DensePose.
  """
  parallel.bound_programs()
  weights = placement.replicate(tuple(backbone.weights), mesh)
  options = {"predict": detector.predict, "canvas": canvas, "convention": detector.convention, "mesh": mesh}
  options["bodies"] = bodies

  def detect(rows: dict[str, np.ndarray]):
    return _detect(*weights, to_devices(rows, mesh), **options)

  return detect


@functools.partial(jax.jit, static_argnames=("predict", "canvas", "convention", "mesh", "bodies"))
def _detect(params, model_state, batch, *, predict, canvas, convention, mesh: Mesh, bodies: int):
  sizes = jnp.maximum(batch["image_size"], 1)  # of padded rows, too
  found = predict(params, model_state, to_float(batch["image"]), sizes)
  scale = (batch["full_size"] / sizes).astype(jnp.float32)
  boxes = found.detections.boxes * scale[:, None, jnp.array([1, 0, 1, 0])]
  masks = jnp.zeros((len(boxes), 0, 1, 1), jnp.uint8)
  if canvas[0] and found.masks is not None:
    height, width = canvas
    paste = functools.partial(paste_masks, height=height, width=width, convention=convention)
    masks = jax.vmap(lambda *rows: jnp.packbits(paste(*rows), axis=-1))(found.masks, boxes)
  parts, uv = jnp.zeros((len(boxes), 0, 1, 1), jnp.uint8), jnp.zeros((len(boxes), 0, 1, 1, 2), jnp.uint8)
  if bodies:  # detections are sorted by score
    parts = found.further.parts[:, :bodies]
    uv = jnp.round(found.further.uv[:, :bodies] * 255).astype(jnp.uint8)
  detections = found.detections
  arrays = (boxes, detections.scores, detections.classes, detections.valid, masks)
  results = (*arrays, batch["full_size"], batch["index"], batch["valid"], parts, uv)
  return jax.lax.with_sharding_constraint(results, placement.replicated(mesh))


def detect_each(detect, batches: Iterator[dict[str, np.ndarray]]) -> Iterator[Found]:
  """Yields the valid rows of each global batch; the devices are one batch ahead."""
  for arrays in one_ahead(detect, batches):
    found = Found(*arrays)
    yield Found(*(leaf[found.valid] for leaf in found))
