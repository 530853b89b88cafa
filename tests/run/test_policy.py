"""The whole system: record an expert, clone it, let it be corrected, deploy the policy, report."""

import json

import pytest

from ssl_jax.config.schema import EvaluateConfig, TrainConfig, check, to_json
from ssl_jax.run import prepare
from ssl_jax.run.evaluate import evaluate
from ssl_jax.run.train import train
from ssl_jax.view.report import report
from tests.recipes import evaluate_recipes, shrunk, train_recipes

SIDE = 16
SHORT = ["size=16", "repeat=50", "episodes=2", "test_episodes=1", "together=2"]


def small(data_dir) -> TrainConfig:
  config = shrunk(train_recipes()["pretrain/policy_cpu.py:inverse_dynamics"], batch=16, size=SIDE)
  config["data"] |= dict(name="trajectories", data_dir=str(data_dir), cache=True)
  return check(TrainConfig, {**config, "epochs": 4.0, "log_every": 2})


def deployed(**options) -> EvaluateConfig:
  config = to_json(evaluate_recipes()["ttt/deployment.py:cartpole_swingup"])
  config["tasks"]["deployment"] |= dict(
    worlds=["train", "colours_hard"], episodes=2, copies=4, repeat=50, **options
  )
  return check(EvaluateConfig, config)


@pytest.fixture(scope="module")
def rounds(simulator, tmp_path_factory):
  """(The folder of the first recording, of the first run, of a round of DAgger)."""
  root = tmp_path_factory.mktemp("policy")
  prepare.record([*SHORT, "noise=0.3"], str(root / "d0"))
  train(small(root / "d0"), root / "r0")
  prepare.record([*SHORT, f"policy={root / 'r0'}", f"earlier={root / 'd0'}"], str(root / "d1"), seed=1)
  return root / "d0", root / "r0", root / "d1"


def test_a_policy_is_deployed_and_reported(rounds):
  _, run, _ = rounds
  table = evaluate(deployed(), run)
  assert next(iter(table["policy"]["deployment"])) == "score"
  (path,) = (run / "evaluations").glob("*/deployment-policy.json")
  found = json.loads(path.read_text())
  assert found["protocol"]["cells"].keys() == {"train", "colours_hard"}
  assert {"frozen", "adapted", "shuffled"} == found["protocol"]["cells"]["train"].keys()
  assert found["protocol"]["trainable"] == ["encoder", "task"] and found["protocol"]["repeat"] == 50
  assert path.with_suffix(".gif").exists() and path.with_suffix(".png").exists()
  assert "The first episode of each world: frozen, adapted, shuffled" in report([run]).read_text()


def test_a_round_of_dagger_tells_who_acted_and_can_be_learned_from(rounds, tmp_path):
  first, run, second = rounds
  statistics = json.loads((second / "trajectories" / "statistics.json").read_text())
  assert statistics["policy"] == str(run) and statistics["policy_step"] > 0
  assert statistics["earlier"] == str(first) and statistics["records"]["train"] == 40
  train(small(second), tmp_path)
  with pytest.raises(ValueError, match="sees 3 frames of 16 pixels, .*; use frames=3 size=16"):
    prepare.record([*SHORT[1:], "size=24", f"policy={run}"], str(tmp_path / "d"))
