"""Plans: a real step compiled for chips that are not there, and what is refused before that."""

import dataclasses
import importlib.util
import json

import pytest

from ssl_jax import chips
from ssl_jax.config import TrainConfig, check
from ssl_jax.plan import collectives, open_topology, plan, write
from tests.recipes import shrunk, train_recipes

needs_compiler = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu, the TPU's compiler, is not installed: extra `tpu`")


def small(name: str, batch: int = 16) -> TrainConfig:
  return check(TrainConfig, shrunk(train_recipes()[name], batch=batch, size=16))


@needs_compiler
def test_a_small_plan_is_complete_and_adds_up(tmp_path, capsys):
  config = small("pretrain/supervised_sample.py")
  found = plan(config, "v5e:2x2", images=1000, classes=10)
  memory, roof = found["memory"], found["roofline"]
  assert found["fits"] and found["chips"] == 4 and found["schedule"]["steps"] == round(config.epochs * (1000 // 16))
  assert memory["parameters"] < memory["total"] < memory["usable"] < 16 * chips.GIB
  assert memory["batch"] == 4 * (16 * 16 * 3 + 4)  # four of 16 images a chip, uint8, and their labels
  assert roof["step_seconds"] == max(roof["compute_seconds"], roof["memory_seconds"]) > 0
  assert found["an_image"]["flops"] == pytest.approx(roof["compute_seconds"] * 197e12 / 4)
  assert found["collectives"]["all-reduce"]["count"] >= 1
  write(found, tmp_path / "deep" / "plan.json")
  assert json.loads((tmp_path / "deep" / "plan.json").read_text())["roofline"] == roof
  assert "fits, with" in capsys.readouterr().out


@needs_compiler
def test_a_topology_that_the_compiler_does_not_know_is_refused():
  with pytest.raises(ValueError, match="--topology=v5e:3x5: the compiler knows no such topology .*v5e:4x4"):
    open_topology("v5e:3x5")


@pytest.mark.parametrize("topology", ["v5e", "v7:2x2", "v5e:2y2", "h100"])
def test_nonsense_is_refused_with_what_is_known(topology):
  with pytest.raises(ValueError, match=f"--topology={topology}: no such topology.* known: .*v5e:8x8"):
    open_topology(topology)


@needs_compiler
def test_what_a_plan_must_know_is_asked_for():
  config = small("pretrain/supervised_sample.py")
  with pytest.raises(ValueError, match="how many images config.data.name 'synthetic' has is not known here; say --images=N"):
    plan(config, "v5e:2x2")
  with pytest.raises(ValueError, match="config.batch_size 18 is not divisible by 4 devices"):
    plan(dataclasses.replace(config, batch_size=18), "v5e:2x2", images=100)


def test_collectives_are_counted_by_kind_with_their_bytes():
  program = """
  %all-reduce.1 = (f32[8,4]{1,0}, bf16[2]{0}) all-reduce(%a, %b), channel_id=1
  %all-gather-start.2 = (f32[2,4]{1,0}, f32[8,4]{1,0}) all-gather-start(%c), channel_id=2
  %piece.3 = f32[8,4]{1,0} all-gather(%d), channel_id=2
  %all-gather-done.2 = f32[8,4]{1,0} all-gather-done(%all-gather-start.2)
  %x = f32[] add(%all-reduce.1, %y)
  """
  assert collectives(program) == {"all-reduce": {"count": 1, "bytes": 132}, "all-gather": {"count": 1, "bytes": 128}}
