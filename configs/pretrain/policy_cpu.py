r"""A policy of cartpole swing-up from pictures, cloned, for two CPU cores.

Command:   ssl-jax prepare trajectories size=72 episodes=24 noise=0.2 --output=DIR
           ssl-jax train --config=configs/pretrain/policy_cpu.py:VARIANT --workdir=RUN \
             --config.data.data_dir=DIR
           ssl-jax prepare trajectories size=72 episodes=16 policy=RUN earlier=DIR --output=DIR1
           ssl-jax train --config=configs/pretrain/policy_cpu.py:VARIANT --workdir=RUN1 \
             --config.data.data_dir=DIR1
           two more rounds of DAgger in the same way; then configs/ttt/deployment.py.
Variants:  inverse_dynamics, rotation: the task on the shared convolutions.
Hardware:  two CPU cores.
Differs:   5 convolutions of 16 channels, of which 3 are shared, and crops of 64 pixels of 72; published are
           11 convolutions of 32 channels, 8 shared, and 84 of 100.
Measured:  docs/results.md
"""

from ssl_jax import check_variant, recipe

VARIANTS = ("inverse_dynamics", "rotation")


def get_config(variant="inverse_dynamics"):
  check_variant(variant, VARIANTS, __file__)
  return recipe(
    method=dict(name="policy", task=variant, branch="conv3", weight=1.0, hidden=256, size=64),
    encoder=dict(name="pixel_encoder", depth=5, channels=16, features=100),
    host=dict(name="transition", frames=3, actions=1),
    augment=dict(name="transition_crop", views=1, size=64),
    optimizer=dict(name="adamw", learning_rate=1e-3, schedule="cosine"),
    data=dict(name="trajectories", split="train", size=72, cache=True),
    checkpoint=dict(every_steps=500, keep=1),
    batch_size=128,
    epochs=20,
    log_every=20,
  )
