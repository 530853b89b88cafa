r"""A policy at deployment: frozen, and learning its own task on the way.

Command:   ssl-jax evaluate --config=configs/ttt/deployment.py:VARIANT --workdir=RUN
           RUN is a run of configs/pretrain/policy.py or policy_cpu.py. A stopped evaluation resumes. The data
           of the training must lie where they lay; no episode is taken from them.
Variants:  the environment, with _video also before videos, whose clips are in
           --config.tasks.deployment.videos=CLIPS.
           One step of Adam at each transition on 32 copies, as published. 20 episodes in each world, for each
           arm; published are 100 (10 for each of 10 seeds).
Expected:  see configs/pretrain/policy.py.
Measured:  docs/results.md
"""

from ssl_jax import EvaluateConfig, check_variant, recipe

ENVIRONMENTS = dict(
  cartpole_swingup="cartpole/swingup",
  walker_walk="walker/walk",
  walker_stand="walker/stand",
  ball_in_cup_catch="ball_in_cup/catch",
  finger_spin="finger/spin",
)
VARIANTS = tuple(name + suffix for suffix in ("", "_video") for name in ENVIRONMENTS)
WORLDS = ("train", "colours_easy", "colours_hard", "camera")


def get_config(variant="cartpole_swingup"):
  check_variant(variant, VARIANTS, __file__)
  video = variant.endswith("_video")
  return recipe(
    EvaluateConfig,
    tasks=dict(
      deployment=dict(
        environment=ENVIRONMENTS[variant.removesuffix("_video")],
        worlds=(*WORLDS, "video") if video else WORLDS,
        videos="CLIPS" if video else "",
        episodes=20,
        steps=1,
        copies=32,
        learning_rate=1e-3,
      )
    ),
    augment=dict(name="transition_crop"),
  )
