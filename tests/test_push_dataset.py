import json
import os
import shutil
import subprocess
import sys

import push_dataset
import pyarrow.parquet as parquet
import pytest
from datasets import load_dataset
from helpers import ROOT, run_main, write_video
from huggingface_hub import DatasetCard, HfApi

from fgmm_tools.cli import UserError
from fgmm_tools.corpora.benchmarks import load_benchmark
from fgmm_tools.corpora.parquet_shards import claim_folder, corpus_features, write_card, write_shard
from fgmm_tools.publishing import dataset_push
from processing_fgmm.corpora_fgmm import check_schema


@pytest.fixture
def corpus(tmp_path):
    """Three clips of a benchmark whose media may not be passed on, in two configurations that share files."""
    folder = tmp_path / "msrvtt"
    claim_folder(folder, {"name": "msrvtt", "train": 2, "test": 1})
    clip = write_video(tmp_path / "clip.mp4").read_bytes()
    rows = [
        {
            "video_id": f"video{index}",
            "video": {"bytes": clip, "path": "clip.mp4"},
            "captions": [{"text": "a secret sentence", "start": 0.5 * index, "end": 2.0}],
        }
        for index in range(3)
    ]
    features = corpus_features("video")
    write_shard(folder / "data" / "train-00000-of-00002.parquet", rows[:1], features)
    write_shard(folder / "data" / "train-00001-of-00002.parquet", rows[1:2], features)
    write_shard(folder / "data" / "test-00000-of-00001.parquet", rows[2:], features)
    configs = {"full": {"train": ["train"], "test": ["test"]}, "small": {"test": ["test"]}}
    write_card(folder, "MSR-VTT", "About it.", configs, "other", ["fgmm"])
    return folder


@pytest.fixture
def push(monkeypatch):
    """Publishes a corpus."""
    return lambda folder, *options, repo_id="org/corpus": run_main(
        monkeypatch, push_dataset, "--dataset", folder, "--repo_id", repo_id, *options
    )


def as_a_user(code, server, tmp_path):
    """What a fresh process prints that knows the server by HF_ENDPOINT."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "HF_HOME": str(tmp_path / "cache"),
        "HF_ENDPOINT": server.endpoint,
        "HF_TOKEN": "hf_owner",
        "HF_HUB_DISABLE_XET": "1",
    }
    answer = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_publishing_a_corpus_imports_no_model():
    code = "import sys, push_dataset, fgmm_tools.publishing.dataset_push, fgmm_tools.records; print(*sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "scripts", capture_output=True, text=True)
    modules = set(answer.stdout.split())
    assert "datasets" in modules and not {"torch", "transformers", "evaluate", "matplotlib"} & modules


def test_a_folder_may_have_any_name(hub_server, corpus, tmp_path, push):
    push(corpus)
    push(corpus.rename(tmp_path / "msrvtt[1]"), repo_id="org/renamed")
    files, renamed = (hub_server.repositories[f"datasets/org/{name}"].files for name in ("corpus", "renamed"))
    assert renamed == files


def test_ids_and_times_are_the_default_of_a_benchmark(hub_server, corpus, tmp_path, capsys, push):
    push(corpus)
    assert "ids and times" in capsys.readouterr().out
    repository = hub_server.repositories["datasets/org/corpus"]
    assert len(repository.commits) == 2
    files = repository.files
    for path in (path for path in files if path.endswith(".parquet")):
        content = files[path].content
        assert b"a secret sentence" not in content and b"ftyp" not in content  # ftyp begins an MP4 file
        (tmp_path / "copy" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy" / path).write_bytes(content)
    assert len(list((tmp_path / "copy" / "data").iterdir())) == 3

    (tmp_path / "copy" / "README.md").write_bytes(files["README.md"].content)
    copy = load_dataset(str(tmp_path / "copy"), "full", split="train", streaming=True)
    check_schema(copy, "copy")
    rows = list(copy)
    assert [row["video_id"] for row in rows] == ["video0", "video1"]
    assert [row["video"] for row in rows] == [{"bytes": None, "path": name} for name in ("video0", "video1")]
    assert rows[1]["captions"] == [{"text": None, "start": 0.5, "end": 2.0}]

    card = DatasetCard(files["README.md"].content.decode())
    card.validate()
    assert card.data.license == "other" and card.data.size_categories == ["n<1K"]
    infos = {info["config_name"]: info for info in card.data["dataset_info"]}
    examples = {config: {s["name"]: s["num_examples"] for s in info["splits"]} for config, info in infos.items()}
    assert examples == {"full": {"train": 2, "test": 1}, "small": {"test": 1}}
    size = sum(len(file.content) for path, file in files.items() if path.endswith(".parquet"))
    assert infos["full"]["download_size"] == size
    assert {feature["name"] for feature in infos["full"]["features"]} == {"video_id", "video", "captions"}
    assert "Ids and times only" in card.text and "| full | train | 2 |" in card.text and "About it." in card.text


def test_a_user_streams_the_corpus_from_the_hub(hub_server, corpus, tmp_path, capsys, push):
    push(corpus, "--with_media", "--private")
    assert "you say that you have the right" in capsys.readouterr().out
    assert hub_server.repositories["datasets/org/corpus"].private
    code = """
