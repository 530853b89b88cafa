"""Unpacks real images and frames of a folder of shared data into folders that the data sources read."""

import csv
import io
import pathlib
import zipfile

import numpy as np
from PIL import Image

CAMVID = "Sky Building Pole Road Pavement Tree SignSymbol Fence Car Pedestrian Bicyclist void".split()
# Day: the end of the drive that trains; dusk: another drive, of which nothing is trained on.
CAMVID_SPLITS = {
  "train": ("train_0006R0", "train_0016E5"),
  "val": ("val_0016E5",),
  "test": ("train_0001TP", "test_0001TP"),
}
PHOTOGRAPHS = (
  "imagenet1k_sample/images.zip",
  "voc2008/train_images.zip",
  "coco256/train_images.zip",
  "ants_bees/train.zip",
)
CLIPS = {"davis": 4, "clips": 5, "video": 8, "backgrounds": 25}  # folder of clips: every how many frames one


def unpack_camvid(shared: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
  """Writes CamVid as a `mask_folder` with the splits train, val (day) and test (dusk); returns `folder`."""
  for split, sequences in CAMVID_SPLITS.items():
    images, masks = (folder / split / name for name in ("images", "masks"))
    for place in (images, masks):
      place.mkdir(parents=True, exist_ok=True)
    for sequence in sequences:
      with zipfile.ZipFile(shared / "camvid" / f"{sequence}.zip") as archive:
        for row in csv.DictReader(io.TextIOWrapper(archive.open("frames.csv"))):
          name = pathlib.PurePath(row["image"]).name
          images.joinpath(f"{sequence}_{name}").write_bytes(archive.read(row["image"]))
          target = f"{sequence}_{pathlib.PurePath(name).stem}.png"
          masks.joinpath(target).write_bytes(archive.read(row["label"]))
  (folder / "classes.txt").write_text("\n".join(CAMVID) + "\n")
  return folder


def unpack_unlabelled(shared: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
  """Writes photographs and frames of clips, without labels, as one folder of JPEG files; returns `folder`.

  Of CamVid it holds the frames of the split train only. Clips need PyAV.
  """
  place = folder / "train"
  place.mkdir(parents=True, exist_ok=True)
  archives = [*PHOTOGRAPHS, *(f"camvid/{name}.zip" for name in CAMVID_SPLITS["train"])]
  archives += sorted(f"cityscapes_clips/{path.name}" for path in (shared / "cityscapes_clips").glob("*.zip"))
  for source in archives:
    with zipfile.ZipFile(shared / source) as archive:
      for name in sorted(archive.namelist()):
        if name.lower().endswith((".jpg", ".jpeg")):
          stem = f"{source}_{name}".replace("/", "_").replace(".zip", "")
          place.joinpath(stem).write_bytes(archive.read(name))
  for kind, every in CLIPS.items():
    for path in sorted((shared / kind).glob("*.mp4")):
      _write_frames(path, place, f"{kind}_{path.stem}", every)
  return folder


def _write_frames(path: pathlib.Path, place: pathlib.Path, stem: str, every: int) -> None:
  import av

  with av.open(str(path)) as clip:
    for number, frame in enumerate(clip.decode(video=0)):
      if number % every == 0:
        pixels = np.asarray(frame.to_ndarray(format="rgb24"))
        Image.fromarray(pixels).save(place / f"{stem}_{number:04d}.jpg", quality=92)
