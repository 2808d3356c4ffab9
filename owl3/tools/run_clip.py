"""Runs inside the tool environment `clip`: one request on the command line, one JSON object on the last line of stdout.

    {"do": "encode", "model": "hf_clip:/models/tiny", "texts": ["a dog"], "images": ["/a.jpg"]}   -> {"vectors": [[…]]}
    {"do": "inference", …}     clip-retrieval's own arguments                                      -> {}
    {"do": "index", …}         likewise

It imports nothing of owl3, for owl3 is not installed there.
"""

import json
import sys
from typing import Any


def allow_torchvision_without_cuda() -> None:
    """Declare the two operators that torchvision's CUDA wheel registers on import, where it can't load its library."""
    import torch

    if torch.cuda.is_available():
        return
    library: Any = torch.library
    library = library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    globals()["_library"] = library  # lives as long as the process


def encode(model: str, texts: list[str], images: list[str]) -> dict[str, Any]:
    """Unit vectors of texts, then of pictures."""
    import torch
    from all_clip import load_clip
    from PIL import Image

    clip, preprocess, tokenize = load_clip(model, use_jit=False, warmup_batch_size=1)
    vectors: list[list[float]] = []
    with torch.no_grad():
        for text in texts:
            vectors.append(_unit(clip.encode_text(tokenize([text]))))
        for path in images:
            picture = preprocess(Image.open(path).convert("RGB"))
            vectors.append(_unit(clip.encode_image(picture.unsqueeze(0))))
    return {"vectors": vectors}


def _unit(batch: Any) -> list[float]:
    vector = batch[0].float()
    return [float(value) for value in vector / vector.norm()]


def main(request: dict[str, Any]) -> dict[str, Any]:
    """Answer one request."""
    allow_torchvision_without_cuda()
    wanted = request.pop("do")
    if wanted == "encode":
        return encode(**request)
    if wanted == "inference":
        from clip_retrieval.clip_inference import main as inference

        inference.main(**request)
        return {}
    from clip_retrieval.clip_index import clip_index

    clip_index(**request)
    return {}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))  # noqa: T201 - a pipe reads it
