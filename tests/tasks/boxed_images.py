"""Small images with objects, in memory, in the form that the task `detection` reads, and a network that finds
them."""

import io

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from ssl_jax.abilities import ObjectDetector
from ssl_jax.core import Weights
from ssl_jax.data import instance_masks
from ssl_jax.data.elements import host_batch
from ssl_jax.data.objects import Objects
from ssl_jax.detect.detections import Detections
from ssl_jax.models.detection import Predictions
from ssl_jax.tasks.backbone import Backbone, encoder_only
from ssl_jax.tasks.task import TaskData, TestRecords
from tests.tasks.masked_images import batches_of

NAMES = ("red", "green", "blue")
SIDES = (40, 65)


def drawn(count: int, seed: int, *, masks: bool = True) -> list[dict]:
  """Records of several sizes: one bright rectangle of each of one to three colours, which are the classes."""
  random = np.random.default_rng(seed)
  found = []
  for _ in range(count):
    height, width = random.integers(*SIDES, 2)
    image = random.integers(0, 40, (height, width, 3)).astype(np.uint8)
    boxes, numbers = [], np.sort(random.permutation(3)[: random.integers(1, 4)])
    for c in numbers:
      x, y = random.integers(0, width - 16), random.integers(0, height - 16)
      box = np.array([x, y, x + random.integers(8, 16), y + random.integers(8, 16)])
      image[box[1] : box[3], box[0] : box[2], c] = 255
      boxes.append(box)
    pixels = [image[..., c] == 255 for c in numbers]
    size = len(numbers)
    objects = Objects(
      np.array(boxes, np.float32),
      numbers.astype(np.int32),
      np.zeros(size, bool),
      np.zeros(size, bool),
      np.array([mask.sum() for mask in pixels], np.float64),
      tuple(instance_masks.from_pixels(mask) for mask in pixels) if masks else None,
    )
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    found.append({"image": out.getvalue(), "label": -1, **objects.record()})
  return found


def data_of(records: list[dict], class_names=NAMES, size: int = 4) -> TaskData:
  def sizes():
    opened = [Image.open(io.BytesIO(record["image"])).size[::-1] for record in records]
    return np.array(opened, np.int32)

  test = TestRecords(
    batches_of(records, size),
    lambda transform, indices: host_batch(transform, [records[i] for i in indices]),
    records.__getitem__,
    sizes,
    tuple(records[0]),
    class_names,
  )
  nothing = lambda: iter(())
  return TaskData(nothing, nothing, 3, records=test, test_size=len(records), protocol={"data": "toy"})


def by_colour(*, masks: bool = True, moved: float = 0.0, **fields) -> Backbone:
  """A network that finds the extent of each bright colour, moved to the right by `moved` of its width."""

  def extent(bright: jax.Array, axis: int) -> jax.Array:
    lines = bright.any(axis)
    first = jnp.argmax(lines)
    last = len(lines) - jnp.argmax(lines[::-1])
    return jnp.stack([first, last]).astype(jnp.float32)

  def of_image(image: jax.Array, size: jax.Array) -> tuple[jax.Array, ...]:
    rows, columns = jnp.arange(image.shape[0]), jnp.arange(image.shape[1])
    inside = (rows[:, None] < size[0]) & (columns[None] < size[1])
    bright = [(image[..., c] > 0.5) & inside for c in range(3)]
    x, y = (jnp.stack([extent(one, axis) for one in bright]) for axis in (0, 1))
    x = x + moved * (x[:, 1:] - x[:, :1])
    valid = jnp.stack([one.any() for one in bright])
    boxes = jnp.where(valid[:, None], jnp.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], 1), 0.0)
    return boxes, jnp.where(valid, jnp.array([0.9, 0.8, 0.7]), 0.0), valid

  def predict(params, model_state, images, sizes):
    boxes, scores, valid = jax.vmap(of_image)(images, sizes)
    classes = jnp.broadcast_to(jnp.arange(3, dtype=jnp.int32), scores.shape)
    found = Detections(boxes, scores, classes, jnp.zeros_like(classes), valid)
    return Predictions(found, jnp.ones((*scores.shape, 14, 14)) if masks else None)

  abilities = {ObjectDetector: ObjectDetector(predict, 3)}
  method = encoder_only(lambda params, state, images: images.mean((1, 2)), abilities)
  return Backbone(Weights({}, {}), method, {"backbone": "colours"}, **{"class_names": NAMES, **fields})
