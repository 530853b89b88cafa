"""Plans: real programs compiled for chips that are not present, and the errors raised before that."""

import dataclasses
import importlib
import importlib.util
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from ssl_jax import parallel
from ssl_jax.config.recipe_builder import recipe
from ssl_jax.config.schema import EvaluateConfig, TrainConfig, check
from ssl_jax.planning import chips, open_topology, plan, write
from ssl_jax.planning.data_size import data_of
from ssl_jax.planning.hlo import Cost, collectives, cost
from ssl_jax.planning.traffic import traffic
from ssl_jax.run.commit import running_commit
from tests.recipes import shrunk, train_recipes

plan_module = importlib.import_module("ssl_jax.planning.plan")  # the package also has a function of this name
needs_compiler = pytest.mark.skipif(
  importlib.util.find_spec("libtpu") is None,
  reason="libtpu, the TPU's compiler, is not installed: extra `tpu`",
)


def small(name: str, batch: int = 16) -> TrainConfig:
  return check(TrainConfig, shrunk(train_recipes()[name], batch=batch, size=16))


@needs_compiler
def test_a_small_plan_is_complete_and_adds_up(tmp_path, capsys):
  config = small("pretrain/supervised_sample.py")
  found = plan(config, "v5e:2x2", images=1000, classes=10)
  memory, roof = found["memory"], found["roofline"]
  assert found["commit"] == running_commit()
  assert (
    found["fits"]
    and found["chips"] == 4
    and found["schedule"]["steps"] == round(config.epochs * (1000 // 16))
  )
  assert memory["parameters"] < memory["total"] < memory["usable"] < 16 * chips.GIB
  assert memory["batch"] == 4 * (16 * 16 * 3 + 4)  # each of 4 chips has 4 uint8 images and their labels
  assert roof["step_seconds"] == max(roof["compute_seconds"], roof["memory_seconds"]) > 0
  assert found["an_image"]["flops"] == pytest.approx(roof["compute_seconds"] * 197e12 / 4)
  assert found["collectives"]["all-reduce"]["count"] >= 1
  write(found, tmp_path / "deep" / "plan.json")
  assert json.loads((tmp_path / "deep" / "plan.json").read_text())["roofline"] == roof
  assert "fits, with" in capsys.readouterr().out


@pytest.mark.parametrize(
  "error, wanted",
  [
    (
      "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm.",
      20.5 * chips.GIB,
    ),
    (
      "RESOURCE_EXHAUSTED: the total memory required for HLO temporaries (16.00G) exceeds available HBM "
      "(15.75G).",
      17 * chips.GIB,
    ),
    ("RESOURCE_EXHAUSTED: no figure", 0),
  ],
)
def test_a_refusal_says_how_much_was_wanted(error, wanted):
  assert plan_module._required_bytes(error, chips.GIB) == wanted


def test_advice_is_tried_in_turn_until_something_fits(monkeypatch, capsys):
  tried = []

  def measured(config, data, chip, mesh):
    tried.append(config)
    return {
      "fits": config.accumulate == 4,
      "memory": {"total": chips.GIB * 100 // (config.accumulate + 1), "usable": 16 * chips.GIB},
    }

  monkeypatch.setattr(plan_module, "_training", measured)
  monkeypatch.setattr(
    plan_module, "open_topology", lambda topology: (chips.CHIPS["v5e"], parallel.make_mesh(jax.devices()[:2]))
  )
  found = plan(small("pretrain/supervised_sample.py"), "v5e:1x2", images=100, classes=10)
  assert [row["change"] for row in found["advice"]] == [
    {"config.encoder.remat": "full"},
    {"config.sharding": "fsdp"},
    {"config.sharding": "fsdp", "config.encoder.remat": "full"},
    {"config.accumulate": 2},
    {"config.accumulate": 4},
  ]
  assert tried[3].encoder["remat"] == "full" and tried[3].sharding == "fsdp" and tried[-1].accumulate == 4
  write(found, "")
  shown = capsys.readouterr().out
  assert "DOES NOT FIT, short of 34.00 GiB" in shown and "fits: --config.accumulate=4 (20.00 GiB)" in shown


def test_advice_leaves_out_what_the_method_refuses(monkeypatch):
  """Two BatchNorm groups cannot be divided among two or more parts of a batch."""
  tried, row = [], {"fits": False, "memory": {"total": 1, "usable": 0}}
  monkeypatch.setattr(plan_module, "_training", lambda config, *rest: tried.append(config) or row)
  mesh = parallel.make_mesh(jax.devices()[:1])
  monkeypatch.setattr(plan_module, "open_topology", lambda topology: (chips.CHIPS["v5e"], mesh))
  plan(small("pretrain/moco_sample.py"), "v5e:1x1", images=4096, classes=10)
  assert len(tried) > 2 and {config.accumulate for config in tried} == {1}


@needs_compiler
def test_a_topology_that_the_compiler_does_not_know_is_refused():
  with pytest.raises(
    ValueError, match="--topology=v5e:3x5: the compiler does not know this topology .*v5e:4x4"
  ):
    open_topology("v5e:3x5")


@needs_compiler
@pytest.mark.parametrize(
  "topology, count", [("v4:2x2x1", 4), ("v4:2x2x2", 8), ("v5e:2x4", 8), ("v5p:2x2x1", 4), ("v6e:2x2", 4)]
)
def test_every_kind_of_chip_is_one_device(topology, count):
  chip, mesh = open_topology(topology)
  assert mesh.size == count and chip is chips.CHIPS[topology.partition(":")[0]]


@needs_compiler
def test_a_plan_for_v4_compiles():
  found = plan(small("pretrain/supervised_sample.py"), "v4:2x2x1", images=1000, classes=10)
  assert found["fits"] and found["chips"] == 4 and found["memory"]["usable"] > 31 * chips.GIB


@pytest.mark.parametrize(
  "split, images, steps",
  [("train", 0, 1_281_167 // 16), ("train[:10%]", 0, 128_117 // 16), ("train[:800]+train[-800:]", 0, 100)]
  + [("train[:10%]", 3200, 200), ("validation", 3200, 200)],
)
def test_an_epoch_is_of_the_split(split, images, steps):
  config = small("pretrain/supervised_sample.py")
  config = dataclasses.replace(
    config, epochs=1.0, data=dataclasses.replace(config.data, name="imagenet2012", split=split)
  )
  data = data_of(config, images, 0)
  assert plan_module.assemble(config, data).total_steps == steps and data.num_classes == 1000


def test_the_joined_splits_of_voc_are_known():
  config = small("pretrain/supervised_sample.py")
  data = dataclasses.replace(config.data, name="voc_boxes", split="2007/trainval+2012/trainval")
  found = data_of(dataclasses.replace(config, data=data), 0, 0)
  assert found.num_examples == 5011 + 11540 and found.num_classes == 20


def test_a_split_of_unknown_size_is_asked_for():
  config = small("pretrain/supervised_sample.py")
  data = dataclasses.replace(config.data, name="imagenet2012", split="train+validation")
  with pytest.raises(
    ValueError, match=r"config.data.split 'train\+validation' is not known here.*--images=N"
  ):
    data_of(dataclasses.replace(config, data=data), 0, 0)


@needs_compiler
def test_two_processes_plan_at_the_same_time():
  """The first process keeps the compiler open while the second one opens it."""
  code = (
    "from ssl_jax.planning import open_topology; print(open_topology('v5e:2x2')[1].size, flush=True); input()"
  )
  each = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
  with (
    subprocess.Popen([sys.executable, "-c", code], **each) as first,
    subprocess.Popen([sys.executable, "-c", code], **each) as second,
  ):
    for process in (first, second):
      assert process.stdout.readline() == "4\n", process.stderr.read()
    for process in (first, second):
      process.communicate("\n", timeout=60)


@pytest.mark.parametrize(
  "topology",
  ["v5e", "v7:2x2", "v5e:2y2", "h100", "h100:2x2x2", "h100:8x2slices", "v5e:2x2x0slices", "v5e:x2slices"],
)
def test_nonsense_is_refused_with_what_is_known(topology):
  with pytest.raises(ValueError, match=f"--topology={topology}: no such topology.* known: .*v5e:8x8"):
    open_topology(topology)


@needs_compiler
def test_what_a_plan_must_know_is_asked_for():
  config = small("pretrain/supervised_sample.py")
  with pytest.raises(
    ValueError,
    match="the number of images of config.data.name 'synthetic' is not known here; pass --images=N",
  ):
    plan(config, "v5e:2x2")
  with pytest.raises(ValueError, match="config.batch_size 18 is not divisible by 4 devices"):
    plan(dataclasses.replace(config, batch_size=18), "v5e:2x2", images=100)


def test_a_missing_compiler_is_named_with_the_command_that_installs_it(monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  for topology, extra in (("v5e:2x2", "tpu"), ("h100:8", "cuda12")):
    with pytest.raises(ValueError, match=rf"pip install 'ssl_jax\[{extra}\]'"):
      open_topology(topology)


@needs_compiler
def test_an_evaluation_and_learning_at_test_time_are_planned():
  evaluation = check(
    EvaluateConfig,
    recipe(
      EvaluateConfig,
      batch_size=16,
      augment=dict(name="padded_crop", pad=2, flip=True),
      tasks=dict(
        knn=dict(k=5),
        standard=dict(task="ttt", steps=3, copies=4, together=2),
        online=dict(task="ttt", mode="online", steps=1, copies=4, together=1),
      ),
    ),
  )
  found = plan(
    small("pretrain/joint.py:cifar10_cpu"), "v5e:2x2", evaluation=evaluation, images=1000, classes=10
  )["tasks"]
  assert found.keys() == {"knn", "standard", "online"} and all(row["fits"] for row in found.values())
  assert {name: row["roofline"]["images_at_once"] for name, row in found.items()} == {
    "knn": 16,
    "standard": 8,
    "online": 4,
  }
  flops = {name: row["an_image"]["flops"] for name, row in found.items()}
  assert 15 < flops["standard"] / flops["knn"] < 45  # forward and backward of 12 copies, two predictions
  assert 1.4 < flops["standard"] / flops["online"] < 3  # 3 steps against 1, and the same predictions
  assert "all-reduce" not in found["standard"]["collectives"]  # images are independent of each other
  with pytest.raises(
    ValueError,
    match="task 'ttt' needs .* Adaptable, which 'supervised' does not have; .*: joint, .*mae_probe",
  ):
    plan(small("pretrain/supervised_sample.py"), "v5e:2x2", evaluation=evaluation, images=1000, classes=10)


@needs_compiler
def test_learning_along_streams_is_planned_and_several_cost_less_than_one_each():
  config = small("pretrain/joint_segmentation.py:cityscapes")
  config = dataclasses.replace(
    config,
    method={**config.method, "head": "linear", "channels": 0},
    encoder={**config.encoder, "depth": 2, "relative_positions": False, "image_size": 16},
  )
  options = dict(task="ttt_video", window=4, copies=4, short_side=48)
  names = {"one": dict(together=1), "four": dict(together=4), "frozen": dict(together=1, steps=0)}
  evaluation = check(
    EvaluateConfig,
    recipe(
      EvaluateConfig,
      augment=dict(name="scale_jitter", height=16, scale=(1.0, 1.0), flip=0.0),
      tasks={name: {**options, **more} for name, more in names.items()},
      data=dict(name="davis", size=32),
      batch_size=16,
    ),
  )
  found = plan(config, "v5e:2x2", evaluation=evaluation, images=1000, classes=11)["tasks"]
  assert all(row["fits"] and not row["collectives"] for row in found.values())
  assert [found[name]["roofline"]["images_at_once"] for name in names] == [4, 16, 4]  # on four chips
  frames = {name: row["roofline"]["images_a_second"] for name, row in found.items()}
  assert frames["one"] < frames["four"] and frames["one"] < frames["frozen"]
  flops = {name: row["an_image"]["flops"] for name, row in found.items()}
  # Two predictions of 48 x 96 (of 48 x 85) and forward and backward of four crops of 16 x 32, against one.
  assert 2 < flops["one"] / flops["frozen"] < 4
  assert flops["four"] == pytest.approx(flops["one"], rel=0.1)


@pytest.mark.skipif(
  importlib.util.find_spec("jax_cuda12_plugin") is None,
  reason="the GPU's compiler is not installed: extra `cuda12`",
)
def test_a_small_plan_for_gpus():
  config = small("pretrain/supervised_sample.py")
  gpu, tpu = (plan(config, topology, images=1000, classes=10) for topology in ("h100:2x2", "v5e:2x2"))
  assert gpu["fits"] and gpu["chips"] == 4 and gpu["collectives"]["all-reduce"]["count"] >= 1
  assert 0.4 < gpu["an_image"]["flops"] / tpu["an_image"]["flops"] < 1.2  # the TPU pads small channels
  assert gpu["memory"]["usable"] == 0.75 * 80 * chips.GIB


@needs_compiler
def test_what_a_loop_repeats_counts_as_often_as_it_runs():
  """Layers under a scan, and nested scans, cost as much as the same products without a loop."""
  mesh = open_topology("v5e:2x2")[1]
  cut = parallel.along_data(mesh)
  x, w = (
    jax.ShapeDtypeStruct((256, 256), jnp.float32, sharding=cut),
    jax.ShapeDtypeStruct((8, 256, 256), jnp.float32, sharding=cut),
  )

  def scanned(x, w):
    return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)[0]

  def nested(x, w):
    return jax.lax.scan(lambda x, _: (scanned(x, w), None), x, None, length=3)[0]

  flops, gathered = zip(
    *(
      (cost(text).flops, collectives(text))
      for text in (jax.jit(f, out_shardings=cut).lower(x, w).compile().as_text() for f in (scanned, nested))
    )
  )
  one = 8 * 2 * 64 * 256 * 256
  assert flops == (pytest.approx(one, rel=0.01), pytest.approx(3 * one, rel=0.01))
  assert gathered[0]


def test_cost_and_collectives_follow_a_program_into_its_loops():
  text = """HloModule tiny

%body (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %p = (s32[], f32[4]{0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = f32[4]{0} get-tuple-element(%p), index=1
  %one = s32[] constant(1)
  %next = s32[] add(%i, %one)
  %twice = f32[4]{0} multiply(%x, %x)
  %sum = f32[4]{0} all-reduce(%twice), channel_id=3, replica_groups={}, to_apply=%add
  ROOT %out = (s32[], f32[4]{0}) tuple(%next, %sum)
}

%condition (q: (s32[], f32[4])) -> pred[] {
  %q = (s32[], f32[4]{0}) parameter(0)
  %j = s32[] get-tuple-element(%q), index=0
  %limit = s32[] constant(7)
  ROOT %less = pred[] compare(%j, %limit), direction=LT
}

ENTRY %main (start: (s32[], f32[4])) -> (s32[], f32[4]) {
  %start = (s32[], f32[4]{0}) parameter(0)
  ROOT %loop = (s32[], f32[4]{0}) while(%start), condition=%condition, body=%body
}
"""
  add = (
    "%add (a: f32[], b: f32[]) -> f32[] {\n  %a = f32[] parameter(0)\n  %b = f32[] parameter(1)\n"
    "  ROOT %c = f32[] add(%a, %b)\n}\n\n%body"
  )
  text = text.replace("%body", add, 1)
  assert collectives(text) == {"all-reduce": {"count": 7, "bytes": 7 * 16}}
  assert 7 * 4 <= cost(text).flops < 7 * 12 and cost(text).accessed > 7 * 3 * 16
  assert cost(text.replace("constant(7)", "parameter(1)")) != Cost(0, 0)


@needs_compiler
def test_slices_exchange_only_the_parts_that_their_chips_reduced():
  """Of a gradient of 256 KiB each chip of 2x2 has a quarter, which it exchanges with another slice's."""
  mesh = open_topology("v5e:2x2x2slices")[1]
  assert dict(mesh.shape) == {"slice": 2, "data": 4}
  assert [device.slice_index for device in mesh.devices.flat] == [0] * 4 + [1] * 4
  w = jax.ShapeDtypeStruct((256, 256), jnp.float32, sharding=parallel.replicated(mesh))
  x = jax.ShapeDtypeStruct((128, 256), jnp.float32, sharding=parallel.along_data(mesh))
  gradient = jax.grad(lambda w, x: jnp.mean(jnp.tanh(x @ w) ** 2))
  found = collectives(jax.jit(gradient).lower(w, x).compile().as_text())
  assert found == {
    "reduce-scatter": {"count": 1, "bytes": 2**16},
    "between-slices": {"count": 1, "bytes": 2**16},
    "all-gather": {"count": 1, "bytes": 2**18},
  }
  with pytest.raises(
    ValueError, match="--topology=v5e:3x5x2slices: the compiler does not know this topology"
  ):
    open_topology("v5e:3x5x2slices")


@needs_compiler
@pytest.mark.slow
def test_a_run_on_two_slices_is_planned():
  config = dataclasses.replace(small("pretrain/supervised_sample.py"), sharding="fsdp")
  found = plan(config, "v5e:2x2x2slices", images=1000, classes=10)
  assert found["fits"] and found["chips"] == 8 and found["memory"]["batch"] == 2 * (16 * 16 * 3 + 4)
  assert found["collectives"]["between-slices"]["count"] >= 1


def test_collectives_are_counted_by_kind_with_their_bytes():
  program = """
ENTRY %main (a: f32[8,4]) -> f32[] {
  %all-reduce.1 = (f32[8,4]{1,0}, bf16[2]{0}) all-reduce(%a, %b), channel_id=1
  %all-gather-start.2 = (f32[2,4]{1,0}, f32[8,4]{1,0}) all-gather-start(%c), channel_id=2
  %piece.3 = f32[8,4]{1,0} all-gather(%d), channel_id=2
  %all-gather-done.2 = f32[8,4]{1,0} all-gather-done(%all-gather-start.2)
  %x = f32[] add(%all-reduce.1, %y)
}
"""
  assert collectives(program) == {
    "all-reduce": {"count": 1, "bytes": 132},
    "all-gather": {"count": 1, "bytes": 128},
  }


def test_traffic_is_what_passes_between_a_chip_and_its_main_memory():
  text = """HloModule tiny

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %c = f32[] add(%a, %b)
}

%fused (p: f32[8,4], q: f32[4]) -> (f32[4], f32[8,4]) {
  %p = f32[8,4]{1,0} parameter(0)
  %q = f32[4]{0} parameter(1)
  %zero = s32[] constant(0)
  %row = f32[1,4]{1,0} dynamic-slice(%p, %zero, %zero), dynamic_slice_sizes={1,4}
  %flat = f32[4]{0} bitcast(%row)
  %sum = f32[4]{0} add(%flat, %q)
  %back = f32[1,4]{1,0} bitcast(%sum)
  %all = f32[8,4]{1,0} dynamic-update-slice(%p, %back, %zero, %zero)
  ROOT %both = (f32[4]{0}, f32[8,4]{1,0}) tuple(%sum, %all)
}

%body (s: (s32[], f32[8,4], f32[4])) -> (s32[], f32[8,4], f32[4]) {
  %s = (s32[], f32[8,4]{1,0}, f32[4]{0:S(1)}) parameter(0)
  %i = s32[]{:S(2)} get-tuple-element(%s), index=0
  %x = f32[8,4]{1,0} get-tuple-element(%s), index=1
  %y = f32[4]{0:S(1)} get-tuple-element(%s), index=2
  %f = (f32[4]{0:S(1)}, f32[8,4]{1,0}) fusion(%x, %y), kind=kLoop, calls=%fused
  %y2 = f32[4]{0:S(1)} get-tuple-element(%f), index=0
  %x2 = f32[8,4]{1,0} get-tuple-element(%f), index=1
  ROOT %t = (s32[], f32[8,4]{1,0}, f32[4]{0:S(1)}) tuple(%i, %x2, %y2)
}

%condition (q: (s32[], f32[8,4], f32[4])) -> pred[] {
  %q = (s32[], f32[8,4]{1,0}, f32[4]{0:S(1)}) parameter(0)
  %j = s32[]{:S(2)} get-tuple-element(%q), index=0
  %limit = s32[]{:S(2)} constant(5)
  ROOT %less = pred[]{:S(2)} compare(%j, %limit), direction=LT
}

ENTRY %main (u: f32[8,4], v: f32[8,4]) -> f32[8,4] {
  %u = f32[8,4]{1,0} parameter(0)
  %v = f32[8,4]{1,0} parameter(1)
  %product = f32[8,4]{1,0} multiply(%u, %v)
  %kept = f32[8,4]{1,0:S(1)} negate(%product)
  %copy = (f32[8,4]{1,0:S(1)}, f32[8,4]{1,0}, u32[]{:S(2)}) copy-start(%product)
  %done = f32[8,4]{1,0:S(1)} copy-done(%copy)
  %cut = ((f32[8,4]{1,0}), f32[2,4]{1,0:S(1)}, s32[]{:S(2)}) slice-start(%product), slice={[0:2], [0:4]}
  %first = s32[]{:S(2)} constant(0)
  %bias = f32[4]{0:S(1)} constant({1, 2, 3, 4})
  %start = (s32[], f32[8,4]{1,0}, f32[4]{0:S(1)}) tuple(%first, %product, %bias)
  %loop = (s32[], f32[8,4]{1,0}, f32[4]{0:S(1)}) while(%start), condition=%condition, body=%body
  ROOT %out = f32[8,4]{1,0} get-tuple-element(%loop), index=1
}
"""
  whole, row = 8 * 4 * 4, 4 * 4
  # product: reads two arrays, writes one; kept and copy: read one each; cut: reads two rows; the loop, five
  # times: reads a row and writes a row.
  assert traffic(text) == 3 * whole + whole + whole + 2 * row + 5 * (row + row)
  assert traffic(text.replace("S(1)", "S(0)")) > traffic(text)


@needs_compiler
def test_a_policy_at_deployment_is_planned():
  evaluation = check(
    EvaluateConfig,
    recipe(
      EvaluateConfig,
      augment=dict(name="transition_crop"),
      tasks=dict(deployment=dict(copies=4, together=2), more=dict(task="deployment", copies=8, together=2)),
    ),
  )
  found = plan(
    small("pretrain/policy_cpu.py:inverse_dynamics"), "v5e:2x2", evaluation=evaluation, images=1000
  )["tasks"]
  assert all(row["fits"] and not row["collectives"] for row in found.values())
  assert found["deployment"]["roofline"]["images_at_once"] == 8
  flops = [found[name]["an_image"]["flops"] for name in ("deployment", "more")]
  assert flops[0] < flops[1] < 1.6 * flops[0]  # all crops share the convolutions
