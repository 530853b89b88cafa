"""Sounds: frames, each with a summary of the sound around it, its cluster and its bits."""

from __future__ import annotations

import collections
import functools
import itertools
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
from PIL import Image

from ssl_jax.data.decode import decode
from ssl_jax.data.elements import Record
from ssl_jax.mining import sound_texture
from ssl_jax.mining.miner import Completion, Mined, Miner, Row, encode_jpeg
from ssl_jax.mining.sound_targets import SoundTargets, fit_targets
from ssl_jax.video.clips import Clip

_LONGEST = 12.0  # seconds of sound that are filtered at once
_FITTED = 65_536  # summaries that targets are fitted to, at most
_ROWS, _ACROSS = 40, 16  # clusters on the picture sheet, and frames of each


def make(
  *,
  frames: int = 10,
  seconds: float = 3.75,
  size: int = 256,
  clusters: int = 30,
  bits: int = 30,
  statistics: Literal["all", "spectrum"] = "all",
  silence: float = 1e-4,
  seed: int = 0,
) -> Miner:
  """Frames at equal distances, with the statistics of the sound around them.

  A record has "image"; "sound" f32[502], the summary; "time" of the frame in seconds; "label", its cluster;
  and "bits" bool[bits]. Clusters and bits are fitted to the training clips.

  Args:
    frames: of a clip, at most.
    seconds: of sound around a frame; frames too near to an end of the sound are not used.
    size: length of the shorter side of the frames in pixels; smaller frames are not enlarged.
    statistics: "spectrum": targets from the mean of each band only.
    silence: windows whose root mean square is below it are rejected.
    seed: of the clustering.
  Raises: ValueError for a value out of range.
  Source: Owens et al. 2016.
  """
  for name, value in (("frames", frames), ("size", size), ("clusters", clusters), ("bits", bits)):
    if value < 1:
      raise ValueError(f"sounds.{name} is {value}; use a positive number")
  if not 0.5 <= seconds <= _LONGEST:
    raise ValueError(f"sounds.seconds is {seconds}; use 0.5 to {_LONGEST:g}, such as 3.75")
  fit = functools.partial(_fit, clusters=clusters, bits=bits, statistics=statistics, seed=seed)
  mine = functools.partial(_mine, frames=frames, seconds=seconds, size=size, silence=silence)
  return Miner(mine, functools.partial(_features, clusters, bits), _rows, fit)


def _mine(clip: Clip, rng: np.random.Generator, *, frames: int, seconds: float, size: int, silence: float):
  if not clip.has_sound:
    return Mined((), {"clip without sound": 1})
  span, half = clip.sound_span, seconds / 2
  heard = np.flatnonzero((clip.times >= span.first + half) & (clip.times <= span.last - half))
  if not len(heard):
    return Mined((), {"clip with less sound than a window": 1})
  places = (np.arange(frames) + 0.5) / frames * len(heard)
  chosen = np.unique(heard[places.astype(int)])
  records, rejected = [], collections.Counter()
  for index, summary in zip(chosen, _summaries(clip, clip.times[chosen] - half, seconds, silence)):
    if summary is None:
      rejected["window of silence"] += 1
      continue
    image = encode_jpeg(_resized(clip.frames([index])[0], size))
    records.append({"image": image, "sound": summary, "time": float(clip.times[index])})
  return Mined(records, rejected)


def _summaries(clip: Clip, starts: np.ndarray, seconds: float, silence: float) -> Iterable[np.ndarray | None]:
  """Yields the summary of each window of sound; None: it is silent. Windows near to each other are filtered
  together.
  """
  step = round(seconds * sound_texture.ENVELOPE_RATE)
  samples = step * sound_texture.RATE // sound_texture.ENVELOPE_RATE
  while len(starts):
    together = starts[starts + seconds <= starts[0] + _LONGEST]
    together = together[: 1 + int(np.cumprod(np.diff(together) < seconds).sum())]
    firsts = np.round((together - together[0]) * sound_texture.ENVELOPE_RATE).astype(int)
    total = (firsts[-1] + step) / sound_texture.ENVELOPE_RATE
    sound = clip.sound(float(together[0]), total, sound_texture.RATE, pad=True)
    envelope = sound_texture.envelopes(sound)
    for first in firsts:
      sample = first * sound_texture.RATE // sound_texture.ENVELOPE_RATE
      level = sound_texture.loudness_of(sound[sample : sample + samples])
      quiet = level < silence
      yield None if quiet else sound_texture.summarize(envelope[:, first : first + step], level)
    starts = starts[len(together) :]


def _resized(pixels: np.ndarray, size: int) -> np.ndarray:
  height, width = pixels.shape[:2]
  scale = size / min(height, width)
  if scale >= 1:
    return pixels
  shape = max(round(width * scale), size), max(round(height * scale), size)
  return np.asarray(Image.fromarray(pixels).resize(shape, Image.Resampling.BICUBIC))


def _features(clusters: int, bits: int) -> dict[str, Any]:
  import tensorflow_datasets as tfds

  return {
    "image": tfds.features.Image(encoding_format="jpeg"),
    "sound": tfds.features.Tensor(shape=(sound_texture.SIZE,), dtype=np.float32),
    "time": np.float32,
    "label": tfds.features.ClassLabel(num_classes=clusters),
    "bits": tfds.features.Tensor(shape=(bits,), dtype=np.bool_),
  }


def _fit(records: Iterable[Record], *, clusters: int, bits: int, statistics: str, seed: int) -> Completion:
  summaries = _sampled(record["sound"] for record in records)
  targets = fit_targets(summaries, clusters=clusters, bits=bits, statistics=statistics, seed=seed)
  sizes = np.bincount(targets.clusters(summaries), minlength=clusters)
  return Completion(
    functools.partial(_complete, targets), targets._asdict(), {"frames_in_clusters": sizes.tolist()}
  )


def _sampled(summaries: Iterable[np.ndarray]) -> np.ndarray:
  """Every nth summary, with the smallest n such that at most _FITTED are kept; f32[N, 502]."""
  kept, step = [], 1
  for number, summary in enumerate(summaries):
    if number % step == 0:
      kept.append(summary)
    if len(kept) > _FITTED:
      kept, step = kept[::2], 2 * step
  return np.stack(kept)


def _complete(targets: SoundTargets, record: Record) -> Record:
  summary = record["sound"][None]
  return {**record, "label": int(targets.clusters(summary)[0]), "bits": targets.bits(summary)[0]}


def _rows(records: Sequence[Record]) -> list[Row]:
  """A row for each cluster, with one frame of every clip first: what is seen should sound alike."""
  by_cluster = collections.defaultdict(lambda: collections.defaultdict(list))
  for record in records:
    by_cluster[record["label"]][record["clip"]].append(record["image"])
  rows = []
  for cluster, by_clip in sorted(by_cluster.items())[:_ROWS]:
    turns = itertools.zip_longest(*by_clip.values())
    images = [image for turn in turns for image in turn if image is not None]
    caption = f"cluster {cluster}: {len(images)} frames of {len(by_clip)} clips"
    rows.append(Row(caption, [decode(image) for image in images[:_ACROSS]]))
  return rows
