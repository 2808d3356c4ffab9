"""Runs inside the tool environment `clip`: one request on the command line, one JSON object on the last line of stdout.

    {"do": "encode", "model": "hf_clip:/models/tiny", "texts": ["a dog"], "images": ["/a.jpg"]}   -> {"vectors": [[…]]}
    {"do": "inference", …}     clip-retrieval's own arguments                                      -> {}
    {"do": "index", …}         likewise
    {"do": "neighbours", "index": "image.index", "vectors": "img_emb_0.npy", "count": 16, "min_cosine": 0.95,
     "pairs": "pairs.npy"}     rows of alike pictures, (pairs, 2)                         -> {"pairs": 3}
    {"do": "serve", …}         clip-retrieval's back end on 127.0.0.1, until it is killed

It imports nothing of owl3, for owl3 is not installed there.
"""

import importlib
import json
import sys
import tempfile
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


def neighbours(index: str, vectors: str, count: int, min_cosine: float, pairs: str) -> dict[str, Any]:
    """Look each picture's nearest up in the index, and keep those that are near enough by their own vectors."""
    import faiss
    import numpy as np

    found = faiss.read_index(index)
    rows = np.load(vectors, mmap_mode="r")
    kept = [np.zeros((0, 2), np.int64)]
    for start in range(0, len(rows), 8192):
        block = rows[start : start + 8192].astype(np.float32)
        _, near = found.search(block, count)
        left = np.repeat(np.arange(start, start + len(block)), near.shape[1])
        right = near.reshape(-1)
        there = (right >= 0) & (right != left)  # -1 fills up
        left, right = left[there], right[there]
        cosine = np.einsum("nd,nd->n", rows[left].astype(np.float32), rows[right].astype(np.float32))
        kept.append(np.stack([left, right], axis=1)[cosine >= min_cosine])
    np.save(pairs, np.concatenate(kept))
    return {"pairs": sum(map(len, kept))}


def serve(folder: str, name: str, model: str, port: int) -> dict[str, Any]:
    """Run clip-retrieval's own back end over an index; by itself it would listen on every interface."""
    import flask

    clip_back: Any = importlib.import_module("clip_retrieval.clip_back")  # the package gives a function that name

    class Local(flask.Flask):
        def run(self, host: str | None = None, **options: Any) -> None:  # type: ignore[override]
            super().run(host="127.0.0.1", **options)

    clip_back.Flask = Local
    with tempfile.NamedTemporaryFile("w", suffix=".json") as indices:
        json.dump({name: folder}, indices)
        indices.flush()
        clip_back.clip_back(
            indices_paths=indices.name,
            port=port,
            enable_faiss_memory_mapping=True,
            columns_to_return=["image_path", "caption", "url"],
            clip_model=model,
            enable_mclip_option=False,
            provide_aesthetic_embeddings=False,
        )
    return {}


def main(request: dict[str, Any]) -> dict[str, Any]:
    """Answer one request."""
    allow_torchvision_without_cuda()
    wanted = request.pop("do")
    if wanted == "encode":
        return encode(**request)
    if wanted == "neighbours":
        return neighbours(**request)
    if wanted == "serve":
        return serve(**request)
    if wanted == "inference":
        from clip_retrieval.clip_inference import main as inference

        inference.main(**request)
        return {}
    from clip_retrieval.clip_index import clip_index

    clip_index(**request)
    return {}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))  # noqa: T201 - a pipe reads it
