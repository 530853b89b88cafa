"""What corruptions cost a classifier: its error under each of them at five severities, and the mean corruption error."""

from __future__ import annotations

import jax
import numpy as np
from jax.sharding import Mesh

from ssl_jax.tasks.backbone import Backbone
from ssl_jax.tasks.classification import check_classifier, classify
from ssl_jax.tasks.corrupted import SEVERITIES, cells, choose, first_of, origin
from ssl_jax.tasks.features import Features, extract as extract_features
from ssl_jax.tasks.task import Result, Task, TaskData, silent

CLEAN_ALEXNET = 0.435
ALEXNET = {  # its error at severities 1 to 5: what a corruption error is divided by
    "gaussian_noise": (.69528, .82542, .93554, .98138, .99452), "shot_noise": (.71224, .85108, .93574, .98182, .99146),
    "impulse_noise": (.78374, .89808, .94870, .98720, .99548), "defocus_blur": (.65624, .73202, .85036, .91364, .94714),
    "glass_blur": (.64308, .75054, .88806, .91622, .93344), "motion_blur": (.58430, .70048, .82108, .89750, .92638),
    "zoom_blur": (.70008, .76992, .80784, .84198, .87198), "snow": (.71726, .88392, .86468, .91870, .94952),
    "frost": (.61390, .79734, .88790, .89942, .93430), "fog": (.67474, .76050, .84378, .87260, .94500),
    "brightness": (.45140, .48502, .54048, .62166, .72440), "contrast": (.64548, .76150, .88874, .97760, .99270),
    "elastic_transform": (.52596, .70116, .55686, .64076, .80554), "pixelate": (.52218, .54620, .73728, .87092, .91262),
    "jpeg_compression": (.51002, .54718, .57294, .65458, .74778)}


def make(*, corruptions: tuple[str, ...] = (), severities: tuple[int, ...] = SEVERITIES, table: str = "", textures: str = "",
         released: str = "", examples: int = 0) -> Task:
  """Clean error, error by corruption and severity, their means, and mCE where all severities of the fifteen were measured.

  mCE is for ImageNet-C alone, whose normalisers are known; of CIFAR-10-C the mean error is published.

  Images are corrupted on device while they are evaluated, each as a function of its pixels and the seed, so that batches, devices
  and order do not matter; one program a corruption serves all severities. `released` reads the published files instead: these are
  other data, and results say which.

  Args:
    corruptions, severities: names; (): the fifteen of the benchmark.
    table, textures, released, examples: see corrupted.choose.
  Raises: ValueError for unknown names, severities or values; in `run`, before any image is classified, if the network has no
    classifier or a file is missing.
  Source: Hendrycks & Dietterich 2019, section 4.1; mCE's normalisers are AlexNet's errors from the released code.
  """
  chosen = choose("robustness", corruptions=corruptions, severities=severities, table=table, textures=textures, released=released,
                  examples=examples)

  def run(backbone: Backbone, data: TaskData, mesh: Mesh, key: jax.Array, *, extract=extract_features,
          progress=silent) -> Result:
    check_classifier(backbone, "robustness")
    exact, found = cells(chosen, backbone, backbone.predict, data, key)
    clean = classify(backbone, first_of(data.test, examples), data.num_classes, mesh, extract)
    errors = {}
    for done, cell in enumerate(found, 1):
      error = _error(classify(cell.backbone, cell.batches, data.num_classes, mesh, extract))
      errors.setdefault(cell.name, {})[cell.severity] = error
      progress(done, len(found), error)
    return Result(_scalars(_error(clean), errors, normalised=exact.table == "imagenet"), {
        **data.protocol, **backbone.protocol, "task": "robustness", "severities": list(severities), "error": {
            name: {str(s): e for s, e in row.items()} for name, row in errors.items()}, "test_rows": len(clean.x),
        "backbone_mode": "evaluation", "corruption_data": origin(exact)})

  return Task("robustness", run)


def mean_corruption_error(errors: dict[str, dict[int, float]], clean: float) -> tuple[float, float]:
  """(mCE, relative mCE), 1 for AlexNet: errors summed over severities over AlexNet's, averaged over the fifteen.

  Relative: with the clean error, respectively AlexNet's 43.5%, taken from every error first.
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
  if normalised and set(ALEXNET) <= set(errors) and all(set(errors[name]) == set(SEVERITIES) for name in ALEXNET):
    scalars["mce"], scalars["relative_mce"] = mean_corruption_error(errors, clean)
  return scalars


def _error(logits: Features) -> float:
  return float((logits.x.argmax(1) != logits.y).mean())
