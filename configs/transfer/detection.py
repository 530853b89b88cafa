r"""Detection and instance masks by a pre-trained encoder: Mask R-CNN.

Command:   ssl-jax train --config=configs/transfer/detection.py:VARIANT --workdir=DIR2 \
             --config.start.workdir=DIR --config.data.data_dir=DATA
           ssl-jax evaluate --config=configs/transfer/average_precision.py:VARIANT --workdir=DIR2
Without --config.start.workdir the same training starts from scratch.
Variants:  voc_c4: VOC 2007+2012, MoCo's protocol. coco_c4_1x, coco_c4_2x, coco_fpn_1x, coco_fpn_2x: boxes and
           masks of COCO, MoCo's protocol. coco_fpn_frozen_1x: detectron2's baseline, whose BatchNorm, stem
           and first stage stay as they are. penn_fudan, voc_cpu, coco_cpu: small, for two CPU cores, from a
           run of configs/pretrain/moco_frames_cpu.py.
Hardware:  Published on 8 GPUs with 2 images each. See docs/results.md, "Plans", for TPU slices.
Expected:  VOC, AP50 / AP / AP75: 60.2 / 33.8 / 33.1 from scratch, 81.3 / 53.5 / 58.8 supervised,
           81.5 / 55.9 / 62.6 MoCo v1, 82.5 / 57.4 / 64.0 MoCo v2 (800 epochs) [He et al. 2020, table 2;
           Chen et al. 2020]. COCO FPN 1x, boxes / masks: 38.6 / 35.2 [detectron2, coco_fpn_frozen_1x;
           its encoder strides in the 1x1 convolutions, ours in the 3x3].
           Small ones: see docs/results.md, "Detection".
"""

from ssl_jax import check_variant, recipe

VARIANTS = (
  "voc_c4",
  "coco_c4_1x",
  "coco_c4_2x",
  "coco_fpn_1x",
  "coco_fpn_2x",
  "coco_fpn_frozen_1x",
  "penn_fudan",
  "voc_cpu",
  "coco_cpu",
)
VOC = 16_551 // 16  # batches of 16 images an epoch: trainval of 2007 and 2012
COCO = 117_266 // 16  # train2017 without images that have no object
STEPS = {"1x": (60_000, 80_000, 90_000), "2x": (120_000, 160_000, 180_000)}


def get_config(variant="voc_c4"):
  check_variant(variant, VARIANTS, __file__)
  if variant == "voc_c4":
    return _voc()
  return (
    _coco(*variant.split("_")[1:]) if variant.startswith("coco_c4") or "fpn" in variant else _small(variant)
  )


def _voc():
  return _published(
    method=dict(name="detection", kind="c4"),
    augment=dict(name="resize_shorter", views=1),
    data=dict(name="voc_boxes", split="2007/trainval+2012/trainval", size=500, workers=16, empty="drop"),
    host=dict(name="image_boxes", max_boxes=64),
    steps=(18_000, 22_000, 24_000),
    steps_per_epoch=VOC,
    warmup=100,
  )


def _coco(kind, *schedule):
  frozen = schedule[0] == "frozen"
  norms = dict(batch_norm="frozen", freeze=2) if frozen else dict(fpn_norm=kind == "fpn")
  shorter = tuple(range(640, 801, 32))
  return _published(
    method=dict(name="detection", kind=kind, masks=True, **norms),
    augment=dict(name="resize_shorter", views=1, shorter=shorter),
    data=dict(name="coco", split="train2017", size=640, workers=16, empty="drop"),
    host=dict(name="image_instances", max_boxes=100),
    steps=STEPS[schedule[-1]],
    steps_per_epoch=COCO,
    warmup=1000,
  )


def _published(steps, steps_per_epoch, warmup, **sections):
  first, second, last = (count / steps_per_epoch for count in steps)
  return recipe(
    encoder=dict(name="resnet50", dtype="bfloat16"),
    optimizer=dict(
      name="sgd",
      learning_rate=0.02,
      momentum=0.9,
      weight_decay=1e-4,
      weight_decay_on="no_norms",
      schedule="step",
      milestones=(first, second),
      warmup_epochs=warmup / steps_per_epoch,
      warmup_from=0.001,
    ),
    checkpoint=dict(every_steps=5000, keep=2),
    batch_size=16,
    epochs=last,
    log_every=100,
    **sections,
  )


def _small(variant):
  masks = variant != "voc_cpu"
  size, most, epochs, side = {
    "penn_fudan": (320, 16, 80.0, 224),
    "voc_cpu": (320, 64, 32.0, 224),
    "coco_cpu": (400, 64, 120.0, 224),
  }[variant]
  lengths = tuple(round(side * factor) for factor in (0.8, 0.9, 1.0))
  rows = dict(max_boxes=most)
  return recipe(
    method=dict(
      name="detection",
      kind="fpn",
      masks=masks,
      channels=64,
      hidden=256,
      anchor_scale=0.5,
      anchors=128,
      rois=64,
      before=(1000, 1000),
      proposals=(300, 200),
    ),
    encoder=dict(name="resnet18", width=32),
    augment=dict(name="resize_shorter", views=1, size=320, shorter=lengths, longest=320),
    optimizer=dict(
      name="sgd",
      learning_rate=0.02,
      momentum=0.9,
      weight_decay=1e-4,
      weight_decay_on="no_norms",
      schedule="cosine",
      warmup_epochs=2.0,
      clip_norm=10.0,
    ),
    data=dict(name="coco", split="train", size=size, cache=True, empty="drop"),
    host=dict(name="image_instances", **rows) if masks else dict(name="image_boxes", **rows),
    checkpoint=dict(every_steps=500, keep=1),
    batch_size=8,
    epochs=epochs,
    log_every=20,
  )
