"""How well a network predicts the sound around frames of clips that it was not trained on."""

from __future__ import annotations

import jax
import numpy as np
from jax.sharding import Mesh

from ssl_jax.abilities import SoundPredictor
from ssl_jax.data import transforms
from ssl_jax.data.image_bits import ImageAndBits
from ssl_jax.metrics import standard_error
from ssl_jax.tasks.backbone import Backbone
from ssl_jax.tasks.features import extract as extract_features
from ssl_jax.tasks.task import Result, Task, TaskData, silent


def make() -> Task:
  """The accuracy of the clusters or bits of the sound that a network predicts, on the test split.

  The test split must hold other clips than the training split, as the one that `ssl-jax prepare sounds`
  writes. "accuracy" is compared with "constant", the accuracy of the best answer that is the same for all
  frames, and with "chance", that of a guess. The protocol has standard errors, in which the frames of a clip
  count as one cluster, and the number of clips.

  Raises, in `run`: methods.MissingAbility if the network does not predict sound; ValueError if the test
    records have no bits, or another number of clusters or bits than the network predicts.
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
    predictor = backbone.ability(SoundPredictor, "task 'sound'")
    found = extract(backbone.reading(predictor.predict), _batches(data), mesh)
    clips, labels, bits = found.y[:, 0], found.y[:, 1], found.y[:, 2:] > 0
    predictions = {}
    if predictor.target == "clusters":
      _check(found.x.shape[1], data.num_classes, "clusters")
      guess = found.x.argmax(1)
      right, constant = guess == labels, (labels == np.bincount(labels).argmax())
      chance = 1 / data.num_classes
      predictions = {"label": labels, "prediction": guess, "index": found.index}
    else:
      _check(found.x.shape[1], bits.shape[1], "bits")
      right, constant = ((found.x > 0) == bits).mean(1), (bits == (bits.mean(0) > 0.5)[None]).mean(1)
      chance = 0.5
    right, constant = right.astype(np.float64), constant.astype(np.float64)
    protocol = {
      **data.protocol,
      **backbone.protocol,
      "task": "sound",
      "target": predictor.target,
      "backbone_mode": "evaluation",
      "test_rows": len(right),
      "test_clips": len(np.unique(clips)),
      "standard_error": {
        "accuracy": standard_error(right, clips),
        "accuracy - constant": standard_error(right - constant, clips),
      },
    }
    scalars = {"accuracy": float(right.mean()), "constant": float(constant.mean()), "chance": chance}
    return Result(scalars, protocol, predictions, data.class_names)

  return Task("sound", run)


def _batches(data: TaskData):
  """Batches whose "label" holds the number of the clip, the cluster and the bits, i32[B, 2 + bits]."""
  records = data.records
  if records is None or not {"bits", "clip_name"} <= set(records.fields):
    raise ValueError(
      "task 'sound' needs 'bits' and 'clip_name' in every test record; use a data set that `ssl-jax prepare "
      "sounds` wrote"
    )
  protocol, count = data.protocol, len(records.record(0)["bits"])
  square = transforms.resize_center_crop(
    protocol["crop"], protocol["resize"], interpolation=protocol["interpolation"]
  )

  def batches():
    for batch in records.batches(ImageAndBits(square, count)):
      columns = (batch["clip_number"][:, None], batch["label"][:, None], batch["bits"].astype(np.int32))
      yield {**batch, "label": np.concatenate(columns, 1)}

  return batches


def _check(predicted: int, there: int, what: str) -> None:
  if predicted != there:
    raise ValueError(
      f"the network predicts {predicted} {what} of sound, but the test records have {there}; use the data "
      "set that it was trained on"
    )
