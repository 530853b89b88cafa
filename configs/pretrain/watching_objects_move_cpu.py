r"""Watching objects move on a folder of short clips, for two CPU cores.

Command:   ssl-jax prepare motion frames=20 --data_dir=CLIPS --split=train --test_split= --output=DIR
           ssl-jax train --config=configs/pretrain/watching_objects_move_cpu.py --workdir=RUN \
             --config.data.data_dir=DIR
           ssl-jax evaluate --config=configs/transfer/moving_objects.py --workdir=RUN \
             --config.data.data_dir=FRAMES
Duration:  264 steps with the clips of docs/results.md; 20 minutes on two cores that did much else.
Measured:  docs/results.md, "Watching objects move, two cores": 19.6% of intersection over union on six
           held-back clips, no more than a mask that is the same for all images.
"""

from ssl_jax import recipe


def get_config():
  return recipe(
    # Few clips: a head of 72 inputs, and objects anywhere in the window. The threshold is where the overlap
    # was greatest on nine clips that were not trained on.
    method=dict(
      name="watching_objects_move", size=96, output=24, channels=8, norm=True, dropout=0.5, threshold=0.12
    ),
    encoder=dict(name="resnet10", width=16),
    # The window has the proportions of the image and may be all of it, as in the evaluation.
    host=dict(name="image_mask", fit="pad"),
    augment=dict(
      name="object_crop",
      views=1,
      size=96,
      context=(1.2, 5.0),
      shift=28,
      proportions="image",
      photometric=True,
    ),
    optimizer=dict(
      name="adamw",
      learning_rate=1e-3,
      weight_decay=0.5,
      weight_decay_on="matrices",
      schedule="cosine",
      warmup_epochs=1.0,
    ),
    data=dict(name="motion", split="train", size=192, cache=True),
    checkpoint=dict(every_steps=500, keep=1),
    batch_size=64,
    epochs=24.0,
    log_every=20,
  )
