"""MoCo v2 on the embedded sample: the recipe of launch/quickstart.sh.

Command:   ssl-jax train --config=configs/pretrain/moco_sample.py --workdir=runs/sample
Data:      7,992 satellite images of EuroSAT, 32 x 32, ten kinds of land; they come with the package.
Measured:  docs/results.md
Views:     Land has no up and down, and its colours tell much: the views are turned, colours change little,
           and nothing becomes grey or blurred. With MoCo v2's published views k-NN has 18 points less. They
           were chosen by a tenth of the training images (train[90%:]), not by the test images.
"""

from ssl_jax import recipe


def get_config():
  return recipe(
    method=dict(name="moco", dim=64, mlp=True, queue_size=4096, momentum=0.99, temperature=0.1),
    encoder=dict(name="resnet10", width=16, stem="small", batch_groups=4, normalize="eurosat"),
    augment=dict(
      name="moco_v2", views=2, size=32, scale=(0.2, 1.0), strength=0.12, grayscale=0.0, blur=0.0, turns=True
    ),
    optimizer=dict(name="sgd", learning_rate=0.06, momentum=0.9, weight_decay=5e-4, schedule="cosine"),
    data=dict(name="sample", split="train", size=32, cache=True),
    checkpoint=dict(every_steps=500, keep=2),
    batch_size=128,
    epochs=26.0,
    log_every=50,
  )