from datasets import load_dataset
from processing_fgmm.corpora_fgmm import list_configs, load_corpus
print(list_configs("org/corpus"))
for row in load_corpus("org/corpus", "train", "full"):
    print(row["video_id"], len(row["video"]["bytes"]), row["captions"][0]["text"])
print(len(load_dataset("org/corpus", "small", split="test")))
from processing_fgmm.rowgroups_fgmm import open_row_groups
rows = open_row_groups("org/corpus", "train", "full")
sizes = {len(rows.read(group)(0)["video"]["bytes"]) for group in range(len(rows.sizes))}
print(rows.num_rows, sizes, *rows.describe()["files"])
"""
    size = (tmp_path / "clip.mp4").stat().st_size
    lines = as_a_user(code, hub_server, tmp_path).splitlines()
    listed = ["['full', 'small']", *(f"video{index} {size} a secret sentence" for index in range(2)), "1"]
    assert lines[:-1] == listed and lines[-1].startswith(f"2 {{{size}}} ") and "://" not in lines[-1]
    text = hub_server.repositories["datasets/org/corpus"].files["README.md"].content.decode()
    assert "With media" in text and "Ids and times" not in text


def test_whose_media_may_be_passed_on():
    def may(made_of):
        return dataset_push.is_redistributable({"made_of": made_of})

    assert may({"num_train": 3, "seed": 0})  # the rendered corpus
    assert may({"name": "esc50"}) and load_benchmark("esc50").redistributable
    assert not may({"name": "ucf101"}) and not may({"name": "folder"}) and not may({"name": "gone"}) and not may(None)


def test_a_push_that_broke_off_sends_only_what_lacks(hub_server, corpus, monkeypatch, push):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    push(corpus, "--with_media", repo_id="org/whole")
    oids = sorted(hub_server.store)
    hub_server.store.clear()
    hub_server.breaking = {oids[0]}
    with pytest.raises(UserError, match=r"org/corpus .*broke off .*the same command continues"):
        push(corpus, "--with_media")
    assert list(hub_server.repositories) == ["datasets/org/whole"]
    assert sorted(hub_server.store) == oids[1:]
    hub_server.breaking.clear()
    hub_server.requests.clear()
    push(corpus, "--with_media")
    assert hub_server.count("PUT", "/storage/") == 1
    repository = hub_server.repositories["datasets/org/corpus"]
    assert sum(path.endswith(".parquet") for path in repository.files) == 3

    hub_server.requests.clear()
    push(corpus, "--with_media")  # nothing has changed: nothing is sent, no commit is made
    assert hub_server.count("PUT", "/storage/") == 0 and len(repository.commits) == 2


def test_shards_of_an_earlier_push_go_with_it(hub_server, corpus, push):
    push(corpus)
    table = parquet.read_table(corpus / "data" / "train-00000-of-00002.parquet")
    parquet.write_table(table, corpus / "data" / "train-00000-of-00001.parquet")
    for index in range(2):
        (corpus / "data" / f"train-0000{index}-of-00002.parquet").unlink()
    push(corpus)
    names = {path for path in hub_server.repositories["datasets/org/corpus"].files if "train" in path}
    assert names == {"data/train-00000-of-00001.parquet"}


def test_ids_alone_are_the_same_bytes_each_time(hub_server, corpus, push):
    push(corpus)
    hub_server.requests.clear()
    push(corpus)
    assert hub_server.count("PUT", "/storage/") == 0


def test_errors_are_one_sentence(hub_server, corpus, tmp_path, monkeypatch, push, media):
    with pytest.raises(UserError, match=r"nothing does not exist; give that of a corpus"):
        push(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty holds no Parquet files that datasets can load"):
        push(tmp_path / "empty")
    shutil.copy(media[".wav"], tmp_path / "empty" / "a.wav")
    with pytest.raises(UserError, match=r"a\.wav is no Parquet file; make a corpus of .*empty by scripts/prepare_dat"):
        push(tmp_path / "empty")
    with pytest.raises(UserError, match=r"msrvt does not exist; did you mean .*/msrvtt\?$"):
        push(tmp_path / "msrvt")
    with pytest.raises(UserError, match="not of the form ORG/NAME"):
        push(corpus, repo_id="corpus")
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(UserError, match="may not write to org/corpus"):
        push(corpus)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UserError, match="no token"):
        push(corpus)
    monkeypatch.setenv("HF_TOKEN", "hf_owner")
    table = parquet.read_table(corpus / "data" / "test-00000-of-00001.parquet")
    for path in (corpus / "data").glob("*.parquet"):
        parquet.write_table(table.append_column("title", [["a secret sentence"]]), path)
    with pytest.raises(UserError, match="The column 'title' of msrvtt is not one of a corpus"):
        push(corpus)
    (corpus / "README.md").write_text("---\ntags: [fgmm]\n---\n# mine\n")
    with pytest.raises(UserError, match="names no licence"):
        push(corpus, "--with_media")
    (corpus / "data" / "test-00000-of-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"test-00000-of-00001\.parquet is damaged or no Parquet file"):
        push(corpus)
    assert not any(len(one.commits) > 1 for one in hub_server.repositories.values())


def test_a_corpus_without_a_card_is_given_one(hub_server, corpus, push, tmp_path):
    (corpus / "README.md").unlink()
    with pytest.raises(UserError, match="msrvtt is incomplete; run the command that makes it again"):
        push(corpus)
    (corpus / "corpus.json").unlink()  # it is nobody's benchmark, but made by hand
    push(corpus, "--with_media")
    files = hub_server.repositories["datasets/org/corpus"].files
    card = DatasetCard(files["README.md"].content.decode())
    assert card.data["license"] == "other" and "# msrvtt\n\nFiles of the person who made this corpus." in card.text
    assert "| default | train | 2 |" in card.text and sum(name.endswith(".parquet") for name in files) == 3
    code = "from datasets import load_dataset; print(*(len(s) for s in load_dataset('org/corpus').values()))"
    assert as_a_user(code, hub_server, tmp_path) == "2 1\n"


def test_a_folder_of_media_files_on_the_hub_is_a_corpus(hub_server, tmp_path, media):
    for name in ("train/cat/a.jpg", "train/dog/b.jpg"):
        (tmp_path / "pictures" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(media[".jpg"], tmp_path / "pictures" / name)
    api = HfApi(endpoint=hub_server.endpoint, token="hf_owner")
    api.create_repo("org/pictures", repo_type="dataset")
    api.upload_folder(repo_id="org/pictures", folder_path=tmp_path / "pictures", repo_type="dataset")
    code = """
