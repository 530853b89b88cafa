"""What a study may say, and how it is told of a mistake before anything is trained."""

import runpy

import pytest

from ssl_jax import define_study
from ssl_jax.cli.main import main
from ssl_jax.config.schema import EvaluateConfig, TrainConfig
from ssl_jax.studies.definition import narrowed
from ssl_jax.studies.jobs import make_jobs, resolve
from ssl_jax.studies.runner import load_study, study
from tests.recipes import CONFIGS
from tests.studies import tiny

MOCO, KNN = "pretrain/moco_sample.py", "transfer/knn.py"
RUNS = dict(moco=dict(config=MOCO))
EVALUATIONS = dict(knn=dict(config=KNN))


@pytest.mark.parametrize(
  "changes, message",
  [
    (dict(runs={}), "the study has no runs"),
    (dict(runs={"a b": dict(config=MOCO)}), "runs has the name 'a b'; use letters"),
    (dict(runs=dict(moco=dict(confg=MOCO))), r"runs.moco.confg is unknown; did you mean 'config'"),
    (dict(runs=dict(moco=dict(config=MOCO, seeds=(1, 1)))), r"runs.moco.seeds is \(1, 1\); use distinct"),
    (
      dict(runs=dict(moco=dict(config=MOCO, evaluations=("kn",)))),
      "evaluations has 'kn'; did you mean 'knn'",
    ),
    (dict(runs=dict(moco=dict(config=MOCO, start="mocc"))), "start is 'mocc'; did you mean 'moco'"),
    (dict(runs=dict(moco=dict(config=MOCO, start="moco"))), "start leads back to 'moco'"),
    (dict(comparisons=["moco"]), "comparisons has 'moco'; use a pair"),
    (dict(comparisons=[("moco", "mocco")]), "'mocco', but no run is called so; did you mean 'moco'"),
  ],
)
def test_names_that_do_not_agree(changes, message):
  with pytest.raises(ValueError, match=message):
    define_study(**{**dict(runs=RUNS, evaluations=EVALUATIONS), **changes})


def test_a_run_needs_the_seeds_of_the_run_that_it_starts_from():
  runs = dict(first=dict(config=MOCO, seeds=(0,)), second=dict(config=MOCO, start="first", seeds=(0, 1)))
  with pytest.raises(ValueError, match="runs.second has seed 1, but runs.first, which it starts from, does"):
    define_study(runs=runs, evaluations=EVALUATIONS)


@pytest.mark.parametrize(
  "changes, message",
  [
    (
      dict(runs=dict(moco=dict(config="pretrain/moco_sampel.py"))),
      "runs.moco.config=.*mean 'pretrain/moco_sa",
    ),
    (dict(runs=dict(moco=dict(config=KNN))), "is the recipe of an evaluation; use the recipe of a training"),
    (dict(runs=dict(moco=dict(config=MOCO + ":x"))), "the file has no variants; leave out ':x'"),
    (
      dict(runs=dict(moco=dict(config=MOCO, overrides={"method.mpl": False}))),
      "runs.moco.overrides has 'method.mpl', .* did you mean 'method.mlp'",
    ),
    (
      dict(runs=dict(moco=dict(config=MOCO, overrides={"epochs": "many"}))),
      "runs.moco: config.epochs is 'many' of type str",
    ),
    (
      dict(runs=dict(moco=dict(config=MOCO, overrides={"augment": "moco_v1"}))),
      "augment is a section; use a dict",
    ),
    (
      dict(runs=dict(moco=dict(config=MOCO, overrides={"batch_size": 10**6}))),
      "runs.moco: config.batch_size 1000000 is larger than the data set",
    ),
    (
      dict(evaluations=dict(knn=dict(config=KNN, scalars=("kn.top1",)))),
      "scalars has 'kn.top1', but no task .* is called 'kn'; did you mean 'knn'",
    ),
    (dict(evaluations=dict(knn=dict(config=KNN, scalars=("top1",)))), "write TASK.SCALAR"),
    (dict(evaluations=dict(a=dict(config=KNN), b=dict(config=KNN))), "'a' and 'b' both have a task 'knn'"),
    (dict(comparisons=[("moco", "moco:pixel")]), "the baseline 'pixel'; did you mean 'pixels'"),
  ],
)
def test_mistakes_are_told_before_anything_is_trained(changes, message, tmp_path):
  found = define_study(**{**dict(runs=RUNS, evaluations=EVALUATIONS), **changes})
  with pytest.raises(ValueError, match=message):
    study(found, tmp_path / "out")
  assert not (tmp_path / "out").exists()


