"""Reads tensors from files of other libraries and writes such files. No code in a file is ever executed."""

from __future__ import annotations

import importlib
import json
import pathlib
import re
import zipfile
import zlib
from typing import Any

import numpy as np

Tensors = dict[str, np.ndarray]
NOTE = "ssl_jax"  # name of the entry beside the tensors that holds the config of the network, as JSON
# Keys under which training scripts store the weights beside the rest of their state.
WRAPPERS = ("state_dict", "model", "model_state_dict")
_BROKEN = (ValueError, OSError, EOFError, MemoryError, zlib.error, zipfile.BadZipFile)
TORCH = (".pth", ".pt", ".tar", ".bin")


def read_tensors(path: str | pathlib.Path) -> tuple[Tensors, dict[str, Any]]:
  """Reads a .safetensors, .npz or PyTorch checkpoint.

  Returns: (the tensors by name, float32 unless they are integer or bool; the note of `write_tensors` or {}).
  Raises: ValueError if the file is missing, broken or of an unknown type, or holds objects besides
    tensors.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise ValueError(f"--input={path}: there is no such file")
  readers = {".npz": _npz, ".safetensors": _safetensors, **dict.fromkeys(TORCH, _torch)}
  if path.suffix not in readers:
    raise ValueError(f"--input={path}: files of this type cannot be read; use {', '.join(readers)}")
  found, note = readers[path.suffix](path)
  try:
    opened = json.loads(note or "{}")
    if not isinstance(opened, dict):
      raise ValueError(f"it is a {type(opened).__name__}")
  except ValueError as error:
    raise ValueError(
      f"--input={path}: its entry {NOTE!r} is not the note of `ssl-jax export`, a JSON object: {error}; "
      "export the run again"
    ) from error
  return {name: _numbers(value, f"--input={path}: {name}") for name, value in found.items()}, opened


def _numbers(value: np.ndarray, what: str) -> np.ndarray:
  """Integers and booleans as they are, other real numbers as float32, infinite if they are out of range."""
  if value.dtype.kind in "iub":
    return value
  # ml_dtypes' numbers, such as bfloat16, have kind "V"; so do records, which are not numbers.
  if value.dtype.kind == "f" or (value.dtype.kind == "V" and np.can_cast(value.dtype, np.float32)):
    with np.errstate(over="ignore"):
      return value.astype(np.float32)
  raise ValueError(
    f"{what} has the type {value.dtype}, whose values cannot be read as real numbers; store it as float32"
  )


def write_tensors(path: pathlib.Path, tensors: Tensors, note: dict[str, Any]) -> None:
  """Writes .npz or .safetensors, with `note` (the config of the network) under the name NOTE."""
  if path.suffix == ".npz":
    np.savez(path, **tensors, **{NOTE: np.array(json.dumps(note))})  # pyright: ignore[reportArgumentType]
  else:
    content = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    # safetensors' save_file would make the file readable only by its owner.
    path.write_bytes(need("safetensors").numpy.save(content, {NOTE: json.dumps(note)}))


def _npz(path: pathlib.Path) -> tuple[Tensors, str]:
  try:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
      found = dict(stored)
  # TypeError: the file is a single array, not an archive. RuntimeError: an encrypted archive.
  except (*_BROKEN, TypeError, RuntimeError) as error:
    raise ValueError(f"--input={path} cannot be read as arrays: {error}") from error
  for name, value in found.items():
    if not isinstance(value, np.ndarray):
      raise ValueError(
        f"--input={path}: {name} is not an array, so the file is no .npz; a checkpoint of PyTorch needs a "
        "name that ends in .pth"
      )
  return found, str(found.pop(NOTE, ""))


def _safetensors(path: pathlib.Path) -> tuple[Tensors, str]:
  package = need("safetensors")
  try:
    with package.safe_open(path, framework="numpy") as stored:
      return {name: stored.get_tensor(name) for name in stored.keys()}, (stored.metadata() or {}).get(
        NOTE, ""
      )
  # KeyError: a dtype that numpy does not have.
  except (package.SafetensorError, OSError, KeyError, TypeError) as error:
    raise ValueError(f"--input={path} cannot be read as safetensors: {error}") from error


def _torch(path: pathlib.Path) -> tuple[Tensors, str]:
  torch = need("torch")
  try:
    stored = torch.load(path, map_location="cpu", weights_only=True)
  except Exception as error:  # torch.load raises many types of exceptions, including pickle's
    raise ValueError(
      f"--input={path} cannot be read as a file of tensors only: {_load_error(str(error), path)}"
    ) from error
  for name in WRAPPERS:
    if isinstance(stored, dict) and isinstance(stored.get(name), dict):
      stored = stored[name]
  if not _holds_tensors(stored):
    raise ValueError(
      f"--input={path} holds no dict of tensors, neither at the top nor under {', '.join(WRAPPERS)}"
      + _entries(stored, path)
    )
  return {
    name: _array(value, f"--input={path}: {name}") for name, value in stored.items() if _is_tensor(value)
  }, ""


def _load_error(text: str, path: pathlib.Path) -> str:
  """What torch.load's message says, in one line and without control sequences, and what to do."""
  text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)
  if found := re.search(r"[Uu]nsupported (?:global: GLOBAL|class) ([\w.]+)", text):
    kind = found[1].rstrip(".")
    whose = ", the options of the training script," if kind == "argparse.Namespace" else ""
    return (
      f"it also holds a {kind}{whose} and no object but tensors is ever loaded, because that could execute "
      'code; if you trust the file, store its tensors alone: python -c "import torch; found = '
      f"torch.load({str(path)!r}, map_location='cpu', weights_only=False); torch.save(found.get('model') or "
      f"found.get('state_dict') or found, '{path.stem}_tensors.pth')\""
    )
  reason = re.search(r"WeightsUnpickler error:.*", text) or re.search(r"\S.*", text)
  return f"{reason[0].strip() if reason else 'it is broken'}; use an undamaged file that torch.save wrote"


def _is_tensor(value: Any) -> bool:
  return hasattr(value, "numpy")


def _holds_tensors(stored: Any) -> bool:
  return isinstance(stored, dict) and any(map(_is_tensor, stored.values()))


def _entries(stored: Any, path: pathlib.Path) -> str:
  """What the file holds instead of tensors, and what to do."""
  if not isinstance(stored, dict):
    return (
      f", but a {type(stored).__name__}; store a dict of tensors by name: torch.save(model.state_dict(), ...)"
    )
  known = [str(name) for name, value in stored.items() if _holds_tensors(value)]
  if not known:
    return f", but {', '.join(map(str, stored)) or 'nothing'}; store a dict of tensors by name"
  return (
    f", but under {', '.join(known)}; store one of them alone: torch.save(torch.load({str(path)!r}, "
    f"map_location='cpu')[{known[0]!r}], '{known[0]}.pth')"
  )


def _array(tensor: Any, what: str) -> np.ndarray:
  tensor = tensor.detach()
  try:
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()
  except (TypeError, RuntimeError) as error:  # a sparse or quantized tensor
    reason = str(error).partition("\n")[0]
    raise ValueError(f"{what} is no plain array of numbers ({reason}); store it dense, as float32") from error


def need(package: str):
  """Imports a package. Raises: ValueError with the command that installs it, if it is missing."""
  try:
    found = importlib.import_module(package)
    if package == "safetensors":
      importlib.import_module("safetensors.numpy")
    return found
  except ImportError as error:
    raise ValueError(
      f"this type of file needs {package}, which is not installed; pip install 'ssl_jax[import]'"
    ) from error
