"""Detectors of torchvision with random weights find the same boxes and masks here after conversion."""

import functools
import io
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ssl_jax import convert, models
from ssl_jax.convert import detectors
from ssl_jax.convert.names import Form
from ssl_jax.detect.masks import paste_masks
from ssl_jax.detect.rules import Limits
from ssl_jax.models.detection import detector

torch = pytest.importorskip("torch", reason="torch is not installed: extra `import`")
detection = pytest.importorskip("torchvision", reason="torchvision is not installed").models.detection

CLASSES, BEFORE, PROPOSALS, DETECTIONS = 7, 500, 300, 20


@pytest.fixture(scope="module")
def photographs(shared_data) -> list[np.ndarray]:
  """A wide and a tall photograph, uint8 with a short side of 160 pixels."""
  found = {}
  with zipfile.ZipFile(shared_data / "coco256" / "val_images.zip") as archive:
    for name in sorted(archive.namelist()):
      image = Image.open(io.BytesIO(archive.read(name))).convert("RGB")
      scale = 160 / min(image.size)
      width, height = (round(side * scale) for side in image.size)
      found.setdefault(width > height, np.asarray(image.resize((width, height))))
      if len(found) == 2:
        return list(found.values())
  raise AssertionError("there is no tall photograph")


def theirs(photographs):
  """Mask R-CNN whose BatchNorm has the statistics of the photographs and whose scores are spread out."""
  torch.manual_seed(0)
  net = detection.maskrcnn_resnet50_fpn(
    weights=None,
    weights_backbone=None,
    num_classes=CLASSES + 1,
    min_size=160,
    rpn_pre_nms_top_n_test=BEFORE,
    rpn_post_nms_top_n_test=PROPOSALS,
    box_detections_per_img=DETECTIONS,
  )
  images = [torch.from_numpy(image.copy()).permute(2, 0, 1) / 255 for image in photographs]
  for module in net.modules():
    if isinstance(module, torch.nn.BatchNorm2d):
      module.momentum = None  # the average of all batches
      torch.nn.init.uniform_(module.weight, 0.3, 0.6)
      torch.nn.init.normal_(module.bias, std=0.1)
  with torch.no_grad():
    batch = net.transform(images)[0].tensors
    net.backbone.body(batch)
    for name, deviation in SPREAD.items():
      torch.nn.init.normal_(net.get_parameter(name), std=deviation)
    return net.eval(), net.eval()(images)


SPREAD = {
  "rpn.head.conv.0.0.weight": 0.02,
  "rpn.head.cls_logits.weight": 0.05,
  "rpn.head.cls_logits.bias": 0.5,
  "rpn.head.bbox_pred.weight": 0.01,
  "roi_heads.box_predictor.cls_score.weight": 0.15,
  "roi_heads.box_predictor.cls_score.bias": 0.5,
  "roi_heads.box_predictor.bbox_pred.weight": 0.05,
  "roi_heads.mask_predictor.mask_fcn_logits.weight": 0.2,
}


def tensors_of(net):
  return {name: value.numpy() for name, value in net.state_dict().items()}


def ours(tensors, masks=True, epsilon=None):
  """(The detector of the tensors, its weights)."""
  tensors, shape = detectors.read(tensors, epsilon)
  assert shape == (CLASSES, masks, True, 256, 1024)
  limits = Limits((0, BEFORE), (0, PROPOSALS), detections=DETECTIONS, candidates=PROPOSALS * CLASSES)
  net = detector(models.make("resnet50"), CLASSES, "fpn", masks, convention="torchvision", limits=limits)
  image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  wanted = jax.eval_shape(net.init, jax.eval_shape(lambda: jax.random.key(0)), image)
  return net, convert.fill(wanted, tensors, Form(bottleneck=True, detector=True), "the detector")


def padded(photographs):
  """(Images f32[B, H, W, 3] of sides that 32 divides, their sizes)."""
  sizes = np.array([image.shape[:2] for image in photographs], np.int32)
  height, width = -(-sizes.max(0) // 32) * 32
  images = np.zeros((len(sizes), height, width, 3), np.float32)
  for image, photograph, (rows, columns) in zip(images, photographs, sizes):
    image[:rows, :columns] = photograph / np.float32(255)
  return jnp.asarray(images), jnp.asarray(sizes)


@pytest.mark.slow
def test_photographs_give_the_same_boxes_and_masks(photographs):
  torch_net, wanted = theirs(photographs)
  net, weights = ours(tensors_of(torch_net))
  images, sizes = padded(photographs)
  found = jax.jit(net.predict)(weights, images, sizes)
  for number, reference in enumerate(wanted):
    boxes, scores, labels, masks = (reference[k].numpy() for k in ("boxes", "scores", "labels", "masks"))
    detections = jax.tree.map(lambda leaf, number=number: np.asarray(leaf[number]), found.detections)
    assert detections.valid.sum() == len(boxes) > 10 and len(set(labels)) > 2
    count = len(boxes)
    np.testing.assert_allclose(detections.boxes[:count], boxes, atol=1e-2)
    np.testing.assert_allclose(detections.scores[:count], scores, atol=1e-4)
    np.testing.assert_array_equal(detections.classes[:count] + 1, labels)
    height, width = photographs[number].shape[:2]
    paste = functools.partial(paste_masks, height=height, width=width, convention="torchvision")
    pasted = np.asarray(paste(found.masks[number, :count], found.detections.boxes[number, :count]))
    both, either = (op(pasted, masks[:, 0] >= 0.5).sum((1, 2)) for op in (np.logical_and, np.logical_or))
    assert 0.1 < pasted.mean() / (masks[:, 0] > 0).mean() < 0.9  # the masks are neither empty nor full
    assert (both >= 0.99 * either).all()


def test_older_names_and_frozen_norms_are_read():
  """Published files have older names and epsilon 0: their variances are as much smaller as ours is larger."""
  net = detection.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=CLASSES + 1)
  tensors = tensors_of(net)
  old = {
    name.replace("blocks.0.0.", "blocks.0.").replace("head.conv.0.0.", "head.conv."): value
    for name, value in tensors.items()
    if not name.endswith("num_batches_tracked")
  }
  assert len(tensors.keys() - old.keys()) > 4
  newer, older = ours(tensors, masks=False)[1], ours(old, masks=False)[1]
  jax.tree.map(np.testing.assert_array_equal, newer.params, older.params)
  variance = older.model_state["encoder"]["batch_stats"]["norm_stem"]["var"]
  np.testing.assert_allclose(variance, 1 - 1e-5, rtol=1e-7)
  assert (newer.model_state["encoder"]["batch_stats"]["norm_stem"]["var"] == 1).all()
