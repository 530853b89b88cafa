r"""Learning from tracking on a folder of short clips, for two CPU cores.

Command:   ssl-jax prepare tracks least=0.05 count=40 size=112 --data_dir=CLIPS --output=DIR
           ssl-jax train --config=configs/pretrain/tracking_cpu.py --workdir=RUN --config.data.data_dir=DIR
           ssl-jax evaluate --config=configs/transfer/same_track.py --workdir=RUN
Duration:  16 minutes on two cores that other work loads, at 35 tracks a second; up to 290 were seen.
Measured:  docs/results.md: 64.2% of held-back tracks find their patch among 50, the untrained network 53.5.
Notes:     negatives are random in all epochs; other tracks of the same clip are negatives if they are at
           another time. Each patch gets its own crop, flip and colours.
"""

from ssl_jax import recipe


def get_config():
  return recipe(
    method=dict(name="tracking", dim=128, random_epochs=40.0, same_clip="later"),
    encoder=dict(name="resnet10", width=16, stem="imagenet"),
    host=dict(name="stored_frames", count=2),
    augment=dict(name="record_crop", views=1, size=56, scale=(0.6, 1.0), photometric=True, each_frame=True),
    optimizer=dict(
      name="adamw",
      learning_rate=1e-3,
      weight_decay=1e-2,
      weight_decay_on="matrices",
      schedule="cosine",
      warmup_epochs=1.0,
    ),
    data=dict(name="tracks", split="train", size=72, cache=True),
    checkpoint=dict(every_steps=500, keep=1),
    batch_size=64,
    epochs=40.0,
    log_every=50,
  )
