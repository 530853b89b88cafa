"""Batches do not depend on what loads them.

Bad files are named, replaced and counted, and no thread or process is left running.
"""

import dataclasses
import hashlib
import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from ssl_jax.data import host, pipeline, sources, transforms
from ssl_jax.data.elements import ShapeDtype
from ssl_jax.data.shared_buffers import make_shared_buffers

from .conftest import encoded

CROP = host.ImageAndLabel(transforms.random_resized_crop(12, views=2))
WHOLE = host.ImageAndLabel(transforms.resize_center_crop(8))


@pytest.fixture(scope="module")
def synthetic():
  return sources.make("synthetic", split="train[:50]", image_size=16)


def train(source, **options):
  settings = {"batch_size": 8, "seed": 1, "start": 0, "stop": 14, "transform": CROP, **options}
  return pipeline.train_batches(source, **settings)


def digests(batches):
  with batches:
    found = list(batches)
  return [hashlib.sha256(batch["image"].tobytes() + batch["label"].tobytes()).hexdigest() for batch in found]


@pytest.fixture(scope="module")
def expected(synthetic):
  return digests(train(synthetic, threads=1))


@pytest.fixture
def levels(tmp_path):
  """Makes a source of files; image i has grey level i, and the files in `bad` are damaged in several ways."""

  def make(count: int, bad: tuple[int, ...] = ()):
    for i in range(count):
      data = encoded(np.full((8, 8, 3), i, np.uint8))
      damaged = (b"", data[:40], b"no image at all")[i % 3]
      (tmp_path / f"{i:03d}.png").write_bytes(damaged if i in bad else data)
    return sources.make("folder", data_dir=str(tmp_path))

  return make


def shown(batches):
  """Returns the grey levels that were delivered, batch by batch."""
  with batches:
    return [batch["image"][:, 0, 0, 0].tolist() for batch in batches]


def test_shapes_and_order(synthetic):
  with train(synthetic) as batches:
    found = list(batches)
  assert len(found) == 14 and set(found[0]) == {"image", "label"}
  assert found[0]["image"].shape == (8, 2, 12, 12, 3) and found[0]["image"].dtype == np.uint8
  assert found[0]["label"].shape == (8,) and found[0]["label"].dtype == np.int32
  labels = np.concatenate([batch["label"] for batch in found[:6]])  # an epoch has 6 batches of 8
  order = np.random.default_rng((1, 0)).permutation(50)[:48]
  np.testing.assert_array_equal(labels, [synthetic[i]["label"] for i in order])


def test_crops_are_drawn_from_seed_epoch_and_place(synthetic):
  with train(synthetic, start=7, stop=8) as batches:
    batch = next(batches)
  index = np.random.default_rng((1, 1)).permutation(50)[8 + 3]
  made = CROP(np.random.default_rng((1, 1, 1 + 8 + 3)), synthetic[index])
  np.testing.assert_array_equal(batch["image"][3], made["image"])


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_do_not_change_a_byte(synthetic, expected, threads):
  assert digests(train(synthetic, threads=threads)) == expected


def test_workers_do_not_change_a_byte_and_leave_nothing_behind(synthetic, expected, levels, caplog):
  assert digests(train(synthetic, workers=2)) == expected
  source = levels(40, bad=(3, 4))
  with caplog.at_level(logging.WARNING):
    with train(source, transform=WHOLE, workers=2, stop=10, max_bad_fraction=0.1) as batches:
      found = [batch["image"][:, 0, 0, 0].tolist() for batch in batches]
      assert batches.input_rate() > 0
  assert found == shown(train(source, transform=WHOLE, stop=10, max_bad_fraction=0.1))
  assert sorted(os.path.basename(name) for name in batches.bad) == ["003.png", "004.png"]
  with train(synthetic, workers=2, stop=10**6) as batches:  # stopped in the middle
    next(batches)
    children = multiprocessing.active_children()
    name = batches._buffers.name
  assert len(children) == 2 and not any(child.is_alive() for child in children)
  assert not os.path.exists(f"/dev/shm/{name}")


@pytest.mark.parametrize("start", [5, 6, 13])
def test_starting_late_equals_skipping(synthetic, expected, start):
  assert digests(train(synthetic, start=start)) == expected[start:]


