r"""The drop of a CIFAR-10 classifier on clips, and learning along them.

Command:   ssl-jax evaluate --config=configs/ttt/stills_to_video.py:CLIPS,TABLE.json --workdir=DIR
           DIR is a run of configs/pretrain/joint.py:cifar10 or cifar10_cpu. CLIPS is a folder of clips; the
           table names their classes, see the task; `python tests/benchmarks/real_data.py cifar10_clips
           SHARED_DATA FOLDER` writes one for CLIPS=SHARED_DATA.
Tasks:     standard: each frame from the trained weights; online: along each clip; window: on its latest 16
           frames. Each also measures the trained network and a vote over 16 frames.
Expected:  on ImageNet-Vid-Robust a ResNet-50 falls from 75 on anchor frames to 58 on all frames within 10
           [Shankar et al. 2021, recalled].
Measured:  docs/results.md, "From stills to video"
"""

from ssl_jax import EvaluateConfig, recipe


def get_config(variant="CLIPS,TABLE.json"):
  clips, _, table = variant.partition(",")
  shared = dict(task="stills_to_video", clips=clips, table=table, every=3, learning_rate=0.001, copies=32)
  return recipe(
    EvaluateConfig,
    tasks=dict(
      standard=dict(carry=False, steps=10, **shared),
      online=dict(steps=1, **shared),
      window=dict(steps=1, window=16, **shared),
    ),
    augment=dict(name="padded_crop", pad=4, flip=True),
    data=dict(cache=True),
  )
