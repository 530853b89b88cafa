"""The lock of a run: who is refused, whose lock is taken over, and that readers need none."""

import json
import pathlib
import re
import signal
import subprocess
import sys
import threading

import pytest

from ssl_jax.run import lock as module
from ssl_jax.run.lock import FILE, Lock, LockLost
from ssl_jax.run.restore import restore
from ssl_jax.run.train import train
from tests.recipes import save
from tests.run.test_restore import mae, one_device  # noqa: F401

HOLD = """
import sys, time
from ssl_jax.run.lock import Lock
with Lock(sys.argv[1]):
  print("locked", flush=True)
  time.sleep(1000)
"""
FOR_EVER = 10_000.0  # a test that watched a lock for so long would be seen


def write(workdir: pathlib.Path, **changes) -> pathlib.Path:
  """Writes the lock of another holder."""
  path = workdir / FILE
  path.write_text(json.dumps({**module._me(), "token": "other", **changes}))
  return path


def elsewhere(workdir: pathlib.Path) -> pathlib.Path:
  return write(workdir, host="pod-3", machine="pod-3 another boot", pid=7)


def test_a_second_training_is_refused_by_host_and_number(tmp_path):
  with Lock(tmp_path):
    me = f"process {module._me()['pid']} on {module._me()['host']}"
    with pytest.raises(
      ValueError, match=rf"{me} trains in {tmp_path} \(its lock is .*\). Wait for its end or stop it, or use"
    ):
      Lock(tmp_path, patience=FOR_EVER).__enter__()
  assert not list(tmp_path.iterdir())
  with Lock(tmp_path):
    pass


def test_training_needs_the_lock_and_reading_does_not(tmp_path):
  save(mae(), tmp_path, steps=(4,))
  with Lock(tmp_path):
    with pytest.raises(ValueError, match="trains in .*use another --workdir"):
      train(mae(), tmp_path)
    assert restore(tmp_path).step == 4
  train(mae(), tmp_path)
  assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize("reaped", [True, False])
def test_the_lock_of_a_killed_process_is_taken_over_at_once(tmp_path, reaped, capsys):
  holder = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True)
  assert holder.stdout.readline() == "locked\n"
  with pytest.raises(ValueError, match=f"process {holder.pid} on "):
    Lock(tmp_path, patience=FOR_EVER).__enter__()
  holder.send_signal(signal.SIGKILL)
  holder.stdout.read()  # until it is dead
  if reaped:
    holder.wait()
  else:  # it is dead once it is a zombie
    while not re.search(r"\) Z ", pathlib.Path(f"/proc/{holder.pid}/stat").read_text()):
      pass
  with Lock(tmp_path, patience=FOR_EVER):
    assert f"took over the lock of process {holder.pid} on " in capsys.readouterr().out
  holder.wait()
  holder.stdout.close()


def test_a_number_that_another_process_has_now_is_not_the_holder(tmp_path):
  write(tmp_path, began="1")
  with Lock(tmp_path, patience=FOR_EVER):
    pass


def test_a_holder_elsewhere_that_gives_heartbeats_is_respected(tmp_path):
  path, ended = elsewhere(tmp_path), threading.Event()

  def beat():
    while not ended.wait(0.01):
      path.touch()

  beating = threading.Thread(target=beat)
  beating.start()
  try:
    with pytest.raises(ValueError, match="process 7 on pod-3 trains in "):
      Lock(tmp_path, patience=20).__enter__()
  finally:
    ended.set()
    beating.join()
  assert path.exists()


@pytest.mark.parametrize("content", [None, ""])
def test_a_holder_elsewhere_that_is_silent_is_replaced(tmp_path, content, capsys):
  path = elsewhere(tmp_path)
  if content is not None:
    path.write_text(content)  # of a process that died before it had written more
  with Lock(tmp_path, patience=0.2):
    assert "waiting up to 0 s for its heartbeat" in capsys.readouterr().out
  assert not list(tmp_path.iterdir())


def test_the_holder_gives_heartbeats(tmp_path):
  with Lock(tmp_path, beat=0.01):
    first = module.read(tmp_path / FILE)
    while module.read(tmp_path / FILE) == first:  # a missing heartbeat never ends
      pass
    (tmp_path / FILE).unlink()
    while (now := module.read(tmp_path / FILE)) is None or now.content != first.content:
      pass


def test_one_whose_lock_was_taken_over_stops_and_leaves_the_lock(tmp_path):
  with Lock(tmp_path) as lock:
    lock.check()
    elsewhere(tmp_path)
    with pytest.raises(LockLost, match="process 7 on pod-3 has taken over .* stops without saving"):
      lock.check()
  assert "pod-3" in (tmp_path / FILE).read_text()


def test_of_many_that_find_a_stale_lock_one_gets_it(tmp_path):
  write(tmp_path, began="1")
  together, ended, got = threading.Barrier(8), threading.Barrier(8), []

  def take():
    together.wait()
    try:
      with Lock(tmp_path, patience=FOR_EVER):
        got.append(True)
        ended.wait()
    except ValueError:
      ended.wait()

  takers = [threading.Thread(target=take) for _ in range(8)]
  for taker in takers:
    taker.start()
  for taker in takers:
    taker.join()
  assert got == [True] and not list(tmp_path.iterdir())
