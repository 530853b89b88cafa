"""The whole system on a video set as it is published: train on it, go on learning along its test videos."""

import json

import numpy as np
import pytest
from PIL import Image

from ssl_jax.config.recipe_builder import recipe
from ssl_jax.config.schema import EvaluateConfig, TrainConfig, check
from ssl_jax.data.mask_layouts import CITYSCAPES
from ssl_jax.run.evaluate import evaluate
from ssl_jax.run.train import train

pytest.importorskip("skimage", reason="scikit-image is not installed: extra `video`")
pytest.importorskip("faster_coco_eval", reason="faster-coco-eval is not installed: extra `detection`")

CAR = list(CITYSCAPES.values()).index("car")
FRAMES = 4


@pytest.fixture(scope="module")
def kitti(tmp_path_factory):
  """Videos of two cars on a road; the second frame of each test video has no labels."""
  root = tmp_path_factory.mktemp("kitti")
  draw = np.random.default_rng(0)
  for split, videos in {"train": ("0000", "0001", "0003"), "val": ("0002", "0006")}.items():
    for video in videos:
      for frame in range(FRAMES):
        mask = np.zeros((32, 48, 3), np.uint8)
        mask[4 + frame : 16 + frame, 4:16], mask[8:20, 30:44] = (CAR, 0, 1), (CAR, 1, 0)
        colours = np.where(mask[..., :1] == CAR, (230, 30, 30), 60) + draw.normal(0, 20, mask.shape)
        image, labels = root / "training/image_02" / video, root / "panoptic_maps" / split / video
        for folder, pixels in ((image, colours.clip(0, 255).astype(np.uint8)), (labels, mask)):
          folder.mkdir(parents=True, exist_ok=True)
          Image.fromarray(pixels).save(folder / f"{frame:06}.png")
      if split == "val":
        (labels / "000001.png").unlink()
  return root


@pytest.fixture(scope="module")
def trained(kitti, tmp_path_factory):
  options = recipe(
    method=dict(name="joint_segmentation", head="fcn", channels=8, mask_patch=4),
    encoder=dict(name="resnet10", width=8, stem="small", output_stride=4, dilate="all", norm="group"),
    host=dict(name="image_mask", height=32, width=48),
    augment=dict(name="scale_jitter", views=1, size=24, scale=(1.0, 1.0)),
    optimizer=dict(name="adamw", learning_rate=2e-2, warmup_epochs=0.0),
    data=dict(name="kitti_step", split="train", data_dir=str(kitti), size=48, cache=True),
    batch_size=8,
    epochs=150.0,
  )
  workdir = tmp_path_factory.mktemp("streams")
  train(check(TrainConfig, options), str(workdir))
  return workdir


def test_a_published_set_is_trained_on_and_scored(kitti, trained):
  config = recipe(
    EvaluateConfig,
    tasks=dict(ttt_video=dict(window=2, copies=2, block=2, scores=("panoptic", "instances"))),
    augment=dict(name="scale_jitter", scale=(1.0, 1.0), flip=0.0),
    data=dict(name="kitti_step", train_split="train", test_split="val", data_dir=str(kitti), size=24),
    batch_size=8,
  )
  evaluate(check(EvaluateConfig, config), str(trained))
  (file,) = trained.glob("evaluations/*/ttt_video*.json")
  stored = json.loads(file.read_text())
  scalars, protocol = stored["scalars"], stored["protocol"]
  assert protocol["labelled_rows"] == 6 and protocol["test_rows"] == 8
  assert scalars["pq_stuff"] > 0.5 and scalars["pq_things_frozen"] > 0.5 and scalars["mask_ap50"] > 0.5
  assert file.with_suffix(".gif").exists() and file.with_suffix(".png").exists()
