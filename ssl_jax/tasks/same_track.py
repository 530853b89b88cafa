"""How well features find the last patch of a track among patches of other tracks, by the first one."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from ssl_jax.data import transforms
from ssl_jax.data.elements import Elements, Record, ShapeDtype, clip_number
from ssl_jax.metrics import standard_error
from ssl_jax.tasks.backbone import Backbone, Encode
from ssl_jax.tasks.features import Features
from ssl_jax.tasks.features import extract as extract_features
from ssl_jax.tasks.task import Result, Task, TaskData, TestRecords, silent
from ssl_jax.view.neighbours import plot_neighbours

PATCHES = 2  # of a track: the first and the last
_QUERIES, _SHOWN = 12, 8  # rows and columns of the picture


class Tracks(NamedTuple):
  """The tracks of the test split, one row each."""

  first: np.ndarray  # f32[N, D], unit norm: features of the first patch
  last: np.ndarray  # f32[N, D], unit norm
  clips: np.ndarray  # i32[N]: number of the clip
  begin: np.ndarray  # i32[N]: number of the first frame
  end: np.ndarray  # i32[N]: number of the last frame


@dataclasses.dataclass(frozen=True)
class PairOfPatches:
  """The host transform of the records: the two patches, and in "label" the clip and the two frames."""

  pixels: transforms.ImageTransform
  random: bool = False

  @property
  def elements(self) -> Elements:
    """ "image" uint8[2, size, size, 3] and "label" i32[3]."""
    return {"image": ShapeDtype((PATCHES, *self.pixels.shape), np.uint8), "label": ShapeDtype((3,), np.int32)}

  def __call__(self, rng: np.random.Generator | None, record: Record) -> dict[str, np.ndarray]:
    label = [clip_number(record), *record["numbers"]]
    images = [self.pixels(rng, frame) for frame in record["frames"]]
    return {"image": np.stack(images), "label": np.array(label, np.int32)}


def make(*, candidates: int = 50, seed: int = 0) -> Task:
  """Retrieval: the first patch of a held-back track is the query, its last patch and the last patches of
  `candidates` - 1 other tracks are compared with it by the cosine of their features.

  "top1": the track's own patch is the nearest; "reciprocal_rank": the mean of 1 over its rank. The others are
  first the tracks of the same clip that are at other times, and then tracks of other clips. For
  "other_clips_top1" and "other_clips_reciprocal_rank" all are of other clips, which their colours tell apart.
  Of equal cosines none is the nearest. The protocol has standard errors, in which the tracks of a clip count
  as one cluster. The picture shows queries and their nearest candidates.

  Args:
    candidates: how many patches a query is compared with.
    seed: of the draw of the other tracks, which is the same for all networks.
  Raises: ValueError for fewer than two candidates, and in `run` for test records that are no tracks, or too
    few of them.
  """
  if candidates < 2:
    raise ValueError(f"same_track.candidates is {candidates}; use 2 or more, such as 50")

  def run(
    backbone: Backbone,
    data: TaskData,
    mesh: Mesh,
    key: jax.Array,
    *,
    extract=extract_features,
    progress=silent,
  ) -> Result:
    records, pair = _records(data)
    pairs = backbone.reading(_encode_pairs(backbone.method.encode))
    tracks = _tracks(extract(pairs, functools.partial(records.batches, pair), mesh))
    near, far = (draw_others(tracks, candidates, seed, same_clip=same) for same in (True, False))
    scalars, errors = _scores(tracks, near, far)
    protocol = {
      **data.protocol,
      **backbone.protocol,
      "task": "same_track",
      "backbone_mode": "evaluation",
      "candidates": candidates,
      "candidates_seed": seed,
      "test_rows": len(near),
      "test_clips": len(np.unique(tracks.clips)),
      "candidates_of_the_same_clip": _of_the_same_clip(tracks, near),
      "standard_error": errors,
    }
    read = lambda indices: records.read(pair, indices)["image"]
    return Result(scalars, protocol, plot=functools.partial(_plot, read, tracks, near))

  return Task("same_track", run)


def _scores(
  tracks: Tracks, near: Sequence[np.ndarray], far: Sequence[np.ndarray]
) -> tuple[dict[str, float], dict[str, float]]:
  """The scalars of the result and their standard errors."""
  scalars, errors = {}, {}
  for prefix, drawn in (("", near), ("other_clips_", far)):
    ranks = np.array([rank_own(tracks, track, others) for track, others in enumerate(drawn)])
    for name, values in (("top1", ranks < 1), ("reciprocal_rank", 1 / (1 + ranks))):
      scalars[prefix + name] = float(values.mean())
      errors[prefix + name] = standard_error(values, tracks.clips)
  return scalars, errors


def draw_others(tracks: Tracks, candidates: int, seed: int, *, same_clip: bool) -> list[np.ndarray]:
  """For each track the numbers i64[candidates - 1] of other tracks.

  Args:
    same_clip: whether to begin with all tracks of the same clip that are at other times. The others are of
      other clips.
  Raises: ValueError if a track has too few others.
  """
  drawn, wanted = [], candidates - 1
  for track, clip in enumerate(tracks.clips):
    rng, same = np.random.default_rng([seed, track]), tracks.clips == clip
    far = rng.permutation(np.flatnonzero(~same))
    if len(far) < wanted:
      raise ValueError(
        f"task 'same_track' compares with {wanted} tracks of other clips, but the test split has only "
        f"{len(far)}; use same_track.candidates={len(far) + 1}, or more held-back clips"
      )
    apart = (tracks.begin > tracks.end[track]) | (tracks.end < tracks.begin[track])
    near = rng.permutation(np.flatnonzero(apart & same)) if same_clip else far[:0]
    drawn.append(np.concatenate([near, far])[:wanted])
  return drawn


def _of_the_same_clip(tracks: Tracks, drawn: Sequence[np.ndarray]) -> float:
  """The mean number of other tracks of a track's own clip."""
  return float(np.mean([(tracks.clips[o] == tracks.clips[i]).sum() for i, o in enumerate(drawn)]))


