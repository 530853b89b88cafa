"""Average precision of a network that detects objects.

Command:   ssl-jax evaluate --config=configs/transfer/average_precision.py:VARIANT --workdir=DIR
Variants:  voc_c4: VOC 2007, 11 points, as detectron2 rounds; BatchNorm statistics from 200 batches. coco:
           val2017 at 800 pixels, COCO's metric of boxes and masks. own_size: COCO's metric on images of any
           size, each as it is. small: the same with a shorter side of 224 pixels, for the small variants of
           detection.py; small_voc: with VOC's metric, area under the curve.
"""

from ssl_jax import EvaluateConfig, check_variant, recipe

PUBLISHED = dict(short_side=800, longest=1333)
SMALL = dict(short_side=224, longest=320)
VARIANTS = {
  "voc_c4": (dict(metric="voc_11_point", rounded=True, **PUBLISHED), "2007/test", 200),
  "coco": (PUBLISHED, "val2017", 0),
  "own_size": ({}, "val", 0),
  "small": (SMALL, "val", 0),
  "small_voc": (dict(metric="voc_area", **SMALL), "val", 0),
}


def get_config(variant="own_size"):
  check_variant(variant, VARIANTS, __file__)
  options, split, batches = VARIANTS[variant]
  published = variant in ("voc_c4", "coco")
  return recipe(
    EvaluateConfig,
    tasks=dict(detection=options),
    data=dict(test_split=split, workers=16 if published else 0),
    batch_size=16 if published else 8,
    precise_batches=batches,
  )
