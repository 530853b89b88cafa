r"""Learning from tracking, on pairs of patches mined from clips.

Command:   ssl-jax prepare tracks count=40 --data_dir=CLIPS --output=DIR
           ssl-jax train --config=configs/pretrain/tracking.py:VARIANT --workdir=RUN \
             --config.data.data_dir=DIR
           ssl-jax evaluate --config=configs/transfer/same_track.py --workdir=RUN
Variants:  caffenet: the paper's margin, batch and negatives: random ones for 150,000 steps, then the four
           hardest. release: 50 pairs a step, margin 1, two of the four hardest and two random negatives from
           the beginning, as the released code is set. resnet50: 1,024 linear outputs are compared; ours.
           100,000 videos gave 4 million pairs; the epochs assume as many. The released code multiplies the
           learning rate by 0.1 every 100,000 steps, which all variants do.
Expected:  VOC 2012 detection (R-CNN) 46.2 to 47.5, three networks together 52.0; from random weights 44.0
           [recalled from the paper].
"""

from ssl_jax import check_variant, recipe

VARIANTS = ("release", "caffenet", "resnet50")
PAIRS = 4_000_000


def get_config(variant="caffenet"):
  check_variant(variant, VARIANTS, __file__)
  residual, released = variant == "resnet50", variant == "release"
  batch, size = 50 if released else 100, 224 if residual else 227
  epoch = PAIRS // batch
  return recipe(
    method=dict(
      name="tracking",
      dim=1024 if residual else 0,
      margin=1.0 if released else 0.5,
      negatives=4,
      hard=0.5 if released else 1.0,
      random_epochs=0.0 if released else 150_000 / epoch,
    ),
    encoder=dict(name="resnet50", dtype="bfloat16") if residual else dict(name="caffenet", fc=(4096, 1024)),
    host=dict(name="stored_frames", count=2),
    augment=dict(name="record_crop", views=1, size=size, scale=(1.0, 1.0), flip=0.5, each_frame=True),
    optimizer=dict(
      name="sgd",
      learning_rate=0.001,
      momentum=0.9,
      weight_decay=5e-4,
      schedule="step",
      milestones=tuple(steps / epoch for steps in (100_000, 200_000, 300_000)[: 3 if released else 2]),
    ),
    data=dict(name="tracks", split="train", size=size, workers=16),
    checkpoint=dict(every_steps=5000, keep=3),
    batch_size=batch,
    epochs=(400_000 if released else 300_000) / epoch,
    log_every=100,
  )
