"""Measures the delivery of video frames relative to bare decoding by PyAV, with the same files and cores.

    python tests/benchmarks/video.py [--folder CLIPS] [--frames 40] [--rounds 5]

In order: the pipeline delivers the first frames of each clip at 224 px, in threads or in worker processes,
one for each core. Bare: PyAV decodes the same frames of the same files, in a plain pool of as many threads or
processes; "decode" leaves them as they are decoded, "rgb" also converts each to an RGB array of its own size,
which is what a program needs that uses the frames. Contestants take turns and stay warm.

At random: frames of one clip by index (`clip.frames([i])`, the clip stays open), and the transform `frame`,
which opens a clip for each frame; bare: PyAV seeks and decodes until the frame, and the same from the
beginning of the clip without a seek.

A ratio is the median over rounds of pipeline / the faster bare pool; ratios ending in "_cpu" compare frames
per second of processor time. The last line is one JSON object; above 0.8 of "rgb" is the aim.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.metadata
import itertools
import json
import multiprocessing
import pathlib
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import av
import numpy as np
from pipeline import CORES, Rate, clocked

from ssl_jax.data import host, pipeline, sources
from ssl_jax.video.clips import open_clip

FOLDER = pathlib.Path(__file__).resolve().parents[3] / "shared/data/davis"
SIZE = 224
PARTS = ("threads", "processes")


def decoded(path: str, *, count: int, rgb: bool) -> int:
  """Bare decoding of the first frames of a clip by one thread."""
  with av.open(path) as container:
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1
    frames = itertools.islice(container.decode(stream), count)
    return sum(1 for frame in frames if not rgb or frame.to_ndarray(format="rgb24").size)


def in_order(source, count: int, rounds: int) -> dict[str, list[Rate]]:
  """Returns the rates of each contestant by round, in frames."""
  paths = [source.name(i) for i in range(len(source))] * max(CORES // 2, 1)
  transform = host.make("frames", host.Frame(SIZE), count=count, start="first")
  batch = max(len(source) // 4, 1)
  turns: dict[str, Callable[[], Rate]] = {}
  with contextlib.ExitStack() as stack:
    pools = (
      stack.enter_context(ThreadPoolExecutor(CORES)),
      stack.enter_context(ProcessPoolExecutor(CORES, multiprocessing.get_context("spawn"))),
    )
    for (part, pool), rgb in itertools.product(zip(PARTS, pools), (False, True)):
      bare = functools.partial(decoded, count=count, rgb=rgb)
      turns[f"{'rgb' if rgb else 'decode'}_{part}"] = lambda pool=pool, bare=bare: clocked(
        lambda: sum(pool.map(bare, paths))
      )
    for part, workers in zip(PARTS, (0, CORES)):
      options = dict(batch_size=batch, transform=transform, workers=workers)
      batches = stack.enter_context(pipeline.train_batches(source, seed=0, start=0, stop=10**9, **options))
      turns[f"pipeline_{part}"] = functools.partial(delivered, batches, 4 * max(workers, 1))
    rates = {name: [] for name in turns}
    for turn in turns.values():
      turn()
    for _ in range(rounds):
      for name, turn in turns.items():
        rates[name].append(turn())
  return rates


def delivered(batches: pipeline.Batches, ahead: int, steps: int = 8) -> Rate:
  """The turn of a running pipeline: timed after what it has prefetched; then waits until that is back."""
  for _ in range(ahead):
    next(batches)
  rate = clocked(lambda: sum(int(np.prod(next(batches)["clip"].shape[:2])) for _ in range(steps)))
  shape = next(batches)["clip"].shape
  time.sleep(ahead * shape[0] * shape[1] / rate.wall)
  return rate


def at_random(source, count: int) -> dict[str, float]:
  """Returns milliseconds a frame of each way to read frames at random."""
  rng = np.random.default_rng(0)
  picks = [
    (source.name(int(i)), float(where))
    for i, where in zip(rng.integers(len(source), size=count), rng.random(count))
  ]
  transform = host.make("frame", host.Frame(SIZE))
  path = max((source.name(i) for i in range(len(source))), key=lambda name: pathlib.Path(name).stat().st_size)
  with open_clip(path) as clip:
    indices = rng.integers(len(clip), size=count)
    kept_open = milliseconds(lambda i: clip.frames([int(indices[i])]), count)
  return {
    "kept_open": kept_open,
    "transform": milliseconds(
      lambda i: transform(np.random.default_rng(i), {"clip": picks[i][0], "label": 0}), count
    ),
    "bare_seek": milliseconds(lambda i: sought(*picks[i], seek=True), count),
    "bare_from_start": milliseconds(lambda i: sought(*picks[i], seek=False), count),
  }


def sought(path: str, where: float, *, seek: bool) -> np.ndarray:
  """The frame at a fraction of a clip's duration, by PyAV alone."""
  with av.open(path) as container:
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1
    target = int((stream.start_time or 0) + where * (stream.duration or 0))
    if seek:
      container.seek(target, stream=stream)
    shown = None
    for frame in container.decode(stream):
      if shown is not None and frame.pts > target:
        break
      shown = frame
    return shown.to_ndarray(format="rgb24")


def milliseconds(function: Callable[[int], object], count: int) -> float:
  """The mean time of a call, after one that warms up."""
  function(0)
  began = time.perf_counter()
  for i in range(count):
    function(i)
  return round(1e3 * (time.perf_counter() - began) / count, 2)


def ratios(rates: dict[str, list[Rate]]) -> dict[str, float]:
  """Pipeline / the faster bare pool, by kind of bare decoding."""
  median = lambda name: statistics.median(rate.wall for rate in rates[name])
  found = {}
  ours = rates[max((f"pipeline_{part}" for part in PARTS), key=median)]
  for kind in ("decode", "rgb"):
    theirs = rates[max((f"{kind}_{part}" for part in PARTS), key=median)]
    found[kind] = statistics.median(a.wall / b.wall for a, b in zip(ours, theirs))
    found[f"{kind}_cpu"] = statistics.median(a.cpu / b.cpu for a, b in zip(ours, theirs))
  return {name: round(ratio, 3) for name, ratio in found.items()}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--folder", type=pathlib.Path, default=FOLDER, help="a folder of clips")
  parser.add_argument("--frames", type=int, default=40, help="of each clip, in order")
  parser.add_argument("--rounds", type=int, default=5)
  args = parser.parse_args()
  source = sources.make("video_folder", data_dir=str(args.folder))
  rates = in_order(source, args.frames, args.rounds)
  print(
    json.dumps(
      {
        "benchmark": "video",
        "in_order": ratios(rates),
        "frames_per_second": {
          name: round(statistics.median(rate.wall for rate in found)) for name, found in rates.items()
        },
        "random_milliseconds": at_random(source, 10 * args.rounds),
        "cores": CORES,
        "versions": {name: importlib.metadata.version(name) for name in ("av", "grain", "numpy")},
      }
    )
  )


if __name__ == "__main__":
  main()
