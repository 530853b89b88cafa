"""Robustness to corruptions: the error of a classifier under each corruption at five severities, and the mean
corruption error.
"""

from __future__ import annotations

import functools
import hashlib

import jax
import numpy as np
from jax.sharding import Mesh

from ssl_jax.tasks.backbone import Backbone
from ssl_jax.tasks.classification import classifier_of, classify, in_own_classes
from ssl_jax.tasks.corrupted import (
  SEVERITIES,
  Corruptions,
  choose_corruptions,
  corrupted_splits,
  first_of,
  origin,
)
from ssl_jax.tasks.features import Features
from ssl_jax.tasks.features import extract as extract_features
from ssl_jax.tasks.task import Result, Task, TaskData, silent

# The SHA-256 of ImageNet's 1,000 class names (n01440764 and so on), sorted, one a line.
IMAGENET_CLASSES = "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd"
CLEAN_ALEXNET = 0.435
ALEXNET = {  # the errors of AlexNet at severities 1 to 5, which normalise a corruption error
  "gaussian_noise": (0.69528, 0.82542, 0.93554, 0.98138, 0.99452),
  "shot_noise": (0.71224, 0.85108, 0.93574, 0.98182, 0.99146),
  "impulse_noise": (0.78374, 0.89808, 0.94870, 0.98720, 0.99548),
  "defocus_blur": (0.65624, 0.73202, 0.85036, 0.91364, 0.94714),
  "glass_blur": (0.64308, 0.75054, 0.88806, 0.91622, 0.93344),
  "motion_blur": (0.58430, 0.70048, 0.82108, 0.89750, 0.92638),
  "zoom_blur": (0.70008, 0.76992, 0.80784, 0.84198, 0.87198),
  "snow": (0.71726, 0.88392, 0.86468, 0.91870, 0.94952),
  "frost": (0.61390, 0.79734, 0.88790, 0.89942, 0.93430),
  "fog": (0.67474, 0.76050, 0.84378, 0.87260, 0.94500),
  "brightness": (0.45140, 0.48502, 0.54048, 0.62166, 0.72440),
  "contrast": (0.64548, 0.76150, 0.88874, 0.97760, 0.99270),
  "elastic_transform": (0.52596, 0.70116, 0.55686, 0.64076, 0.80554),
  "pixelate": (0.52218, 0.54620, 0.73728, 0.87092, 0.91262),
  "jpeg_compression": (0.51002, 0.54718, 0.57294, 0.65458, 0.74778),
}


def make(
  *,
  corruptions: tuple[str, ...] = (),
  severities: tuple[int, ...] = SEVERITIES,
  table: str = "",
  textures: str = "",
  released: str = "",
  examples: int = 0,
) -> Task:
  """Measures the clean error, the error for each corruption and severity, their means, and the mCE if all
  severities of the fifteen corruptions were measured on ImageNet.

  The mCE exists only for ImageNet-C: its normalisers are AlexNet's errors on all of ImageNet's 1,000 classes.
  It is left out, and the protocol says why, unless the data set has the names of these classes, every one of
  them occurs among the test images, and the parameters are those of "imagenet". For CIFAR-10-C the mean error
  is published.

  Images are corrupted on the device while they are evaluated. The corruption of an image is a function of its
  pixels and the seed, so the results do not depend on batches, devices or order. One compiled program per
  corruption serves all severities. `released` reads the published files instead; these are different data,
  and the results state which were used.

  Args:
    corruptions, severities, table, textures, released, examples: see `corrupted.choose_corruptions`.
  Raises: ValueError for unknown names, severities or values; in `run`, before any image is classified,
    methods.MissingAbility if the network has no classifier and ValueError if a file is missing.
  Source: Hendrycks & Dietterich 2019, section 4.1; the normalisers of the mCE are AlexNet's errors from the
    released code.
  """
  chosen = choose_corruptions(
    "robustness",
    corruptions=corruptions,
    severities=severities,
    table=table,
    textures=textures,
    released=released,
    examples=examples,
  )
  return Task("robustness", functools.partial(_run, chosen))