from processing_fgmm.clips_fgmm import fetch_media
from processing_fgmm.corpora_fgmm import load_corpus
for row in load_corpus("org/pictures", "train"):
    print(row["video_id"], row["label"], len(fetch_media(row)["image"]["bytes"]))
from processing_fgmm.rowgroups_fgmm import open_row_groups
read = open_row_groups("org/pictures", "train").read(0)
print(*(len(fetch_media(read(row))["image"]["bytes"]) for row in range(2)))
"""
    size = media[".jpg"].stat().st_size
    lines = as_a_user(code, hub_server, tmp_path).splitlines()
    assert lines == [f"train/cat/a.jpg 0 {size}", f"train/dog/b.jpg 1 {size}", f"{size} {size}"]


def test_the_narrated_corpus_goes_with_its_card(hub_server, narrated, tmp_path, monkeypatch, capsys, push):
    """The card in model_cards is of one corpus; another one of that name gets the plain card."""
    folder = tmp_path / "narrated"
    shutil.copytree(narrated, folder)
    push(folder, repo_id="org/narrated")
    repository = hub_server.repositories["datasets/org/narrated"]
    assert b"--num_train 32" in repository.files["README.md"].content

    cards = tmp_path / "cards"
    (cards / "results" / "corpora").mkdir(parents=True)
    (cards / "pictures").symlink_to(ROOT / "model_cards" / "pictures")
    shutil.copy(ROOT / "model_cards" / "narrated.md", cards)
    record = cards / "results" / "corpora" / "narrated.json"
    run_main(monkeypatch, push_dataset, "--dataset", folder, "--record", record)
    assert (
        json.loads((cards / "results/corpora/narrated.json").read_text())["configs"]["default"]["train"]["rows"] == 32
    )
    monkeypatch.setattr(dataset_push, "CARDS", cards)
    push(folder, repo_id="org/narrated")
    card = DatasetCard(repository.files["README.md"].content.decode())
    card.validate()
    assert "| default | train | 32 |" in card.text and 'load_dataset("org/narrated"' in card.text
    infos = {info["config_name"]: info for info in card.data["dataset_info"]}
    assert infos["default"]["splits"][0]["num_examples"] == 32
    assert {feature["name"] for feature in infos["grounding"]["features"]} >= {"captions", "mentions"}
    assert "pictures/narrated.png" in repository.files
    assert "The card is model_cards/narrated.md." in capsys.readouterr().out
