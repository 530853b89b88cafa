r"""MoCo v2 on unlabelled photographs and frames, for two CPU cores.

Command:   ssl-jax train --config=configs/pretrain/moco_frames_cpu.py --workdir=DIR \
             --config.data.data_dir=FOLDER
Measured:  docs/results.md, "Semantic segmentation". The encoder is the one that the variants `camvid` of
           configs/transfer/segmentation.py start from.
"""

from ssl_jax import recipe


def get_config():
  return recipe(
    method=dict(name="moco", dim=128, mlp=True, queue_size=2048, momentum=0.99, temperature=0.1),
    encoder=dict(name="resnet18", width=32, batch_groups=4),
    augment=dict(name="moco_v2", views=2, size=96),
    optimizer=dict(
      name="sgd", learning_rate=0.06, momentum=0.9, weight_decay=5e-4, schedule="cosine", warmup_epochs=1.0
    ),
    data=dict(name="folder", split="train", size=144, cache=True),
    checkpoint=dict(every_steps=500, keep=1),
    batch_size=128,
    epochs=40.0,
    log_every=20,
  )
