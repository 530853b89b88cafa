r"""Semantic segmentation by a pre-trained encoder: FCN, UPerNet or linear.

Command:   ssl-jax train --config=configs/transfer/segmentation.py:VARIANT --workdir=DIR2 \
             --config.start.workdir=DIR --config.data.data_dir=DATA
           ssl-jax evaluate --config=configs/transfer/miou.py:VARIANT --workdir=DIR2
Without --config.start.workdir the same training starts from scratch.
Variants:  voc12_fcn, cityscapes_fcn: MoCo's protocol, ResNet-50 with output stride 16. voc12_fcn_d8: that of
           MMSelfSup, output stride 8. ade20k_upernet_base, ade20k_upernet_large: MAE's protocol.
           voc12_linear, ade20k_linear: the encoder frozen under BatchNorm and a 1x1 convolution.
           camvid, camvid_linear, voc_cpu, coco_cpu, cityscapes_cpu, penn_fudan_cpu: small, for two CPU cores,
           from a run of configs/pretrain/moco_frames_cpu.py.
Hardware:  Published on 8 GPUs. One chip-slice of 8 TPU v5e: see docs/results.md, "Plans".
Expected:  mIoU. VOC 2012: 39.5 from scratch, 74.4 supervised, 72.5 MoCo v1; Cityscapes: 65.3, 74.6, 75.3
           [He et al. 2020, table 6]. FCN-d8 on VOC: 67.6 MoCo v2, 64.0 SimCLR [MMSelfSup]. ADE20K: 48.1
           (base), 53.6 (large) from MAE, 47.4 and 49.9 supervised [He et al. 2022, table 5]. Small ones: see
           docs/results.md, "Semantic segmentation".
"""

from ssl_jax import check_variant, recipe

VARIANTS = (
  "voc12_fcn",
  "voc12_fcn_d8",
  "voc12_linear",
  "cityscapes_fcn",
  "ade20k_upernet_base",
  "ade20k_upernet_large",
  "ade20k_linear",
  "camvid",
  "camvid_linear",
  "voc_cpu",
  "coco_cpu",
  "cityscapes_cpu",
  "penn_fudan_cpu",
)
VOC = 10_582 // 16  # batches of 16 images an epoch: the train_aug list of VOC 2012
CITYSCAPES = 2_975 // 16
ADE20K = 20_210 // 16


def get_config(variant="voc12_fcn"):
  check_variant(variant, VARIANTS, __file__)
  if variant.startswith("ade20k_upernet"):
    return _upernet(variant.removeprefix("ade20k_upernet_"))
  published = {
    "voc12_fcn": lambda: _fcn(_voc(), 0.003, 30_000, VOC, crop=513),
    "voc12_fcn_d8": _fcn_d8,
    "voc12_linear": lambda: _linear(dict(name="resnet50", output_stride=16, dilate="all"), _voc(), VOC),
    "cityscapes_fcn": lambda: _fcn(_cityscapes(), 0.01, 90_000, CITYSCAPES, crop=769),
    "ade20k_linear": lambda: _linear(dict(name="vit_base", image_size=224), _ade20k(), ADE20K, "shorter"),
  }
  return published[variant]() if variant in published else _small(variant)


def _voc():
  return dict(
    data=dict(name="voc_masks", split="train_aug", size=500, workers=16), host=dict(name="image_mask")
  )


def _cityscapes():
  return dict(
    data=dict(name="cityscapes", split="train", size=2048, workers=16),
    host=dict(name="image_mask", height=1024, width=2048),
  )


def _ade20k():
  return dict(data=dict(name="ade20k", split="train", size=1024, workers=16), host=dict(name="image_mask"))


def _jitter(crop, scale=(0.5, 2.0), **options):
  return dict(name="scale_jitter", views=1, size=crop, scale=scale, **options)