def _run(
  chosen: Corruptions,
  backbone: Backbone,
  data: TaskData,
  mesh: Mesh,
  key: jax.Array,
  *,
  extract=extract_features,
  progress=silent,
) -> Result:
  """Classifies the clean images and then every corrupted split."""
  predict = classifier_of(backbone, "robustness").predict
  data = in_own_classes(backbone, data)
  exact, found = corrupted_splits(chosen, backbone, predict, data, mesh, key)
  clean_images = first_of(data.test, chosen.examples, data.test_sorted_size)
  clean = classify(backbone, clean_images, data.num_classes, mesh, extract, "robustness")
  errors = {}
  for done, split in enumerate(found, 1):
    logits = classify(split.backbone, split.batches, data.num_classes, mesh, extract, "robustness")
    error = _error(logits)
    errors.setdefault(split.name, {})[split.severity] = error
    progress(done, len(found), error)
  absent = why_no_mce(errors, exact.table, data.class_names, clean.y)
  protocol = {
    **data.protocol,
    **backbone.protocol,
    "task": "robustness",
    **({"mce_left_out": absent} if absent else {}),
    "severities": list(chosen.severities),
    "error": {name: {str(s): e for s, e in row.items()} for name, row in errors.items()},
    "test_rows": len(clean.x),
    "backbone_mode": "evaluation",
    "corruption_data": origin(exact),
  }
  return Result(_scalars(_error(clean), errors, normalised=not absent), protocol)


def why_no_mce(
  errors: dict[str, dict[int, float]], table: str, class_names: tuple[str, ...], labels: np.ndarray
) -> str:
  """Returns why the errors must not be divided by AlexNet's; "": they may be.

  Args:
    errors: by corruption and severity.
    table: the parameters of the corruptions.
    class_names: of the data set, in any order.
    labels: i32[N], of the test images.
  """
  if not all(set(errors.get(name, {})) == set(SEVERITIES) for name in ALEXNET):
    return "it needs all severities of the fifteen corruptions"
  if table != "imagenet":
    return f"the parameters of the corruptions are those of {table!r}, not of ImageNet-C"
  if hashlib.sha256("\n".join(sorted(class_names)).encode()).hexdigest() != IMAGENET_CLASSES:
    return f"the {len(class_names)} named classes are not ImageNet's 1,000 (n01440764 to n15075141)"
  missing = len(class_names) - len(np.unique(labels))
  return f"{missing} of ImageNet's 1,000 classes do not occur among the test images" if missing else ""


def mean_corruption_error(errors: dict[str, dict[int, float]], clean: float) -> tuple[float, float]:
  """Returns (mCE, relative mCE); both are 1 for AlexNet.

  The mCE is the mean over the fifteen corruptions of the error summed over the severities, divided by the
  same sum for AlexNet. For the relative mCE, the clean error (43.5% for AlexNet) is first subtracted from
  every error.
  """
  ratios, relative = [], []
  for name, own in ALEXNET.items():
    mine, theirs = sum(errors[name].values()), sum(own)
    ratios.append(mine / theirs)
    relative.append((mine - len(own) * clean) / (theirs - len(own) * CLEAN_ALEXNET))
  return float(np.mean(ratios)), float(np.mean(relative))


def _scalars(clean: float, errors: dict[str, dict[int, float]], *, normalised: bool) -> dict[str, float]:
  means = {name: float(np.mean(list(row.values()))) for name, row in errors.items()}
  scalars = {"error": float(np.mean(list(means.values()))), "clean_error": clean, **means}
  if normalised:
    scalars["mce"], scalars["relative_mce"] = mean_corruption_error(errors, clean)
  return scalars


def _error(logits: Features) -> float:
  return float((logits.x.argmax(1) != logits.y).mean())
