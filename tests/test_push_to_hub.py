import hashlib
import json
import os
import subprocess
import sys

import push_to_hub
import pytest
import yaml
from helpers import ROOT, run_main
from hub_server import ROUTES, File, HubServer
from huggingface_hub import HfApi, ModelCard, constants, parse_eval_result_entries

from fgmm_tools.cli import UserError
from fgmm_tools.publishing import model_push
from fgmm_tools.publishing.cards import fill
from modeling_fgmm import FgmmModel

RUN = {
    "command": "accelerate launch scripts/x.py",
    "commit": "abc",
    "device": "d",
    "seconds": 60.0,
    "date": "2026-01-02",
}
TRAINING = {"seed": 0, "clips_seen": 1280, **RUN}


def write_results(path, training=TRAINING, recall=12.34, protocol="retrieval, trained score"):
    values = {"R@1": 1.0, "R@5": 5.0, "R@10": recall, "MedR": 40.0, "num_queries": 100, "num_items": 100}
    record = {"model": "m", "dataset": "data/narrated", "split": "test", "protocol": protocol, "seed": 0, **RUN}
    path.write_text(json.dumps(record | {"metrics": {"text_to_video": values}, "training": training}))


@pytest.fixture
def folder(tmp_path, model, processor):
    """A model's folder as scripts/pretrain.py and an evaluation leave it."""
    folder = tmp_path / "mine"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / "training.json").write_text(json.dumps(TRAINING))
    (folder / "pretrain.yaml").write_text("dataset: data/narrated\n")
    write_results(folder / "retrieval.json")
    (folder / "checkpoints" / "step-1").mkdir(parents=True)
    (folder / "checkpoints" / "step-1" / "optimizer.bin").write_bytes(b"state")
    (folder / "log.partial").write_text("")
    return folder


@pytest.fixture
def push(monkeypatch):
    """Publishes a model."""
    return lambda folder, *options, repo_id="org/fgmm-tiny": run_main(
        monkeypatch, push_to_hub, "--model", folder, "--repo_id", repo_id, *options
    )


def test_everything_is_published_in_one_commit(hub_server, folder, capsys, push):
    hub_server.chunk_size = 30_000  # the weights go in several parts
    push(folder, "--private", "--dataset", "org/narrated")
    repository = hub_server.repositories["models/org/fgmm-tiny"]
    files = repository.files
    assert repository.private and len(repository.commits) == 2  # creation and ours
    assert hub_server.count("PUT", "/storage/") > 2
    assert files["model.safetensors"].content == (folder / "model.safetensors").read_bytes()
    assert {path.name for path in folder.glob("*.py")} <= files.keys()
    assert {"config.json", "processor_config.json", "tokenizer.json", "training.json", "pretrain.yaml"} <= files.keys()
    assert not any("checkpoint" in path or "partial" in path for path in files)
    assert "retrieval.json" not in files
    assert files["results/retrieval.json"].content == (folder / "retrieval.json").read_bytes()

    card = ModelCard(files["README.md"].content.decode())
    card.validate()  # by the client, which asks the server
    assert card.data.license == "apache-2.0" and card.data.library_name == "transformers"
    assert card.data.pipeline_tag == "feature-extraction" and card.data.datasets == ["org/narrated"]
    values = {(one.dataset_type, one.metric_type): one.metric_value for one in card.data.eval_results}
    assert values["org/narrated", "recall_at_10"] == 12.3 and len(values) == 4
    assert "| narrated | text to video | trained score | 1.0 | 5.0 | 12.3 |" in card.text
    assert "| clips seen | 1,280 |" in card.text
    assert 'from_pretrained("org/fgmm-tiny"' in card.text

    entries = parse_eval_result_entries(yaml.safe_load(files[".eval_results/retrieval.yaml"].content))
    assert {(entry.dataset_id, entry.task_id): entry.value for entry in entries} == {
        ("org/narrated", "text_to_video_recall_at_1"): 1.0,
        ("org/narrated", "text_to_video_recall_at_5"): 5.0,
        ("org/narrated", "text_to_video_recall_at_10"): 12.3,
        ("org/narrated", "text_to_video_median_rank"): 40.0,
    }
    assert entries[0].source_url == f"{hub_server.endpoint}/org/fgmm-tiny/blob/main/results/retrieval.json"
    assert "Published: " in capsys.readouterr().out


