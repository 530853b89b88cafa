"""Writes reference.json: how an independent implementation, imagecorruptions 1.1.2, corrupts two photographs.

    pip install -e '.[test,parity]'
    python tests/corrupt/reference.py            # writes reference.json beside this file
    python tests/corrupt/reference.py --check    # compares every pixel with ours and prints a table

With --check, frost uses its original photographs. The two photographs that are corrupted come with
scikit-learn. For each corruption and severity the file stores the mean, the standard deviation and the mean
absolute change, over several draws for random corruptions, and every sixteenth pixel for deterministic ones.
The elastic transform of imagecorruptions differs from that of ImageNet-C, which is therefore implemented
below with SciPy and OpenCV, with the parameters of the paper's table.
"""

import argparse
import base64
import json
import pathlib
import sys
import types

import numpy as np
import scipy.ndimage
import skimage.filters
from PIL import Image
from sklearn.datasets import load_sample_image

FILE = pathlib.Path(__file__).with_name("reference.json")
DETERMINISTIC = (
  "defocus_blur",
  "zoom_blur",
  "brightness",
  "contrast",
  "pixelate",
  "jpeg_compression",
  "gaussian_blur",
  "saturate",
)
RANDOM = (
  "gaussian_noise",
  "shot_noise",
  "impulse_noise",
  "glass_blur",
  "motion_blur",
  "snow",
  "fog",
  "elastic_transform",
  "speckle_noise",
  "spatter",
)
DRAWS = {"glass_blur": 2, "fog": 200, "motion_blur": 60, "elastic_transform": 160, "snow": 40, "spatter": 200}
ELASTIC = (
  (488, 170.8, 24.4),
  (488, 19.52, 48.8),
  (12.2, 2.44, 4.88),
  (17.08, 2.44, 4.88),
  (29.28, 2.44, 4.88),
)


def photographs() -> list[np.ndarray]:
  """Returns two photographs, uint8[224, 224, 3]: a pagoda and a flower."""
  return [
    np.asarray(
      Image.fromarray(load_sample_image(name))
      .resize((336, 224), Image.Resampling.LANCZOS)
      .crop((56, 0, 280, 224))
    )
    for name in ("china.jpg", "flower.jpg")
  ]


def sampled(pixels: np.ndarray) -> np.ndarray:
  """Returns every sixteenth pixel along both sides, uint8[14, 14, 3]."""
  return pixels[8::16, 8::16]


def imagecorruptions():
  """Imports the package after restoring what newer versions of its dependencies have removed."""
  resources = types.ModuleType("pkg_resources")
  resources.resource_filename = lambda name, path: str(pathlib.Path(sys.modules[name].__file__).parent / path)
  sys.modules["pkg_resources"] = resources
  sys.modules["scipy.ndimage.interpolation"] = scipy.ndimage
  np.float_ = np.float64
  import imagecorruptions
  from imagecorruptions import corruptions

  corruptions.gaussian = lambda image, sigma, multichannel=False, **options: skimage.filters.gaussian(
    image, sigma, channel_axis=-1 if multichannel else None, **options
  )
  return imagecorruptions


def elastic(image: np.ndarray, severity: int) -> np.ndarray:
  import cv2

  alpha, sigma, jitter = ELASTIC[severity - 1]
  height, width, _ = image.shape
  middle, reach = np.float32([width // 2, height // 2]), min(height, width) // 3
  old = np.float32([middle + reach, [middle[0] + reach, middle[1] - reach], middle - reach])
  new = old + np.random.uniform(-jitter, jitter, old.shape).astype(np.float32)
  warped = cv2.warpAffine(
    np.float32(image) / 255,
    cv2.getAffineTransform(old, new),
    (width, height),
    borderMode=cv2.BORDER_REFLECT_101,
  )
  across, down = (
    skimage.filters.gaussian(np.random.uniform(-1, 1, (height, width)), sigma, mode="reflect", truncate=3)
    * alpha
    for _ in range(2)
  )
  y, x = np.mgrid[:height, :width]
  planes = [
    scipy.ndimage.map_coordinates(warped[..., c], (y + down, x + across), order=1, mode="reflect")
    for c in range(3)
  ]
  return np.uint8(np.clip(np.stack(planes, -1), 0, 1) * 255)


def theirs(package, name: str, image: np.ndarray, severity: int) -> np.ndarray:
  return elastic(image, severity) if name == "elastic_transform" else package.corrupt(image, severity, name)


def statistics(draws, images) -> list[float]:
  """Returns mean, standard deviation and mean absolute change in grey levels of draws uint8[N, H, W, 3]."""
  draws = np.asarray(draws, np.float64)
  return [
    float(draws.mean()),
    float(draws.std()),
    float(np.abs(draws - np.asarray(images, np.float64)).mean()),
  ]


def make() -> None:
  package, images = imagecorruptions(), photographs()
  np.random.seed(0)
  found = {"statistics": {}, "pixels": {}}
  for name in (*DETERMINISTIC, *RANDOM):
    draws = 1 if name in DETERMINISTIC else DRAWS.get(name, 8)
    for severity in range(1, 6):
      made = [theirs(package, name, image, severity) for _ in range(draws) for image in images]
      found["statistics"][f"{name} {severity}"] = [round(v, 3) for v in statistics(made, images * draws)]
      if name in DETERMINISTIC:
        found["pixels"][f"{name} {severity}"] = base64.b64encode(
          np.stack([sampled(m) for m in made]).tobytes()
        ).decode()
    print(name, flush=True)
  FILE.write_text(json.dumps(found, indent=0) + "\n")


def check() -> None:
  import jax

  from ssl_jax import corrupt

  package, images = imagecorruptions(), photographs()
  frosts = str(pathlib.Path(package.__file__).parent / "frost")
  np.random.seed(1)
  for name in (*DETERMINISTIC, *RANDOM, "frost"):
    ours = jax.jit(corrupt.make(name, textures=frosts))
    row = []
    for severity in range(1, 6):
      draws = 1 if name in DETERMINISTIC else DRAWS.get(name, 40 if name == "frost" else 8)
      their = [theirs(package, name, image, severity) for _ in range(draws) for image in images]
      mine = [
        np.asarray(np.round(ours(jax.random.key(i), np.float32(image) / 255, severity) * 255), np.uint8)
        for i in range(draws)
        for image in images
      ]
      if name in DETERMINISTIC:
        row.append(f"{np.abs(np.float32(mine) - np.float32(their)).mean():.3f}")
      else:
        a, b = statistics(mine, images * draws), statistics(their, images * draws)
        row.append(" ".join(f"{x / y - 1:+.1%}" for x, y in zip(a, b)))
    kind = (
      "mean |difference|, grey levels"
      if name in DETERMINISTIC
      else "mean, deviation, mean |change|, ours / theirs - 1"
    )
    print(f"{name:18} {kind}: " + " | ".join(row), flush=True)


if __name__ == "__main__":
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--check", action="store_true")
  (check if parser.parse_args().check else make)()
