r"""Context prediction on ImageNet, ResNet-50, patches of 64 or 96 pixels.

Command:   ssl-jax train --config=configs/pretrain/context.py:VARIANT --workdir=DIR \
             --config.data.data_dir=TFDS
           ssl-jax evaluate --config=configs/transfer/layers.py --workdir=DIR
Variants:  resnet50: patches of 64 pixels in grid cells of 85 pixels, images made grey with probability
           0.66, batch size 512, 70 epochs [MMSelfSup, which decays the weights of the head five times as
           strongly; we do not]. paper: patches of 96 pixels, 48 pixels apart, shifted by up to 7 pixels,
           one colour channel kept in each, all 40 pairs of neighbours in the 3 x 3 grid [Doersch et al.
           2015]; the network and the optimiser are those of resnet50.
Expected:  resnet50: linear probe top-1 40.4, best layer 51.2 [as published by MMSelfSup]. AlexNet, linear
           probes on conv1 to conv5: 16.2 23.3 30.2 31.7 29.6 [as quoted in later papers]. Accuracy of the
           pretext task, which has 8 classes: 38 to 40% [Doersch et al. 2015].
"""

from ssl_jax import check_variant, recipe

# options of the method; sides in pixels: images from the host, crops that the patches are cut from
VARIANTS = {
  "resnet50": (
    dict(
      tile=64, gap=21, jitter=21, pairs="centre", colour="grey", grey=0.66, coarse=0.0, norm_momentum=0.997
    ),
    292,
    255,
  ),
  "paper": (
    dict(tile=96, gap=48, jitter=14, pairs="all", colour="drop", coarse=0.33, norm_momentum=0.997),
    448,
    426,
  ),
}


def get_config(variant="resnet50"):
  check_variant(variant, VARIANTS, __file__)
  options, delivered, size = VARIANTS[variant]
  return recipe(
    method=dict(name="context", width=4096, dropout=0.5, **options),
    encoder=dict(name="resnet50", normalize="centred", dtype="bfloat16"),
    augment=dict(name="padded_crop", views=1, size=size, pad=0, flip=False),
    optimizer=dict(
      name="sgd",
      learning_rate=0.2,
      momentum=0.9,
      weight_decay=1e-4,
      schedule="step",
      milestones=(30.0, 50.0),
      warmup_epochs=5.0,
    ),
    data=dict(name="imagenet2012", split="train", size=delivered, workers=16),
    checkpoint=dict(every_steps=2000, keep=3),
    batch_size=512,
    epochs=70.0,
    log_every=100,
  )