def test_a_user_loads_the_model_from_the_hub_and_pushes_it(hub_server, folder, tmp_path, push):
    """In a process of its own, away from the repository, with HF_ENDPOINT and HF_TOKEN as the only settings."""
    push(folder)
    code = f"""
import torch
from transformers import AutoModel, AutoProcessor
name = "org/fgmm-tiny"
model = AutoModel.from_pretrained(name, trust_remote_code=True).eval()
processor = AutoProcessor.from_pretrained(name, trust_remote_code=True)
model.push_to_hub("org/second")
processor.push_to_hub("org/second")
second = AutoModel.from_pretrained("org/second", trust_remote_code=True).eval()
inputs = AutoProcessor.from_pretrained("org/second", trust_remote_code=True)(text=["crack two eggs"])
revision = AutoModel.from_pretrained(name, trust_remote_code=True, revision="{"REVISION"}").eval()
local = AutoModel.from_pretrained({str(folder)!r}, trust_remote_code=True).eval()
outputs = [one.get_text_features(**inputs).pooler_output for one in (model, second, revision, local)]
assert all(torch.equal(outputs[0], output) for output in outputs)
print(type(model).__module__, type(processor).__name__)
"""
    code = code.replace("REVISION", hub_server.repositories["models/org/fgmm-tiny"].head)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "HF_HOME": str(tmp_path / "cache"),
        "HF_ENDPOINT": hub_server.endpoint,
        "HF_TOKEN": "hf_owner",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "OMP_NUM_THREADS": "1",
    }
    answer = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.split()[0].startswith("transformers_modules.org") and "FgmmProcessor" in answer.stdout
    second = hub_server.repositories["models/org/second"].files
    assert {
        "model.safetensors",
        "modeling_fgmm.py",
        "processing_fgmm.py",
        "tokenizer.json",
        "README.md",
    } <= second.keys()


def test_a_push_that_broke_off_is_repeated(hub_server, folder, monkeypatch, push):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    (folder / "more.safetensors").write_bytes(bytes(200_000))
    hub_server.breaking = {hashlib.sha256(bytes(200_000)).hexdigest()}
    with pytest.raises(UserError, match=r"broke off .*nothing was published, and the same command continues"):
        push(folder)
    assert hub_server.repositories == {}
    assert len(hub_server.store) == 1  # the weights got through, and nobody sees them
    hub_server.breaking.clear()
    hub_server.requests.clear()
    push(folder)
    repository = hub_server.repositories["models/org/fgmm-tiny"]
    assert hub_server.count("PUT", "/storage/") == 1
    assert repository.files["more.safetensors"].content == bytes(200_000)

    hub_server.requests.clear()
    (folder / "more.safetensors").unlink()
    write_results(folder / "retrieval.json", recall=50.0)
    push(folder)  # what the folder no longer has goes, nothing large is sent
    assert hub_server.count("PUT", "/storage/") == 0 and "more.safetensors" not in repository.files
    assert "| 50.0 |" in repository.files["README.md"].content.decode()


def test_a_corpus_may_be_published_under_another_name(hub_server, folder, push):
    push(folder, "--dataset", "data/narrated=org/clips")
    files = hub_server.repositories["models/org/fgmm-tiny"].files
    card = ModelCard(files["README.md"].content.decode())
    assert card.data.datasets == ["org/clips"]
    assert {result.dataset_type for result in card.data.eval_results} == {"org/clips"}
    assert b"org/clips" in files[".eval_results/retrieval.yaml"].content


@pytest.mark.parametrize(
    "token,repo_id,options,message",
    [
        (None, "org/fgmm-tiny", (), "There is no token"),
        ("hf_wrong", "org/fgmm-tiny", (), "does not accept the token"),
        ("hf_other", "org/fgmm-tiny", (), "may not write to org/fgmm-tiny"),
        ("hf_other", "org/there", (), "may not write to org/there"),
        ("hf_owner", "org/there", ("--private",), "exists already and is public"),
        ("hf_owner", "fgmm-tiny", (), "not of the form ORG/NAME"),
        ("hf_owner", "org/fgmm tiny", (), "is no name on the Hub"),
        ("hf_owner", "org/fgmm-tiny", ("--dataset", "narrated"), "--dataset 'narrated' is not of the form"),
        ("hf_owner", "org/fgmm-tiny", ("--dataset", "org/kitchen"), r"measured on \(narrated\); say which"),
        ("hf_owner", "org/fgmm-tiny", ("--dataset", "org/narrated", "narrated=org/b"), "both org/narrated and org/b"),
        ("hf_owner", "org/fgmm-tiny", ("--license", "unheard-of"), "one of the Hub's"),
    ],
)
def test_a_refusal_is_one_sentence_and_publishes_nothing(
    hub_server, folder, monkeypatch, token, repo_id, options, message, push
):
    push(folder, repo_id="org/there")
    before = dict(hub_server.repositories["models/org/there"].commits)
    monkeypatch.delenv("HF_TOKEN")
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(UserError, match=message) as caught:
        push(folder, *options, repo_id=repo_id)
    assert "\n" not in str(caught.value)
    assert hub_server.repositories["models/org/there"].commits == before
    assert list(hub_server.repositories) == ["models/org/there"]


