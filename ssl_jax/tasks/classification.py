"""The accuracy of a network's own classifier, which measures supervised training and fine-tuning."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from ssl_jax.abilities import Classifier
from ssl_jax.data import classes
from ssl_jax.data.clip_transforms import even_frames
from ssl_jax.tasks.backbone import Backbone
from ssl_jax.tasks.features import Features
from ssl_jax.tasks.features import extract as extract_features
from ssl_jax.tasks.task import Batches, Result, Task, TaskData, check_labels, rank_of_label, silent


def make(*, frames: int = 0) -> Task:
  """Top-1 and top-5 accuracy of the network's own classifier on the test images.

  Test images whose classes are some of the network's own get the network's numbers, by name.

  Args:
    frames: 0: one image of each record, of a clip the frame in its middle. Otherwise the test records are
      clips, and the probabilities are averaged over this many frames of a clip at equal distances and over
      ten crops of each: the corners and the centre, each of them mirrored too. A frame becomes
      config.data.size / config.data.crop_ratio pixels high, and 4/3 as wide. 25 are usual; the forward passes
      of a batch are 10 `frames` times config.batch_size.
  Raises: ValueError if `frames` is negative and, in `run`, if the test records are no clips, or have a class
    that the network was not trained on; in `run`, methods.MissingAbility if the network has no classifier.
  Source: Simonyan and Zisserman 2014, "Two-Stream Convolutional Networks", section 5 (25 frames, ten crops).
  """
  if frames < 0:
    raise ValueError(f"config.tasks.classification.frames is {frames}; use 25, or 0 for one image")

  def run(
    backbone: Backbone,
    data: TaskData,
    mesh: Mesh,
    key: jax.Array,
    *,
    extract=extract_features,
    progress=silent,
  ) -> Result:
    classifier_of(backbone, "classification")
    if frames:
      data, backbone = _whole_clips(data, frames), _averaging(backbone, data.protocol["crop"])
    data = in_own_classes(backbone, data)
    logits = classify(backbone, data.test, data.num_classes, mesh, extract, "classification")
    rank = rank_of_label(logits.x, logits.y)
    scalars = {f"top{k}": float((rank < k).mean()) for k in (1, 5)}
    protocol = {
      **data.protocol,
      **backbone.protocol,
      "task": "classification",
      "backbone_mode": "evaluation",
      "test_rows": len(logits.x),
      "frames": frames or 1,
      "crops_of_a_frame": 10 if frames else 1,
    }
    predictions = {"label": logits.y, "prediction": logits.x.argmax(1), "index": logits.index}
    return Result(scalars, protocol, predictions, data.class_names)

  return Task("classification", run)


def _whole_clips(data: TaskData, frames: int) -> TaskData:
  """The data with test batches whose "image" holds several frames, uint8[B, frames, H, W, 3]."""
  records = data.records
  if records is None or "clip" not in records.fields:
    held = ", ".join(records.fields) if records else "images"
    raise ValueError(
      f"config.tasks.classification.frames is {frames}, but the test records have no 'clip', only {held}; "
      "use config.data.name='video_folder', or frames=0"
    )
  height = data.protocol["resize"]
  transform = even_frames(frames, height, round(4 / 3 * height), records.interpolation)

  def test():
    for batch in records.batches(transform):
      yield {**batch, "image": batch["clip"]}

  return data._replace(test=test)


@functools.lru_cache(maxsize=None)  # trained and untrained networks share one compiled program
def _averaged(predict: Callable, size: int) -> Callable:
  """Returns (params, model_state, frames f32[B, T, H, W, 3]) -> f32[B, C]: the logarithms of the mean
  probabilities over frames and crops.
  """

  def logits(params, model_state, frames):
    total = 0.0
    for crop in ten_crops(frames.reshape(-1, *frames.shape[2:]), size):  # one at a time, to save memory
      found = jax.nn.softmax(predict(params, model_state, crop))
      total += found.reshape(*frames.shape[:2], -1).mean(1)
    return jnp.log(jnp.maximum(total / 10, 1e-30))

  return logits


def _averaging(backbone: Backbone, size: int) -> Backbone:
  """The backbone with a classifier of several frames, of which it sees crops of `size` pixels."""
  predict = _averaged(classifier_of(backbone, "classification").predict, size)
  abilities = {**backbone.method.abilities, Classifier: Classifier(predict)}
  return backbone._replace(method=backbone.method._replace(abilities=abilities))


def ten_crops(images: jax.Array, size: int) -> list[jax.Array]:
  """The four corners and the centre of images f32[B, H, W, 3], and their mirror images, each f32[B, size,
  size, 3].

  Raises: ValueError if an image is smaller than a crop.
  """
  height, width = images.shape[1:3]
  if min(height, width) < size:
    raise ValueError(
      f"frames of {height}x{width} pixels are smaller than crops of {size}; use a smaller size"
    )
  down, across = height - size, width - size
  corners = [(0, 0), (0, across), (down, 0), (down, across), (down // 2, across // 2)]
  crops = [images[:, top : top + size, left : left + size] for top, left in corners]
  return crops + [crop[:, :, ::-1] for crop in crops]


def classifier_of(backbone: Backbone, task: str) -> Classifier:
  """Returns the network's own classifier. Raises methods.MissingAbility if there is none."""
  cure = "fine-tune it first (configs/transfer/finetune.py), or use the tasks knn or linear_probe"
  return backbone.ability(Classifier, f"task {task!r}", cure)


def in_own_classes(backbone: Backbone, data: TaskData) -> TaskData:
  """Returns the data with test labels that are numbers among the network's own classes, found by name.

  The data stays as it is if the names of the classes are the same or unknown.

  Raises: ValueError that lists the classes of the test images that the network was not trained on.
  """
  own = backbone.class_names
  if not own or not data.class_names or data.class_names == own:
    return data
  numbers = classes.numbers_of(
    data.class_names, own, what="the test images", owner="the network's training images"
  )

  @functools.wraps(data.test)
  def test():
    for batch in data.test():
      check_labels(batch["label"], len(numbers), "test")
      yield {**batch, "label": numbers[batch["label"]]}

  return data._replace(test=test, num_classes=len(own), class_names=own)


def classify(
  backbone: Backbone, batches: Batches, num_classes: int, mesh: Mesh, extract, task: str
) -> Features:
  """Returns the logits of the network's own classifier as features.

  Raises: methods.MissingAbility if the network has no classifier; ValueError if its number of classes differs
    from `num_classes`, or a label is out of range.
  """
  predict = classifier_of(backbone, task).predict
  logits = extract(backbone.reading(predict), batches, mesh)
  check_labels(logits.y, num_classes, "test")
  if logits.x.shape[-1] != num_classes:
    raise ValueError(
      f"the network distinguishes {logits.x.shape[-1]} classes, but the test images have {num_classes}; "
      "use the data set that it was trained on"
    )
  return logits
