"""Programs of detection compiled for a TPU that is not present."""

import functools
import importlib.util
import json
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ssl_jax.detect.roi_align import roi_align
from ssl_jax.planning.scopes import parts
from ssl_jax.planning.topology import open_topology, quiet
from tests.benchmarks import detection_plan
from tests.benchmarks.detection_plan import interpolation

pytestmark = pytest.mark.skipif(
  importlib.util.find_spec("libtpu") is None,
  reason="libtpu, the TPU's compiler, is not installed: extra `tpu`",
)
ROIS, SIDE, CHANNELS, SIZE = 64, 32, 128, 7


def test_roi_align_is_two_products_on_a_tpu():
  """The form that is chosen there has the FLOPs of two matrices, and no gather from an index."""
  chip, mesh = open_topology("v5e:2x2")
  where = NamedSharding(Mesh(mesh.devices.reshape(-1)[:1], ("data",)), PartitionSpec())
  shape = lambda *sizes, dtype: jax.ShapeDtypeStruct(sizes, dtype, sharding=where)
  align = functools.partial(roi_align, stride=16, size=SIZE)
  gradient = jax.grad(lambda maps, boxes: jnp.square(align(maps, boxes)).sum(dtype=jnp.float32))
  arguments = shape(SIDE, SIDE, CHANNELS, dtype=jnp.bfloat16), shape(ROIS, 4, dtype=jnp.float32)
  with quiet():
    text = jax.jit(gradient).lower(*arguments).compile().as_text()
  wanted = 2 * interpolation(ROIS, SIZE, SIDE, SIDE, CHANNELS)
  found = parts(text, ("roi_align",), chip)["roi_align"]
  assert wanted / 1.3 < found.flops < 1.3 * wanted
  assert " gather(" not in text and " scatter(" not in text
  halfway = ROIS * SIZE * SIDE * CHANNELS * 2
  assert found.largest <= 2 * halfway


@pytest.mark.slow
def test_a_detector_needs_the_flops_of_its_layers_and_no_large_temporaries():
  """Suppression, matching and RoIAlign are a small part of it. Compiled in a process of its own, which gives
  back its memory."""
  script = pathlib.Path(detection_plan.__file__)
  printed = subprocess.run(
    [sys.executable, script, "tiny"], capture_output=True, text=True, check=True
  ).stdout
  found = json.loads(printed.splitlines()[-1])["tiny"]
  assert found["fits"] and 1 / 1.3 < found["of_analytic"] < 1.3
  named = found["parts"]
  assert max(part["largest_array_megabytes"] for part in named.values()) < 10
  assert named["roi_align"]["flops"] > 0 and named["nms"]["instructions"] > 0
  assert sum(named[scope]["time"] for scope in ("nms", "match", "random_sample", "roi_align")) < 0.1