def break_off(monkeypatch, error, before=lambda: None):
    """Makes commits fail, which are made when the repository is there."""

    def fail(*args, **kwargs):
        before()
        raise error

    monkeypatch.setattr(HfApi, "create_commit", fail)


def test_ctrl_c_leaves_no_empty_repository_either(hub_server, folder, monkeypatch, push):
    break_off(monkeypatch, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        push(folder)
    assert hub_server.count("POST", "/api/repos/create") == 1 and hub_server.repositories == {}


def test_an_empty_repository_that_was_there_stays(hub_server, folder, monkeypatch, push):
    HfApi().create_repo("org/mine")
    break_off(monkeypatch, OSError("broken"))
    with pytest.raises(UserError, match="broke off"):
        push(folder, repo_id="org/mine")
    assert list(hub_server.repositories) == ["models/org/mine"]


def test_a_repository_with_files_stays(hub_server, folder, monkeypatch, push):
    """Where the connection breaks after the Hub has made the commit."""

    def commit():
        repository = hub_server.repositories["models/org/fgmm-tiny"]
        repository.commit({**repository.files, "config.json": File(b"{}", False)})

    break_off(monkeypatch, OSError("broken"), commit)
    with pytest.raises(UserError, match="broke off"):
        push(folder)
    assert "config.json" in hub_server.repositories["models/org/fgmm-tiny"].files


def test_a_repository_that_cannot_be_deleted_is_named(hub_server, folder, monkeypatch, capsys, push):
    break_off(monkeypatch, OSError("broken"))
    monkeypatch.setattr("hub_server.ROUTES", [route for route in ROUTES if "delete" not in route[1]])
    with pytest.raises(UserError, match="broke off"):
        push(folder)
    assert "org/fgmm-tiny stays on the Hub, empty (" in capsys.readouterr().err


def test_a_server_that_is_not_there(folder, monkeypatch, tmp_path, push):
    with HubServer({}) as server:
        endpoint = server.endpoint
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setenv("HF_TOKEN", "hf_owner")
    with pytest.raises(UserError, match=f"The upload to org/fgmm-tiny at {endpoint} broke off"):
        push(folder)


def test_a_wrong_folder_is_named(folder, tmp_path, push):
    with pytest.raises(UserError, match=r"nothing does not exist; give a folder that scripts/pretrain.py wrote"):
        push(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"mien does not exist; did you mean .*/mine\?$"):
        push(tmp_path / "mien")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UserError, match=r"nothing has no model \(config.json does not exist\)"):
        push(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"config.json is no folder; give a folder"):
        push(folder / "config.json")
    (folder / "modeling_fgmm.py").unlink()
    with pytest.raises(UserError, match="has no code"):
        push(folder)
    (folder / "modeling_fgmm.py").touch()
    (folder / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="of the kind bert, not fgmm"):
        push(folder)


def test_results_of_other_weights_are_refused_and_those_of_random_ones_left_out(hub_server, folder, push):
    write_results(folder / "floor.json", training=None, recall=77.7, protocol="random weights, linear")
    write_results(folder / "guess.json", training=None, recall=77.7, protocol="retrieval, fine score of random weights")
    push(folder)
    files = hub_server.repositories["models/org/fgmm-tiny"].files
    assert not {"results/floor.json", "results/guess.json"} & files.keys() and b"77.7" not in files["README.md"].content
    write_results(folder / "other.json", training=TRAINING | {"seed": 1})
    with pytest.raises(UserError, match=r"other.json is of another training run"):
        push(folder)


def test_a_damaged_results_file_is_named(folder, push):
    (folder / "retrieval.json").write_text('{"metrics": ')
    with pytest.raises(UserError, match=r"retrieval.json is damaged"):
        push(folder)


def test_a_model_without_results_has_a_card_without_numbers(hub_server, folder, push):
    (folder / "retrieval.json").unlink()
    (folder / "training.json").unlink()
    push(folder, "--license", "mit")
    card = ModelCard(hub_server.repositories["models/org/fgmm-tiny"].files["README.md"].content.decode())
    assert "Not evaluated" in card.text and card.data.eval_results is None and "R@1" not in card.text


