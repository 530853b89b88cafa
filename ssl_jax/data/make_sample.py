"""Writes the embedded sample. It was run once: python -m ssl_jax.data.make_sample --fashion-mnist FOLDER.

FOLDER holds the four files of Fashion-MNIST (on Debian: package dataset-fashion-mnist,
/usr/share/datasets/fashion-mnist). The same files and the same seed give the same images in the same order.
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
import pathlib
import tempfile

os.environ.setdefault("TFDS_DISABLE_PROGRESS", "1")

import numpy as np  # noqa: E402
import tensorflow_datasets as tfds  # noqa: E402
from PIL import Image  # noqa: E402

CLASSES = (
  "T-shirt/top",
  "Trouser",
  "Pullover",
  "Dress",
  "Coat",
  "Sandal",
  "Shirt",
  "Sneaker",
  "Bag",
  "Ankle boot",
)
PER_CLASS = {"train": 800, "test": 200}
FILES = {"train": "train", "test": "t10k"}
PAD = 2  # pixels of background on each side: 28 becomes 32
SEED = 0
NOTICE = """The MIT License (MIT)

Copyright (c) 2017 Zalando SE, https://tech.zalando.com

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without
limitation the rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the
Software, and to permit persons to whom the Software is furnished to do so, subject to the following
conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions
of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED
TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL
THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF
CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER
DEALINGS IN THE SOFTWARE.
"""


class FashionMnistSample(tfds.core.GeneratorBasedBuilder):
  """10,000 of the 70,000 images of Fashion-MNIST, equally many of each class, padded to 32x32."""

  VERSION = tfds.core.Version("1.0.0")
  folder = pathlib.Path()  # of the original files

  def _info(self):
    return tfds.core.DatasetInfo(
      builder=self,
      description=self.__doc__,
      license=NOTICE,  # TFDS writes it into the folder of the images
      homepage="https://github.com/zalandoresearch/fashion-mnist",
      supervised_keys=("image", "label"),
      features=tfds.features.FeaturesDict(
        {
          "image": tfds.features.Image(shape=(28 + 2 * PAD, 28 + 2 * PAD, 1), encoding_format="png"),
          "label": tfds.features.ClassLabel(names=list(CLASSES)),
        }
      ),
    )

  def _split_generators(self, download_manager):
    return {split: self._generate_examples(split) for split in PER_CLASS}

  def _generate_examples(self, split):
    images, labels = read_idx(self.folder, split)
    for number in choose(labels, PER_CLASS[split]):
      yield int(number), {"image": encode(images[number]), "label": int(labels[number])}


def read_idx(folder: pathlib.Path, split: str) -> tuple[np.ndarray, np.ndarray]:
  """Reads the original images uint8[N, 28, 28] and labels uint8[N]."""
  images, labels = (
    gzip.decompress((folder / f"{FILES[split]}-{kind}-ubyte.gz").read_bytes())
    for kind in ("images-idx3", "labels-idx1")
  )
  return (
    np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28),
    np.frombuffer(labels, np.uint8, offset=8),
  )


def choose(labels: np.ndarray, per_class: int) -> np.ndarray:
  """Draws `per_class` images of each class with SEED; returns their indices in ascending order."""
  order = np.random.default_rng(SEED).permutation(len(labels))
  return np.sort(np.concatenate([order[labels[order] == c][:per_class] for c in range(len(CLASSES))]))


def encode(image: np.ndarray) -> io.BytesIO:
  """Pads a 28x28 image and encodes it as PNG."""
  buffer = io.BytesIO()
  Image.fromarray(np.pad(image, PAD)).save(buffer, "PNG", optimize=True)
  buffer.seek(0)
  return buffer


def main() -> None:
  """Writes the sample from the files of Fashion-MNIST in the folder given on the command line."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--fashion-mnist", type=pathlib.Path, required=True, help="folder that holds its files")
  parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path(__file__).parent / "sample")
  args = parser.parse_args()
  FashionMnistSample.folder = args.fashion_mnist
  builder = FashionMnistSample(data_dir=str(args.output), file_format="array_record")
  with tempfile.TemporaryDirectory() as unused:  # TFDS requires a download folder, but nothing is downloaded
    builder.download_and_prepare(download_dir=unused)
  print({split: info.num_examples for split, info in builder.info.splits.items()}, "in", builder.data_path)


if __name__ == "__main__":
  main()
