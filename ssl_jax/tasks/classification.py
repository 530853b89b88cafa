"""The accuracy of a network's own classifier, which measures supervised training and fine-tuning."""

from __future__ import annotations

import functools

import jax
from jax.sharding import Mesh

from ssl_jax.abilities import Classifier
from ssl_jax.data import classes
from ssl_jax.tasks.backbone import Backbone
from ssl_jax.tasks.features import Features
from ssl_jax.tasks.features import extract as extract_features
from ssl_jax.tasks.task import Batches, Result, Task, TaskData, check_labels, rank_of_label, silent


def make() -> Task:
  """Top-1 and top-5 accuracy of the network's own classifier on the test images.

  Test images whose classes are some of the network's own get the network's numbers, by name.

  Raises, in `run`: methods.MissingAbility if the network has no classifier; ValueError if the test images
    have a class that the network was not trained on.
  """

  def run(
    backbone: Backbone,
    data: TaskData,
    mesh: Mesh,
    key: jax.Array,
    *,
    extract=extract_features,
    progress=silent,
  ) -> Result:
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
    }
    predictions = {"label": logits.y, "prediction": logits.x.argmax(1), "index": logits.index}
    return Result(scalars, protocol, predictions, data.class_names)

  return Task("classification", run)


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
