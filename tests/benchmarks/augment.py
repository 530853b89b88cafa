"""Measures two MoCo v2 views of each image: our program and torchvision on PIL images, on the same cores.

    python tests/benchmarks/augment.py [--data FOLDER] [--rounds 7]

Needs the extra `bench` and torchvision. The images are CIFAR-10 at 32 pixels and centre squares of ImageNet
photographs at 224; both are read from FOLDER (by default the folder of real images beside the checkout) and
decoded before the measurement. Both sides produce float32 views in [0, 1] without normalisation. Ours is one
XLA program on one CPU device. torchvision runs in threads and in processes, one for each core, and the faster
of the two counts; its views stay in the worker processes, which is to its advantage. The contestants take
turns. A ratio is the median over rounds of our images per second divided by torchvision's; above 1 ours is
faster. On a busy machine XLA slows down more, because its threads wait for each other after every operation.
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import csv
import functools
import importlib.metadata
import io
import json
import os
import pathlib
import platform
import random
import statistics
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

CORES = len(os.sched_getaffinity(0))
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image, ImageFilter  # noqa: E402
from torchvision import transforms as T  # noqa: E402

DATA = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data"
COUNTS = {32: 1024, 224: 64}  # images in a turn
# Our batch sizes: glibc would allocate more than 32 MB of views from newly mapped memory every time.
BATCHES = {32: 256, 224: 16}
CHUNKS = 4 * CORES  # parts into which a pool divides the work of a turn


def cifar(folder: pathlib.Path, count: int) -> np.ndarray:
  """Returns uint8[count, 32, 32, 3]: tiles of the first mosaic."""
  mosaic = np.asarray(Image.open(folder / "cifar10" / "train_00.webp").convert("RGB"))
  rows, columns = mosaic.shape[0] // 32, mosaic.shape[1] // 32
  return mosaic.reshape(rows, 32, columns, 32, 3).swapaxes(1, 2).reshape(-1, 32, 32, 3)[:count]


def imagenet(folder: pathlib.Path, count: int) -> np.ndarray:
  """Returns uint8[count, 224, 224, 3]: centre squares, not enlarged."""
  archive = zipfile.ZipFile(folder / "imagenet1k_sample" / "images.zip")
  squares = []
  for row in csv.DictReader(io.TextIOWrapper(archive.open("labels.csv"))):
    image = Image.open(io.BytesIO(archive.read(row["file"]))).convert("RGB")
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    if left >= 0 and top >= 0:
      squares.append(np.asarray(image.crop((left, top, left + 224, top + 224))))
    if len(squares) == count:
      return np.stack(squares)
  raise ValueError(f"{archive.filename} holds only {len(squares)} images of 224 pixels; {count} are needed")


class Blur:
  """The blur of MoCo v2, as in the released code."""

  def __call__(self, image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(radius=random.uniform(0.1, 2.0)))


def moco_v2(size: int) -> T.Compose:
  return T.Compose(
    [
      T.RandomResizedCrop(size, scale=(0.2, 1.0)),
      T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
      T.RandomGrayscale(p=0.2),
      T.RandomApply([Blur()], p=0.5),
      T.RandomHorizontalFlip(),
      T.ToTensor(),
    ]
  )


@functools.cache
def pil_images(size: int, folder: pathlib.Path) -> list[Image.Image]:
  """Decodes the images, once in every process."""
  load = cifar if size == 32 else imagenet
  return [Image.fromarray(image) for image in load(folder, COUNTS[size])]


def torch_views(size: int, folder: pathlib.Path, part: int) -> float:
  """Makes two views of every CHUNKS-th image; returns one number, so that processes transfer no views."""
  torch.set_num_threads(1)
  view = moco_v2(size)
  stacked = torch.stack(
    [torch.stack([view(image), view(image)]) for image in pil_images(size, folder)[part::CHUNKS]]
  )
  return float(stacked[0, 0, 0, 0, 0])


def torch_turn(pool: Executor, size: int, folder: pathlib.Path) -> Callable[[], object]:
  return lambda: list(pool.map(functools.partial(torch_views, size, folder), range(CHUNKS)))


def our_turn(size: int, folder: pathlib.Path) -> Callable[[], None]:
  """Makes the turn that puts uint8 batches on the device and waits for their views."""
  import jax  # here, so that worker processes, which import this file, do not load it

  from ssl_jax import augment

  images = np.stack([np.asarray(image) for image in pil_images(size, folder)])
  batches = np.split(images, len(images) // BATCHES[size])
  views = jax.jit(augment.make("moco_v2", views=2, size=size))
  key = jax.random.key(0)

  def turn():
    for batch in batches:
      jax.block_until_ready(views(key, {"image": batch}))

  return turn


def measure(size: int, folder: pathlib.Path, rounds: int, pools: dict[str, Executor]) -> dict:
  turns = {"ours": our_turn(size, folder)} | {
    f"torchvision, {name}": torch_turn(pool, size, folder) for name, pool in pools.items()
  }
  speed = {name: [] for name in turns}
  for turn in turns.values():
    turn()
  for _ in range(rounds):
    for name, turn in turns.items():
      began = time.perf_counter()
      turn()
      speed[name].append(COUNTS[size] / (time.perf_counter() - began))
  middle = {name: statistics.median(values) for name, values in speed.items()}
  peer = max((name for name in middle if name != "ours"), key=middle.get)
  ratio = statistics.median(ours / theirs for ours, theirs in zip(speed["ours"], speed[peer]))
  for name, value in middle.items():
    print(f"{size:4} px  {name:24} {value:9.1f} images/s", flush=True)
  return {
    "images_per_second": {name: round(value, 1) for name, value in middle.items()},
    "against": peer,
    "ratio": round(ratio, 3),
  }


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--data", type=pathlib.Path, default=DATA)
  parser.add_argument("--rounds", type=int, default=7)
  args = parser.parse_args()
  versions = {
    name: importlib.metadata.version(name) for name in ("jax", "torch", "torchvision", "pillow", "numpy")
  }
  print(f"{CORES} cores, {platform.processor() or platform.machine()}, {versions}", flush=True)
  result = {"benchmark": "augment", "views": 2, "cores": CORES, "versions": versions}
  # Spawned rather than forked: a fork would copy the state of XLA's running threads.
  with (
    ThreadPoolExecutor(CORES) as threads,
    ProcessPoolExecutor(CORES, mp_context=get_context("spawn")) as processes,
  ):
    for size in COUNTS:
      result[f"size{size}"] = measure(
        size, args.data, args.rounds, {"threads": threads, "processes": processes}
      )
  print(json.dumps(result))


if __name__ == "__main__":
  main()
