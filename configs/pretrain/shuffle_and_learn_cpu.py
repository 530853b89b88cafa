r"""Shuffle and learn on a folder of short clips, for two CPU cores.

Command:   ssl-jax prepare tuples span=30 gap=8 count=64 longest=160 --data_dir=CLIPS --output=DIR
           ssl-jax train --config=configs/pretrain/shuffle_and_learn_cpu.py:VARIANT --workdir=RUN \
             --config.data.data_dir=DIR
           ssl-jax evaluate --config=configs/transfer/order.py --workdir=RUN
Variants:  mined: records of `ssl-jax prepare tuples`. live: five frames at equal distances, drawn from the
           clips in each step, without mining and without regard to motion; --config.data.data_dir=CLIPS.
Duration:  ten minutes.
Measured:  docs/results.md: balanced accuracy of order on held-back clips 62.7 (variant mined).
"""

from ssl_jax import check_variant, recipe

VARIANTS = ("mined", "live")


def get_config(variant="mined"):
  check_variant(variant, VARIANTS, __file__)
  live = variant == "live"
  return recipe(
    method=dict(name="shuffle_and_learn", negatives=0.75, hidden=512),
    # A CaffeNet of a sixth of the channels: its fully connected layer, unlike an average over the pixels,
    # tells where something is.
    encoder=dict(
      name="caffenet",
      width=16,
      fc=(256,),
      groups=1,
      stem_stride=2,
      lrn=False,
      norm="all",
      kernel_init="he",
      normalize="centred",
    ),
    host=dict(name="frames", count=5, step=10) if live else dict(name="stored_frames"),
    augment=dict(name="record_crop", views=1, size=56, scale=(0.5, 1.0)),
    optimizer=dict(
      name="adamw",
      learning_rate=1e-3,
      weight_decay=1e-2,
      weight_decay_on="matrices",
      schedule="cosine",
      warmup_epochs=1.0,
    ),
    data=dict(name="video_folder" if live else "tuples", split="train", size=72, cache=not live),
    checkpoint=dict(every_steps=500, keep=1),
    batch_size=32 if live else 64,
    epochs=20.0,
    log_every=50,
  )
