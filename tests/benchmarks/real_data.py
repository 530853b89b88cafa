"""Unpacks real images and frames of a folder of shared data into folders that the data sources read.

python tests/benchmarks/real_data.py SET SHARED_DATA FOLDER

SET is camvid, voc, coco, cityscapes or penn_fudan (images with masks of classes), camvid_videos,
cityscapes_videos or davis_videos (frames of videos with masks), cifar10_clips (a table of clips by class),
davis (frames with masks of what moves, and clips), voc_boxes, coco_boxes or penn_fudan_boxes (images with
objects), or unlabelled.
"""

import csv
import io
import json
import pathlib
import sys
import zipfile
from collections.abc import Sequence

import numpy as np
from PIL import Image

from ssl_jax.data.mask_layouts import CAMVID, CITYSCAPES, VOC

# Day: the end of the drive that trains; dusk: another drive, of which nothing is trained on.
CAMVID_SPLITS = {
  "train": ("train_0006R0", "train_0016E5"),
  "val": ("val_0016E5",),
  "test": ("train_0001TP", "test_0001TP"),
}
DAVIS_OBJECTS = {
  "libby": "dog",
  "blackswan": "bird",
  "car-roundabout": "car",
  "drift-chicane": "car",
  "drift-straight": "car",
}
CAMVID_VIDEOS = {
  "train": ("train_0006R0", "train_0016E5"),
  "val": ("train_0001TP",),
  "test": ("test_0001TP", "val_0016E5"),
}
PHOTOGRAPHS = (
  "imagenet1k_sample/images.zip",
  "voc2008/train_images.zip",
  "coco256/train_images.zip",
  "ants_bees/train.zip",
)
DAVIS_WIDTH = 426  # pixels; the masks are stored in whole bytes
DAVIS_SIDE = 160  # pixels, of `davis_videos`
HELD_BACK = 6  # clips of DAVIS, spread over the alphabet
EVERY = 4  # frames of DAVIS of which one is written
CLIPS = {"davis": 4, "clips": 5, "video": 8, "backgrounds": 25}  # folder of clips: every how many frames one


