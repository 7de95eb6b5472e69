import shutil

import pytest
from accelerate import Accelerator
from helpers import training_arguments, write_corpus

from fgmm_tools.cli import UserError
from fgmm_tools.training import checks
from fgmm_tools.training.checks import check_config, settle_config
from fgmm_tools.training.configuration import parse_config


@pytest.mark.parametrize(
    "fields,named",
    [
        (
            {"model.projection_dims": 8},
            "The field 'model' is wrong: FgmmConfig has no option 'projection_dims'; did you mean 'projection_dim'",
        ),
        ({"model.video_config": "{width: 2}"}, "FgmmVideoConfig has no option 'width'"),
        ({"model.video_config": "small"}, "'model.video_config' must hold"),
        ({"video_processor": "{frames: 2}"}, "'video_processor.frames'; did you mean 'video_processor.num_frames'"),
        ({"feature_extractor.hop": 2}, "'feature_extractor.hop'"),
        ({"trackers": "[wandbx]"}, "'wandbx'"),
        ({"tokenizer": "/no/such/tokenizer"}, "The tokenizer '/no/such/tokenizer' does not exist"),
    ],
)
def test_what_is_misspelt_or_missing_is_named(tmp_path, fields, named):
    config = parse_config(training_arguments("corpus", **{"output": tmp_path, **fields}))
    with pytest.raises(UserError) as caught:
        check_config(config)
    assert named in str(caught.value) and "\n" not in str(caught.value)


def test_batch_normalisation_over_processes_is_not_of_chunks(tmp_path):
    fields = {"sync_batch_norm": True, "encoder_chunk_size": 4}
    with pytest.raises(UserError, match="leave out it or encoder_chunk_size"):
        check_config(parse_config(training_arguments("corpus", tmp_path, **fields)))


def test_adapters_need_their_extra(tmp_path, monkeypatch):
    config = parse_config(training_arguments("corpus", tmp_path, lora_rank=2))
    check_config(config)
    monkeypatch.setattr(checks, "find_spec", lambda name: None if name == "peft" else True)
    with pytest.raises(UserError, match="the extra lora"):
        check_config(config)


def settle(folder, **fields):
    config = parse_config(training_arguments(folder, "out", **fields))
    return settle_config(config, Accelerator(cpu=True))


def test_a_corpus_without_the_evaluation_split_is_trained_on_all_the_same(tmp_path, capsys):
    folder = write_corpus(tmp_path, [{"video_id": "a", "video": {"bytes": b"x", "path": None}, "captions": []}])
    assert settle(folder, eval_steps=2).eval_steps == 0
    assert f"{folder} has no split 'test': training without evaluation." in capsys.readouterr().out
    with pytest.raises(UserError, match="has no split 'tests', only train; give one of them as eval_split, or"):
        settle(folder, eval_steps=2, eval_split="tests")
    assert settle(folder, eval_steps=0, eval_split="tests").eval_steps == 0


def test_the_evaluation_split_is_found_in_a_folder_of_any_name(narrated, tmp_path):
    folder = shutil.copytree(narrated, tmp_path / "my[1]:corpus *")
    assert settle(folder, eval_steps=2).eval_steps == 2
    with pytest.raises(UserError, match="has no split 'tests', only train, test"):
        settle(folder, eval_steps=2, eval_split="tests")


def test_what_is_left_open_is_filled_in(narrated):
    config = settle(narrated, eval_steps=2, clip_seconds=None, max_phrase_words=None)
    assert (config.clip_seconds, config.max_phrase_words, config.eval_steps) == (10.0, 4, 2)


def test_fields_of_encoders_of_transformers_are_left_to_them(tmp_path):
    words = ["--dataset", "corpus", "--output_dir", str(tmp_path), "--model.video_config.model_type", "vit"]
    check_config(parse_config([*words, "--model.video_config.patch_size", "16"]))