@dataclasses.dataclass(frozen=True, eq=False)
class CountingReader:
  """Records what is read."""

  origin: object
  read_indices: list

  def __len__(self):
    return len(self.origin)

  def read(self, indices):
    self.read_indices.extend(indices)
    return self.origin.read(indices)

  def name(self, index):
    return self.origin.name(index)


def test_starting_late_reads_only_what_is_asked(synthetic):
  reader = CountingReader(synthetic.reader, [])
  with train(dataclasses.replace(synthetic, reader=reader), start=10_000, stop=10_003) as batches:
    assert sum(1 for _ in batches) == 3
  assert len(reader.read_indices) == 3 * 8


@pytest.mark.parametrize("kind", ["train", "eval"])
def test_two_processes_read_the_same_global_batches(synthetic, kind):
  def read(**options):
    if kind == "train":
      return list(train(synthetic, stop=7, **options))
    return list(pipeline.eval_batches(synthetic, batch_size=16, transform=WHOLE, **options))

  size = 8 if kind == "train" else 16
  whole, parts = read(), [read(positions=range(p, size, 2)) for p in range(2)]  # interleaved devices
  assert len(whole) == len(parts[0]) == len(parts[1])
  for one, *shares in zip(whole, *parts):
    for key in one:
      for p, share in enumerate(shares):
        np.testing.assert_array_equal(share[key], one[key][p::2])