def test_weights_that_begin_from_others_want_a_licence(hub_server, folder, encoders_at, push):
    settings = (folder / "pretrain.yaml").read_text()
    (folder / "pretrain.yaml").write_text(f"{settings}init_from: outputs/start\n")
    with pytest.raises(
        UserError, match=r"began from 'outputs/start', whose licence is not known; name the .* --license"
    ):
        push(folder)
    push(folder, "--license", "cc-by-nc-4.0")
    card = ModelCard(hub_server.repositories["models/org/fgmm-tiny"].files["README.md"].content.decode())
    assert card.data.license == "cc-by-nc-4.0" and "initialised from `outputs/start`" in card.text
    assert card.data.base_model is None
    (folder / "pretrain.yaml").write_text(settings)
    FgmmModel.from_encoders(audio=encoders_at / "ast", text=encoders_at / "bert").save_pretrained(folder)
    with pytest.raises(UserError, match="--license"):
        push(folder)
    push(folder, "--license", "bsd-3-clause")
    text = hub_server.repositories["models/org/fgmm-tiny"].files["README.md"].content.decode()
    assert "The audio encoder is transformers' `audio-spectrogram-transformer`." in text
    assert 'processor(audio=["clip.wav"], text=' in text and "clip.mp4" not in text
    assert len(hub_server.repositories["models/org/fgmm-tiny"].commits) == 3  # nothing was published in between


def test_the_model_that_weights_began_from_is_named_and_its_licence_taken(hub_server, folder, push):
    push(folder, "--license", "cc-by-4.0", repo_id="org/start")
    (folder / "pretrain.yaml").write_text("dataset: data/narrated\ninit_from: org/start\n")
    push(folder)
    card = ModelCard(hub_server.repositories["models/org/fgmm-tiny"].files["README.md"].content.decode())
    assert card.data.base_model == ["org/start"] and card.data.license == "cc-by-4.0"
    push(folder, "--license", "mit")
    card = ModelCard(hub_server.repositories["models/org/fgmm-tiny"].files["README.md"].content.decode())
    assert card.data.base_model == ["org/start"] and card.data.license == "mit"


def test_the_card_in_model_cards_goes_with_its_own_weights_alone(
    hub_server, folder, monkeypatch, tmp_path, capsys, push
):
    cards = tmp_path / "cards"
    (cards / "results").mkdir(parents=True)
    (cards / "pictures").mkdir()
    (cards / "pictures" / "a.png").write_bytes(b"png")
    (cards / "templates").symlink_to(ROOT / "model_cards" / "templates")
    write_results(cards / "results" / "official.json", recall=33.3)
    floor = "retrieval, trained score of random weights"
    write_results(cards / "results" / "floor.json", training=None, recall=10.9, protocol=floor)
    text = "---\nlicense: mit\n---\n\n# mine\n\nORG/mine ![a](pictures/a.png)\n\n<!-- results: official floor -->\n"
    text = fill(text + "<!-- end of results -->\n", cards / "results")
    (cards / "mine.md").write_text(text)
    monkeypatch.setattr(model_push, "CARDS", cards)
    push(folder, "--dataset", "org/narrated")
    files = hub_server.repositories["models/org/fgmm-tiny"].files
    assert b"33.3" in files["README.md"].content and b"org/fgmm-tiny ![a]" in files["README.md"].content
    card = ModelCard(files["README.md"].content.decode())
    assert "10.9" in card.text and 10.9 not in [result.metric_value for result in card.data.eval_results]
    assert ".eval_results/official.yaml" in files and ".eval_results/floor.yaml" not in files
    assert files["pictures/a.png"].content == b"png" and "results/official.json" in files

    (cards / "mine.md").write_text(text.replace("33.3", "93.3"))
    with pytest.raises(UserError, match=r"mine.md differs from its results files"):
        push(folder)
    (folder / "training.json").write_text(json.dumps(TRAINING | {"date": "2026-05-05"}))
    write_results(folder / "retrieval.json", training=TRAINING | {"date": "2026-05-05"}, recall=44.4)
    push(folder)
    assert b"44.4" in hub_server.repositories["models/org/fgmm-tiny"].files["README.md"].content
    assert "templates/model.md" in capsys.readouterr().out


def test_a_card_is_of_a_run_if_all_its_results_are(tmp_path, monkeypatch):
    monkeypatch.setattr(model_push, "CARDS", tmp_path)
    (tmp_path / "results").mkdir()
    write_results(tmp_path / "results" / "own.json")
    write_results(tmp_path / "results" / "random.json", training=None)
    write_results(tmp_path / "results" / "other.json", training=TRAINING | {"seed": 1})
    for names, expected in (("own", True), ("own random", True), ("own other", False), ("random", False)):
        text = f"<!-- results: {names} -->\n<!-- end of results -->\n"
        assert model_push.has_results_of(text, TRAINING) == expected
    assert not model_push.has_results_of("no table", None)
