"""Tuples: five frames of a clip where something moves, for shuffle and learn."""

from __future__ import annotations

import collections
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from ssl_jax.data.decode import decode
from ssl_jax.data.elements import Record
from ssl_jax.data.fit import Fit
from ssl_jax.mining import clip_frames
from ssl_jax.mining.miner import Mined, Miner, Row, encode_jpeg
from ssl_jax.video.clips import Clip
from ssl_jax.video.tuples import FRAMES, STATIC, Spans, Windows, find_windows, look_alike, sample_frames

_COMPARED = 64  # side in pixels of the copies that are compared
_ROUNDS = 5  # of draws, before fewer tuples are taken
_ROWS = 30  # tuples on the picture sheet


def make(
  *, span: int = 60, gap: int = 15, count: int = 16, longest: int = 340, difference: float = 25.0
) -> Miner:
  """Five frames a < b < c < d < e of a clip: the triplets (b, c, d) and (d, c, b) are in order, and
  (b, a, d), (b, e, d) and their reverses are not.

  Windows of 2 gap + span + 1 frames without a cut are drawn in proportion to their motion, measured by a
  coarse optical flow; windows without any motion are not used. A record has "frames", five images; "numbers"
  i32[5], those of the frames in the clip; and "times" f32[5] in seconds.

  Args:
    span: most frames from b to d. The distances are published for 25 to 30 frames a second.
    gap: least frames from a to b and from d to e.
    count: records of a clip, at most. 16 records give 96 triplets, about as many as published for a clip.
    longest: length of the longer side of the frames in pixels; smaller frames are not enlarged.
    difference: mean squared difference of grey levels, on copies of 64x64 pixels, below which c and a, or c
      and e, look alike, and the five frames are rejected.
  Raises: ValueError for a value out of range.
  Source: Misra, Zitnick, Hebert 2016, section 3.1, and released code; see `tuples.sample_frames` for what
    they leave open.
  """
  for name, value in (("count", count), ("longest", longest)):
    if value < 1:
      raise ValueError(f"tuples.{name} is {value}; use a positive number")
  if difference < 0:
    raise ValueError(f"tuples.difference is {difference}; use 0 to keep all, or a positive number such as 25")
  spans = Spans(span, gap).check()
  mine = functools.partial(_mine, spans=spans, count=count, longest=longest, difference=difference)
  return Miner(mine, _features, _rows)


def _mine(
  clip: Clip, rng: np.random.Generator, *, spans: Spans, count: int, longest: int, difference: float
) -> Mined:
  if len(clip) < spans.least:
    return Mined((), {"clip with too few frames": 1})
  height, width = clip.frames([0]).shape[1:3]
  windows = find_windows(clip_frames.clip_motion(clip), spans)
  if not len(windows.first):
    return Mined((), {"clip whose shots have too few frames": 1})
  moving = windows.motion >= STATIC
  if not moving.any():
    return Mined((), {"clip without motion": 1})
  return _choose(
    clip,
    rng,
    Windows(*(part[moving] for part in windows)),
    spans,
    count,
    clip_frames.reduced(height, width, longest / max(height, width)),
    difference,
  )


def _choose(
  clip: Clip,
  rng: np.random.Generator,
  windows: Windows,
  spans: Spans,
  count: int,
  fit: Fit,
  difference: float,
) -> Mined:
  """Draws tuples until there are `count`; what is drawn twice or looks alike is replaced a few times."""
  found, seen, rejected = [], set(), collections.Counter()
  for _ in range(_ROUNDS):
    drawn = [tuple(sample_frames(rng, windows, spans).tolist()) for _ in range(count - len(found))]
    new = sorted(set(drawn) - seen)
    rejected["tuple that was drawn before"] += len(drawn) - len(new)
    seen.update(new)
    for numbers, frames in _decoded(clip, new, fit):
      if look_alike(np.stack([_shrunk(frame) for frame in frames]), difference):
        rejected["tuple whose middle frame looks like an outer one"] += 1
        continue
      encoded = [encode_jpeg(frame) for frame in frames]
      times = clip.times[list(numbers)].astype(np.float32)
      found.append({"frames": encoded, "numbers": np.array(numbers, np.int32), "times": times})
    if len(found) == count:
      break
  return Mined(found, {reason: number for reason, number in rejected.items() if number})


def _decoded(clip: Clip, tuples: Sequence[tuple[int, ...]], fit: Fit) -> Iterator[tuple[tuple, np.ndarray]]:
  """Yields (numbers, frames uint8[5, h, w, 3]); the tuples are sorted, so that the decoder goes forward."""
  step = max(clip_frames.CHUNK // FRAMES, 1)
  for start in range(0, len(tuples), step):
    some = tuples[start : start + step]
    numbers = np.unique(some)
    pixels, _ = clip.fitted(numbers, fit)
    for one in some:
      yield one, pixels[np.searchsorted(numbers, one)]


def _shrunk(frame: np.ndarray) -> np.ndarray:
  """uint8[64, 64, 3]: a small copy."""
  return np.asarray(Image.fromarray(frame).resize((_COMPARED, _COMPARED), Image.Resampling.BOX))


def _features() -> dict[str, Any]:
  import tensorflow_datasets as tfds

  return {
    "frames": tfds.features.Sequence(tfds.features.Image(encoding_format="jpeg"), length=FRAMES),
    "numbers": tfds.features.Tensor(shape=(FRAMES,), dtype=np.int32),
    "times": tfds.features.Tensor(shape=(FRAMES,), dtype=np.float32),
  }


def _rows(records: Sequence[Record]) -> list[Row]:
  """A row for each tuple."""
  chosen = records[:: -(-len(records) // _ROWS)]
  return [
    Row(
      f"{record['clip']}: frames {' '.join(map(str, record['numbers'].tolist()))}",
      [decode(frame) for frame in record["frames"]],
    )
    for record in chosen
  ]
