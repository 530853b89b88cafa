"""Tracks: two patches of a clip that show the same thing, some frames apart, for learning from tracking."""

from __future__ import annotations

import collections
import functools
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from ssl_jax.data.decode import decode
from ssl_jax.data.elements import Record
from ssl_jax.mining import clip_frames
from ssl_jax.mining.miner import Mined, Miner, Row, encode_jpeg
from ssl_jax.video import motion
from ssl_jax.video.clips import Clip
from ssl_jax.video.index import check_installed

CANVAS = (448, 600)  # (height, width) of frames at most
WINDOW = 227 / 448  # side of a box over the shorter side of the frame
STRIDE = 8  # pixels between the windows of which the one with most motion is taken
POINTS = 40  # that must be matched, at least
_ROWS = 60  # tracks on the picture sheet


class Limits(NamedTuple):
  """What is taken; see `make`."""

  frames: int
  size: int
  count: int
  moving: float
  least: float
  most: float
  psr: float
  features: Literal["hog", "pixels"]


class Track(NamedTuple):
  """A box that is being followed."""

  tracker: Any  # correlation_filter.Tracker
  first: int  # number of its first frame
  box: np.ndarray  # f32[4] in the first frame
  patch: np.ndarray  # uint8[size, size, 3] of the first frame


def make(
  *,
  frames: int = 30,
  size: int = 227,
  count: int = 16,
  moving: float = 0.5,
  least: float = 0.25,
  most: float = 0.75,
  psr: float = 7.0,
  features: Literal["hog", "pixels"] = "hog",
) -> Miner:
  """The box with most motion in a frame and the same box `frames` frames later, as a correlation filter
  followed it.

  Corners are followed to the next frame, and what the camera moves is taken from their motion. The first box
  is the square, 227/448 of the frame's shorter side, that holds most of the points that still move. Frames
  are reduced to 448x600 pixels where they are larger, and all lengths are in pixels of those. A record has
  "frames", two images; "boxes" f32[2, 4], (x1, y1, x2, y2) as fractions of the frame's width and height;
  "numbers" i32[2], those of the frames in the clip; and "times" f32[2] in seconds.

  Args:
    frames: from the first patch to the last; published for 30 frames a second.
    size: side of the patches in pixels.
    count: first frames of a clip that are tried, evenly spread; a track each, at most.
    moving: pixels that a point moves in a frame beyond what the camera moves it, to count as moving.
    least, most: fractions of the points that must move; more of them would mean that the camera's motion was
      not found.
    psr: peak-to-sidelobe ratio of the correlation filter below which a track is lost.
    features: what the filter compares. "hog": histograms of gradients; "pixels": grey levels, which take half
      the time. Of 45 tracks of objects of DAVIS `psr` leaves 78% with "hog" and 53% with "pixels"; of these,
      66% and 75% end on the object, which is no difference.
  Raises: ValueError for a value out of range; ImportError if OpenCV is not installed.
  Source: Wang and Gupta 2015, section 3, with corners for SURF points.
  """
  for name, value in (("frames", frames), ("size", size), ("count", count)):
    if value < 1:
      raise ValueError(f"tracks.{name} is {value}; use a positive number")
  if not 0 <= least <= most <= 1:
    raise ValueError(f"tracks.least is {least} and tracks.most {most}; use 0 <= least <= most <= 1")
  if moving <= 0:
    raise ValueError(f"tracks.moving is {moving}; use a positive number of pixels, such as 0.5")
  check_installed("cv2", "OpenCV", "the miner 'tracks'")
  limits = Limits(frames, size, count, moving, least, most, psr, features)
  return Miner(functools.partial(_mine, limits=limits), _features, _rows)


def find_box(first: np.ndarray, second: np.ndarray, limits: Limits) -> np.ndarray | str:
  """f32[4]: the box of a frame with most points that move until the next one, or why there is none.

  Args:
    first, second: uint8[H, W], grey.
  """
  from ssl_jax.video import camera, point_matches

  points = point_matches.match_points(first, second)
  if len(points.first) < POINTS:
    return "frame with too few points"
  turn = camera.fit_camera(points)
  if turn is None:
    return "frame whose camera's motion was not found"
  moves = np.linalg.norm(camera.residual(points, turn), axis=1) > limits.moving
  if moves.mean() < limits.least:
    return "frame with too little motion"
  if moves.mean() > limits.most:
    return "frame where everything moves"
  return best_window(points.first[moves], first.shape[:2])


