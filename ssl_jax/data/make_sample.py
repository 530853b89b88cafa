"""Writes the embedded sample. It was run once: python -m ssl_jax.data.make_sample --eurosat FOLDER.

FOLDER holds train.zip and val.zip with the images CLASS/NUMBER.webp, 32x32 pixels, and the licence LICENCE:
10,000 of the 27,000 images of EuroSAT (Helber et al. 2019), whose 64x64 pixels were halved by means of 2x2.
The same files give the same images in the same order.
"""

from __future__ import annotations

import argparse
import io
import os
import pathlib
import tempfile
import zipfile

os.environ.setdefault("TFDS_DISABLE_PROGRESS", "1")

import tensorflow_datasets as tfds  # noqa: E402

from ssl_jax.data.decode import decode  # noqa: E402

CLASSES = (
  "AnnualCrop",
  "Forest",
  "HerbaceousVegetation",
  "Highway",
  "Industrial",
  "Pasture",
  "PermanentCrop",
  "Residential",
  "River",
  "SeaLake",
)
FILES = {"test": "val.zip", "train": "train.zip"}  # test images first: they stay, and their doubles go
CREDIT = "Contains modified Copernicus Sentinel data."


class EurosatSample(tfds.core.GeneratorBasedBuilder):
  """About 10,000 of the 27,000 images of EuroSAT, 32x32, equally many of each class but for doubles."""

  VERSION = tfds.core.Version("1.0.0")
  folder = pathlib.Path()  # of the original files

  def _info(self):
    return tfds.core.DatasetInfo(
      builder=self,
      description=f"{self.__doc__} {CREDIT}",
      license=(self.folder / "LICENCE").read_text(),  # TFDS writes it into the folder of the images
      homepage="https://github.com/phelber/EuroSAT",
      supervised_keys=("image", "label"),
      features=tfds.features.FeaturesDict(
        {
          "image": tfds.features.Image(shape=(32, 32, 3)),
          "label": tfds.features.ClassLabel(names=list(CLASSES)),
        }
      ),
    )

  def _split_generators(self, download_manager):
    chosen = choose({split: self.folder / file for split, file in FILES.items()})
    return {split: self._generate_examples(chosen[split]) for split in ("train", "test")}

  def _generate_examples(self, images):
    for name, data in images.items():
      yield name, {"image": io.BytesIO(data), "label": CLASSES.index(name.partition("/")[0])}


def choose(archives: dict[str, pathlib.Path]) -> dict[str, dict[str, bytes]]:
  """Reads the images {split: {name: file}} and drops those whose pixels an image before them has."""
  seen: set[bytes] = set()
  return {split: _new_images(path, seen) for split, path in archives.items()}


def _new_images(path: pathlib.Path, seen: set[bytes]) -> dict[str, bytes]:
  found = {}
  with zipfile.ZipFile(path) as archive:
    for name in sorted(name for name in archive.namelist() if name.endswith(".webp")):
      data = archive.read(name)
      pixels = decode(data).tobytes()
      if pixels not in seen:
        seen.add(pixels)
        found[name] = data
  return found


def main() -> None:
  """Writes the sample from the files of EuroSAT in the folder given on the command line."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--eurosat", type=pathlib.Path, required=True, help="folder that holds its files")
  parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path(__file__).parent / "sample")
  args = parser.parse_args()
  EurosatSample.folder = args.eurosat
  builder = EurosatSample(data_dir=str(args.output), file_format="array_record")
  with tempfile.TemporaryDirectory() as unused:  # TFDS requires a download folder, but nothing is downloaded
    builder.download_and_prepare(download_dir=unused)
  print({split: info.num_examples for split, info in builder.info.splits.items()}, "in", builder.data_path)


if __name__ == "__main__":
  main()
