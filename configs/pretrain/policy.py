r"""Policies from pictures for DeepMind Control, cloned, with a task.

Command:   ssl-jax prepare trajectories environment=cartpole/swingup noise=0.2 --output=DIR
           ssl-jax train --config=configs/pretrain/policy.py:VARIANT --workdir=RUN --config.data.data_dir=DIR
           ssl-jax prepare trajectories environment=cartpole/swingup policy=RUN earlier=DIR --output=DIR1
           ssl-jax train --config=configs/pretrain/policy.py:VARIANT --workdir=RUN1 \
             --config.data.data_dir=DIR1 --config.start.workdir=RUN \
             --config.start.parts='("encoder","policy","task")'
           and so on, some rounds of DAgger; then configs/ttt/deployment.py.
Variants:  the environment, with _rotation for the other task. Only cartpole_swingup has an expert here; for
           the others give expert=MODULE:FUNCTION to `prepare`.
           The network, the crops and the learning rate are the published ones; the published policy learns by
           reinforcement (SAC, 500,000 environment steps), this one is cloned.
Expected:  nothing is published for cloned policies. Returns of the published ones at deployment, without and
           with adaptation by inverse dynamics: changed colours 585, 630 (cartpole swing-up), 406, 468 (walker
           walk), 743, 797 (walker stand), 471, 563 (ball in cup), 757, 803 (finger spin).
"""

from ssl_jax import check_variant, recipe

ACTIONS = dict(cartpole_swingup=1, walker_walk=6, walker_stand=6, ball_in_cup_catch=2, finger_spin=2)
VARIANTS = tuple(name + suffix for suffix in ("", "_rotation") for name in ACTIONS)


def get_config(variant="cartpole_swingup"):
  check_variant(variant, VARIANTS, __file__)
  environment = variant.removesuffix("_rotation")
  task = "inverse_dynamics" if environment == variant else "rotation"
  return recipe(
    method=dict(name="policy", task=task, branch="conv8", weight=1.0, hidden=1024, size=84),
    encoder=dict(name="pixel_encoder", depth=11, channels=32, features=100),
    host=dict(name="transition", frames=3, actions=ACTIONS[environment]),
    augment=dict(name="transition_crop", views=1, size=84),
    optimizer=dict(name="adamw", learning_rate=1e-3, schedule="constant"),
    data=dict(name="trajectories", split="train", size=100, workers=8),
    batch_size=128,
    epochs=50,
    log_every=50,
  )
