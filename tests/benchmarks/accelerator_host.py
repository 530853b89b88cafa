"""The cases of accelerator.py that run on the host's cores: imagecorruptions, and both input pipelines."""

from __future__ import annotations

import importlib
import os
import pathlib
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
from PIL import Image

CORES = len(os.sched_getaffinity(0))
SEVERITY = 3


def smooth_noise(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
  """uint8[height, width, 3]: noise at several scales, which compresses as photographs do."""
  total = np.zeros((height, width, 3), np.float32)
  for scale in (4, 16, 64):
    small = rng.integers(0, 256, (height // scale + 1, width // scale + 1, 3), np.uint8)
    total += np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)) * scale / 84
  return np.clip(total, 0, 255).astype(np.uint8)


def imagecorruptions():
  """(the package, the module that applies it) of tests/corrupt/reference.py."""
  sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "corrupt"))
  reference = importlib.import_module("reference")
  return reference.imagecorruptions(), reference


def corrupt_some(task: tuple[str, int, int, int]) -> tuple[str, float]:
  """Corrupts some images by (name, side, number of images, seed); returns (the name, seconds an image)."""
  name, side, images, seed = task
  package, reference = imagecorruptions()
  importlib.import_module("cv2").setNumThreads(1)
  image = smooth_noise(np.random.default_rng(seed), side, side)
  began = time.perf_counter()
  for _ in range(images):
    reference.theirs(package, name, image, SEVERITY)
  return name, (time.perf_counter() - began) / images


def corruptions(*, batch, side, images) -> dict:
  """Each core corrupts `images` images by each of the fifteen. Returns a record."""
  reference = imagecorruptions()[1]
  names = [*reference.DETERMINISTIC[:6], *reference.RANDOM[:8], "frost"]
  tasks = [(name, side, images, seed) for name in names for seed in range(CORES)]
  with ProcessPoolExecutor(CORES, mp_context=get_context("spawn")) as pool:
    list(pool.map(corrupt_some, tasks[:: max(1, len(tasks) // CORES)]))  # imports, compiled code
    began = time.perf_counter()
    found = list(pool.map(corrupt_some, tasks))
    seconds = time.perf_counter() - began
  each = {name: [s for other, s in found if other == name] for name in names}
  return {
    "images_per_second": round(len(tasks) * images / seconds, 3),
    "ms_an_image": {name: round(1e3 * float(np.mean(s)) / CORES, 3) for name, s in each.items()},
    "processes": CORES,
  }


def write_jpegs(folder: str, files: int, width: int, height: int) -> list[str]:
  """Writes JPEG files of smooth noise and returns their paths."""
  rng, paths = np.random.default_rng(0), []
  originals = [smooth_noise(rng, height, width) for _ in range(min(files, 16))]
  for number in range(files):
    image = Image.fromarray(np.roll(originals[number % len(originals)], 7 * number, (0, 1)))
    paths.append(str(pathlib.Path(folder) / f"{number:05d}.jpg"))
    image.save(paths[-1], quality=90)
  return paths


def folder_of(data: str, sizes: dict):
  """A context with a folder of JPEG files: `data`, or one that is filled with made ones."""
  folder = tempfile.TemporaryDirectory()
  if not data:
    write_jpegs(folder.name, sizes["files"], sizes["width"], sizes["height"])
  return folder, data or folder.name


def delivered(batches, batch: int, seconds: float, warm: int) -> dict:
  """Images a second of an iterator that does not end, after `warm` batches."""
  for _ in range(warm):
    next(batches)
  began, count = time.perf_counter(), 0
  while time.perf_counter() - began < seconds or count < 2:
    next(batches)
    count += 1
  speed = count * batch / (time.perf_counter() - began)
  return {"images_per_second": round(speed, 1), "images_per_second_a_core": round(speed / CORES, 1)}


def our_input(*, data="", side, batch, seconds, **sizes) -> dict:
  """Our pipeline: threads, and worker processes; the faster of the two counts."""
  from ssl_jax.data import host, pipeline, sources, transforms

  folder, path = folder_of(data, sizes)
  with folder:
    source = sources.make("folder", data_dir=path)
    crops = host.ImageAndLabel(transforms.random_resized_crop(side, scale=(0.2, 1.0), views=2))
    found = {}
    for workers in (0, CORES):
      options = dict(batch_size=batch, seed=0, start=0, stop=10**9, transform=crops, workers=workers)
      with pipeline.train_batches(source, **options) as batches:
        found["workers" if workers else "threads"] = delivered(
          batches, batch, seconds, warm=4 * max(workers, 1)
        )
  best = max(found.values(), key=lambda row: row["images_per_second"])
  return {**best, "ways": {way: row["images_per_second"] for way, row in found.items()}, "processes": CORES}


class Files:
  """A torch Dataset: two random crops of a JPEG file, as uint8."""

  def __init__(self, paths: list[str], side: int):
    from torchvision.transforms import v2

    self.paths = paths
    self.crop = v2.Compose([v2.RandomResizedCrop(side, scale=(0.2, 1.0)), v2.RandomHorizontalFlip()])

  def __len__(self) -> int:
    return len(self.paths)

  def __getitem__(self, index: int):
    from torchvision.transforms.v2 import functional

    with Image.open(self.paths[index]) as opened:
      image = opened.convert("RGB")
    return tuple(functional.pil_to_tensor(self.crop(image)) for _ in range(2))


def their_input(*, data="", side, batch, seconds, **sizes) -> dict:
  """torch's DataLoader with torchvision's crops of Pillow images, one worker a core."""
  from torch.utils.data import DataLoader, RandomSampler

  folder, path = folder_of(data, sizes)
  with folder:
    paths = sorted(
      str(found) for found in pathlib.Path(path).rglob("*") if found.suffix.lower() in (".jpg", ".jpeg")
    )
    files = Files(paths, side)
    order = RandomSampler(files, replacement=True, num_samples=10**7)
    loader = DataLoader(files, batch, sampler=order, num_workers=CORES, drop_last=True, prefetch_factor=2)
    found = delivered(iter(loader), batch, seconds, warm=2 * CORES)
  return {**found, "processes": CORES}


HOST = {"corruptions/host": corruptions, "input/ours": our_input, "input/dataloader": their_input}
