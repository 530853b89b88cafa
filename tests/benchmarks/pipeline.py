"""Measures the input pipeline relative to bare decoding, with the same files and the same cores.

    python tests/benchmarks/pipeline.py [--archive FILE.zip] [--rounds 9]

There are three jobs, none of which uses a device:   decode   the pipeline delivers the upper left corner of
the decoded photograph; bare: Pillow alone, uncropped   resize   shorter side to 256, centre crop of 224;
bare: the same transform in a plain pool   crops    two random-resized crops of 224; bare: the same transform
in a plain pool

The pipeline decodes in threads or in worker processes, one for each core, in batches of 64. Bare decoding
uses `ThreadPoolExecutor.map` or `ProcessPoolExecutor.map` with equally many. All contestants stay warm and
take turns of about half a second. A ratio is the median over rounds of pipeline / bare images per second, for
the faster pool; ratios ending in "_cpu" compare images per second of processor time, which other jobs on the
machine disturb less. The last line is one JSON object; above 1 the pipeline is faster, and 0.85 is the aim.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.metadata
import io
import json
import multiprocessing
import os
import pathlib
import statistics
import tempfile
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from PIL import Image

from ssl_jax.data import decode, host, pipeline, sources, transforms
from ssl_jax.data.reader import cores

ARCHIVE = pathlib.Path(__file__).resolve().parents[3] / "shared/data/imagenet1k_sample/images.zip"
CORES = cores()
BATCH, STEPS = 64, 8  # a turn is STEPS batches
WAYS = ("bare_threads", "bare_processes", "threads", "workers")
VERSIONS = ("grain", "pillow", "numpy")


class Corner:
  """The least work of the pipeline: decode, keep the upper left 224x224 pixels."""

  shape, random = (224, 224, 3), False

  def __call__(self, rng: None, image: bytes) -> np.ndarray:
    corner = decode.decode(image)[:224, :224]
    if corner.shape == self.shape:
      return corner
    full = np.zeros(self.shape, np.uint8)
    full[: corner.shape[0], : corner.shape[1]] = corner
    return full


def pillow(path: str) -> int:
  """Bare decoding with Pillow alone."""
  with Image.open(io.BytesIO(pathlib.Path(path).read_bytes())) as image:
    return np.asarray(image.convert("RGB") if image.mode != "RGB" else image).size


def transformed(path: str, *, transform: Callable) -> int:
  """Runs the same transform as the pipeline and discards its result."""
  rng = np.random.default_rng(len(path)) if transform.random else None
  return transform(rng, pathlib.Path(path).read_bytes()).size


def jobs() -> dict[str, tuple[Callable, Callable]]:
  """Returns (transform of the pipeline, bare function of a path) by name."""
  resize = transforms.resize_center_crop(224, 256)
  crops = transforms.random_resized_crop(224, scale=(0.2, 1.0), views=2)
  return {
    "decode": (host.ImageAndLabel(Corner()), pillow),
    "resize": (host.ImageAndLabel(resize), functools.partial(transformed, transform=resize)),
    "crops": (host.ImageAndLabel(crops), functools.partial(transformed, transform=crops)),
  }


class Rate(NamedTuple):
  """Images per second of wall time, and per second of processor time of this process and its children."""

  wall: float
  cpu: float


def processor_seconds() -> float:
  """The processor time that this process and its children have used so far."""
  total = 0.0
  for pid in [os.getpid(), *(child.pid for child in multiprocessing.active_children())]:
    with open(f"/proc/{pid}/stat") as stat:
      total += sum(map(int, stat.read().rpartition(")")[2].split()[11:13]))
  return total / os.sysconf("SC_CLK_TCK")


def clocked(work: Callable[[], int]) -> Rate:
  """Measures the rate of `work`, which returns how many images it processed."""
  began, used = time.perf_counter(), processor_seconds()
  images = work()
  return Rate(images / (time.perf_counter() - began), images / max(processor_seconds() - used, 1e-2))


def bare(pool: Executor, function: Callable, paths: list[str]) -> Callable[[], Rate]:
  """Makes the turn of a plain pool."""
  return lambda: clocked(lambda: sum(1 for _ in pool.map(function, paths, chunksize=16)))


def piped(batches: pipeline.Batches, workers: int) -> Callable[[], Rate]:
  """Makes the turn of a running pipeline, timed after the batches that it had prefetched are consumed.

  Afterwards it waits until equally many are prefetched again, so that the next contestant has all cores.
  """
  held = 4 * max(workers, 1)

  def turn() -> Rate:
    for _ in range(held):
      next(batches)
    rate = clocked(lambda: sum(len(next(batches)["label"]) for _ in range(STEPS)))
    time.sleep(held * BATCH / rate.wall)
    return rate

  return turn


def measure(source, paths: list[str], rounds: int) -> dict[str, dict[str, list[Rate]]]:
  """Returns {job: {contestant: rates by round}}."""
  rates = {name: {way: [] for way in WAYS} for name in jobs()}
  with contextlib.ExitStack() as stack:
    threads = stack.enter_context(ThreadPoolExecutor(CORES))
    processes = stack.enter_context(ProcessPoolExecutor(CORES, multiprocessing.get_context("spawn")))
    for name, (transform, function) in jobs().items():
      with contextlib.ExitStack() as running:
        read = [
          running.enter_context(
            pipeline.train_batches(
              source, batch_size=BATCH, seed=0, start=0, stop=10**9, transform=transform, workers=workers
            )
          )
          for workers in (0, CORES)
        ]
        turns = (
          bare(threads, function, paths),
          bare(processes, function, paths),
          piped(read[0], 0),
          piped(read[1], CORES),
        )
        for turn in turns:
          turn()
        for _ in range(rounds):
          for way, turn in zip(WAYS, turns):
            rates[name][way].append(turn())
      figures = (f"{way} {figure}/s" for way, figure in medians(rates[name]).items())
      print(f"{name:7s}", *figures, sep="  ", flush=True)
  return rates


def medians(rates: dict[str, list[Rate]]) -> dict[str, int]:
  """Returns the median images per second of each contestant."""
  return {way: round(statistics.median(rate.wall for rate in found)) for way, found in rates.items()}


def ratios(rates: dict[str, list[Rate]]) -> dict[str, float]:
  """Returns pipeline / faster bare pool, for threads and for workers of the pipeline."""
  best = rates[max(WAYS[:2], key=medians(rates).get)]
  found = {}
  for way in WAYS[2:]:
    found[way] = statistics.median(ours.wall / theirs.wall for ours, theirs in zip(rates[way], best))
    found[f"{way}_cpu"] = statistics.median(ours.cpu / theirs.cpu for ours, theirs in zip(rates[way], best))
  return {way: round(ratio, 3) for way, ratio in found.items()}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--archive", type=pathlib.Path, default=ARCHIVE, help="zip of JPEG photographs")
  parser.add_argument("--rounds", type=int, default=9)
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    with zipfile.ZipFile(args.archive) as archive:
      archive.extractall(folder)
    source = sources.make("folder", data_dir=folder)
    paths = [source.name(i % len(source)) for i in np.random.default_rng(0).permutation(STEPS * BATCH)]
    rates = measure(source, paths, args.rounds)
  kept = {f"{name}_{way}": ratio for name, found in rates.items() for way, ratio in ratios(found).items()}
  print(
    json.dumps(
      {
        "benchmark": "pipeline",
        **kept,
        "images_per_second": {name: medians(found) for name, found in rates.items()},
        "cores": CORES,
        "versions": {name: importlib.metadata.version(name) for name in VERSIONS},
      }
    )
  )


if __name__ == "__main__":
  main()
