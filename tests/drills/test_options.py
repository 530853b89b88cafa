"""Drills: any combination of options gives a clear ValueError or a run, never an error inside a library."""

import os
import typing

import jax
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ssl_jax import parallel
from ssl_jax.config.recipe_builder import recipe
from ssl_jax.config.schema import TrainConfig, check
from ssl_jax.core import DataSpec
from ssl_jax.data import sources, splits
from ssl_jax.run.assembly import abstract_state, assemble, host_transform

LONG = os.environ.get("SSL_JAX_DRILLS") == "long"
pytestmark = pytest.mark.drills
few = settings(
  max_examples=400 if LONG else 25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
many = settings(max_examples=5000 if LONG else 200, deadline=None, derandomize=True)


def base():
  return recipe(
    method=dict(name="supervised"),
    encoder=dict(name="vit", width=16, depth=1, heads=2, patch=8),
    augment=dict(name="supervised", views=1, size=16),
    optimizer=dict(name="adamw", learning_rate=1e-3),
    data=dict(name="synthetic", size=16),
    batch_size=16,
    epochs=1.0,
  )


def options(tree: dict, before: str = "") -> dict[str, typing.Any]:
  found = {}
  for name, value in tree.items():
    found |= options(value, f"{before}{name}.") if isinstance(value, dict) else {before + name: value}
  return found


OPTIONS = options(base().to_dict())
UNUSED = ("start.workdir", "data.data_dir")  # paths
VALUES = st.one_of(
  st.sampled_from(
    [
      0,
      1,
      -1,
      2,
      3,
      7,
      16,
      17,
      10**9,
      -(10**9),
      0.0,
      -0.5,
      0.5,
      1.0,
      1e-30,
      1e30,
      float("nan"),
      float("inf"),
      "",
      "x",
      "none",
      "scan",
      "sgd",
      True,
      False,
      None,
      (),
      (1,),
      (0.5, 2.0),
      [1, 2],
    ]
  ),
  st.integers(-(10**6), 10**6),
  st.floats(),
  st.text(max_size=8),
)


def attempt(changes: dict) -> None:
  """Does all checks and traces that a run does before it compiles."""
  tree = base().to_dict()
  for name, value in changes.items():
    *path, last = name.split(".")
    part = tree
    for key in path:
      part = part[key]
    part[last] = value
  config = check(TrainConfig, tree)
  mesh = parallel.make_mesh()
  parallel.check_batch(config.batch_size, mesh, config.accumulate)
  sizes = [
    config.encoder[name] for name in ("width", "depth", "mlp_ratio", "image_size") if name in config.encoder
  ] + [config.augment["size"]]
  if any(isinstance(size, (int, float)) and size > 4096 for size in sizes) or config.batch_size > 10**5:
    return  # it might run, on a larger machine
  parts = assemble(config, DataSpec(2048, 10, config.batch_size))
  host_transform(config)
  abstract_state(parts, config, mesh)


@few
@given(st.dictionaries(st.sampled_from(sorted(set(OPTIONS) - set(UNUSED))), VALUES, min_size=1, max_size=2))
@example({"encoder.depth": 0})
@example({"optimizer.learning_rate": float("nan")})
def test_any_option_may_hold_anything(changes):
  try:
    attempt(changes)
  except ValueError as error:
    assert str(error) and "\n  File" not in str(error), changes


@many
@given(
  st.one_of(
    st.text(max_size=20),
    st.from_regex(r"\A(train|test)(\[-?\d{0,5}%?:-?\d{0,5}%?\])?(\+(train|test)(\[:\d{1,3}%\])?)?\Z"),
  )
)
def test_any_split_is_a_range_or_an_error(spec):
  try:
    found = splits.resolve(spec, {"train": 800, "test": 90})
  except ValueError as error:
    assert spec in str(error) or repr(spec) in str(error)
    return
  for name, places in found:
    assert 0 <= places.start < places.stop <= {"train": 800, "test": 90}[name]


@few
@given(
  st.integers(-3, 300), st.integers(-3, 70), st.sampled_from(["supervised", "moco_v2", "simclr", "none"])
)
def test_any_size_and_batch(batch, size, augment):
  try:
    attempt({"batch_size": batch, "augment.size": size, "encoder.patch": max(size // 2, 1)})
    source = sources.make("synthetic", image_size=max(size, 1))
    assert len(source) == 2048
  except ValueError as error:
    assert str(error)


def test_a_wide_net_is_cast():
  assert len(OPTIONS) > 40 and jax.device_count() >= 1
