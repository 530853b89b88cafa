"""Drills: a folder with hundreds of broken images."""

import io
import os
import pathlib
import random
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from ssl_jax.data import host, pipeline, sources, transforms

LONG = os.environ.get("SSL_JAX_DRILLS") == "long"
pytestmark = pytest.mark.drills
GOOD, EACH = 120, 20
SIDE = 24


def picture(rng: random.Random) -> Image.Image:
  return Image.fromarray(
    np.random.default_rng(rng.randrange(2**32)).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
  )


def encoded(image: Image.Image, kind: str, **options) -> bytes:
  file = io.BytesIO()
  image.save(file, kind, **options)
  return file.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
  return len(content).to_bytes(4, "big") + name + content + zlib.crc32(name + content).to_bytes(4, "big")


def bomb(rng) -> bytes:
  """A valid PNG of 20,000 x 20,000 white pixels: 1.2 GB of RGB, compressed to a few kilobytes."""
  packed, row = zlib.compressobj(9), b"\0" + b"\xff" * 2500
  content = b"".join(packed.compress(row) for _ in range(20_000)) + packed.flush()
  header = (20_000).to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
  return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


def huge(rng) -> bytes:
  """A PNG whose header states 2^31 - 1 pixels per side, without image data."""
  return (
    b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", (2**31 - 1).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0]))
    + chunk(b"IEND", b"")
  )


def truncated(rng) -> bytes:
  whole = encoded(picture(rng), rng.choice(("PNG", "JPEG", "WEBP")))
  return whole[: rng.randrange(1, len(whole) // 2)]


BROKEN = {
  "empty": lambda rng: b"",
  "zeros": lambda rng: bytes(rng.randrange(1, 4000)),
  "noise": lambda rng: rng.randbytes(2000),
  "truncated": truncated,
  "text": lambda rng: b"<html>not found</html>",
  "huge": huge,
  "bomb": bomb,
}
ODD = {  # unusual, and readable
  "png called jpg": lambda rng: encoded(picture(rng), "PNG"),
  "cmyk": lambda rng: encoded(picture(rng).convert("CMYK"), "JPEG"),
  "sixteen bits": lambda rng: encoded(Image.fromarray(np.full((SIDE, SIDE), 40_000, np.uint16)), "PNG"),
  "animated": lambda rng: encoded(picture(rng), "WEBP", save_all=True, append_images=[picture(rng)]),
  "bad exif": lambda rng: encoded(
    picture(rng), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + rng.randbytes(40)
  ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
  root, rng = tmp_path_factory.mktemp("images"), random.Random(0)
  for name in ("cats", "dogs"):
    (root / name).mkdir()
  makers = {**BROKEN, **ODD}
  for number in range(GOOD):
    (root / ("cats", "dogs")[number % 2] / f"good{number}.png").write_bytes(encoded(picture(rng), "PNG"))
  for name, make in makers.items():
    content = make(rng) if name == "bomb" else None  # costly: one for all
    for number in range(EACH):
      (root / ("cats", "dogs")[number % 2] / f"{name}{number}.jpg").write_bytes(content or make(rng))
  return root


# As decode.py sets it; pytest resets the filters.
@pytest.mark.filterwarnings("ignore:Corrupt EXIF:UserWarning")
def test_two_hundred_broken_images_are_counted_and_masked(folder):
  source = sources.make("folder", data_dir=str(folder))
  assert len(source) == GOOD + EACH * len({**BROKEN, **ODD}) and EACH * len({**BROKEN, **ODD}) >= 200
  with pipeline.eval_batches(
    source,
    batch_size=50,
    transform=host.ImageAndLabel(transforms.resize_center_crop(16, 16)),
    max_bad_fraction=0.6,
  ) as batches:
    counted = sum(int(batch["valid"].sum()) for batch in batches)
  assert counted == GOOD + EACH * len(ODD) and len(batches.bad) == EACH * len(BROKEN)
  assert {pathlib.Path(name).stem.rstrip("0123456789") for name in batches.bad} == set(BROKEN)


TRAIN = """
import resource, sys
from ssl_jax import TrainConfig, check, recipe
from ssl_jax import train
train(check(TrainConfig, recipe(
    method=dict(name="supervised"), encoder=dict(name="resnet10", width=4, stem="small"),
    augment=dict(name="supervised", views=1, size=16),
    data=dict(name="folder", data_dir=sys.argv[1], split="train[:100%]", size=16,
      max_bad_fraction=0.6),
    optimizer=dict(learning_rate=0.01), batch_size=20, epochs=2.0)), sys.argv[2])
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_training_on_them_ends_in_bounded_memory(folder, tmp_path):
  clean = tmp_path / "clean"
  for name in ("cats", "dogs"):
    (clean / name).mkdir(parents=True)
    for path in (folder / name).glob("good*"):
      os.link(path, clean / name / path.name)
  peaks = {}
  for name, data in (("broken", folder), ("clean", clean)):
    done = subprocess.run(
      [sys.executable, "-c", TRAIN, str(data), str(tmp_path / name)],
      capture_output=True,
      text=True,
      env={**os.environ, "XLA_FLAGS": ""},
    )
    assert done.returncode == 0, done.stderr
    peaks[name] = int(done.stdout.split("peak ")[1])
    left_out = {
      line.split(" cannot be decoded")[0] for line in done.stderr.splitlines() if "is left out" in line
    }
    assert len(left_out) == (EACH * len(BROKEN) if name == "broken" else 0)
  assert peaks["broken"] < peaks["clean"] + 150, peaks  # MB; one bomb unpacked would be 400 or more
