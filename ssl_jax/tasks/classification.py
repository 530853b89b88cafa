"""How often a network's own classifier is right: what supervised training and fine-tuning are measured by."""

from __future__ import annotations

import jax
from jax.sharding import Mesh

from ssl_jax.tasks.backbone import Backbone
from ssl_jax.tasks.features import Features
from ssl_jax.tasks.features import extract as extract_features
from ssl_jax.tasks.task import Batches, Result, Task, TaskData, check_labels, rank_of_label, silent


def make() -> Task:
  """Top-1 and top-5 accuracy of `backbone.predict` on the test images.

  Raises, in `run`: ValueError if the network has no classifier, or one of other classes than the data.
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
    check_classifier(backbone, "classification")
    logits = classify(backbone, data.test, data.num_classes, mesh, extract)
    rank = rank_of_label(logits.x, logits.y)
    scalars = {f"top{k}": float((rank < k).mean()) for k in (1, 5)}
    protocol = {
      **data.protocol,
      **backbone.protocol,
      "task": "classification",
      "backbone_mode": "evaluation",
      "test_rows": len(logits.x),
    }
    return Result(
      scalars, protocol, {"label": logits.y, "prediction": logits.x.argmax(1), "index": logits.index}
    )

  return Task("classification", run)


def check_classifier(backbone: Backbone, task: str) -> None:
  """Raises ValueError if the network has no classifier of its own."""
  if backbone.predict is None:
    raise ValueError(
      f"task {task!r} needs a network with a classifier of its own, which "
      f"{backbone.protocol.get('backbone', 'this backbone')!r} is not; use the tasks knn or linear_probe, "
      "or fine-tune it first (configs/transfer/finetune.py)"
    )


def classify(backbone: Backbone, batches: Batches, num_classes: int, mesh: Mesh, extract) -> Features:
  """The logits of `backbone.predict` as features. Raises ValueError if they or the labels are of other classes than the data."""
  logits = extract(backbone._replace(encode=backbone.predict), batches, mesh)
  check_labels(logits.y, num_classes, "test")
  if logits.x.shape[1] != num_classes:
    raise ValueError(
      f"the network tells {logits.x.shape[1]} classes apart, the test images have {num_classes}; "
      "use the data set that it was trained on"
    )
  return logits