def test_overrides_replace_options_and_whole_sections():
  section = dict(name="moco_v1", views=2, size=32)
  config = resolve(TrainConfig, MOCO, {"method.mlp": False, "augment": section}, "runs.a")
  assert config.method["mlp"] is False
  assert config.augment == {**section, "scale": (0.2, 1.0), "crop": True}  # the sample's scale is not kept
  other = resolve(EvaluateConfig, tiny.knn(), {"tasks.knn.k": 3}, "evaluations.knn")
  assert other.tasks["knn"]["k"] == 3


def test_jobs_carry_their_seed_and_where_they_start(tmp_path):
  runs = dict(first=dict(config=tiny.training()), second=dict(config=tiny.training(), start="first"))
  jobs = make_jobs(
    define_study(runs=runs, evaluations=dict(knn=dict(config=tiny.knn())), seeds=(2, 5)), tmp_path
  )
  assert [job.name for job in jobs] == [f"{run}, seed {seed}" for run in runs for seed in (2, 5)]
  last = jobs[-1]
  assert last.config.seed == last.evaluations["knn"].seed == 5 and last.start == ("first", 5)
  assert last.config.start.workdir == str(jobs[1].folder) and last.total_steps == 300


def test_a_user_names_the_data_and_the_seeds(tmp_path):
  runs = dict(
    a=dict(config=tiny.training()), b=dict(config=tiny.training(), overrides={"data.data_dir": "x"})
  )
  study = define_study(runs=runs, evaluations=dict(knn=dict(config=tiny.knn())))
  assert narrowed(study) == study
  jobs = make_jobs(narrowed(study, data_dir="mine", seeds=[4]), tmp_path)
  assert [(job.name, job.config.data.data_dir) for job in jobs] == [("a, seed 4", "mine"), ("b, seed 4", "x")]
  with pytest.raises(ValueError, match=r"--seeds is \(1, 1\); use distinct"):
    narrowed(study, seeds=[1, 1])


def test_every_study_of_the_package_is_made(tmp_path):
  """Every override is an option of its recipe, and every evaluated task exists; the data are not opened."""
  names = []
  for file in sorted(CONFIGS.glob("studies/*.py")):
    variants = runpy.run_path(str(file)).get("VARIANTS", ("",))
    names += [f"studies/{file.name}" + (f":{variant}" if variant else "") for variant in variants]
  assert len(names) > 8
  for name in names:
    found = load_study(name)
    for run, each in found.runs.items():
      resolve(TrainConfig, each.config, each.overrides, run)
    for evaluation, each in found.evaluations.items():
      config = resolve(EvaluateConfig, each.config, each.overrides, evaluation)
      assert {scalar.partition(".")[0] for scalar in each.scalars} <= {*config.tasks}


def test_the_study_of_the_sample_has_four_runs_of_three_seeds(tmp_path):
  jobs = make_jobs(load_study("studies/sample.py"), tmp_path)
  assert len(jobs) == 12 and len({job.run for job in jobs}) == 4
  assert len({job.total_steps for job in jobs}) == 1


def test_a_misspelt_study_is_refused_by_the_command_line(capsys, monkeypatch, tmp_path):
  monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
  words = ["ssl-jax", "study", "--study=studies/sampel.py", f"--output={tmp_path}"]
  monkeypatch.setattr("sys.argv", words)
  with pytest.raises(SystemExit) as ended:
    main()
  assert ended.value.code == 1 and "did you mean 'studies/sample.py'" in capsys.readouterr().err
  monkeypatch.setattr(
    "sys.argv", ["ssl-jax", "study", "--study=studies/sample.py", f"--output={tmp_path}", "--seeds=a"]
  )
  with pytest.raises(SystemExit):
    main()
  assert "--seeds=a is not a list of numbers; use one such as 0,1,2" in capsys.readouterr().err


def test_a_recipe_is_not_a_study():
  with pytest.raises(ValueError, match="has no function 'get_study'"):
    load_study(KNN)
