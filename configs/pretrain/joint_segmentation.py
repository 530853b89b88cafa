r"""Segmentation and masked reconstruction on one encoder, for streams.

Command:   ssl-jax train --config=configs/pretrain/joint_segmentation.py:VARIANT --workdir=DIR \
             --config.data.data_dir=DATA [--config.start.workdir=SEGMENTER]
           ssl-jax evaluate --config=configs/ttt/video.py:VARIANT --workdir=DIR
Variants:  cityscapes: ViT-B with UPerNet, from a segmenter of the same encoder and head, for KITTI-STEP.
           camvid: small, from scratch, for two CPU cores; davis: foreground and background. camvid_plain and
           davis_plain: the same without reconstruction: runs of method 'segmentation', the baseline "main
           task only".
Data:      `python tests/benchmarks/real_data.py camvid_videos SHARED_DATA DATA`, or davis_videos.
Duration:  camvid: 5 minutes; davis: 15 minutes.
Expected:  KITTI-STEP val mIoU 53.5 after joint training, 55.4 with test-time training [Wang et al. 2023, with
           Mask2Former and Swin-S]. Measured: docs/results.md, "Test-time training on video streams".
"""

from ssl_jax import check_variant, recipe

VARIANTS = ("camvid", "camvid_plain", "davis", "davis_plain", "cityscapes")
SMALL = {"camvid": (180, 240, 40.0), "davis": (160, 284, 150.0)}  # height, width, epochs
CITYSCAPES = 2_975 // 16  # batches of an epoch


def get_config(variant="cityscapes"):
  check_variant(variant, VARIANTS, __file__)
  if variant == "cityscapes":
    return _cityscapes()
  data, _, plain = variant.partition("_")
  return _small(*SMALL[data], plain=bool(plain))


def _cityscapes():
  return recipe(
    method=dict(name="joint_segmentation", head="upernet", mask_ratio=0.8),
    encoder=dict(
      name="vit_base", positions="sincos_trained", image_size=224, relative_positions=True, dtype="bfloat16"
    ),
    start=dict(parts=("encoder", "head")),
    host=dict(name="image_mask", height=1024, width=2048),
    augment=dict(name="scale_jitter", views=1, size=512, scale=(0.5, 2.0), photometric=True),
    optimizer=dict(
      name="adamw",
      learning_rate=1e-4,
      layer_decay=0.65,
      weight_decay=0.05,
      weight_decay_on="weights",
      schedule="poly",
      power=0.9,
      warmup_epochs=1500 / CITYSCAPES,
      warmup_from=1e-6,
    ),
    data=dict(name="cityscapes", split="train", size=2048, workers=16),
    checkpoint=dict(every_steps=5000, keep=2),
    batch_size=16,
    epochs=90_000 / CITYSCAPES,
    log_every=100,
  )


def _small(height, width, epochs, *, plain):
  method = dict(head="fcn", channels=64)
  restoring = dict(name="joint_segmentation", mask_ratio=0.8)
  return recipe(
    method=dict(name="segmentation", **method) if plain else dict(**restoring, **method),
    encoder=dict(name="resnet18", width=16, output_stride=16, dilate="all", norm="group"),
    host=dict(name="image_mask", height=height, width=width),
    augment=dict(name="scale_jitter", views=1, size=128, scale=(0.5, 2.0)),
    optimizer=dict(
      name="adamw",
      learning_rate=1e-3,
      weight_decay=0.05,
      weight_decay_on="matrices",
      schedule="cosine",
      warmup_epochs=2.0,
    ),
    data=dict(name="video_masks", split="train", size=width, cache=True),
    checkpoint=dict(every_steps=500, keep=1),
    batch_size=8,
    epochs=epochs,
    log_every=20,
  )
