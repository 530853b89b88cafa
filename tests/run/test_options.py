"""Options, and pairs of them, that make no sense: each is refused with a sentence that names it, and no run
begins.
"""

import math

import pytest

from ssl_jax.config.recipe_builder import recipe
from ssl_jax.config.schema import TrainConfig, check
from ssl_jax.run.train import train

DATA = dict(name="synthetic", split="train[:64]", size=16)
MOCO = dict(
  method=dict(name="moco", dim=16, mlp=True, queue_size=64, momentum=0.9, temperature=0.2),
  encoder=dict(name="resnet10", width=8, stem="small"),
  augment=dict(name="moco_v2", views=2, size=16),
  optimizer=dict(learning_rate=0.05),
  data=DATA,
  batch_size=32,
  epochs=1.0,
)
ROTATION = MOCO | dict(
  method=dict(name="rotation"), augment=dict(name="padded_crop", views=1, size=16, pad=4)
)
VIT = dict(name="vit_tiny", patch=4, image_size=16, drop_path=0.1)

TABLE = [
  # (options by dotted path, what the message must say)
  ({"epochs": math.inf}, "config.epochs is inf"),
  ({"epochs": math.nan}, "config.epochs is not a number"),
  ({"epochs": 1e300}, "less than 2^31".replace("^", r"\^")),
  ({"epochs": 0.0}, "config.epochs is 0.0"),
  ({"seed": 2**63}, "config.seed is 9223372036854775808"),
  ({"seed": -1}, "config.seed is -1"),
  ({"batch_size": 0}, "config.batch_size is 0"),
  ({"batch_size": -4}, "config.batch_size is -4"),
  ({"batch_size": 128}, "config.batch_size 128 is larger than the data set"),
  ({"accumulate": 0}, "config.accumulate is 0"),
  ({"accumulate": 3}, "accumulate"),
  ({"log_every": 0}, "config.log_every is 0"),
  ({"data.size": 0}, "config.data.size is 0"),
  ({"data.size": -16}, "config.data.size is -16"),
  ({"data.workers": -1}, "config.data.workers is -1"),
  ({"data.max_bad_fraction": -0.5}, "config.data.max_bad_fraction is -0.5"),
  ({"data.split": "train[:0]"}, "train"),
  ({"augment.size": 0}, "config.augment.size is 0"),
  ({"augment.size": -3}, "config.augment.size is -3"),
  ({"augment.views": 0}, "config.augment.views is 0"),
  ({"augment.views": 1}, "config.augment.views is 1"),
  ({"optimizer.learning_rate": math.nan}, "config.optimizer.learning_rate is not a number"),
  ({"optimizer.learning_rate": math.inf}, "config.optimizer.learning_rate is inf"),
  ({"optimizer.warmup_epochs": math.inf}, "config.optimizer.warmup_epochs is inf"),
  ({"method.queue_size": 0}, "queue_size"),
  ({"method.queue_size": 63}, "queue_size"),
  ({"method.temperature": 0.0}, "temperature"),
  ({"method.temperature": -1.0}, "temperature"),
  ({"method.dim": 0}, "a width or number in config.method or config.encoder is 0"),
  ({"method.momentum": 1.5}, "momentum"),
  ({"encoder.width": 0}, "a width or number in config.method or config.encoder is 0"),
  ({"encoder.batch_groups": 3}, "batch_groups"),
  ({"encoder": VIT}, "config.encoder.drop_path is 0.1"),
  ({"method": dict(name="simclr"), "encoder": VIT}, "config.encoder.drop_path is 0.1"),
]


@pytest.mark.parametrize("changes, message", TABLE, ids=lambda value: str(value)[:60].replace("/", "_"))
def test_senseless_options_are_refused_with_a_sentence_and_no_run_begins(tmp_path, changes, message):
  config = recipe(
    TrainConfig, **{**MOCO, **{k: v for k, v in changes.items() if "." not in k and isinstance(v, dict)}}
  )
  with pytest.raises(ValueError, match=message) as refused:
    for path, value in changes.items():
      if not isinstance(value, dict):
        *sections, option = path.split(".")
        section = config
        for name in sections:
          section = section[name]
        section[option] = value
    train(check(TrainConfig, config.to_dict()), tmp_path)
  assert len(str(refused.value)) < 1500
  assert not list(tmp_path.glob("checkpoints/*"))
