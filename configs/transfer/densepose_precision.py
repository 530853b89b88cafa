"""DensePose: average precision of surface points, masks and boxes.

Command:   ssl-jax evaluate --config=configs/transfer/densepose_precision.py:VARIANT --workdir=DIR \
             --config.tasks.densepose.geodesic=FOLDER
FOLDER holds distances on the surface of the body, made from three files of DensePose's authors: see
`read_geodesic` in ssl_jax/tasks/body_surface.py.
Variants:  s1x: the minimal validation set at 800 pixels, kappa by part of the body, as detectron2 evaluates.
           small: for the small variant of densepose.py; the distance in the charts of the parts, whose scores
           do not compare with others.
"""

from ssl_jax import EvaluateConfig, check_variant, recipe

VARIANTS = {
  "s1x": (dict(kappa="parts", short_side=800, longest=1333), "densepose_coco_2014_minival", 16),
  "small": (dict(short_side=224, longest=320), "val", 0),
}


def get_config(variant="s1x"):
  check_variant(variant, VARIANTS, __file__)
  options, split, workers = VARIANTS[variant]
  return recipe(
    EvaluateConfig, tasks=dict(densepose=options), data=dict(test_split=split, workers=workers), batch_size=8
  )
