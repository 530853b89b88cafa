"""Motion: frames whose moving part is known, for watching objects move."""

from __future__ import annotations

import collections
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ssl_jax.data.decode import decode, decode_mask
from ssl_jax.data.elements import Record
from ssl_jax.data.fit import Fit
from ssl_jax.data.mask_values import IGNORE
from ssl_jax.mining import clip_frames
from ssl_jax.mining.miner import Mined, Miner, Row, encode_jpeg, encode_png
from ssl_jax.video.clips import Clip
from ssl_jax.video.index import check_installed

CLASSES = ("background", "moving")  # of the mask, by value
_PIXELS = 8_000_000  # of the frames that are in memory at once
_ROWS, _ACROSS = 40, 3  # of the picture sheet: rows, and records in a row


def make(
  *,
  frames: int = 10,
  size: int = 240,
  steps: tuple[int, ...] = (-3, -1, 1, 3),
  foreground: float = 0.6,
  background: float = 0.2,
  segments: int = 400,
  components: int = 2,
  least: float = 0.02,
  most: float = 0.7,
  border: float = 0.25,
  doubtful: float = 0.6,
) -> Miner:
  """Frames of every shot at equal distances, and which of their pixels move by themselves.

  The score of a pixel is its motion to a few other frames without the camera's, in proportion to the frame's
  fastest, and averaged over superpixels. A record has "image"; "mask", 0 background, 1 moving, 255 doubtful;
  "number" of the frame in the clip; and its "time" in seconds.

  Args:
    frames: of a shot, at most.
    size: length of the shorter side of the frames in pixels; smaller frames are not enlarged.
    steps: distances in frames to the other ones, negative for earlier ones; they suit 15 to 30 frames a
      second. A flow to later frames also moves the background that is about to be covered, one to earlier
      frames that which was uncovered: the mean of both has the outline of what moves.
    foreground: pixels with a score above it move.
    background: pixels with a score below it do not; those between are doubtful.
    segments: number of superpixels of a frame; 0: none.
    components: connected regions that move, at most; smaller ones are doubtful.
    least, most: bounds of the fraction of the frame that moves; other frames are rejected.
    border: a frame is rejected if what moves covers more than this fraction of its outermost pixels.
    doubtful: a frame is rejected if more than this fraction of it is doubtful.
  Raises: ValueError for a value out of range; ImportError if OpenCV or scikit-image is not installed.
  Source: the motion segmentation is a short form of Pathak et al. 2017, section 3; the published one, uNLC,
    lets superpixels of neighbouring frames vote.
  """
  for name, value in (("frames", frames), ("size", size), ("components", components)):
    if value < 1:
      raise ValueError(f"motion.{name} is {value}; use a positive number")
  if segments < 0:
    raise ValueError(f"motion.segments is {segments}; use a positive number, or 0 for none")
  if not steps or 0 in steps:
    raise ValueError(f"motion.steps is {steps}; use numbers of frames other than 0, such as (-3, -1, 1, 3)")
  for name, low, high in (("background", background, foreground), ("least", least, most)):
    if not 0 <= low < high <= 1:
      above = {"background": "foreground", "least": "most"}[name]
      raise ValueError(f"motion.{name} is {low} and motion.{above} {high}; use 0 <= {name} < {above} <= 1")
  for name, value in (("border", border), ("doubtful", doubtful)):
    if not 0 <= value <= 1:
      raise ValueError(f"motion.{name} is {value}; use a fraction in [0, 1]")
  check_installed("cv2", "OpenCV", "the miner 'motion'")
  check_installed("skimage", "scikit-image", "the miner 'motion'")
  rules = dict(
    foreground=foreground,
    background=background,
    components=components,
    least=least,
    most=most,
    border=border,
    doubtful=doubtful,
  )
  sampling = Sampling(frames, tuple(sorted(set(steps))), size)
  return Miner(functools.partial(_mine, sampling=sampling, segments=segments, rules=rules), _features, _rows)