def unpack_camvid(shared: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
  """Writes CamVid as a `mask_folder` with the splits train, val (day) and test (dusk); returns `folder`."""
  for split, sequences in CAMVID_SPLITS.items():
    images, masks = _pair(folder / split)
    for sequence in sequences:
      _unpack_sequence(shared / "camvid" / f"{sequence}.zip", images, masks, prefix=f"{sequence}_")
  (folder / "classes.txt").write_text("\n".join([*CAMVID, "void"]) + "\n")
  return folder


def unpack_camvid_videos(shared: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
  """Writes CamVid's sequences as `video_masks`; returns `folder`.

  train: two day sequences at 1 Hz; val: the first part of the dusk sequence, on which options are chosen;
  test: the other part of it, and the day sequence at 15 Hz.
  """
  for split, sequences in CAMVID_VIDEOS.items():
    for sequence in sequences:
      places = [path / sequence for path in _pair(folder / split)]
      for place in places:
        place.mkdir(exist_ok=True)
      _unpack_sequence(shared / "camvid" / f"{sequence}.zip", *places)
  (folder / "classes.txt").write_text("\n".join([*CAMVID, "void"]) + "\n")
  return folder


def _unpack_sequence(path: pathlib.Path, images: pathlib.Path, masks: pathlib.Path, prefix: str = "") -> None:
  """Writes the frames and labels of a sequence of CamVid into two folders."""
  with zipfile.ZipFile(path) as archive:
    for row in csv.DictReader(io.TextIOWrapper(archive.open("frames.csv"))):
      name = prefix + pathlib.PurePath(row["image"]).name
      (images / name).write_bytes(archive.read(row["image"]))
      (masks / f"{pathlib.PurePath(name).stem}.png").write_bytes(archive.read(row["label"]))


def unpack_voc(shared: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
  """Writes the sample of PASCAL VOC as a `mask_folder` with the splits train and val; returns `folder`."""
  return _unpack_pairs(shared / "voc2008", folder, VOC)


def unpack_coco(shared: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
  """Writes the images of the sample of COCO that have semantic masks, in the same way."""
  named = json.loads((shared / "coco256" / "semantic_classes.json").read_text())
  names = [named.get(str(i), f"unused {i}") for i in range(1 + max(map(int, named)))]
  return _unpack_pairs(shared / "coco256", folder, ["void", *names[1:]])


def _unpack_pairs(source: pathlib.Path, folder: pathlib.Path, names: Sequence[str]) -> pathlib.Path:
  for split in ("train", "val"):
    images, masks = _pair(folder / split)
    with (
      zipfile.ZipFile(source / f"{split}_semantic.zip") as labels,
      zipfile.ZipFile(source / f"{split}_images.zip") as pixels,
    ):
      stored = {pathlib.PurePath(name).stem: name for name in pixels.namelist()}
      for name in labels.namelist():
        stem = pathlib.PurePath(name).stem
        (masks / f"{stem}.png").write_bytes(labels.read(name))
        (images / f"{stem}.jpg").write_bytes(pixels.read(stored[stem]))
  (folder / "classes.txt").write_text("\n".join(names) + "\n")
  return folder


def unpack_cityscapes(shared: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
  """Writes the snippets of Cityscapes, three to train on and one for val, with the 19 classes.

  The labels are those of a network.
  """
  source = shared / "cityscapes_clips"
  clips = sorted(source.glob("aachen_*.zip"))
  for split, chosen in {"train": clips[:-1], "val": clips[-1:]}.items():
    images, masks = _pair(folder / split)
    for path in chosen:
      with zipfile.ZipFile(path) as archive:
        for row in csv.DictReader(io.TextIOWrapper(archive.open("frames.csv"))):
          stem = f"{path.stem}_{pathlib.PurePath(row['image']).stem}"
          (images / f"{stem}.jpg").write_bytes(archive.read(row["image"]))
          (masks / f"{stem}.png").write_bytes(archive.read(row["label"]))
  names = json.loads((source / "labels.json").read_text())["names"]
  lines = [name if name in CITYSCAPES.values() else "void" for name in names]
  (folder / "classes.txt").write_text("\n".join(lines) + "\n")
  return folder


def unpack_cityscapes_videos(shared: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
  """Writes the snippets of Cityscapes as `video_masks` with CamVid's classes; returns `folder`.

  val: the first snippet, on which options are chosen; test: the three others. The labels are those of a
  network.
  """
  source = shared / "cityscapes_clips"
  table = np.array(json.loads((source / "labels.json").read_text())["to_camvid"], np.uint8)
  clips = sorted(source.glob("aachen_*.zip"))
  for split, chosen in {"train": clips[:1], "val": clips[:1], "test": clips[1:]}.items():
    for path in chosen:
      images, masks = (place / path.stem for place in _pair(folder / split))
      images.mkdir(exist_ok=True)
      masks.mkdir(exist_ok=True)
      with zipfile.ZipFile(path) as archive:
        for row in csv.DictReader(io.TextIOWrapper(archive.open("frames.csv"))):
          stem = pathlib.PurePath(row["image"]).stem
          (images / f"{stem}.jpg").write_bytes(archive.read(row["image"]))
          labels = np.asarray(Image.open(io.BytesIO(archive.read(row["label"]))))
          Image.fromarray(table[labels]).save(masks / f"{stem}.png")
  (folder / "classes.txt").write_text("\n".join([*CAMVID, "void"]) + "\n")
  return folder


def unpack_cifar10_clips(shared: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
  """Writes FOLDER/table.json for the task `stills_to_video`: the clips that show a class of CIFAR-10.

  Paths of clips are relative to the shared data.
  """
  classes = {"bird": "bird", "dog": "dog", "cat": "cat", "horse": "horse", "truck": "truck"}
  classes |= {"aeroplane": "airplane", "car": "automobile", "boat": "ship"}
  found = {}
  with (shared / "clips" / "clips.csv").open() as file:
    for row in csv.DictReader(file):
      if row["object"] in classes:
        found[f"clips/{row['file']}"] = row["object"]
  found |= {f"davis/{name}.mp4": kind for name, kind in DAVIS_OBJECTS.items()}
  found |= {"video/dog_walk.mp4": "dog"}
  folder.mkdir(parents=True, exist_ok=True)
  table = {"classes": {name: [own] for name, own in classes.items()}, "clips": found}
  (folder / "table.json").write_text(json.dumps(table, indent=1))
  return folder / "table.json"


def unpack_penn_fudan(shared: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
  """Writes Penn-Fudan as a `mask_folder` of background and person."""
  for split in ("train", "val"):
    images, masks = _pair(folder / split)
    with zipfile.ZipFile(shared / "penn_fudan" / f"{split}.zip") as archive:
      for name in archive.namelist():
        stem = pathlib.PurePath(name).stem
        if name.startswith("img/"):
          (images / f"{stem}.jpg").write_bytes(archive.read(name))
        elif name.startswith("mask/"):
          people = np.asarray(Image.open(io.BytesIO(archive.read(name))))
          Image.fromarray((people > 0).astype(np.uint8)).save(masks / f"{stem}.png")
  (folder / "classes.txt").write_text("background\nperson\n")
  return folder


def unpack_voc_boxes(shared: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
  """Writes the sample of PASCAL VOC as COCO's layout, with the splits train and val; returns `folder`."""
  return _unpack_objects(shared / "voc2008", folder, "detection")


def unpack_coco_boxes(shared: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
  """Writes the images of the sample of COCO that have instance masks, in the same way."""
  return _unpack_objects(shared / "coco256", folder, "instances")


def _unpack_objects(source: pathlib.Path, folder: pathlib.Path, kind: str) -> pathlib.Path:
  for split in ("train", "val"):
    place = folder / "images" / split
    place.mkdir(parents=True, exist_ok=True)
    name = f"{split}_{kind}.json"
    (folder / name).write_bytes((source / name).read_bytes())
    with zipfile.ZipFile(source / f"{split}_images.zip") as archive:
      archive.extractall(place)
  return folder


def unpack_penn_fudan_boxes(shared: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
  """Writes Penn-Fudan with its boxes and instance masks, in the same way."""
  for split in ("train", "val"):
    with zipfile.ZipFile(shared / "penn_fudan" / f"{split}.zip") as archive:
      archive.extractall(folder / split)
  return folder


def _pair(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
  images, masks = folder / "images", folder / "masks"
  for place in (images, masks):
    place.mkdir(parents=True, exist_ok=True)
  return images, masks


def unpack_davis(shared: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
  """Writes clips, of which some of DAVIS are held back, and frames of DAVIS with their true masks.

  FOLDER/clips has links to all clips of davis, clips and video, and the lists train.txt and test.txt; the
  folder is a `mask_folder` with the split test, the frames of the held-back clips, and the split train, those
  of the other clips of DAVIS. Needs PyAV.
  """
  masks = np.load(shared / "davis" / "masks.npz")
  names = sorted(masks.files)
  held_back = {names[int((i + 0.5) * len(names) / HELD_BACK)] for i in range(HELD_BACK)}
  clips, paths = (
    folder / "clips",
    [p for kind in ("davis", "clips", "video") for p in (shared / kind).glob("*.mp4")],
  )
  clips.mkdir(parents=True, exist_ok=True)
  for path in paths:
    (clips / path.name).symlink_to(path.resolve())
  for split, chosen in {"train": {p.stem for p in paths} - held_back, "test": held_back}.items():
    (clips / f"{split}.txt").write_text("".join(f"{name}.mp4\n" for name in sorted(chosen)))
  for name in names:
    images, truth = _pair(folder / ("test" if name in held_back else "train"))
    _write_frames(shared / "davis" / f"{name}.mp4", images, name, EVERY)
    for number, packed in enumerate(masks[name]):
      if (images / f"{name}_{number:04d}.jpg").exists():
        moving = np.unpackbits(packed, axis=-1)[:, :DAVIS_WIDTH]
        Image.fromarray(moving).save(truth / f"{name}_{number:04d}.png")
  (folder / "classes.txt").write_text("background\nmoving\n")
  return folder


def unpack_davis_videos(shared: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
  """Writes DAVIS as `video_masks` of background and foreground, with the shorter side of 160 pixels.

  The first third of every clip is in the split train. The rest of it is a stream: every third one in val, on
  which options are chosen, the others in test. Needs PyAV.
  """
  import av

  masks = np.load(shared / "davis" / "masks.npz")
  for place, name in enumerate(sorted(masks.files)):
    stream = "val" if place % 3 == 1 else "test"
    with av.open(str(shared / "davis" / f"{name}.mp4")) as clip:
      for number, frame in enumerate(clip.decode(video=0)):
        split = "train" if 3 * number < len(masks[name]) else stream
        images, truth = (path / name for path in _pair(folder / split))
        images.mkdir(exist_ok=True), truth.mkdir(exist_ok=True)
        size = round(frame.width * DAVIS_SIDE / frame.height), DAVIS_SIDE
        shown = frame.to_image().resize(size, Image.Resampling.BICUBIC)
        shown.save(images / f"{number:04d}.jpg", quality=92)
        moving = Image.fromarray(np.unpackbits(masks[name][number], axis=-1)[:, :DAVIS_WIDTH])
        moving.resize(size, Image.Resampling.NEAREST).save(truth / f"{number:04d}.png")
  (folder / "classes.txt").write_text("background\nforeground\n")
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


SETS = {
  "camvid": unpack_camvid,
  "camvid_videos": unpack_camvid_videos,
  "cifar10_clips": unpack_cifar10_clips,
  "cityscapes_videos": unpack_cityscapes_videos,
  "voc": unpack_voc,
  "coco": unpack_coco,
  "cityscapes": unpack_cityscapes,
  "penn_fudan": unpack_penn_fudan,
  "voc_boxes": unpack_voc_boxes,
  "coco_boxes": unpack_coco_boxes,
  "penn_fudan_boxes": unpack_penn_fudan_boxes,
  "davis": unpack_davis,
  "davis_videos": unpack_davis_videos,
  "unlabelled": unpack_unlabelled,
}

if __name__ == "__main__":
  if len(sys.argv) != 4 or sys.argv[1] not in SETS:
    sys.exit(f"usage: python tests/benchmarks/real_data.py {'|'.join(SETS)} SHARED_DATA FOLDER")
  print(SETS[sys.argv[1]](pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])))
