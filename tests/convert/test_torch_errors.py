"""Checkpoints that torch refuses to load or that hold no tensors. A stand-in for torch raises them."""

import pathlib
import re
import types

import numpy as np
import pytest

from ssl_jax.convert import Options, files, import_weights
from tests.convert import odd_files

CURRENT = (  # PyTorch 2.6
  "Weights only load failed. This file can still be loaded, to do so you have two options, "
  "\x1b[1mdo those steps only if you trust the source of the checkpoint\x1b[0m. \n"
  "\t(1) In PyTorch 2.6, we changed the default value of the `weights_only` argument in `torch.load` from "
  "`False` to `True`. Re-running `torch.load` with `weights_only` set to `False` will likely succeed, but it "
  "can result in arbitrary code execution. Do it only if you got the file from a trusted source.\n"
  "\t(2) Alternatively, to load with `weights_only=True` please check the recommended steps in the following "
  "error message.\n"
  "\tWeightsUnpickler error: Unsupported global: GLOBAL {kind} was not an allowed global by default. "
  "Please use `torch.serialization.add_safe_globals([{kind}])` or the "
  "`torch.serialization.safe_globals([{kind}])` context manager to allowlist this global if you trust this "
  "class/function.\n\nCheck the documentation of torch.load to learn more about types accepted by default "
  "with weights_only https://pytorch.org/docs/stable/generated/torch.load.html."
)
OLDER = (  # PyTorch 2.0
  "Weights only load failed. Re-running `torch.load` with `weights_only` set to `False` will likely succeed, "
  "but it can result in arbitrary code execution.Do it only if you get the file from a trusted source. "
  "WeightsUnpickler error: Unsupported class {kind}"
)
BROKEN = "PytorchStreamReader failed reading zip archive: failed finding central directory"


class Tensor:
  def __init__(self, value, error=None):
    self.value, self.error = value, error

  def detach(self):
    return self

  float = detach

  def is_floating_point(self):
    return self.value.dtype.kind == "f"

  def numpy(self):
    if self.error:
      raise TypeError(self.error)
    return self.value


def tensors_of(arrays):
  return {name: Tensor(value) for name, value in arrays.items()}


@pytest.fixture
def torch(monkeypatch, tmp_path):
  """Sets what torch.load returns or raises; there is a file `file.pth` in the current folder."""
  stand_in = types.SimpleNamespace()
  monkeypatch.setattr(files, "need", {"torch": stand_in}.__getitem__)
  monkeypatch.chdir(tmp_path)
  pathlib.Path("file.pth").touch()

  def load(path, *, map_location, weights_only):
    assert map_location == "cpu" and weights_only is True
    if isinstance(stand_in.result, Exception):
      raise stand_in.result
    return stand_in.result

  stand_in.load = load
  return stand_in


@pytest.mark.parametrize("text", [CURRENT, OLDER])
@pytest.mark.parametrize("kind", ["argparse.Namespace", "numpy.core.multiarray.scalar"])
def test_objects_beside_the_tensors_are_named_and_the_cure_works(text, kind, torch):
  torch.result = RuntimeError(text.format(kind=kind))
  with pytest.raises(
    ValueError, match=f"file.pth .*it also holds a {kind}.*store its tensors alone"
  ) as error:
    import_weights("mae", "file.pth", "run")
  message = str(error.value)
  assert "\x1b" not in message and "\n" not in message and not pathlib.Path("run").exists()
  written = {}
  cure = types.SimpleNamespace(
    load=lambda path, map_location, weights_only: {"model": {"x": 1}, "args": object()},
    save=lambda content, path: written.update({path: content}),
  )
  code = re.search(r'python -c "import torch; (.*)"$', message)[1]
  exec(code, {"torch": cure})
  assert written == {"file_tensors.pth": {"x": 1}}


def test_a_broken_file_gives_the_reason_of_torch(torch):
  torch.result = RuntimeError(f"\x1b[1m{BROKEN}\x1b[0m\nframe #0: c10::Error::Error")
  with pytest.raises(ValueError, match=f"tensors only: {BROKEN}; use an undamaged file"):
    import_weights("mae", "file.pth", "run")


@pytest.mark.parametrize(
  "content, message",
  [
    ([1, 2], r"but a list; store a dict of tensors by name"),
    ({"epoch": 3}, "but epoch; store a dict of tensors by name"),
    ({}, "but nothing; store"),
    (
      {"teacher": {"x": Tensor(np.zeros(3))}, "epoch": 3},
      r"but under teacher; store .*'cpu'\)\['teacher'\], ",
    ),
    (
      {"x": Tensor(np.zeros(3), "can't convert Sparse layout tensor to numpy")},
      "x is no plain array .*Sparse layout",
    ),
  ],
)
def test_what_is_not_a_dict_of_tensors_says_what_it_holds(content, message, torch):
  torch.result = content
  with pytest.raises(ValueError, match=message):
    import_weights("mae", "file.pth", "run")


@pytest.mark.parametrize("kind", ["mae", "mae_full"])
def test_files_of_official_fine_tuning_are_sent_to_the_kind_that_takes_them(kind, torch):
  tuned = odd_files.vit(
    **{"norm.weight": None, "norm.bias": None, "fc_norm.weight": (8,), "fc_norm.bias": (8,)}
  )
  if kind == "mae_full":
    tuned["decoder_embed.weight"] = np.zeros((32, 8), np.float32)
  torch.result = {"model": tensors_of(tuned), "epoch": 99}
  with pytest.raises(ValueError, match="(fc_norm|head).* --kind=timm_vit --normalize=imagenet"):
    import_weights(kind, "file.pth", "run", Options(heads=2))
  if kind == "mae":
    import_weights("timm_vit", "file.pth", "run", Options(heads=2, normalize="imagenet"))
