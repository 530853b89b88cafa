"""What the host of the chips must do to feed a training: decode and transform each image, once an epoch."""

from __future__ import annotations

import functools
import io
import time
from typing import Any

import numpy as np
from PIL import Image

from ssl_jax.config.schema import TrainConfig
from ssl_jax.data.elements import Transform
from ssl_jax.data.host import NEEDS
from ssl_jax.planning.chips import Host
from ssl_jax.run.assembly import host_transform

HEIGHT, WIDTH, QUALITY = 375, 500, 92  # of the photograph that is decoded; the medians of ImageNet's
SECONDS, IMAGES = 0.5, 16  # least processor time, and images, of the measurement
SOURCE = f"one processor of this machine, JPEGs of {WIDTH} x {HEIGHT}"


def host_work(config: TrainConfig, host: Host, images_a_second: float) -> dict[str, Any]:
  """Compares the processors that a chip's images take with those that its host has.

  The rate of one processor is measured here, on a photograph of ImageNet's usual size: JPEG to what the host
  transform of `config` delivers. Processors of other machines differ.

  Args:
    images_a_second: that one chip takes at most.
  Returns: "images_a_second" of one processor, "processors_needed" and "processors" for a chip, "feeds"; or
    {"unknown": why} where the records are no images, or {"held": why} where nothing is decoded in a step.
  """
  if config.data.cache or config.data.device_cache:
    return {"held": "the decoded images are held in memory"}
  if config.host["name"] in NEEDS:
    fields = " and ".join(NEEDS[config.host["name"]])
    return {"unknown": f"the records of config.host.name {config.host['name']!r} have {fields}"}
  rate = rate_of(host_transform(config))
  needed = images_a_second / rate
  found = {"images_a_second": rate, "processors_needed": needed, "processors": host.processors / host.chips}
  return {**found, "feeds": needed <= found["processors"], "measured_on": SOURCE, "source": host.source}


def rate_of(transform: Transform) -> float:
  """Images that one thread decodes and transforms in a second of its processor time."""
  record, rng = {"image": photograph(), "label": np.int32(0)}, np.random.default_rng(0)
  rng = rng if transform.random else None
  transform(rng, record)  # the first one loads libraries
  began, done = time.thread_time(), 0
  while done < IMAGES or time.thread_time() - began < SECONDS:
    transform(rng, record)
    done += 1
  return done / max(time.thread_time() - began, 1e-9)


@functools.cache
def photograph() -> bytes:
  """A JPEG of as many pixels and about as many bytes (100 kB) as a photograph of ImageNet."""
  rng = np.random.default_rng(0)
  coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8))
  smooth = coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
  noisy = np.asarray(smooth, np.float32) + rng.normal(0, 9, (HEIGHT, WIDTH, 1))
  file = io.BytesIO()
  Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=QUALITY)
  return file.getvalue()
