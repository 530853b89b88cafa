"""One step is that of torch-ttt's engines, on the same small network with the same weights.

torch-ttt 0.0.2 differs from the papers, and the tests choose the options that do what it does:
Tent: in evaluation mode the engine's BatchNorm uses the statistics of training (`prior` infinite); after
  `engine.model.train()` it uses those of the batch, as the paper (`prior` 0).
MEMO: the engine replaces the function of a BatchNorm2d by one that lacks the argument `self`, so that such
  networks fail; with other norms it is the paper's.
TTT: every image is shown in all four rotations, and the head that predicts them does not adapt.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import methods, models, ttt
from ssl_jax.abilities import Adaptable
from ssl_jax.core import DataSpec, Weights
from ssl_jax.methods.rotation import four_turns
from ssl_jax.tasks.backbone import Backbone
from ssl_jax.tasks.ttt import make_rule
from tests.ttt.tiny_network import CLASSES, SIZE, WIDTH, Trunk, classifier, shuffled

torch_ttt = pytest.importorskip("torch_ttt", reason="torch-ttt is not installed: extra `bench`")
import torch  # noqa: E402
from torch_ttt.engine.memo_engine import MemoEngine  # noqa: E402
from torch_ttt.engine.tent_engine import TentEngine  # noqa: E402
from torch_ttt.engine.ttt_engine import TTTEngine  # noqa: E402

KEY, RATE = jax.random.key(0), 0.01
SAMPLE = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
COPIES = np.random.default_rng(1).uniform(size=(4, SIZE, SIZE, 3)).astype(np.float32)
ONE_STEP = {"lr": RATE, "num_steps": 1, "copy_model": False}


def to_torch(array) -> torch.Tensor:
  return torch.tensor(np.asarray(array))


def images(array) -> torch.Tensor:
  return to_torch(array).permute(0, 3, 1, 2)


def module_of(weights: Weights, norm: str) -> torch.nn.Sequential:
  """The network of `tiny_network` in PyTorch."""
  nn, params = torch.nn, weights.params
  middle = nn.BatchNorm2d(WIDTH) if norm == "batch" else nn.GroupNorm(2, WIDTH)
  net = nn.Sequential(
    nn.Conv2d(3, WIDTH, 3, padding=1, bias=False),
    middle,
    nn.ReLU(),
    nn.AdaptiveAvgPool2d(1),
    nn.Flatten(),
    linear(params["head"]),
  )
  with torch.no_grad():
    net[0].weight.copy_(to_torch(params["encoder"]["conv"]["kernel"]).permute(3, 2, 0, 1))
    middle.weight.copy_(to_torch(params["encoder"]["norm"]["scale"]))
    middle.bias.copy_(to_torch(params["encoder"]["norm"]["bias"]))
    if norm == "batch":
      statistics = weights.model_state["encoder"]["batch_stats"]["norm"]
      middle.running_mean.copy_(to_torch(statistics["mean"]))
      middle.running_var.copy_(to_torch(statistics["var"]))
  return net


def linear(params) -> torch.nn.Linear:
  inner = params.get("Dense_0", params)
  layer = torch.nn.Linear(*inner["kernel"].shape)
  with torch.no_grad():
    layer.weight.copy_(to_torch(inner["kernel"]).T)
    layer.bias.copy_(to_torch(inner["bias"]))
  return layer


def step(adaptable: Adaptable, backbone: Backbone, trainable=(), copies=4):
  """Returns (the loss before the step, all parameters after it) of a step on COPIES."""
  names = trainable or adaptable.trainable
  weights = Weights(adaptable.params(*backbone.weights), backbone.weights.model_state)
  first = ttt.select_params(weights.params, names)
  adam = make_rule("adamw", learning_rate=RATE, momentum=0.9, weight_decay=0.0)
  inner = ttt.make_adapt(
    adaptable, lambda key, batch: {"image": jnp.asarray(COPIES[:copies])}, adam, steps=1, copies=copies
  )
  state = inner.begin(weights, first, KEY, {"image": SAMPLE}, 0)
  state = inner.step(weights, state, 0)
  return state.losses[0], ttt.merge_params(state.trainable, weights.params)


def check_params(net: torch.nn.Sequential, params, before) -> None:
  """The parameters of both agree, and those of ours have moved."""
  found = module_of(
    Weights(params, before.model_state), "batch" if before.model_state["encoder"] else "group"
  )
  theirs, ours, old = (
    dict(module.named_parameters())
    for module in (net, found, module_of(before, "batch" if before.model_state["encoder"] else "group"))
  )
  moved = 0.0
  for name, value in ours.items():
    np.testing.assert_allclose(theirs[name].detach(), value.detach(), atol=2e-5, err_msg=name)
    moved = max(moved, float((value - old[name]).detach().abs().max()))
  assert moved == pytest.approx(RATE, rel=0.05)  # the first step of Adam is the learning rate


@pytest.mark.parametrize("prior", [0.0, float("inf")])
def test_tent(prior):
  plain = classifier("batch")
  engine = TentEngine(module_of(plain.weights, "batch"), ONE_STEP)
  engine.eval()
  engine.model.train(prior == 0)
  _, loss = engine(images(COPIES))
  adaptable = ttt.with_objective(plain, "tent", prior=prior).ability(Adaptable, "")
  value, params = step(adaptable, plain)
  assert value == pytest.approx(loss.item(), rel=1e-5)
  check_params(engine.model, params, plain.weights)


def test_memo():
  plain = classifier("group")
  copies = iter(images(COPIES)[:, None])
  engine = MemoEngine(module_of(plain.weights, "group"), ONE_STEP, lambda x: next(copies), n_augmentations=4)
  engine.eval()
  outputs, loss = engine(images(SAMPLE[None].astype(np.float32) / 255))
  adaptable = ttt.with_objective(plain, "memo").ability(Adaptable, "")
  value, params = step(adaptable, plain)
  assert value == pytest.approx(loss.item(), rel=1e-5)
  check_params(engine.model, params, plain.weights)
  ours = adaptable.predict(
    params, plain.weights.model_state, {"image": jnp.asarray(SAMPLE[None], jnp.float32) / 255}
  )
  np.testing.assert_allclose(outputs.detach(), ours, atol=1e-4)


def test_memo_of_a_network_with_batch_norm_fails_there():
  """If this ends, the note above and the test with BatchNorm are to be changed."""
  plain = classifier("batch")
  engine = MemoEngine(module_of(plain.weights, "batch"), ONE_STEP, lambda x: x, n_augmentations=4)
  engine.eval()
  with pytest.raises(TypeError, match="missing 1 required positional argument"):
    engine(images(COPIES[:1]))


def test_rotation():
  """With every copy in all four rotations, and the trunk alone adapted, as there."""
  method = methods.make("joint", models.network(Trunk("group")), DataSpec(8, CLASSES, 2), branch="")
  params, state, _ = method.init(
    KEY, {"image": jnp.zeros((2, SIZE, SIZE, 3)), "label": jnp.zeros(2, jnp.int32)}
  )
  before = Weights(shuffled(params, 1), state)
  net = module_of(before, "group")
  engine = TTTEngine(net, "4", linear(before.params["turns"]), optimization_parameters=ONE_STEP)
  engine.eval()
  _, loss = engine(images(COPIES))

  def make_task(key, batch):
    task = four_turns(key, batch["image"])
    return task.inputs.reshape(-1, SIZE, SIZE, 3), task.targets.reshape(-1)

  own = method.abilities[Adaptable]._replace(make_task=make_task)
  value, params = step(own, Backbone(before, method), trainable=("encoder",))
  assert value == pytest.approx(loss.item(), rel=1e-5)
  check_params(net, params, before)
