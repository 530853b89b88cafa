r"""Watching objects move: segment what would move in a single frame.

Command:   ssl-jax prepare motion --data_dir=CLIPS --split=train --test_split= --output=DIR
           ssl-jax train --config=configs/pretrain/watching_objects_move.py:VARIANT --workdir=RUN \
             --config.data.data_dir=DIR
           ssl-jax evaluate --config=configs/transfer/moving_objects.py --workdir=RUN
Variants:  caffenet: the published network, on the map of its fifth convolution, which at 227 pixels has 13x13
           places (12x12 in the released code, whose images are padded); BatchNorm is ours. resnet50: ours,
           with a 1x1 convolution to 512 channels and BatchNorm.
           Published for 1.6 million frames of 205,000 videos; the schedule was not, and this one is ours.
Expected:  VOC 2007, Fast R-CNN 52.2 mAP, classification 61.0 mAP with all layers [recalled].
"""

from ssl_jax import check_variant, recipe

VARIANTS = ("caffenet", "resnet50")


def get_config(variant="caffenet"):
  check_variant(variant, VARIANTS, __file__)
  residual = variant == "resnet50"
  size = 224 if residual else 227
  return recipe(
    method=dict(
      name="watching_objects_move",
      size=size,
      layer="" if residual else "conv5",
      channels=512 if residual else 128,
      norm=residual,
    ),
    encoder=dict(name="resnet50", dtype="bfloat16")
    if residual
    else dict(name="caffenet", fc=(), norm="all", lrn=False, dtype="bfloat16"),
    host=dict(name="image_mask", fit="pad"),
    augment=dict(name="object_crop", views=1, size=size),
    optimizer=dict(
      name="sgd", learning_rate=0.05, momentum=0.9, weight_decay=1e-4, schedule="cosine", warmup_epochs=5.0
    ),
    data=dict(name="motion", split="train", size=426, workers=16),
    checkpoint=dict(every_steps=5000, keep=2),
    batch_size=256,
    epochs=100.0,
    log_every=100,
  )
