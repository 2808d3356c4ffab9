"""clip-retrieval itself, with a tiny random CLIP: inference, index, duplicates, its own back end and client."""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
from curate.hostile import picture

from owl3 import lifeline, tools
from owl3.curate.embed import (
    ClipConfig,
    Query,
    check_model,
    embed,
    index_distinct,
    index_folder,
    search,
    similarities,
)
from owl3.shards import ShardWriter

MAKE_MODEL = """
import json, sys
from pathlib import Path
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer
import torch
torch.manual_seed(0)
out = Path(sys.argv[1])
out.mkdir()
small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
texts, pictures = {**small, "vocab_size": 49408}, {**small, "image_size": 32, "patch_size": 16}
config = CLIPConfig(text_config=texts, vision_config=pictures, projection_dim=16)
CLIPModel(config).save_pretrained(out)
(out / "vocab.json").write_text(json.dumps({"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2, "a": 3}))
(out / "merges.txt").write_text("#version: 0.2\\n")
size = {"shortest_edge": 32}
pictures = CLIPImageProcessor(size=size, crop_size={"height": 32, "width": 32})
CLIPProcessor(pictures, CLIPTokenizer(str(out / "vocab.json"), str(out / "merges.txt"))).save_pretrained(out)
"""

ASK = """
import json, sys
from clip_retrieval.clip_client import ClipClient
client = ClipClient(url=sys.argv[1], indice_name="photos", num_images=4, deduplicate=False, use_safety_model=False,
                    use_violence_detector=False, aesthetic_weight=0.0)
print(json.dumps([client.query(text="a dog"), client.query(image=sys.argv[2])]))
"""


SERVE = """
import sys
from pathlib import Path
from owl3.curate.embed import serve
serve(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
"""


PRELUDE = """
import runpy
program = runpy.run_path(RUN_CLIP)
program["allow_torchvision_without_cuda"]()
"""
"""What our own program does first in that environment, which has a torch without CUDA here."""


def in_clip(code: str, *arguments: str) -> str:
    prelude = PRELUDE.replace("RUN_CLIP", repr(str(Path(tools.__file__).with_name("run_clip.py"))))
    command = [str(tools.python("clip")), "-c", prelude + code, *arguments]
    return subprocess.run(lifeline.wrap(command), check=True, capture_output=True, text=True).stdout


@pytest.mark.skipif(not tools.is_installed("clip"), reason="needs: owl3 tools install clip")
def test_an_index_serves_clip_retrievals_own_back_end_and_client(workspace: Path) -> None:
    model = workspace / "model"
    in_clip(MAKE_MODEL, str(model))
    config = ClipConfig(model=f"hf_clip:{model}", duplicates=0.9999, batch_size=4)
    check_model(config)
    tars, ids = [workspace / f"{shard:05d}.tar" for shard in range(2)], [f"{n:032x}" for n in range(8)]
    for number, path in enumerate(tars):
        with ShardWriter(path) as tar:
            for key in ids[4 * number : 4 * number + 4]:
                body = picture(int(key, 16) % 7, (64, 64))  # the last is the first again
                tar.add(key, {"jpg": body, "txt": f"picture {key}".encode(), "json": b"{}"})
    embed(tars, workspace / "out", config)
    shards = [path.stem for path in tars]
    assert similarities(workspace / "out", shards).keys() == {*ids}
    folder = index_folder(workspace, "photos")
    assert index_distinct(workspace / "out", shards, {*ids}, folder, config) == {ids[7]: ids[0]}
    like = workspace / "like.jpg"
    like.write_bytes(picture(3, (64, 64)))
    assert search(workspace, "photos", config.model, Query(image=like), count=1)[0]["image_path"] == ids[3]

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", SERVE, str(workspace), "photos", config.model, str(port)]
    server = subprocess.Popen(lifeline.wrap(command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(port, server)
        assert listens_at(port) == {"127.0.0.1"}
        url = f"http://127.0.0.1:{port}"
        assert json.loads(urllib.request.urlopen(f"{url}/indices-list").read()) == ["photos"]
        by_text, by_image = json.loads(in_clip(ASK, f"{url}/knn-service", str(like)).splitlines()[-1])
        assert by_image[0]["image_path"] == ids[3] and {row["image_path"] for row in by_text} <= {*ids}
    finally:
        server.terminate()
        server.wait()


def wait_for(port: int, server: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 240
    while not listens("127.0.0.1", port):
        assert server.poll() is None and time.monotonic() < deadline, "the back end did not start"
        time.sleep(0.2)


def listens(address: str, port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex((address, port)) == 0


def listens_at(port: int) -> set[str]:
    """The addresses at which this machine listens on a port."""
    found = psutil.net_connections("tcp")
    return {c.laddr.ip for c in found if c.status == psutil.CONN_LISTEN and c.laddr.port == port}
