r"""Shuffle and learn on UCF101's first training split, CaffeNet.

Command:   ssl-jax prepare tuples --data_dir=UCF101 --split=trainlist01 --test_split=testlist01 --output=DIR
           ssl-jax train --config=configs/pretrain/shuffle_and_learn.py:VARIANT --workdir=RUN \
             --config.data.data_dir=DIR
           ssl-jax evaluate --config=configs/transfer/order.py --workdir=RUN
Variants:  caffenet: one crop and one flip for all frames of a tuple. release: frames squashed to 227 pixels
           and not augmented, as the released training network takes them. resnet50: a ResNet-50 with a
           hidden layer, ours.
           The 9,537 clips give about 150,000 records of five frames, each of which holds six tuples: the
           900,000 of the paper. The schedule is the published one, 100,000 steps of 128 tuples, in four parts
           of 32, of which BatchNorm sees one at a time; the epochs assume 1,192 steps each.
Expected:  UCF101 50.9, mean of three splits 50.2 (from random weights 38.6); HMDB51 19.8 and 18.1; VOC 2007
           detection 42.4 [released code's page].
"""

from ssl_jax import check_variant, recipe

VARIANTS = ("caffenet", "release", "resnet50")
STEPS_PER_EPOCH = 1192


def get_config(variant="caffenet"):
  check_variant(variant, VARIANTS, __file__)
  residual = variant == "resnet50"
  squashed = variant == "release"
  size = 224 if residual else 227
  return recipe(
    method=dict(name="shuffle_and_learn", negatives=0.75, hidden=512 if residual else 0),
    encoder=dict(name="resnet50", dtype="bfloat16")
    if residual
    else dict(name="caffenet", norm="deep", affine=False, dropout=0.5),
    host=dict(name="stored_frames", fit="squash" if squashed else "crop"),
    augment=dict(
      name="record_crop",
      views=1,
      size=size,
      scale=(1.0, 1.0) if squashed else (0.5, 1.0),
      flip=0.0 if squashed else 0.5,
    ),
    optimizer=dict(
      name="sgd",
      learning_rate=0.001,
      momentum=0.9,
      weight_decay=5e-4,
      schedule="step",
      milestones=(80_000 / STEPS_PER_EPOCH,),
    ),
    data=dict(name="tuples", split="train", size=size if squashed else 256, workers=16),
    checkpoint=dict(every_steps=5000, keep=2),
    batch_size=128,
    accumulate=4,
    epochs=100_000 / STEPS_PER_EPOCH,
    log_every=100,
  )
