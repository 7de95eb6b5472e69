import json
from types import SimpleNamespace

import pytest
import yaml
from accelerate import Accelerator
from helpers import training_arguments

from fgmm_tools.cli import UserError
from fgmm_tools.training import run_folder
from fgmm_tools.training.checks import settle_config
from fgmm_tools.training.configuration import parse_config
from fgmm_tools.training.corpora import open_corpora
from fgmm_tools.training.manifest import write_manifest


def settings(output, resume_from=""):
    return SimpleNamespace(output_dir=str(output), resume_from=str(resume_from))


def write_checkpoint(folder, step):
    """As far as the folder's checks look at it."""
    path = folder / "checkpoints" / f"step-{step:07d}"
    path.mkdir(parents=True)
    (path / "progress.json").write_text(json.dumps({"step": step}))
    return path


def test_the_latest_whole_checkpoint_is_found(tmp_path):
    assert run_folder.find_checkpoint(settings(tmp_path, "latest")) is None
    for name in ("step-0000008", "step-0000016", "step-0000024.partial"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        write_manifest(tmp_path / "checkpoints" / name)
    assert [path.name for path in run_folder.list_checkpoints(tmp_path)] == ["step-0000008", "step-0000016"]
    assert run_folder.find_checkpoint(settings(tmp_path, "latest")).name == "step-0000016"
    assert run_folder.find_checkpoint(settings(tmp_path)) is None


def test_half_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(UserError, match="not a checkpoint"):
        run_folder.find_checkpoint(settings(tmp_path, tmp_path))


def test_a_new_run_in_the_folder_of_another_is_refused_with_two_ways_out(tmp_path):
    write_checkpoint(tmp_path, 8)
    last = write_checkpoint(tmp_path, 16)
    with pytest.raises(UserError, match="of step 16; continue it by --resume_from latest, or give another output_dir"):
        run_folder.check_folder(tmp_path, None)
    run_folder.check_folder(tmp_path, last)


def test_a_run_from_a_checkpoint_that_is_not_the_last_is_refused(tmp_path):
    first = write_checkpoint(tmp_path, 8)
    write_checkpoint(tmp_path, 16)
    elsewhere = write_checkpoint(tmp_path / "elsewhere", 24)
    for checkpoint in (first, elsewhere):
        with pytest.raises(UserError, match=r"up to step 16, with which one from .* would be mixed"):
            run_folder.check_folder(tmp_path, checkpoint)


@pytest.mark.parametrize(
    "names,named",
    [
        (("config.json", "model.safetensors"), "holds a model and no checkpoint"),
        (("thesis.tex", "run.log"), "holds something else (thesis.tex)"),
        (("run.log", "slurm-7.out", "run.lock", ".gitignore"), None),
        (("pretrain.yaml", "tokenizer.json"), None),  # a run that ended before its first checkpoint
    ],
)
def test_a_folder_that_holds_something_else_is_refused(tmp_path, names, named):
    for name in names:
        (tmp_path / name).touch()
    if named is None:
        run_folder.check_folder(tmp_path, None)
        return
    with pytest.raises(UserError) as caught:
        run_folder.check_folder(tmp_path, None)
    assert named in str(caught.value) and str(tmp_path) in str(caught.value)


def test_a_folder_that_cannot_be_written_is_named():
    with pytest.raises(UserError, match="output_dir '/proc/nothing' cannot be written"):
        run_folder.enter_folder(settings("/proc/nothing"), [], None)


def test_what_an_interrupted_run_left_half_done_is_removed(narrated, tmp_path):
    for name in ("model.partial", "checkpoints/step-0000008.partial", "evaluations"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "evaluations" / "step-0000004.json").touch()
    (tmp_path / "failed_clips.jsonl").touch()
    (tmp_path / "pretrain.yaml").touch()
    config, accelerator = parse_config(training_arguments(narrated, tmp_path, seed=3)), Accelerator(cpu=True)
    corpora = open_corpora(config, accelerator)
    config = settle_config(config, accelerator)
    with run_folder.open_run(config, corpora, accelerator) as run:
        assert (run.folder, run.checkpoint) == (tmp_path, None)
        names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
        assert names == {"checkpoints", "evaluations", "pretrain.yaml", "run.lock"}
    assert yaml.safe_load((tmp_path / "pretrain.yaml").read_text()) == vars(config)
