"""How much of the speed of bare decoding the input pipeline keeps: same files, same cores, side by side.

    python tests/benchmarks/pipeline.py [--archive FILE.zip] [--images 768] [--rounds 5]

Three jobs, each without a device:
  decode   the pipeline delivers the upper left corner of the decoded photograph; bare: Pillow alone, nothing cut
  resize   shorter side to 256, centre crop of 224; bare: the same transform in a plain pool
  crops    two random-resized crops of 224; bare: the same transform in a plain pool
The pipeline decodes in threads and in worker processes, one for each core, in batches of 64; bare decoding uses
`ThreadPoolExecutor.map` and `ProcessPoolExecutor.map` with as many, and the faster of the two counts. In each round all
contestants run one after another; a ratio is the median over rounds of pipeline / bare images a second.
The last line is one JSON object; above 1 the pipeline is faster, 0.85 is the aim.
"""

from __future__ import annotations

import argparse
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

import numpy as np
from PIL import Image

from ssl_jax.data import decode, pipeline, sources, transforms

ARCHIVE = pathlib.Path(__file__).resolve().parents[3] / "shared/data/imagenet1k_sample/images.zip"
CORES = len(os.sched_getaffinity(0))
BATCH = 64
VERSIONS = ("grain", "pillow", "numpy")


class Corner:
  """The pipeline's least work: decode, keep what fits into 224x224."""

  shape, random = (224, 224, 3), False

  def __call__(self, rng: None, image: bytes) -> np.ndarray:
    corner = decode.decode(image)[:224, :224]
    if corner.shape == self.shape:
      return corner
    full = np.zeros(self.shape, np.uint8)
    full[:corner.shape[0], :corner.shape[1]] = corner
    return full


def pillow(path: str) -> int:
  """Bare decoding: nothing but Pillow."""
  with Image.open(io.BytesIO(pathlib.Path(path).read_bytes())) as image:
    return np.asarray(image.convert("RGB") if image.mode != "RGB" else image).size


def transformed(path: str, *, transform: Callable) -> int:
  """The same transform as in the pipeline, its result thrown away."""
  rng = np.random.default_rng(len(path)) if transform.random else None
  return transform(rng, pathlib.Path(path).read_bytes()).size


def jobs() -> dict[str, tuple[Callable, Callable]]:
  """(transform of the pipeline, bare function of a path) by name."""
  resize = transforms.resize_center_crop(224, 256)
  crops = transforms.random_resized_crop(224, scale=(0.2, 1.0), views=2)
  return {"decode": (Corner(), pillow), "resize": (resize, functools.partial(transformed, transform=resize)),
          "crops": (crops, functools.partial(transformed, transform=crops))}


def bare_rate(pool: Executor, function: Callable, paths: list[str]) -> float:
  """Images a second of a plain pool that is warm."""
  began = time.perf_counter()
  for _ in pool.map(function, paths, chunksize=16):
    pass
  return len(paths) / (time.perf_counter() - began)


def pipeline_rate(source, transform: Callable, images: int, workers: int) -> float:
  """Images a second of the pipeline once it runs: what it holds ready at the start of the clock it holds at the end."""
  warm, steps = 4 * max(workers, 1), images // BATCH
  with pipeline.train_batches(source, batch_size=BATCH, seed=0, start=0, stop=2 * warm + steps, transform=transform,
                              workers=workers) as batches:
    for _ in range(warm):
      next(batches)
    began = time.perf_counter()
    for _ in range(steps):
      next(batches)
    return steps * BATCH / (time.perf_counter() - began)


def measure(source, paths: list[str], images: int, rounds: int) -> dict[str, dict[str, list[float]]]:
  """{job: {contestant: images a second by round}}."""
  rates = {name: {way: [] for way in ("bare_threads", "bare_processes", "threads", "workers")} for name in jobs()}
  spawn = multiprocessing.get_context("spawn")
  with ThreadPoolExecutor(CORES) as threads, ProcessPoolExecutor(CORES, spawn) as processes:
    for function in (function for _, function in jobs().values()):
      bare_rate(threads, function, paths[:BATCH]), bare_rate(processes, function, paths[:4 * BATCH])
    for number in range(rounds):
      for name, (transform, function) in jobs().items():
        found = rates[name]
        found["bare_threads"].append(bare_rate(threads, function, paths))
        found["threads"].append(pipeline_rate(source, transform, images, 0))
        found["bare_processes"].append(bare_rate(processes, function, paths))
        found["workers"].append(pipeline_rate(source, transform, images, CORES))
        print(f"round {number + 1} {name:7s}" + "".join(f"  {way} {rate[-1]:5.0f}/s" for way, rate in found.items()))
  return rates


def ratios(rates: dict[str, list[float]]) -> dict[str, float]:
  """Pipeline over the faster bare pool, medians over rounds, by what decodes in the pipeline."""
  bare = [max(pair) for pair in zip(rates["bare_threads"], rates["bare_processes"])]
  return {way: round(statistics.median(r / b for r, b in zip(rates[way], bare)), 3) for way in ("threads", "workers")}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--archive", type=pathlib.Path, default=ARCHIVE, help="zip of JPEG photographs")
  parser.add_argument("--images", type=int, default=768, help="decoded by each contestant in each round")
  parser.add_argument("--rounds", type=int, default=5)
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    with zipfile.ZipFile(args.archive) as archive:
      archive.extractall(folder)
    source = sources.make("folder", data_dir=folder)
    paths = [source.name(i % len(source)) for i in np.random.default_rng(0).permutation(args.images)]
    rates = measure(source, paths, args.images, args.rounds)
  best = {name: ratios(found) for name, found in rates.items()}
  print(json.dumps({
      "benchmark": "pipeline", **{f"{name}_{way}": ratio for name, found in best.items() for way, ratio in found.items()},
      "images_per_second": {name: {way: round(statistics.median(r)) for way, r in found.items()}
                            for name, found in rates.items()},
      "cores": CORES, "versions": {name: importlib.metadata.version(name) for name in VERSIONS}}))


if __name__ == "__main__":
  main()
