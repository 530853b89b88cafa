"""What corruptions cost a classifier: its error under each of them at five severities, and the mean corruption error."""

from __future__ import annotations

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ssl_jax import corrupt
from ssl_jax.augment.compose import for_each
from ssl_jax.config import nearest
from ssl_jax.data import pipeline, sources, transforms
from ssl_jax.data.reader import Source
from ssl_jax.tasks.backbone import Backbone
from ssl_jax.tasks.classification import check_classifier, classify
from ssl_jax.tasks.features import Features, extract as extract_features
from ssl_jax.tasks.task import Batches, Result, Task, TaskData, check_choice, silent

SEVERITIES = (1, 2, 3, 4, 5)
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
    corruptions: names; (): the fifteen of the benchmark.
    table: "imagenet" or "cifar", see corrupt.make; "": cifar for images below 64 pixels. textures: of frost.
    released: a folder with CIFAR-10-C's npy files (labels.npy among them) or ImageNet-C's (CORRUPTION/SEVERITY/CLASS/ images).
    examples: how many test images, the first ones; 0: all.
  Raises: ValueError for unknown names, severities or values; in `run`, before any image is classified, if the network has no
    classifier or a file is missing.
  Source: Hendrycks & Dietterich 2019, section 4.1; mCE's normalisers are AlexNet's errors from the released code.
  """
  names = tuple(corruptions or corrupt.CORRUPTIONS)
  for name in names:
    if name not in corrupt.known():
      raise ValueError(f"config.tasks.robustness.corruptions: no corruption is called {name!r}{nearest(name, corrupt.known())}")
  if not severities or set(severities) - set(SEVERITIES):
    raise ValueError(f"config.tasks.robustness.severities is {severities}; use some of 1 to 5")
  if table:
    check_choice("table", table, ("imagenet", "cifar"))
  if examples < 0:
    raise ValueError(f"config.tasks.robustness.examples is {examples}; use 0 for all, or how many")

  def run(backbone: Backbone, data: TaskData, mesh: Mesh, key: jax.Array, *, extract=extract_features,
          progress=silent) -> Result:
    check_classifier(backbone, "robustness")
    first = next(iter(data.test()))["image"]  # this process's share of a batch
    files = _released(released, names, severities, len(first), first.shape[1]) if released else {}
    test = _first(data.test, examples)
    which = table or ("cifar" if first.shape[1] < 64 else "imagenet")
    clean = classify(backbone, test, data.num_classes, mesh, extract)
    errors, done = {}, 0
    for name in names:
      for severity in severities:
        if released:
          found = classify(backbone, _first(files[name, severity], examples), data.num_classes, mesh, extract)
        else:
          state = {"network": backbone.model_state, "severity": np.int32(severity), "key": np.asarray(jax.random.key_data(key))}
          noisy = backbone._replace(predict=_corrupted(backbone.predict, name, which, textures), model_state=state)
          found = classify(noisy, test, data.num_classes, mesh, extract)
        errors.setdefault(name, {})[severity] = _error(found)
        done += 1
        progress(done, len(names) * len(severities), errors[name][severity])
    return Result(_scalars(_error(clean), errors, normalised=which == "imagenet"), {
        **data.protocol, **backbone.protocol, "task": "robustness", "severities": list(severities), "error": {
            name: {str(s): e for s, e in row.items()} for name, row in errors.items()}, "test_rows": len(clean.x),
        "backbone_mode": "evaluation", "corruption_data": f"released files in {released}" if released else
        f"made on the fly, parameters of {which}, frost {'of ' + textures if textures else 'procedural'}: not the released files"})

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


@functools.lru_cache(maxsize=None)  # one function for equal arguments: one compile for all severities
def _corrupted(predict, name: str, table: str, textures: str):
  function = corrupt.make(name, table=table, textures=textures)

  def encode(params, model_state, images):
    key = jax.random.wrap_key_data(model_state["key"])
    one = lambda image: function(jax.random.fold_in(key, _digest(image)), image, model_state["severity"])
    return predict(params, model_state["network"], for_each(one, images))

  return encode


def _digest(image: jax.Array) -> jax.Array:
  """u32[]: a number that depends on every pixel and its place."""
  levels = jnp.round(image * 255).astype(jnp.uint32).ravel()
  return (levels * (jnp.arange(levels.size, dtype=jnp.uint32) * jnp.uint32(2654435761) + jnp.uint32(1))).sum(dtype=jnp.uint32)


def _error(logits: Features) -> float:
  return float((logits.x.argmax(1) != logits.y).mean())


def _first(batches: Batches, examples: int) -> Batches:
  """The same batches without what lies behind the first `examples` images of the split."""
  if not examples:
    return batches

  @functools.wraps(batches)
  def first():
    read = 0
    for batch in batches():
      index = np.asarray(batch.get("index", np.arange(read, read + len(batch["image"]))))
      mask = np.asarray(batch.get("mask", np.ones(len(index), bool))) & (index < examples)
      if read and jax.process_count() == 1 and not mask.any():
        return
      read += len(index)
      yield {**batch, "index": index, "mask": mask}

  return first


def _released(folder: str, names, severities, batch_size: int, size: int) -> dict[tuple[str, int], Batches]:
  """Batches of the published files by corruption and severity. Raises ValueError for what is missing, before anything is read."""
  root = pathlib.Path(folder)
  arrays = (root / "labels.npy").is_file()
  wanted = [root / f"{name}.npy" for name in names] if arrays else [root / name / str(s) for name in names for s in severities]
  missing = [str(path) for path in wanted if not path.exists()]
  if missing:
    raise ValueError(f"config.tasks.robustness.released: {folder} lacks {len(missing)} of {len(wanted)}, {', '.join(missing[:3])} "
                     "among them; it must hold labels.npy and CORRUPTION.npy (CIFAR-10-C) or CORRUPTION/SEVERITY/CLASS/ (ImageNet-C). "
                     "Complete it, or name what there is in config.tasks.robustness.corruptions")
  read = functools.partial(pipeline.eval_batches, batch_size=batch_size * jax.process_count(),
                           transform=transforms.resize_center_crop(size), process_index=jax.process_index(),
                           process_count=jax.process_count())
  if arrays:
    return {(name, s): functools.partial(read, _rows(root, name, s)) for name in names for s in severities}
  return {(name, s): functools.partial(read, sources.make("folder", data_dir=str(root / name / str(s))))
          for name in names for s in severities}


def _rows(root: pathlib.Path, name: str, severity: int) -> Source:
  """A severity of a file in CIFAR-10-C's form, uint8[5 N, 32, 32, 3]. Raises ValueError if the labels do not fit it."""
  path = root / f"{name}.npy"
  images, labels = np.load(path, mmap_mode="r"), np.load(root / "labels.npy")
  if len(images) != len(labels) or len(labels) % len(SEVERITIES):
    raise ValueError(f"{path} holds {len(images)} images and labels.npy {len(labels)}; both must hold five times as many as the "
                     "test set: fetch them again")
  count = len(labels) // len(SEVERITIES)
  mine = slice((severity - 1) * count, severity * count)
  return Source(_Rows(f"{path}, severity {severity}", images[mine], labels[mine]), 0, (), images.shape[1:])


@dataclasses.dataclass(frozen=True, eq=False)
class _Rows:
  """A Reader of arrays."""

  origin: str
  images: np.ndarray
  labels: np.ndarray

  def __len__(self) -> int:
    return len(self.images)

  def read(self, indices):
    return [{"image": np.asarray(self.images[i]), "label": int(self.labels[i])} for i in indices]

  def name(self, index: int) -> str:
    return f"{self.origin}, row {index}"
