import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import embed_corpus as command
import pyarrow.parquet as parquet
import pytest
import torch
import torch.nn.functional as F
from helpers import ROOT, run_main, write_shards
from PIL import Image

from fgmm_tools.cli import UserError
from fgmm_tools.corpora.parquet_shards import corpus_features
from fgmm_tools.corpora.problems import Problems
from fgmm_tools.embedding.corpus import embed_corpus, plan_shards
from fgmm_tools.embedding.pooling import compress
from fgmm_tools.embedding.settings import EmbeddingSettings
from fgmm_tools.embedding.storage import as_pattern, write_windows
from fgmm_tools.embedding.tables import from_table, window_features
from fgmm_tools.embedding.windows import EmbeddedModality, Window
from fgmm_tools.models import fingerprint_weights, load_model, with_random_weights
from processing_fgmm.corpora_fgmm import CorpusError, load_corpus


@pytest.fixture(scope="module")
def shards(narrated, tmp_path_factory) -> Path:
    """A corpus of 8 clips in five files of the split train and one of 2 of the split test; one clip is damaged."""
    rows = list(load_corpus(str(narrated), "test"))
    rows[3]["video"] = {"bytes": b"no video", "path": None}
    features = corpus_features("video")
    folder = write_shards(tmp_path_factory.mktemp("shards") / "corpus", rows, 5, features)
    test = [{**row, "video_id": f"test-{place}"} for place, row in enumerate(rows[:2])]
    [path] = write_shards(tmp_path_factory.mktemp("shards") / "other", test, 1, features).glob("data/*")
    shutil.copy(path, folder / "data" / path.name.replace("train", "test"))
    return folder


@pytest.fixture(scope="module")
def plain(narrated_model, shards, tmp_path_factory) -> Path:
    """The embeddings of the corpus by one process without interruption."""
    folder = tmp_path_factory.mktemp("plain") / "embeddings"
    embed_corpus(str(narrated_model[0]), str(shards), folder, EmbeddingSettings(batch_size=3), num_processes=1)
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def arguments(narrated_model, shards, output, *more) -> list[str]:
    options = ["--model", narrated_model[0], "--dataset", shards, "--output", output, "--batch_size", 3, *more]
    return [str(word) for word in options]


def test_a_shard_for_each_shard_of_the_corpus(plain, shards, narrated_model):
    names = {path.relative_to(shards).as_posix() for path in shards.rglob("*.parquet")}
    assert set(files_of(plain)) == names | {"embeddings.json", "problems.jsonl", "README.md"} and len(names) == 6
    windows = {name: from_table(parquet.read_table(plain / name)) for name in names}
    for name in names:
        ids = parquet.read_table(shards / name, columns=["video_id"])["video_id"].to_pylist()
        assert sorted({window.video_id for window in windows[name]}) == sorted(ids)
    manifest = json.loads((plain / "embeddings.json").read_text())
    damaged = [window for found in windows.values() for window in found if not window.is_decoded]
    assert len(damaged) == 1 and manifest["complete"] and manifest["items"] == 10 and manifest["problems"] == 1
    assert manifest["windows"] == sum(map(len, windows.values())) - 1
    [problem] = map(json.loads, (plain / "problems.jsonl").read_text().splitlines())
    assert problem["path"] == damaged[0].video_id and problem["reason"].startswith("cannot be decoded")
    with pytest.raises(CorpusError, match="holds the embeddings of a corpus and no media; give the corpus itself"):
        load_corpus(str(plain), "test")


def test_an_interrupted_run_goes_on_to_the_same_bytes(narrated_model, shards, plain, tmp_path, monkeypatch):
    """The command is killed, with its workers, when two files are there."""
    output = tmp_path / "embeddings"
    words = arguments(narrated_model, shards, output, "--num_processes", 1)
    run = subprocess.Popen([sys.executable, ROOT / "scripts/embed_corpus.py", *words], stderr=subprocess.DEVNULL)
    while run.poll() is None and len(list(output.rglob("*.parquet"))) < 2:
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    run.wait()
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*.parquet")}
    assert 2 <= len(before) < 6 and not (output / "README.md").exists()
    assert json.loads((output / "embeddings.json").read_text())["complete"] is False
    run_main(monkeypatch, command, *words[:-1], 2)
    assert files_of(output) == files_of(plain)
    assert all(path.stat().st_mtime_ns == changed for path, changed in before.items())