def _fcn(data, learning_rate, steps, steps_per_epoch, crop):
  epochs = steps / steps_per_epoch
  return recipe(
    method=dict(name="segmentation", head="fcn"),
    encoder=dict(name="resnet50", output_stride=16, dilate="all", dtype="bfloat16"),
    augment=_jitter(crop),
    optimizer=dict(
      name="sgd",
      learning_rate=learning_rate,
      momentum=0.9,
      weight_decay=1e-4,
      schedule="step",
      milestones=(0.7 * epochs, 0.9 * epochs),
    ),
    checkpoint=dict(every_steps=5000, keep=2),
    batch_size=16,
    epochs=epochs,
    log_every=100,
    **data,
  )


def _fcn_d8():
  return recipe(
    method=dict(name="segmentation", head="fcn_d8"),
    encoder=dict(name="resnet50", output_stride=8, dtype="bfloat16"),
    augment=_jitter(512, largest_class=0.75, photometric=True),
    optimizer=dict(
      name="sgd",
      learning_rate=0.01,
      momentum=0.9,
      weight_decay=5e-4,
      schedule="poly",
      power=0.9,
      final_learning_rate=1e-4,
    ),
    checkpoint=dict(every_steps=5000, keep=2),
    batch_size=16,
    epochs=20_000 / VOC,
    log_every=100,
    **_voc(),
  )


def _upernet(size):
  layer_decay, drop_path = {"base": (0.65, 0.1), "large": (0.75, 0.2)}[size]  # the decay of "large" is ours
  return recipe(
    method=dict(name="segmentation", head="upernet"),
    encoder=dict(
      name=f"vit_{size}",
      positions="sincos_trained",
      image_size=224,
      relative_positions=True,
      drop_path=drop_path,
      dtype="bfloat16",
    ),
    augment=_jitter(512, relative="shorter", largest_class=0.75, photometric=True),
    optimizer=dict(
      name="adamw",
      learning_rate=1e-4,
      layer_decay=layer_decay,
      weight_decay=0.05,
      weight_decay_on="weights",
      schedule="poly",
      warmup_epochs=1500 / ADE20K,
      warmup_from=1e-6,
    ),
    checkpoint=dict(every_steps=5000, keep=2),
    batch_size=16,
    epochs=160_000 / ADE20K,
    log_every=100,
    **_ade20k(),
  )


def _linear(encoder, data, steps_per_epoch, relative="pixels"):
  return recipe(
    method=dict(name="segmentation", head="linear", frozen=True),
    encoder=dict(dtype="bfloat16", **encoder),
    augment=_jitter(512, relative=relative),
    optimizer=dict(
      name="adamw",
      learning_rate=1e-3,
      weight_decay=1e-3,
      schedule="poly",
      warmup_epochs=1500 / steps_per_epoch,
      warmup_from=1e-6,
    ),
    checkpoint=dict(every_steps=5000, keep=2),
    batch_size=16,
    epochs=40_000 / steps_per_epoch,
    log_every=100,
    **data,
  )


def _small(variant):
  name, size, epochs = {
    "camvid": ("mask_folder", 240, 20.0),
    "camvid_linear": ("mask_folder", 240, 20.0),
    "voc_cpu": ("mask_folder", 320, 40.0),
    "coco_cpu": ("mask_folder", 400, 80.0),
    "cityscapes_cpu": ("mask_folder", 512, 60.0),
    "penn_fudan_cpu": ("mask_folder", 320, 80.0),
  }[variant]
  linear = variant == "camvid_linear"
  return recipe(
    method=dict(name="segmentation", head="linear", frozen=True)
    if linear
    else dict(name="segmentation", head="fcn"),
    encoder=dict(name="resnet18", width=32, output_stride=16, dilate="all"),
    augment=_jitter(129),
    optimizer=dict(
      name="sgd",
      learning_rate=0.05,
      momentum=0.9,
      weight_decay=1e-4,
      schedule="poly",
      power=0.9,
      warmup_epochs=1.0,
    ),
    data=dict(name=name, split="train", size=size, cache=True),
    host=dict(name="image_mask"),
    checkpoint=dict(every_steps=500, keep=1),
    batch_size=8,
    epochs=epochs,
    log_every=20,
  )