def rank_own(tracks: Tracks, track: int, others: np.ndarray) -> int:
  """How many last patches of other tracks i64[K] are at least as near to the first patch as its own one."""
  cosines = tracks.last[[track, *others]] @ tracks.first[track]
  return int((cosines[1:] >= cosines[0]).sum())


def _records(data: TaskData) -> tuple[TestRecords, PairOfPatches]:
  """The test records and the transform that reads their patches."""
  records, protocol = data.records, data.protocol
  if records is None or not {"frames", "numbers", "clip_name"} <= set(records.fields):
    raise ValueError(
      "task 'same_track' needs 'frames', 'numbers' and 'clip_name' in every test record; use a data set that "
      "`ssl-jax prepare tracks` wrote"
    )
  square = transforms.resize_center_crop(
    protocol["crop"], protocol["resize"], interpolation=protocol["interpolation"]
  )
  return records, PairOfPatches(square)


@functools.lru_cache(maxsize=None)  # one program for each encoder
def _encode_pairs(encode: Encode) -> Encode:
  """Encodes pairs of images f32[B, 2, H, W, 3]: f32[B, 2, D]."""

  def pairs(params, model_state, images):
    found = encode(params, model_state, images.reshape(-1, *images.shape[2:]))
    return found.reshape(len(images), PATCHES, -1)

  return pairs


def _tracks(found: Features) -> Tracks:
  x = found.x / np.maximum(np.linalg.norm(found.x, axis=-1, keepdims=True), 1e-12)
  return Tracks(x[:, 0], x[:, 1], *found.y.T)


def _plot(
  read: Callable[[Sequence[int]], np.ndarray],
  tracks: Tracks,
  drawn: Sequence[np.ndarray],
  path: pathlib.Path,
  title: str,
) -> None:
  """Draws queries that are spread over the test split and the candidates nearest to them."""
  queries = np.unique(np.linspace(0, len(drawn) - 1, _QUERIES).round().astype(int))
  nearest, cosines = [], []
  for track in queries:
    candidates = np.array([track, *drawn[track]])
    scores = tracks.last[candidates] @ tracks.first[track]
    order = np.argsort(-scores, kind="stable")[:_SHOWN]
    nearest.append(candidates[order])
    cosines.append(scores[order])
  nearest = np.array(nearest)
  shown = np.unique([*queries, *nearest.ravel()])
  images = read(shown.tolist())
  place = lambda numbers: np.searchsorted(shown, numbers)
  plot_neighbours(
    path.with_name(f"{path.name}.png"),
    images[place(queries), 0],
    queries,
    images[place(nearest), 1],
    nearest,
    similarity=np.array(cosines),
    title=title,
    headers=("first patch", "nearest last patches"),
    summary=f"{(nearest[:, 0] == queries).mean():.0%} of these tracks find their own patch first",
  )
