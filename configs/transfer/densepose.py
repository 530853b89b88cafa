r"""DensePose by a pre-trained encoder: people and the body's surface.

Command:   ssl-jax train --config=configs/transfer/densepose.py:VARIANT --workdir=DIR2 \
             --config.start.workdir=DIR --config.data.data_dir=DATA --config.host.symmetry=DATA/TABLE.mat
           ssl-jax evaluate --config=configs/transfer/densepose_precision.py:VARIANT --workdir=DIR2
DATA holds train2014, val2014 and annotations/densepose_coco_2014_*.json; TABLE is DensePose's
UV_symmetry_transforms, without which --config.augment.flip=0 is needed.
Variants:  s1x: ResNet-50 with a feature pyramid, detectron2's densepose_rcnn_R_50_FPN_s1x; BatchNorm, stem
           and first stage stay as they are. s1x_norms: the same with trained BatchNorm, as MoCo
           fine-tunes. small: for two CPU cores and images of figures or few people.
Hardware:  Published on 8 GPUs with 2 images each.
Expected:  s1x from a supervised encoder, on the minimal validation set: boxes 61.2, GPS 63.7, GPSm 65.3
           [detectron2's zoo]. GPS AP75 of another schedule: 50.6 from a supervised encoder, 53.9
           from MoCo's [He et al. 2020, table 6].
"""

from ssl_jax import check_variant, recipe

VARIANTS = ("s1x", "s1x_norms", "small")
STEPS_PER_EPOCH = 32_421 // 16  # batches of 16 images: train and valminusminival
FIRST, SECOND, LAST, WARMUP = (count / STEPS_PER_EPOCH for count in (100_000, 120_000, 130_000, 1000))
TABLE = "UV_symmetry_transforms.mat"


def get_config(variant="s1x"):
  check_variant(variant, VARIANTS, __file__)
  return _small() if variant == "small" else _published(variant == "s1x")


def _published(frozen):
  norms = dict(batch_norm="frozen", freeze=2) if frozen else dict(fpn_norm=True)
  split = "densepose_coco_2014_train+densepose_coco_2014_valminusminival"
  return recipe(
    method=dict(name="densepose", before=(2000, 1000), proposals=(1000, 1000), **norms),
    encoder=dict(name="resnet50", dtype="bfloat16"),
    augment=dict(name="resize_shorter", views=1, shorter=tuple(range(640, 801, 32))),
    optimizer=dict(
      name="sgd",
      learning_rate=0.01,
      momentum=0.9,
      weight_decay=1e-4,
      weight_decay_on="no_norms",
      schedule="step",
      milestones=(FIRST, SECOND),
      warmup_epochs=WARMUP,
      warmup_from=0.1,
    ),
    data=dict(name="coco", split=split, size=640, workers=16, empty="drop"),
    host=dict(name="image_densepose", max_boxes=64, symmetry=TABLE),
    checkpoint=dict(every_steps=5000, keep=2),
    batch_size=16,
    epochs=LAST,
    log_every=100,
  )


def _small():
  return recipe(
    method=dict(
      name="densepose",
      channels=64,
      hidden=256,
      anchor_scale=0.5,
      anchors=128,
      rois=64,
      before=(1000, 1000),
      proposals=(300, 200),
      detections=20,
      dense_channels=64,
      dense_width=64,
      dense_layers=4,
      dense_rois=8,
    ),
    encoder=dict(name="resnet18", width=32),
    augment=dict(name="resize_shorter", views=1, size=320, shorter=(180, 202, 224), longest=320, flip=0.0),
    optimizer=dict(
      name="sgd",
      learning_rate=0.01,
      momentum=0.9,
      weight_decay=1e-4,
      weight_decay_on="no_norms",
      schedule="cosine",
      warmup_epochs=2.0,
      clip_norm=5.0,
    ),
    data=dict(name="coco", split="train", size=320, cache=True, empty="drop"),
    host=dict(name="image_densepose", max_boxes=16),
    checkpoint=dict(every_steps=500, keep=1),
    batch_size=8,
    epochs=60.0,
    log_every=20,
  )
