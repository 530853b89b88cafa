"""Learning to count on ImageNet, ResNet-50.

Command:   ssl-jax train --config=configs/pretrain/counting.py --workdir=DIR --config.data.data_dir=TFDS
           ssl-jax evaluate --config=configs/transfer/layers.py --workdir=DIR
Expected:  Published with AlexNet only: linear probes on conv1 to conv5: 18.0 30.6 34.3 32.5 25.7 [Noroozi
           et al. 2017]. The optimiser for ResNet-50 is our own choice.
"""

from ssl_jax import recipe


def get_config():
  return recipe(
    method=dict(name="counting", counts=1000, margin=10.0, grey=0.67),
    encoder=dict(name="resnet50", dtype="bfloat16"),
    augment=dict(name="padded_crop", views=1, size=228, pad=0, flip=True),
    optimizer=dict(
      name="adamw",
      learning_rate=3e-4,
      weight_decay=1e-4,
      weight_decay_on="matrices",
      schedule="cosine",
      warmup_epochs=5.0,
    ),
    data=dict(name="imagenet2012", split="train", size=256, workers=16),
    checkpoint=dict(every_steps=5000, keep=3),
    batch_size=256,
    epochs=100.0,
    log_every=100,
  )
