"""Detectors of torchvision with random weights find the same boxes and masks here after conversion."""

import functools
import io
import json
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ssl_jax import convert, models, parallel
from ssl_jax.abilities import ObjectDetector
from ssl_jax.config.recipe_builder import recipe
from ssl_jax.config.schema import EvaluateConfig, check
from ssl_jax.convert import detectors
from ssl_jax.convert.names import Form
from ssl_jax.detect.masks import paste_masks
from ssl_jax.detect.rules import Limits
from ssl_jax.models.detection import detector
from ssl_jax.run.evaluate import evaluate
from ssl_jax.run.restore import restore

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


def theirs(photographs, **options):
  """Mask R-CNN whose BatchNorm has the statistics of the photographs and whose scores are spread out."""
  torch.manual_seed(0)
  net = detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, min_size=160, **options)
  return spread(net, photographs)


def spread(net, photographs):
  """(The network after the changes, what it finds)."""
  images = [torch.from_numpy(image.copy()).permute(2, 0, 1) / 255 for image in photographs]
  for module in net.modules():
    if isinstance(module, torch.nn.BatchNorm2d):
      module.momentum = None  # the average of all batches
      torch.nn.init.uniform_(module.weight, 0.3, 0.6)
      torch.nn.init.normal_(module.bias, std=0.1)
  with torch.no_grad():
    batch = net.transform(images)[0].tensors
    net.backbone.body(batch)
    for name, parameter in net.named_parameters():
      if name in SPREAD:
        torch.nn.init.normal_(parameter, std=SPREAD[name])
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
  torch_net, wanted = theirs(
    photographs,
    num_classes=CLASSES + 1,
    rpn_pre_nms_top_n_test=BEFORE,
    rpn_post_nms_top_n_test=PROPOSALS,
    box_detections_per_img=DETECTIONS,
  )
  net, weights = ours(tensors_of(torch_net))
  images, sizes = padded(photographs)
  found = jax.jit(net.predict)(weights, images, sizes)
  agree(found, wanted, photographs)
  assert all(
    len(reference["boxes"]) > 10 and len(set(reference["labels"].tolist())) > 2 for reference in wanted
  )


def agree(found, wanted, photographs):
  """The detections are torchvision's: boxes to 0.01 pixels, scores to 1e-4, masks by an IoU of 0.99."""
  for number, reference in enumerate(wanted):
    boxes, scores, labels, masks = (reference[k].numpy() for k in ("boxes", "scores", "labels", "masks"))
    detections = jax.tree.map(lambda leaf, number=number: np.asarray(leaf[number]), found.detections)
    count = len(boxes)
    assert detections.valid.sum() == count
    np.testing.assert_allclose(detections.scores[:count], scores, atol=1e-4)
    # Scores that agree but for rounding may come in another order.
    distance = np.abs(detections.boxes[None, :count] - boxes[:, None]).max(-1)
    row = (distance + 1e6 * (detections.classes[None, :count] + 1 != labels[:, None])).argmin(1)
    assert sorted(row) == [*range(count)] and (row == np.arange(count)).mean() > 0.9
    np.testing.assert_allclose(detections.boxes[row], boxes, atol=1e-2)
    np.testing.assert_allclose(detections.scores[row], scores, atol=1e-4)
    np.testing.assert_array_equal(detections.classes[row] + 1, labels)
    height, width = photographs[number].shape[:2]
    paste = functools.partial(paste_masks, height=height, width=width, convention="torchvision")
    pasted = np.asarray(paste(found.masks[number][row], found.detections.boxes[number][row]))
    both, either = (op(pasted, masks[:, 0] >= 0.5).sum((1, 2)) for op in (np.logical_and, np.logical_or))
    assert 0.1 < pasted.mean() / (masks[:, 0] > 0).mean() < 0.9  # the masks are neither empty nor full
    assert ((both >= 0.99 * either) | (either - both <= 1)).all()  # small ones may differ in a pixel