def best_window(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
  """f32[4]: the square of WINDOW of the shorter side of a frame that holds most points; of several the first.

  Args:
    points: f32[N, 2], (x, y) inside the frame.
    shape: (height, width) of the frame.
  """
  side = max(round(WINDOW * min(shape)), 1)
  counts = np.zeros((shape[0] + 1, shape[1] + 1), np.int64)  # an integral image, with zeros before it
  column, row = np.floor(points).astype(int).T
  np.add.at(counts, (np.clip(row, 0, shape[0] - 1) + 1, np.clip(column, 0, shape[1] - 1) + 1), 1)
  counts = counts.cumsum(0).cumsum(1)
  tops, lefts = (np.arange(0, length - side + 1, STRIDE) for length in shape)
  corner = lambda down, right: counts[np.ix_(tops + down, lefts + right)]
  held = corner(side, side) - corner(0, side) - corner(side, 0) + corner(0, 0)
  down, right = np.unravel_index(held.argmax(), held.shape)
  left, top = lefts[right], tops[down]
  return np.array([left, top, left + side, top + side], np.float32)


def _mine(clip: Clip, rng: np.random.Generator, *, limits: Limits) -> Mined:
  from ssl_jax.video.camera import one_thread  # here: it imports OpenCV

  if len(clip) <= limits.frames:
    return Mined((), {"clip with too few frames": 1})
  height, width = clip.frames([0]).shape[1:3]
  fit = clip_frames.reduced(height, width, min(CANVAS[0] / height, CANVAS[1] / width))
  starts = set(np.linspace(0, len(clip) - 1 - limits.frames, limits.count).round().astype(int).tolist())
  with one_thread():
    return _follow_all(clip, clip_frames.each_frame(clip, fit), starts, limits)


def _follow_all(clip: Clip, frames: Iterator[np.ndarray], starts: set[int], limits: Limits) -> Mined:
  """Goes through the clip once; a few frames are in memory at a time."""
  import cv2

  found: list[Record] = []
  rejected: collections.Counter[str] = collections.Counter()
  tracks: list[Track] = []
  frame = next(frames)
  grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
  for number, next_frame in enumerate(frames, 1):
    next_grey = cv2.cvtColor(next_frame, cv2.COLOR_RGB2GRAY)
    tried = number - 1 in starts
    if (tried or tracks) and _is_cut(frame, next_frame):
      rejected["track that a cut ends"] += len(tracks) + tried
      tracks = []
    elif tried:
      box = find_box(grey, next_grey, limits)
      if isinstance(box, str):
        rejected[box] += 1
      else:
        tracks.append(_begin(frame, grey, number - 1, box, limits))
    frame, grey, kept = next_frame, next_grey, []
    for track in tracks:
      track, reason = _step(track, grey, limits)
      if reason:
        rejected[reason] += 1
      elif number == track.first + limits.frames:
        found.append(_record(track, frame, number, clip.times, limits.size))
      else:
        kept.append(track)
    tracks = kept
  return Mined(found, {reason: number for reason, number in rejected.items() if number})


def _begin(frame: np.ndarray, grey: np.ndarray, number: int, box: np.ndarray, limits: Limits) -> Track:
  from ssl_jax.video import correlation_filter

  tracker = correlation_filter.start(grey, box, limits.features)
  return Track(tracker, number, box, _cut(frame, box, limits.size))


def _step(track: Track, grey: np.ndarray, limits: Limits) -> tuple[Track, str]:
  """Follows a track to the next frame; returns (the track, why it is rejected or "")."""
  from ssl_jax.video import correlation_filter

  tracker, sharpness = correlation_filter.follow(track.tracker, grey)
  box, (height, width) = tracker.box, grey.shape
  if sharpness < limits.psr:
    return track, "track that was lost"
  if (box[:2] < 0).any() or box[2] > width or box[3] > height:
    return track, "track that leaves the frame"
  return track._replace(tracker=tracker), ""


def _record(track: Track, frame: np.ndarray, number: int, times: np.ndarray, size: int) -> dict[str, Any]:
  last = track.tracker.box
  numbers = np.array([track.first, number], np.int32)
  sides = np.array([frame.shape[1], frame.shape[0]] * 2, np.float32)
  return {
    "frames": [encode_jpeg(patch) for patch in (track.patch, _cut(frame, last, size))],
    "boxes": np.stack([track.box, last]) / sides[None],
    "numbers": numbers,
    "times": times[numbers].astype(np.float32),
  }


def _cut(frame: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
  """uint8[size, size, 3]: what is in a box."""
  left, top, right, bottom = map(float, box)
  patch = Image.fromarray(frame).resize((size, size), Image.Resampling.BILINEAR, (left, top, right, bottom))
  return np.asarray(patch)


def _is_cut(first: np.ndarray, second: np.ndarray) -> bool:
  """Whether two frames belong to different shots."""
  import cv2

  size = clip_frames.small_fit(*first.shape[:2]).canvas[::-1]
  small = [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in (first, second)]
  return bool(motion.measure_motion(small).cuts[0])


def _features() -> dict[str, Any]:
  import tensorflow_datasets as tfds

  return {
    "frames": tfds.features.Sequence(tfds.features.Image(encoding_format="jpeg"), length=2),
    "boxes": tfds.features.Tensor(shape=(2, 4), dtype=np.float32),
    "numbers": tfds.features.Tensor(shape=(2,), dtype=np.int32),
    "times": tfds.features.Tensor(shape=(2,), dtype=np.float32),
  }


def _rows(records: Sequence[Record]) -> list[Row]:
  """A row for each track: its first and its last patch."""
  chosen = records[:: -(-len(records) // _ROWS)]
  return [
    Row(
      f"{record['clip']}: frames {' and '.join(map(str, record['numbers'].tolist()))}",
      [decode(patch) for patch in record["frames"]],
    )
    for record in chosen
  ]
