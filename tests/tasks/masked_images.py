"""Small images with masks, in memory, in the form that the task `segmentation` reads."""

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax.abilities import Segmenter
from ssl_jax.core import Weights
from ssl_jax.data.elements import host_batch
from ssl_jax.tasks.backbone import Backbone, encoder_only
from ssl_jax.tasks.task import TaskData, TestRecords

NAMES = ("sky", "road", "tree")


def painted(count: int, seed: int, sides=(12, 25)) -> list[dict]:
  """Records of several sizes: rectangles of three classes, each with its own colour, and ignored pixels."""
  draw = np.random.default_rng(seed)
  colours = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200]])
  found = []
  for _ in range(count):
    height, width = draw.integers(*sides, 2)
    mask = np.full((height, width), draw.integers(3), np.uint8)
    mask[height // 2 :, : width // 3] = draw.integers(3)
    image = colours[mask] + draw.normal(0, 70, (height, width, 3))
    mask[draw.random((height, width)) < 0.1] = 255
    found.append({"image": image.clip(0, 255).astype(np.uint8), "mask": mask, "label": -1})
  return found


def batches_of(records: list[dict], size: int = 4):
  """`TestRecords.batches`: every process reads every n-th row of each batch; padded rows are not valid."""

  def batches(transform):
    rank, processes = jax.process_index(), jax.process_count()
    for start in range(0, len(records), size * processes):
      rows = np.arange(start, start + size * processes)[rank::processes]
      valid = rows < len(records)
      rows = np.where(valid, rows, 0)
      yield {
        **host_batch(transform, [records[i] for i in rows]),
        "valid": valid,
        "index": rows.astype(np.int32),
      }

  return batches


def records_of(records: list[dict], size: int = 4, class_names=NAMES) -> TestRecords:
  return TestRecords(
    batches_of(records, size),
    lambda transform, indices: host_batch(transform, [records[i] for i in indices]),
    records.__getitem__,
    lambda: np.array([record["mask"].shape for record in records], np.int32),
    ("image", "mask", "label"),
    class_names,
  )


def data_of(records: list[dict], class_names=NAMES) -> TaskData:
  nothing = lambda: iter(())
  test = records_of(records, class_names=class_names)
  return TaskData(nothing, nothing, 3, records=test, test_size=len(records), protocol={"data": "toy"})


def by_colour(**fields) -> Backbone:
  """A network whose logits are the colours of a pixel and a little of the mean colour of its window."""

  def predict(params, model_state, images):
    around = images.mean((1, 2), keepdims=True)
    return (images + 0.5 * around) @ params["mix"]

  method = encoder_only(lambda params, state, images: images.mean((1, 2)), {Segmenter: Segmenter(predict)})
  weights = Weights({"mix": jnp.eye(3)}, {})
  return Backbone(weights, method, {"backbone": "colours"}, **{"class_names": NAMES, **fields})