@pytest.mark.slow
def test_an_imported_run_finds_the_same(photographs, tmp_path):
  """With torchvision's numbers of classes, proposals and detections."""
  net, wanted = theirs(photographs)
  torch.save(net.state_dict(), tmp_path / "net.pth")
  convert.import_weights("torchvision_detection", tmp_path / "net.pth", tmp_path / "run")
  run = restore(tmp_path / "run", parallel.make_mesh(jax.devices()[:1]))
  detect = run.backbone.ability(ObjectDetector, "a test")
  assert run.backbone.class_names[:2] == ("person", "bicycle") and len(run.backbone.class_names) == 90
  agree(jax.jit(detect.predict)(*run.backbone.weights, *padded(photographs)), wanted, photographs)


@pytest.mark.slow
def test_an_imported_run_is_evaluated(photographs, tmp_path):
  """What torchvision finds is the truth: its categories are found by name, and the average precision is 1."""
  torch.manual_seed(0)
  backbone = detection.backbone_utils.resnet_fpn_backbone(
    backbone_name="resnet18", weights=None, norm_layer=torch.nn.BatchNorm2d
  )
  net, wanted = spread(detection.FasterRCNN(backbone, 91, min_size=160), photographs)
  torch.save(net.state_dict(), tmp_path / "net.pth")
  convert.import_weights("torchvision_detection", tmp_path / "net.pth", tmp_path / "run")
  names = dict(enumerate(detectors.coco_names(), 1))
  known = {number: name for number, name in names.items() if not name.startswith("unused")}
  assert len(known) == 80 and all(len(reference["boxes"]) > 10 for reference in wanted)
  write_coco(tmp_path / "data", photographs, wanted, known)
  config = recipe(
    EvaluateConfig,
    tasks=dict(detection={}),
    data=dict(name="coco", data_dir=str(tmp_path / "data"), train_split="val", test_split="val"),
    batch_size=8,
  )
  ((scores,),) = (row.values() for row in evaluate(check(EvaluateConfig, config), tmp_path / "run").values())
  assert scores["coco_box_ap"] == pytest.approx(1, abs=1e-6), scores


def write_coco(folder, photographs, wanted, names):
  """The photographs as a data set in COCO's layout, whose objects are those that torchvision found."""
  (folder / "val").mkdir(parents=True)
  images, annotations = [], []
  for number, (photograph, reference) in enumerate(zip(photographs, wanted)):
    height, width = photograph.shape[:2]
    Image.fromarray(photograph).save(folder / "val" / f"{number}.png")
    images.append(dict(id=number, file_name=f"{number}.png", height=height, width=width))
    for (x1, y1, x2, y2), label in zip(reference["boxes"].tolist(), reference["labels"].tolist()):
      if label in names:
        place = dict(bbox=[x1, y1, x2 - x1, y2 - y1], area=(x2 - x1) * (y2 - y1), iscrowd=0)
        annotations.append(dict(id=len(annotations) + 1, image_id=number, category_id=label, **place))
  categories = [dict(id=number, name=name) for number, name in names.items()]
  content = dict(images=images, annotations=annotations, categories=categories)
  (folder / "val_detection.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
  "change, message",
  [
    (lambda x: x.pop("rpn.head.bbox_pred.bias"), r"missing rpn.head.bbox_pred.bias"),
    (lambda x: x.update(extra=np.ones(3, np.float32)), r"unused extra \[3\]"),
    (
      lambda x: x.update({"rpn.head.cls_logits.bias": np.ones(9, np.float32)}),
      r"rpn.head.cls_logits.bias has shape \[9\], expected \[3\]",
    ),
    (lambda x: x.pop("roi_heads.box_head.fc6.weight"), "it has no roi_heads.box_head.fc6.weight"),
    (lambda x: x.pop("backbone.body.conv1.weight"), "missing conv1.weight"),
  ],
)
def test_what_does_not_fit_is_named(change, message, small_net, tmp_path):
  tensors = dict(small_net)
  change(tensors)
  np.savez(tmp_path / "net.npz", **tensors)
  with pytest.raises(ValueError, match=message):
    convert.import_weights("torchvision_detection", tmp_path / "net.npz", tmp_path / "run")
  assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def small_net():
  """The tensors of a Faster R-CNN on a ResNet-18."""
  backbone = detection.backbone_utils.resnet_fpn_backbone(backbone_name="resnet18", weights=None)
  return tensors_of(detection.FasterRCNN(backbone, CLASSES + 1))


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
