r"""Test-time training on video streams, for segmentation.

Command:   ssl-jax evaluate --config=configs/ttt/video.py:VARIANT --workdir=DIR --config.data.data_dir=DATA
           DIR is a run of configs/pretrain/joint_segmentation.py. A stopped evaluation resumes.
Memory:    by options of config.tasks.ttt_video: none window=1 carry=False; implicit window=1; explicit
           carry=False; all frames window=0; offline, on the whole video first, steps=0 offline=1000.
Variants:  kitti_step: as published, crops of 512 x 1024. camvid, davis: small, for two CPU cores; camvid_val,
           davis_val: on the videos on which options are chosen.
Expected:  KITTI-STEP val mIoU: frozen 53.5, none 53.6, implicit 54.3, explicit 53.6, both 55.4 [Wang et al.
           2023, with Mask2Former and Swin-S].
Measured:  docs/results.md, "Test-time training on video streams"
"""

from ssl_jax import EvaluateConfig, check_variant, recipe

VARIANTS = ("kitti_step", "camvid", "camvid_val", "davis", "davis_val")


def get_config(variant="kitti_step"):
  check_variant(variant, VARIANTS, __file__)
  if variant == "kitti_step":
    return recipe(
      EvaluateConfig,
      tasks=dict(ttt_video=dict(window=16, copies=32, micro_batches=4, short_side=618)),
      augment=dict(name="scale_jitter", height=512, scale=(1.0, 1.0), flip=0.0),
      data=dict(name="kitti_step", test_split="val", size=1024, workers=16),
    )
  # A step on 8 crops of a third of a frame each. The learning rate and the parameters that adapt were chosen
  # on the split "val": where matrices adapt, the network of camvid forgets its classes.
  name = variant.removesuffix("_val")
  chosen = dict(
    camvid=dict(learning_rate=1e-3, trainable=("encoder/*norm*",)), davis=dict(learning_rate=1e-4)
  )
  return recipe(
    EvaluateConfig,
    tasks=dict(ttt_video=dict(window=16, copies=8, encoder_rate=1.0, clip_norm=0.0, **chosen[name])),
    augment=dict(name="scale_jitter", scale=(1.0, 1.0), flip=0.0),
    data=dict(test_split="val" if variant.endswith("_val") else "test", size=128),
  )
