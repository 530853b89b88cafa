r"""Ambient sound with CaffeNet, on frames of videos with sound.

Command:   ssl-jax prepare sounds --data_dir=CLIPS --output=DIR
           ssl-jax train --config=configs/pretrain/ambient_sound.py:VARIANT --workdir=RUN \
             --config.data.data_dir=DIR
           ssl-jax evaluate --config=configs/transfer/sound.py --workdir=RUN
Variants:  clusters: 30 clusters of sound; bits: 30 principal components of it, each above or below its mean.
Expected:  published for 360,000 videos of Flickr, ten frames of each: linear classification of VOC 2007 on
           pool5, mAP 45.8 (clusters) and 46.7 (bits); Fast R-CNN 44.1 and 43.3 [Owens et al. 2016]. The
           schedule, 320,000 steps, and BatchNorm of every layer are recalled from the paper's details.
"""

from ssl_jax import check_variant, recipe

VARIANTS = ("clusters", "bits")


def get_config(variant="clusters"):
  check_variant(variant, VARIANTS, __file__)
  return recipe(
    method=dict(name="ambient_sound", target=variant),
    encoder=dict(name="caffenet", norm="all", lrn=False, dropout=0.5, dtype="bfloat16"),
    host=dict(name="image") if variant == "clusters" else dict(name="image_bits", bits=30),
    augment=dict(name="padded_crop", views=1, size=227, pad=0),
    optimizer=dict(
      name="sgd",
      learning_rate=0.01,
      momentum=0.9,
      weight_decay=5e-4,
      schedule="step",
      # 100,000, 200,000 and 300,000 of 320,000 steps with 1.8 million frames
      milestones=(14.2, 28.4, 42.7),
    ),
    data=dict(name="sounds", split="train", size=256, workers=16),
    checkpoint=dict(every_steps=5000, keep=3),
    batch_size=256,
    epochs=45.5,
    log_every=100,
  )