class Sampling(NamedTuple):
  """Which frames are looked at."""

  frames: int
  steps: tuple[int, ...]
  size: int


def _mine(
  clip: Clip, rng: np.random.Generator, *, sampling: Sampling, segments: int, rules: dict[str, Any]
) -> Mined:
  from ssl_jax.video import camera, foreground  # here: they import OpenCV and scikit-image

  height, width = clip.frames([0]).shape[1:3]
  fit = clip_frames.reduced(height, width, sampling.size / min(height, width))
  if min(fit.canvas) < foreground.LEAST:
    return Mined((), {"clip of too few pixels": 1})
  shots = clip_frames.clip_motion(clip).shots()
  chosen = [number for shot in shots for number in _spread(*shot, sampling)]
  if not chosen:
    return Mined((), {"clip whose shots have too few frames": 1})
  records, rejected = [], collections.Counter()
  flow, limits = foreground.dense_flow(), foreground.Rules(**rules)
  with camera.one_thread():
    for number, frame, others in _decoded(clip, chosen, sampling.steps, fit):
      score = foreground.motion_score(frame, [*others], segments, flow)
      mask, reason = foreground.label_pixels(score, limits)
      if reason:
        rejected[reason] += 1
        continue
      images = {"image": encode_jpeg(frame), "mask": encode_png(mask)}
      records.append({**images, "number": int(number), "time": float(clip.times[number])})
  return Mined(records, dict(rejected))


def _spread(start: int, end: int, sampling: Sampling) -> list[int]:
  """Frames at equal distances of the shot of frames `start` to `end` - 1 that it has all other ones of."""
  first, last = start - min(0, *sampling.steps), end - max(0, *sampling.steps)
  places = (np.arange(sampling.frames) + 0.5) / sampling.frames * (last - first)
  return sorted({first + int(place) for place in places}) if last > first else []


def _decoded(
  clip: Clip, chosen: Sequence[int], steps: Sequence[int], fit: Fit
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
  """Yields (number, its frame uint8[H, W, 3], the other ones uint8[steps, H, W, 3]), some at a time."""
  together = max(_PIXELS // ((1 + len(steps)) * fit.canvas[0] * fit.canvas[1]), 1)
  for start in range(0, len(chosen), together):
    some = np.add.outer(chosen[start : start + together], [0, *steps])
    numbers = np.unique(some)
    pixels, _ = clip.fitted(numbers, fit)
    for wanted in some:
      frame, *others = np.searchsorted(numbers, wanted)
      yield int(wanted[0]), pixels[frame], pixels[others]


def _features() -> dict[str, Any]:
  import tensorflow_datasets as tfds

  return {
    "image": tfds.features.Image(encoding_format="jpeg"),
    "mask": tfds.features.LabeledImage(labels=list(CLASSES), shape=(None, None, 1), encoding_format="png"),
    "number": np.int32,
    "time": np.float32,
  }


def _rows(records: Sequence[Record]) -> list[Row]:
  """A row for some records: each frame, and its mask in colours over it."""
  chosen = records[:: -(-len(records) // (_ROWS * _ACROSS))]
  return [
    Row(
      "   ".join(f"{record['clip']}: frame {record['number']}" for record in some),
      [picture for record in some for picture in _pictures(record)],
    )
    for some in (chosen[start : start + _ACROSS] for start in range(0, len(chosen), _ACROSS))
  ]


def _pictures(record: Record) -> tuple[np.ndarray, np.ndarray]:
  """The frame, and the frame with what moves in red, what is doubtful in grey, and the background dark."""
  frame, mask = decode(record["image"]), decode_mask(record["mask"])
  colours = np.zeros_like(frame)
  colours[mask == 1] = (255, 40, 40)
  colours[mask == IGNORE] = (128, 128, 128)
  return frame, (frame // 2 + colours // 2).astype(np.uint8)
