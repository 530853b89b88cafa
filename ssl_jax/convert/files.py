"""Tensors out of files that others wrote, and into files that others read. Nothing in a file is executed."""

from __future__ import annotations

import importlib
import json
import pathlib
import zipfile
from typing import Any

import numpy as np

Tensors = dict[str, np.ndarray]
NOTE = "ssl_jax"  # beside the tensors: the config of the network, as JSON
WRAPPERS = (
  "state_dict",
  "model",
  "model_state_dict",
)  # under these, training scripts keep the weights beside the rest
TORCH = (".pth", ".pt", ".tar", ".bin")


def read_tensors(path: str | pathlib.Path) -> tuple[Tensors, dict[str, Any]]:
  """(The tensors of a .safetensors, .npz or PyTorch checkpoint, by name, float32 unless they are integers; what `write` noted, or {}).

  Raises: ValueError for a file that is missing, broken, of another kind, or that holds objects besides tensors.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise ValueError(f"--input={path}: there is no such file")
  readers = {".npz": _npz, ".safetensors": _safetensors, **dict.fromkeys(TORCH, _torch)}
  if path.suffix not in readers:
    raise ValueError(f"--input={path} is no kind of file that is read; use {', '.join(readers)}")
  found, note = readers[path.suffix](path)
  try:
    return {
      name: value if value.dtype.kind in "iub" else value.astype(np.float32) for name, value in found.items()
    }, json.loads(note or "{}")
  except ValueError as error:
    raise ValueError(f"--input={path} holds something else than numbers: {error}") from error


def write_tensors(path: pathlib.Path, tensors: Tensors, note: dict[str, Any]) -> None:
  """Writes .npz or .safetensors, with a note of what they belong to under NOTE."""
  if path.suffix == ".npz":
    np.savez(path, **tensors, **{NOTE: np.array(json.dumps(note))})
  else:
    content = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    path.write_bytes(
      need("safetensors").numpy.save(content, {NOTE: json.dumps(note)})
    )  # its save_file hides the file from all others


def _npz(path: pathlib.Path) -> tuple[Tensors, str]:
  try:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
      found = dict(stored)
      return found, str(found.pop(NOTE, ""))
  except (
    ValueError,
    OSError,
    EOFError,
    TypeError,
    zipfile.BadZipFile,
  ) as error:  # TypeError: one array, no archive
    raise ValueError(f"--input={path} cannot be read as arrays: {error}") from error


def _safetensors(path: pathlib.Path) -> tuple[Tensors, str]:
  package = need("safetensors")
  try:
    with package.safe_open(path, framework="numpy") as stored:
      return {name: stored.get_tensor(name) for name in stored.keys()}, (stored.metadata() or {}).get(
        NOTE, ""
      )
  except (
    package.SafetensorError,
    OSError,
    KeyError,
    TypeError,
  ) as error:  # KeyError: a dtype that numpy lacks
    raise ValueError(f"--input={path} cannot be read as safetensors: {error}") from error


def _torch(path: pathlib.Path) -> tuple[Tensors, str]:
  torch = need("torch")
  try:
    stored = torch.load(path, map_location="cpu", weights_only=True)
  except Exception as error:  # it raises several kinds, pickle's own among them
    raise ValueError(
      f"--input={path} cannot be read as tensors alone: {str(error).splitlines()[0]}"
    ) from error
  for name in WRAPPERS:
    if isinstance(stored, dict) and isinstance(stored.get(name), dict):
      stored = stored[name]
  if not isinstance(stored, dict) or not any(hasattr(value, "numpy") for value in stored.values()):
    raise ValueError(f"--input={path} holds no dict of tensors, nor one under {', '.join(WRAPPERS)}")
  return {name: _array(value) for name, value in stored.items() if hasattr(value, "numpy")}, ""


def _array(tensor: Any) -> np.ndarray:
  tensor = tensor.detach()
  return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def need(package: str):
  """The package. Raises ValueError with the command that installs it."""
  try:
    found = importlib.import_module(package)
    if package == "safetensors":
      importlib.import_module("safetensors.numpy")
    return found
  except ImportError as error:
    raise ValueError(
      f"this kind of file needs {package}, which is not installed; pip install 'ssl_jax[import]'"
    ) from error
