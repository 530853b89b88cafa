r"""Shuffle and learn on a folder of short clips, for two CPU cores.

Command:   ssl-jax prepare tuples span=30 gap=8 count=64 longest=160 --data_dir=CLIPS --output=DIR
           ssl-jax train --config=configs/pretrain/shuffle_and_learn_cpu.py:VARIANT --workdir=RUN \
             --config.data.data_dir=DIR
           ssl-jax evaluate --config=configs/transfer/order.py --workdir=RUN
Variants:  mined: records of `ssl-jax prepare tuples`. live: five frames at equal distances, drawn from the
           clips in each step, without mining and without regard to motion; --config.data.data_dir=CLIPS.
Measured:  docs/results.md
"""

from ssl_jax import check_variant, recipe

VARIANTS = ("mined", "live")


def get_config(variant="mined"):
  check_variant(variant, VARIANTS, __file__)
  live = variant == "live"
  return recipe(
    method=dict(name="shuffle_and_learn", negatives=0.75, hidden=512),
    encoder=dict(name="resnet10", width=16, stem="small"),
    host=dict(name="frames", count=5, step=10) if live else dict(name="stored_frames"),
    augment=dict(name="record_crop", views=1, size=64, scale=(0.5, 1.0)),
    optimizer=dict(
      name="adamw",
      learning_rate=2e-3,
      weight_decay=1e-2,
      weight_decay_on="matrices",
      schedule="cosine",
      warmup_epochs=1.0,
    ),
    data=dict(name="video_folder" if live else "tuples", split="train", size=80, cache=not live),
    checkpoint=dict(every_steps=500, keep=1),
    batch_size=32 if live else 128,
    epochs=40.0,
    log_every=20,
  )
