"""COCO's scores by pycocotools, the oracle of `tasks.detection_scores`."""

import contextlib
import io

import pytest

from ssl_jax.data import instance_masks


def reference_coco(truths, detections, num_classes: int, kind: str):
  """(COCO's precision f64[10, 101, C, 4], its twelve numbers) by pycocotools, from a file in COCO's form."""
  coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
  cocoeval = pytest.importorskip("pycocotools.cocoeval", reason="pycocotools is not installed")
  rows, found = [], []
  plain = lambda mask: instance_masks.to_coco(mask)
  for image, (truth, detected) in enumerate(zip(truths, detections, strict=True)):
    for i, box in enumerate(truth.boxes.astype(float).tolist()):
      row = {"id": len(rows) + 1, "image_id": image, "category_id": int(truth.classes[i]) + 7}
      row |= {"bbox": [*box[:2], box[2] - box[0], box[3] - box[1]], "iscrowd": int(truth.crowd[i])}
      row |= {"area": float(truth.area[i])}
      rows.append(row | ({"segmentation": plain(truth.masks[i])} if truth.masks else {}))
    for i, box in enumerate(detected.boxes.astype(float).tolist()):
      row = {
        "image_id": image,
        "category_id": int(detected.classes[i]) + 7,
        "score": float(detected.scores[i]),
      }
      if kind == "mask":
        found.append(row | {"segmentation": plain(detected.masks[i])})
      else:
        found.append(row | {"bbox": [*box[:2], box[2] - box[0], box[3] - box[1]]})
  with contextlib.redirect_stdout(io.StringIO()):
    dataset = coco.COCO()
    dataset.dataset = {
      "info": {},
      "images": [
        dict(zip(("id", "height", "width"), (i, *(truth.masks[0][:2] if truth.masks else (1, 1)))))
        for i, truth in enumerate(truths)
      ],
      "annotations": rows,
      "categories": [{"id": c + 7, "name": str(c)} for c in range(num_classes)],
    }
    dataset.createIndex()
    evaluation = cocoeval.COCOeval(dataset, dataset.loadRes(found), {"box": "bbox", "mask": "segm"}[kind])
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
  return evaluation.eval["precision"][..., -1], evaluation.stats