def test_evaluation_pads_and_masks(synthetic):
  with pipeline.eval_batches(synthetic, batch_size=16, transform=WHOLE) as batches:
    found = list(batches)
  assert len(found) == 4 and {len(batch["image"]) for batch in found} == {16}
  mask = np.concatenate([batch["valid"] for batch in found])
  assert mask.tolist() == [True] * 50 + [False] * 14
  np.testing.assert_array_equal(np.concatenate([batch["index"] for batch in found])[mask], np.arange(50))
  labels = np.concatenate([batch["label"] for batch in found])
  np.testing.assert_array_equal(labels[mask], [record["label"] for record in synthetic])
  assert not found[-1]["image"][~found[-1]["valid"]].any()
  for i in (0, 17, 49):
    np.testing.assert_array_equal(found[i // 16]["image"][i % 16], WHOLE(None, synthetic[i])["image"])


def test_bad_files_are_replaced_by_the_next_and_named_once(levels, caplog):
  source = levels(40, bad=(3, 10, 11, 39))
  with caplog.at_level(logging.WARNING):
    batches = train(source, transform=WHOLE, stop=15, max_bad_fraction=0.1)
    found = shown(batches)
  order = np.concatenate([np.random.default_rng((1, epoch)).permutation(40) for epoch in range(3)])
  instead = {3: 4, 10: 12, 11: 12, 39: 0}
  assert sum(found, []) == [instead.get(i, i) for i in order.tolist()]
  named = sorted(os.path.basename(name) for name in batches.bad)
  assert named == ["003.png", "010.png", "011.png", "039.png"]
  warnings = [record.getMessage() for record in caplog.records]
  assert len(warnings) == 4  # although each was met in three epochs
  assert any("010.png cannot be decoded and is left out" in warning for warning in warnings)


def test_the_label_is_that_of_the_replacement(class_folder, tmp_path):
  shutil.copytree(class_folder, tmp_path / "x")
  (tmp_path / "x" / "ant" / "3.png").write_bytes(b"")
  source = sources.make("folder", data_dir=str(tmp_path / "x"))
  with train(source, batch_size=10, stop=1, transform=WHOLE, max_bad_fraction=0.1) as batches:
    batch = next(batches)
  place = np.random.default_rng((1, 0)).permutation(10).tolist().index(3)
  assert batch["label"][place] == 1 and batch["image"][place, 0, 0, 0] == 100


def test_too_many_bad_files_stop_the_run_with_the_list(levels):
  source = levels(40, bad=(1, 2, 3, 20, 30))
  with pytest.raises(ValueError, match=r"(?s)[45] of 40 images cannot be decoded, 3 are allowed.*\d\d.png: "):
    shown(train(source, transform=WHOLE, max_bad_fraction=0.09))
  with pytest.raises(ValueError, match="1 of 40 images cannot be decoded, 0 are allowed"):
    shown(train(source, batch_size=1, transform=WHOLE, stop=40, max_bad_fraction=0.02))


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_nothing_but_bad_files(levels, fraction):
  with pytest.raises(ValueError, match="of 12 images cannot be decoded"):
    shown(train(levels(12, bad=tuple(range(12))), transform=WHOLE, max_bad_fraction=fraction))


def test_evaluation_masks_bad_files(levels):
  source = levels(20, bad=(3, 19))
  batches = pipeline.eval_batches(source, batch_size=8, transform=WHOLE, max_bad_fraction=0.1)
  with batches:
    found = list(batches)
  mask = np.concatenate([batch["valid"] for batch in found])
  assert np.flatnonzero(~mask).tolist() == [3, 19, 20, 21, 22, 23] and len(batches.bad) == 2
  assert not found[0]["image"][3].any()
  with pytest.raises(ValueError, match="2 of 20 images cannot be decoded, 1 are allowed"):
    list(pipeline.eval_batches(source, batch_size=8, transform=WHOLE, max_bad_fraction=0.05))


def test_bad_images_of_a_cached_source(levels):
  source = levels(20, bad=(3,))
  plain = shown(train(source, transform=WHOLE, stop=4, max_bad_fraction=0.1))
  assert shown(train(sources.cached(source), transform=WHOLE, stop=4, max_bad_fraction=0.1)) == plain


@dataclasses.dataclass(frozen=True)
class Broken:
  """Returns wrong elements, or raises an error."""

  made: dict
  random = False
  elements = {"image": ShapeDtype((8, 8, 3), np.uint8)}

  def __call__(self, rng, record):
    if self.made:
      return self.made
    raise KeyError("a fault of the programmer")


def test_a_faulty_transform_is_no_bad_file(levels):
  with pytest.raises(KeyError, match="a fault of the programmer") as caught:
    shown(train(levels(20), transform=Broken({})))
  assert "while loading" in caught.value.__notes__[0]
  for made, message in (
    (
      {"image": np.zeros((8, 9, 3), np.uint8)},
      r"made image uint8\[8, 9, 3\], but it declares uint8\[8, 8, 3\]",
    ),
    ({"image": np.zeros((8, 8, 3))}, r"made image float64\[8, 8, 3\], but it declares uint8\[8, 8, 3\]"),
    ({"mask": np.zeros((8, 8, 3))}, r"made \['mask'\], but it declares \['image'\]"),
  ):
    with pytest.raises(ValueError, match=message):
      shown(train(levels(20), transform=Broken(made)))
  bad_name = Broken({})
  object.__setattr__(bad_name, "elements", {"valid": ShapeDtype((), np.bool_)})
  with pytest.raises(
    ValueError, match="an element called 'valid', a name that is reserved for evaluation batches"
  ):
    train(levels(20), transform=bad_name)


def loading_threads(names=("decode", "grain-prefetch")):
  return [t for t in threading.enumerate() if t.name.startswith(names)]


def all_end(seconds: float = 60) -> bool:
  """Whether every thread ends. One of Grain's that has not loaded yet may do so a moment after `close`."""
  for thread in loading_threads():
    thread.join(seconds)
  return not loading_threads()


def test_closing_stops_all_threads(synthetic):
  batches = train(synthetic, stop=10**6, threads=3)
  next(batches)
  assert loading_threads()
  batches.close()
  assert not loading_threads("decode")  # it has waited for them
  batches.close()
  assert all_end() and next(batches, None) is None
  batches = train(synthetic, stop=10**6)
  next(batches)
  del batches  # garbage-collected
  assert all_end()
  assert len(list(train(synthetic))) == 14 and all_end()  # read to the end


@dataclasses.dataclass(frozen=True)
class Slow:
  random = False
  elements = {"image": ShapeDtype((8, 8, 3), np.uint8)}
  calls: list[int] = dataclasses.field(default_factory=list, compare=False)

  def __call__(self, rng, record):
    self.calls.append(1)
    time.sleep(0.05)
    return {"image": np.zeros((8, 8, 3), np.uint8)}


def test_closing_does_not_wait_for_the_batch_at_hand(synthetic):
  slow = Slow()
  batches = train(synthetic, batch_size=50, stop=10**6, threads=2, transform=slow)
  next(batches)
  before = len(slow.calls)
  batches.close()
  assert not loading_threads("decode")
  assert len(slow.calls) - before <= 4  # of 50: each thread ends its record, and may just have begun it
  assert all_end()


def test_an_error_in_the_loop_stops_all_threads(synthetic):
  with pytest.raises(KeyboardInterrupt), train(synthetic, stop=10**6) as batches:
    next(batches)
    raise KeyboardInterrupt
  assert all_end()


def test_input_rate(synthetic):
  batches = train(synthetic, threads=1)
  assert np.isnan(batches.input_rate())
  with batches:
    next(batches)
    assert 100 < batches.input_rate() < 1e6


def test_no_steps(synthetic):
  assert list(train(synthetic, start=3, stop=3)) == []


def test_steps_per_epoch(synthetic):
  assert pipeline.steps_per_epoch(synthetic, 8) == 6 and pipeline.steps_per_epoch(synthetic, 50) == 1
  with pytest.raises(ValueError, match="batch_size=51 is more than the 50 images .*; use at most 50"):
    pipeline.steps_per_epoch(synthetic, 51)


@pytest.mark.parametrize(
  "options, message",
  [
    ({"positions": range(4, 12)}, "positions .* are not rows of a batch of batch_size=8"),
    ({"positions": ()}, "positions .* are not rows of a batch of batch_size=8"),
    ({"batch_size": 0}, "batch_size=0; use a positive number"),
    ({"batch_size": 64}, "more than the 50 images"),
    ({"start": 5, "stop": 4}, "start=5 and stop=4"),
    ({"seed": -1}, "seed=-1"),
    ({"workers": -1}, "workers=-1"),
    ({"max_bad_fraction": 1.5}, "max_bad_fraction=1.5"),
  ],
)
def test_errors(synthetic, options, message):
  with pytest.raises(ValueError, match=message):
    train(synthetic, **options)


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="no /dev/shm to run out of")
def test_too_little_shared_memory():
  with pytest.raises(ValueError, match="workers=1000 pass batches of .* MiB through /dev/shm.*--shm-size"):
    make_shared_buffers(1000, {"image": ShapeDtype((2, 1024, 1024, 3), np.uint8)}, 4096)


ORPHANS = """
import multiprocessing, signal, sys, time
from ssl_jax.data import host, pipeline, sources, transforms
if __name__ == "__main__":
  signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it in background processes
  source = sources.make("synthetic")
  batches = pipeline.train_batches(source, batch_size=8, seed=0, start=0, stop=10**6, workers=2,
                                   transform=host.ImageAndLabel(transforms.resize_center_crop(32)))
  next(batches)
  try:
    print(*[child.pid for child in multiprocessing.active_children()], flush=True)
    time.sleep(10**6)
  except KeyboardInterrupt:
    for _ in range(20):
      next(batches)  # the workers ignored the signal
    batches.close()
    print("closed", flush=True)
"""


def started(tmp_path):
  program = tmp_path / "program.py"
  program.write_text(ORPHANS)
  process = subprocess.Popen(
    [sys.executable, str(program)],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,
  )
  return process, [int(pid) for pid in process.stdout.readline().split()]


def running(pid: int) -> bool:
  try:
    with open(f"/proc/{pid}/stat") as stat:
      return stat.read().rpartition(")")[2].split()[0] != "Z"
  except FileNotFoundError:
    return False


def wait_until_gone(pids):
  while any(map(running, pids)):
    time.sleep(0.05)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks up processes in /proc")
def test_workers_do_not_outlive_a_killed_run(tmp_path):
  process, workers = started(tmp_path)
  assert len(workers) == 2 and all(map(running, workers))
  process.kill()
  process.wait()
  wait_until_gone(workers)
  process.communicate()


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks up processes in /proc")
def test_interrupt_reaches_the_main_process_only(tmp_path):
  """Ctrl-C is sent to the whole process group: the workers continue until the main process closes them."""
  process, workers = started(tmp_path)
  os.killpg(process.pid, signal.SIGINT)
  out, err = process.communicate()
  assert (out.strip(), err, process.returncode) == ("closed", "", 0)
  wait_until_gone(workers)
