"""Intersection over union of moving objects on DAVIS, by clip: baselines, and networks of runs.

python tests/benchmarks/moving_objects.py FOLDER MINED [RUN...]

FOLDER is what `real_data.py davis` wrote, MINED the --output of `ssl-jax prepare motion` on its clips. The
mean over the frames of each clip counts, and of the clips the mean and its standard error. Baselines:
everything moves; the mean of the mined masks of the training clips (centre prior) and the miner's score of
motion, which sees other frames too, both at the threshold that is best on the training clips of DAVIS.
"""

import pathlib
import re
import sys
from collections.abc import Callable

import jax
import numpy as np
from PIL import Image

import ssl_jax
from ssl_jax.abilities import Segmenter
from ssl_jax.data import sources
from ssl_jax.data.mask_values import IGNORE, decode_classes
from ssl_jax.tasks.backbone import Backbone
from ssl_jax.video import camera, foreground
from ssl_jax.video.clips import open_clip

STEPS, SEGMENTS = (-3, -1, 1, 3), 400  # of the miner
THRESHOLDS = np.arange(0.02, 0.98, 0.02)
Scores = dict[str, list[np.ndarray]]  # by clip: of each frame


def frames_of(folder: pathlib.Path, split: str) -> dict[str, list[tuple[int, np.ndarray, np.ndarray]]]:
  """By clip: (number, frame, bool: its true mask)."""
  found = {}
  for path in sorted((folder / split / "images").glob("*.jpg")):
    clip, number = path.stem.rsplit("_", 1)
    mask = np.asarray(Image.open(folder / split / "masks" / f"{path.stem}.png")) == 1
    found.setdefault(clip, []).append((int(number), np.asarray(Image.open(path)), mask))
  return found


def motion_scores(folder: pathlib.Path, frames) -> Scores:
  """The miner's score; the first and last frames of a clip are compared with those that there are."""
  found, flow = {}, foreground.dense_flow()
  for name, rows in frames.items():
    with open_clip(folder / "clips" / f"{name}.mp4") as clip, camera.one_thread():
      for number, _, _ in rows:
        near = [number + step for step in STEPS if 0 <= number + step < len(clip)]
        first, *others = clip.frames([number, *near])
        found.setdefault(name, []).append(foreground.motion_score(first, others, SEGMENTS, flow))
  return found


def mean_mask(mined: str, held_back: set[str]) -> np.ndarray:
  """f64[240, 426]: how often a place moves where it is labelled."""
  source = sources.make("motion", data_dir=mined, split="train")
  moving, labelled = np.zeros((240, 426)), np.full((240, 426), 1e-9)
  for i in range(len(source)):
    record = source[i]
    assert record["clip_name"].removesuffix(".mp4") not in held_back
    mask = np.asarray(Image.fromarray(decode_classes(record)).resize((426, 240), Image.Resampling.NEAREST))
    moving, labelled = moving + (mask == 1), labelled + (mask != IGNORE)
  return moving / labelled


def network_scores(backbone: Backbone, frames) -> Scores:
  """The logit of motion beyond that of the background."""
  segmenter = backbone.ability(Segmenter, "this benchmark")
  predict = jax.jit(segmenter.predict)
  size = segmenter.size or (0, 0)
  found = {}
  for name, rows in frames.items():
    images = [
      np.asarray(Image.fromarray(frame).resize(size[::-1], Image.Resampling.BILINEAR)) for _, frame, _ in rows
    ]
    logits = np.asarray(predict(*backbone.weights, np.stack(images).astype(np.float32) / 255))
    for (_, frame, _), score in zip(rows, logits[..., 1] - logits[..., 0]):
      found.setdefault(name, []).append(
        np.asarray(Image.fromarray(score).resize(frame.shape[1::-1], Image.Resampling.BILINEAR))
      )
  return found


def by_clip(scores: Scores, frames, threshold: float) -> dict[str, float]:
  """The mean intersection over union of each clip."""
  found = {}
  for name, rows in frames.items():
    each = []
    for (_, _, truth), score in zip(rows, scores[name], strict=True):
      moving = score > threshold
      each.append((moving & truth).sum() / max((moving | truth).sum(), 1))
    found[name] = float(np.mean(each))
  return found


def best(scores: Scores, frames) -> float:
  return max(THRESHOLDS, key=lambda t: np.mean(list(by_clip(scores, frames, t).values())))


def tell(name: str, found: dict[str, float]) -> None:
  values = np.array(list(found.values()))
  clips = " ".join(f"{clip} {100 * value:.1f}" for clip, value in found.items())
  print(
    f"{name}: {100 * values.mean():.1f} +- {100 * values.std(ddof=1) / len(values) ** 0.5:.1f}   {clips}",
    flush=True,
  )


def main(folder: pathlib.Path, mined: str, runs: list[str]) -> None:
  train, test = (frames_of(folder, split) for split in ("train", "test"))
  constant = lambda value, frames: {name: [value] * len(rows) for name, rows in frames.items()}
  prior = mean_mask(mined, set(test))
  methods: dict[str, Callable] = {
    "everything": lambda frames: constant(np.ones((240, 426)), frames),
    "mean mask": lambda frames: constant(prior, frames),
    "motion score": lambda frames: motion_scores(folder, frames),
  }
  for name, score in methods.items():
    threshold = best(score(train), train)
    tell(f"{name}, threshold {threshold:.2f}", by_clip(score(test), test, threshold))
  for run in runs:
    restored = ssl_jax.restore(run)
    tell(run, by_clip(network_scores(restored.backbone, test), test, 0.0))
    tell(f"{run}, untrained", by_clip(network_scores(restored.untrained(), test), test, 0.0))


if __name__ == "__main__":
  if len(sys.argv) < 3:
    sys.exit(re.sub(r"\n.*", "", __doc__.split("\n\n")[1]))
  main(pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