def test_a_killed_worker_is_started_again(narrated_model, shards, plain, tmp_path, capsys):
    output, killed = tmp_path / "embeddings", []

    def kill() -> None:
        """Kills a worker when a file has been begun."""
        while not list(output.rglob("data/*.partial")):
            time.sleep(0.001)
        killed.append(multiprocessing.active_children()[0].pid)
        os.kill(killed[0], signal.SIGKILL)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    embed_corpus(str(narrated_model[0]), str(shards), output, EmbeddingSettings(batch_size=3), num_processes=2)
    assert len(killed) == 1 and "a worker process was killed; it is started again" in capsys.readouterr().err
    assert files_of(output) == files_of(plain)


@pytest.mark.skipif(not find_spec("ray"), reason="ray is not installed; it comes with the extra `ray`")
def test_ray_gives_the_same_bytes(narrated_model, shards, plain, tmp_path, monkeypatch):
    """Of a split, for Ray takes its time to start."""
    words = ["--split", "test", "--num_processes", 2]
    for engine in ("processes", "ray"):
        options = arguments(narrated_model, shards, tmp_path / engine, *words, "--engine", engine)
        run_main(monkeypatch, command, *options)
    assert files_of(tmp_path / "ray") == files_of(tmp_path / "processes")
    for path in (tmp_path / "ray").rglob("*.parquet"):
        assert path.read_bytes() == (plain / "data" / path.name).read_bytes()


@pytest.mark.parametrize(
    "change,message",
    [
        ({"num_regions": 4}, "num_regions was 32 and is 4"),
        ({"split": "test"}, "another corpus or other splits"),
        ({"model": "other"}, "they are of another model"),
    ],
)
def test_folders_of_other_embeddings_are_refused(narrated_model, shards, plain, tmp_path, change, message):
    model = narrated_model[0]
    if "model" in change:
        model = tmp_path / "model"
        shutil.copytree(narrated_model[0], model)
        with_random_weights(narrated_model[1], 5).save_pretrained(model)
    settings = EmbeddingSettings(num_regions=change.get("num_regions", 32), batch_size=3)
    before = files_of(plain)
    with pytest.raises(UserError, match=message):
        embed_corpus(str(model), str(shards), plain, settings, split=change.get("split"))
    assert files_of(plain) == before


def test_folders_of_other_files_are_refused(narrated_model, shards, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="exists and holds no embeddings; give another --output"):
        embed_corpus(str(narrated_model[0]), str(shards), tmp_path, EmbeddingSettings())


def test_a_moved_model_is_the_same(narrated_model, tmp_path):
    _, model, processor = narrated_model
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert fingerprint_weights(*load_model(str(tmp_path))) == fingerprint_weights(*load_model(str(narrated_model[0])))
    assert fingerprint_weights(model, processor) != fingerprint_weights(with_random_weights(model, 1), processor)
    moved = load_model(str(tmp_path))[1]
    moved.clip_seconds = 2.0
    assert fingerprint_weights(model, moved) != fingerprint_weights(model, processor)


def test_folders_of_media_files(tmp_path):
    """Their rows are cut into files of a thousand or so."""
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / split / "one.png")
    plan = plan_shards(str(tmp_path), None, None)
    assert [shard.name for shard in plan.shards] == [
        f"data/{split}-00000-of-00001.parquet" for split in ("train", "test")
    ]
    assert [shard.num_rows for shard in plan.shards] == [1, 1]


def test_int8_takes_half_of_the_bytes(tmp_path):
    sizes = {}
    for precision in ("float16", "int8"):
        generator, settings = torch.Generator().manual_seed(0), EmbeddingSettings(precision=precision)
        windows = []
        for place in range(50):
            regions = F.normalize(torch.randn(32, 64, generator=generator), dim=-1)
            kept = EmbeddedModality(regions[0].numpy(), *compress(regions, precision))
            windows.append(Window(f"v{place}", 0.0, 5.0, video=kept))
        path = tmp_path / f"{precision}.parquet"
        write_windows(path, windows, window_features(["video"], 64, settings), Problems())
        sizes[precision] = path.stat().st_size
        assert len(from_table(parquet.read_table(path))) == 50
    assert sizes["int8"] < 0.6 * sizes["float16"]


def test_patterns_of_file_names():
    shards = [f"data/{split}-{place:05d}-of-00002.parquet" for split in ("a", "b") for place in range(2)]
    assert as_pattern(shards[:2], shards) == "data/a-*-of-00002.parquet"
    assert as_pattern(shards[:1], shards) == shards[:1] and as_pattern(shards, shards) == shards
