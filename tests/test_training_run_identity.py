import dataclasses
import json
import shutil

import pytest
from accelerate import Accelerator
from helpers import training_arguments

from fgmm_tools.cli import UserError
from fgmm_tools.training.configuration import parse_config
from fgmm_tools.training.corpora import open_corpora
from fgmm_tools.training.run_identity import check_same_run, fingerprint_model, identify_run, read_identity


@pytest.fixture
def identify(narrated):
    """The identity of a tiny run with some fields of its own."""

    def run(dataset=narrated, **fields):
        config = parse_config(training_arguments(dataset, "out", max_steps=24, **fields))
        return identify_run(config, open_corpora(config, Accelerator(cpu=True)))

    return run


def check(saved, current, step=8):
    return check_same_run(saved, current, "checkpoint", step)


def test_the_same_run_may_move_and_be_watched_otherwise(identify, narrated, tmp_path):
    shutil.copytree(narrated, tmp_path / "moved [1]")
    fields = {"num_workers": 2, "log_steps": 1, "save_steps": 3, "eval_clips": 2, "resume_from": "latest"}
    assert check(identify(), identify(tmp_path / "moved [1]", **fields))["changes"] == []


@pytest.mark.parametrize(
    "fields,named",
    [
        ({"seed": 5}, "seed was 0 and is 5"),
        ({"learning_rate": 1}, "learning_rate was 0.003 and is 1.0"),
        ({"warmup_steps": 3}, "warmup_steps was 2 and is 3"),
        ({"batch_size": 4, "clip_seconds": 2}, "clip_seconds was 5.0 and is 2.0, batch_size was 8 and is 4"),
        ({"model.projection_dim": 8}, "model.projection_dim was 16 and is 8"),
        ({"model.gce_q": 0.5}, "model.gce_q was None and is 0.5"),
        ({"video_processor": "{num_frames: 4}"}, "video_processor.size.shortest_edge was 32 and is None"),
    ],
)
def test_other_settings_are_named(identify, fields, named):
    with pytest.raises(UserError) as caught:
        check(identify(), identify(**fields))
    assert named in str(caught.value) and "checkpoint is of another run" in str(caught.value)


def test_another_corpus_is_named(identify, narrated, tmp_path):
    other = shutil.copytree(narrated, tmp_path / "other")
    shard = next(other.rglob("train-*.parquet"))
    shutil.copy(next(other.rglob("test-*.parquet")), shard)
    counts = r"it had 32 rows in \d+ row groups and has 8 in 1; train-\S+ has changed"
    with pytest.raises(UserError, match=rf"the corpus '{other}', which was '{narrated}', has changed \({counts}\)"):
        check(identify(), identify(other))
    saved = identify()
    saved["corpora"][0]["dataset"] = str(other)
    with pytest.raises(UserError, match=f"the corpus '{other}' has changed"):
        check(saved, identify(other))


def test_corpora_are_the_same_with_the_same_weights(identify, narrated):
    def mixed(*weights):
        entries = ", ".join(f"{{dataset: {narrated}, weight: {weight}}}" for weight in weights)
        return identify("", datasets=f"[{entries}]")

    assert check(mixed(1, 2), mixed(1, 2))["changes"] == []
    with pytest.raises(UserError, match=r"datasets was \[1.0, 2.0\] and is \[2.0, 2.0\]"):
        check(mixed(1, 2), mixed(2, 2))
    with pytest.raises(UserError, match="it had 1 corpora and has 2"):
        check(identify(), mixed(1, 2))


def test_a_model_is_identified_by_its_files(trained, tmp_path):
    copy = shutil.copytree(trained[0], tmp_path / "copy", ignore=shutil.ignore_patterns("checkpoints"))
    (copy / "results.json").touch()
    assert fingerprint_model(str(copy)) == fingerprint_model(str(trained[0]))
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert fingerprint_model(str(copy)) != fingerprint_model(str(trained[0]))


def test_another_number_of_steps_is_taken_over_and_recorded(identify):
    saved, current = identify(), identify()
    current["settings"]["max_steps"] = 40
    first = check(saved, current)
    assert first["changes"] == [{"step": 8, "field": "max_steps", "old": 24, "new": 40}]
    again = check(first, identify(), step=16)
    assert again["changes"] == [*first["changes"], {"step": 16, "field": "max_steps", "old": 40, "new": 24}]
    with pytest.raises(UserError, match="of step 32, beyond max_steps 24"):
        check(first, identify(), step=32)


def test_fields_that_an_earlier_version_did_not_have_are_at_their_defaults(identify):
    saved = identify()
    del saved["settings"]["sync_batch_norm"]
    assert check(saved, identify())["changes"] == []


def test_an_identity_is_read_again(identify, tmp_path):
    identity = identify()
    (tmp_path / "run.json").write_text(json.dumps(identity))
    assert read_identity(tmp_path) == identity and identity["settings"] == dataclasses.asdict(
        parse_config(training_arguments(identity["settings"]["dataset"], "out", max_steps=24))
    )
    del identity["corpora"]
    (tmp_path / "run.json").write_text(json.dumps(identity))
    with pytest.raises(UserError, match="written by an earlier version, which had another order of clips"):
        read_identity(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UserError, match="does not say which run it is of"):
        read_identity(tmp_path)
