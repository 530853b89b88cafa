"""Images that several test files use."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image


def encoded(pixels: np.ndarray, kind: str = "PNG", **options) -> bytes:
  """Encodes `pixels` uint8[H, W(, 3)] as a file."""
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, kind, **options)
  return buffer.getvalue()


def smooth(height: int, width: int, phase: float = 0.0) -> np.ndarray:
  """Makes a smooth image uint8[H, W, 3].

  JPEG changes it only by a few grey levels, and every flip or rotation changes it.
  """
  y, x = np.mgrid[:height, :width] / max(height, width)
  waves = (np.sin(3 * x + y + phase), np.cos(2 * y - x), np.sin(x * y * 4 + phase))
  return np.stack([127.5 + 120 * wave for wave in waves], -1).astype(np.uint8)


@pytest.fixture(scope="session")
def class_folder(tmp_path_factory):
  """A folder of three classes with 4, 3 and 3 images; each image has a different grey level."""
  root = tmp_path_factory.mktemp("classes")
  level = 0
  for name, count in (("ant", 4), ("bee", 3), ("cat", 3)):
    (root / name).mkdir()
    for i in range(count):
      level += 20
      (root / name / f"{i}.png").write_bytes(encoded(np.full((8, 8, 3), level, np.uint8)))
  return root


@pytest.fixture(scope="session")
def tfds_folder(shared_data, tmp_path_factory):
  """A TFDS folder with real photographs, written by the tool that comes with them."""
  tool = shared_data.parent / "tools" / "make_tfds.py"
  if not tool.is_file():
    pytest.skip(f"no {tool.name} beside the folder of real images")
  out = tmp_path_factory.mktemp("tfds")
  command = [sys.executable, str(tool), str(out), "--sets", "imagenet2012"]
  subprocess.run(command, check=True, capture_output=True)
  return out
