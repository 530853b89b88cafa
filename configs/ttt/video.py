r"""Test-time training on video streams, and its baselines.

Command:   ssl-jax evaluate --config=configs/ttt/video.py:VARIANT --workdir=DIR --config.data.data_dir=DATA
           DIR is a run of configs/pretrain/joint_segmentation.py. A stopped evaluation resumes.
Variants:  kitti_step: as published, crops of 512 x 1024. camvid, davis: for two CPU cores; options were
           chosen with --config.data.test_split=val. Both memories: carried parameters, 16 frames.
           With the suffix _baselines: all rows of the published tables in one evaluation, see ROWS; with
           _windows: windows of 1, 4, 16, 64 and all frames, whose errors the report draws.
Memory:    kitti_step: 7.5 GiB of a v5e chip if the run's config has encoder.remat="full", 17.1 without.
One row:   its options by hand, such as --config.tasks.ttt_video.window=1.
           "Main task only" is `frozen` on a run of method 'segmentation'.
Choices:   `norms` is the nearest to the published "LN adapt": the network's own task moves the norms alone,
           because statistics of LayerNorm and GroupNorm are those of each image already. The confidence,
           the balance, the number of votes and the smoothing are not published per row.
Expected:  KITTI-STEP val mIoU: main task only 53.8, frozen 53.5, no memory 53.6, implicit 54.3, explicit
           53.6, both 55.4, offline 53.2, LN adapt 53.8, Tent 53.8 (with balance 53.8), self-training 54.7
           (54.1); a vote of 100 +1.2, smoothing +0.4 [Wang et al. 2023, with Mask2Former and Swin-S].
Measured:  docs/results.md, "Test-time training on video streams"
"""

from ssl_jax import EvaluateConfig, check_variant, recipe

DATA = ("kitti_step", "camvid", "davis")
VARIANTS = tuple(data + suffix for suffix in ("", "_baselines", "_windows") for data in DATA)
FROZEN = dict(steps=0, trainable=())
BALANCE = dict(balance=0.3)
ROWS = dict(
  online={},
  frozen=FROZEN,
  no_memory=dict(window=1, carry=False),
  implicit=dict(window=1),
  explicit=dict(carry=False),
  offline=dict(steps=0, offline=100),  # kitti_step: 1,000
  norms=dict(trainable=("encoder/*[Nn]orm*",)),
  tent=dict(objective="tent"),
  tent_balance=dict(objective="tent", **BALANCE),
  self_training=dict(objective="self_training"),
  self_training_balance=dict(objective="self_training", **BALANCE),
  vote=dict(vote=100, **FROZEN),
  smoothing=dict(smoothing=0.5, **FROZEN),
  online_smoothing=dict(smoothing=0.5),
)
WINDOWS = dict(window_1=1, window_4=4, window_16=16, window_64=64, window_all=0)


def get_config(variant="kitti_step"):
  check_variant(variant, VARIANTS, __file__)
  data = next(data for data in DATA if variant.startswith(data))
  published = data == "kitti_step"
  online = dict(window=16, copies=32, micro_batches=16, short_side=618) if published else _small(data)
  if variant.endswith("_windows"):
    rows = {name: dict(window=window) for name, window in WINDOWS.items()}
  elif variant.endswith("_baselines"):
    rows = {**ROWS, "offline": dict(steps=0, offline=1000)} if published else ROWS
  else:
    rows = {}
  tasks = {name: dict(task="ttt_video", **{**online, **row}) for name, row in rows.items()}
  return recipe(
    EvaluateConfig,
    tasks=tasks or dict(ttt_video=online),
    augment=dict(name="scale_jitter", height=512 if published else 0, scale=(1.0, 1.0), flip=0.0),
    data=dict(name="kitti_step", test_split="val", size=1024, workers=16)
    if published
    else dict(test_split="test", size=128),
  )


def _small(data):
  """A step on 8 crops of a third of a frame each. The learning rate and the parameters that adapt were chosen
  on the split "val": where matrices adapt, the network of camvid forgets its classes.
  """
  chosen = dict(
    camvid=dict(learning_rate=1e-3, trainable=("encoder/*norm*",)), davis=dict(learning_rate=1e-4)
  )
  return dict(window=16, copies=8, encoder_rate=1.0, clip_norm=0.0, **chosen[data])
