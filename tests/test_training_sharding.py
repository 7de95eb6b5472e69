"""Two processes of one training: launched for SLURM, one of them killed, and sharded (FSDP2), all with the same result.

accelerate shards on GPUs alone: the sharded processes of these tests, which talk by gloo, tell it that they had some.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator, DistributedType, PartialState
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
from helpers import ROOT, training_arguments
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.distributed.fsdp.fully_sharded_data_parallel import StateDictType
from transformers import AutoModel

from fgmm_tools.cli import UserError
from fgmm_tools.training import sharding
from fgmm_tools.training.configuration import parse_config
from modeling_fgmm import FgmmModel

CONFIGS = ROOT / "scripts" / "configs" / "accelerate"
STEPS = 6
# What a machine of a cluster has: one task on it, and two GPUs.
SLURM = {
    **{"SLURM_JOB_NODELIST": "localhost", "SLURM_NNODES": "1", "SLURM_NODEID": "0", "SLURM_GPUS_ON_NODE": "2"},
    "SLURM_JOB_ID": str(os.getpid()),
}
STUBS = {
    "scontrol": 'echo "$3"',
    "srun": 'exec "$@"',
    "accelerate": f'exec "{sys.executable}" -m accelerate.commands.accelerate_cli "$@"',
}
SHARDED = """
import sys
import torch
from accelerate import DistributedType, PartialState

torch.set_num_threads(1)
PartialState(cpu=True)
PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU  # else accelerate leaves FSDP out

import pretrain
from fgmm_tools.cli import run_command
from fgmm_tools.training import sharding

sharding.check_sharding = lambda *arguments: None
run_command(pretrain.parse_arguments, pretrain.main)
"""


def arguments(narrated, output, **fields) -> list[str]:
    defaults = {"max_steps": STEPS, "save_steps": 2, "log_steps": 1, "trackers": "[tensorboard]", "picture_steps": 4}
    return training_arguments(narrated, output, **{**defaults, "eval_steps": 4, "eval_clips": 4, **fields})


def run(command: list, log: Path, **environment) -> subprocess.Popen:
    """Starts a command on one thread, without GPUs, in a process group of its own."""
    paths = os.pathsep.join([str(ROOT / "scripts"), os.environ.get("PYTHONPATH", "")])
    variables = {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONPATH": paths, **environment}
    with log.open("w") as stream:
        options = {"stdout": stream, "stderr": stream, "env": {**os.environ, **variables}, "cwd": ROOT}
        return subprocess.Popen(list(map(str, command)), start_new_session=True, **options)


def finish(process: subprocess.Popen, log: Path) -> str:
    """What a command printed, which must end well."""
    try:
        assert process.wait(280) == 0, log.read_text()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return log.read_text()


def read_losses(folder) -> dict[int, float]:
    """The logged loss of each step."""
    events = EventAccumulator(str(folder / "fgmm"))
    events.Reload()
    return {event.step: event.value for event in events.Scalars("loss")}


def same_weights(first, second) -> bool:
    one, other = (load_file(folder / "model.safetensors") for folder in (first, second))
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def whole(narrated, tmp_path_factory) -> Path:
    """The folder of a run of two processes with the whole model in each, launched by the script for SLURM."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "bin").mkdir()
    for name, text in STUBS.items():
        (folder / "bin" / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / "bin" / name).chmod(0o755)
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", "scripts/pretrain_slurm.sh", *arguments(narrated, folder / "out")]
    finish(run(command, folder / "log", PATH=path, **SLURM), folder / "log")
    return folder / "out"


@pytest.fixture(scope="module")
def train_sharded(narrated, tmp_path_factory):
    """Trains in a folder, sharded as scripts/configs/accelerate/fsdp2.yaml says."""
    script = tmp_path_factory.mktemp("sharded") / "pretrain_sharded.py"
    script.write_text(SHARDED)
    launched = launch_command_parser().parse_args(["--config_file", str(CONFIGS / "fsdp2.yaml"), str(script)])
    variables = prepare_multi_gpu_env(_validate_launch_command(launched)[0])
    fsdp = {name: value for name, value in variables.items() if name.startswith("FSDP") or "USE_FSDP" in name}
    assert fsdp["FSDP_VERSION"] == "2"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]

    def train(folder, **fields) -> str:
        folder.mkdir(exist_ok=True)
        log = folder.with_suffix(".log")
        return finish(run([*launcher, script, *arguments(narrated, folder, **fields)], log, **fsdp), log)

    return train


@pytest.fixture(scope="module")
def sharded(train_sharded, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sharded_run") / "out"
    train_sharded(folder)
    return folder


def test_a_launch_for_slurm_trains_with_all_processes_of_the_machine(whole):
    assert (whole / "checkpoints" / f"step-{STEPS:07d}" / "random_states_1.pkl").exists()
    assert sorted(read_losses(whole)) == list(range(1, STEPS + 1))


def test_a_run_goes_on_by_itself_when_a_process_is_killed(whole, narrated, tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    script = [ROOT / "scripts/pretrain.py", *arguments(narrated, tmp_path / "out", resume_from="latest")]
    # Without it the launcher's store keeps the addresses of the first processes, for which the new ones may wait.
    store = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    process = run([*launcher, "--max-restarts", "2", *script], tmp_path / "log", **store)
    deadline = time.monotonic() + 200
    while not (tmp_path / "out/checkpoints/step-0000002").exists() and time.monotonic() < deadline:
        assert process.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.01)
    [*_, second] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(second), signal.SIGKILL)
    assert "Resumed from" in finish(process, tmp_path / "log")
    assert same_weights(whole, tmp_path / "out")


def test_sharded_training_has_the_losses_and_weights_of_whole_models(whole, sharded):
    """But for the order of sums."""
    losses, of_sharded = read_losses(whole), read_losses(sharded)
    assert of_sharded == pytest.approx(losses, rel=1e-4) and len(of_sharded) == STEPS
    model, of_whole = (AutoModel.from_pretrained(folder) for folder in (sharded, whole))
    assert type(model) is FgmmModel and (sharded / "modeling_fgmm.py").exists()
    state, expected = model.state_dict(), of_whole.state_dict()
    assert state.keys() == expected.keys()
    assert max((state[name].float() - expected[name].float()).abs().max() for name in state) < 1e-3
    names = [f"step-{step:07d}" for step in (4, STEPS)]
    assert [path.stem for path in sorted((sharded / "evaluations").iterdir())] == names
    assert [path.stem for path in (sharded / "attention").iterdir()] == names[:1]


def test_sharded_training_resumes_bit_for_bit(sharded, train_sharded, tmp_path):
    folder = tmp_path / "out"
    shutil.copytree(sharded / "checkpoints/step-0000004", folder / "checkpoints/step-0000004")
    shutil.copy(sharded / "pretrain.yaml", folder)
    assert "at step 4" in train_sharded(folder, resume_from="latest")
    assert same_weights(sharded, folder)


def test_checkpoints_are_resumed_as_they_were_sharded(whole, sharded, pretrain_here, narrated):
    for folder in (whole, sharded):
        shutil.rmtree(folder / "checkpoints/step-0000002", ignore_errors=True)
    with pytest.raises(UserError, match="was written with FSDP; resume with it"):
        sharding.check_checkpoint(SimpleNamespace(is_fsdp2=False), sharded / "checkpoints/step-0000004")
    with pytest.raises(UserError, match="was written without FSDP; resume without it"):
        sharding.check_checkpoint(SimpleNamespace(is_fsdp2=True), whole / "checkpoints/step-0000004")
    sharding.check_checkpoint(SimpleNamespace(is_fsdp2=True), sharded / "checkpoints/step-0000004")


def fake_accelerator(device="cuda", processes=2, version=2, kind=StateDictType.FULL_STATE_DICT):
    plugin = SimpleNamespace(state_dict_type=kind)
    return SimpleNamespace(
        device=torch.device(device),
        num_processes=processes,
        is_fsdp2=version == 2,
        state=SimpleNamespace(fsdp_plugin=plugin),
    )


@pytest.mark.parametrize(
    ("options", "fields", "message"),
    [
        ({"device": "cpu"}, [], "needs several processes with GPUs"),
        ({"processes": 1}, [], "needs several processes with GPUs"),
        ({"version": 1}, [], "set fsdp_version: 2"),
        ({"kind": StateDictType.SHARDED_STATE_DICT}, [], "fsdp_state_dict_type: FULL_STATE_DICT"),
        ({}, ["--encoder_chunk_size", "4"], "FSDP has no encoder_chunk_size"),
        ({}, ["--gradient_accumulation_steps", "2"], "FSDP has no gradient_accumulation_steps"),
        ({}, ["--lora_rank", "2"], "FSDP has no lora_rank"),
        ({}, [], None),
    ],
)
def test_what_fsdp_cannot_do_is_said(monkeypatch, options, fields, message):
    config = parse_config(["--dataset", "a", "--output_dir", "b", *fields])
    accelerator = fake_accelerator(**options)
    monkeypatch.delenv("ACCELERATE_USE_FSDP", raising=False)
    sharding.check_sharding(config, accelerator)  # nobody asks for it
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    if message is None:
        sharding.check_sharding(config, accelerator)
        return
    with pytest.raises(UserError, match=message):
        sharding.check_sharding(config, accelerator)


def test_layers_of_all_encoders_are_found(model, dual_at):
    assert sharding.find_layer_classes(model) == ["AudioStage", "InceptionBlock"]  # its texts have no layers
    dual = FgmmModel.from_dual_encoder(dual_at["clip"])
    assert "CLIPEncoderLayer" in sharding.find_layer_classes(dual)


def test_without_fsdp_nothing_is_changed(model):
    accelerator, optimizer = Accelerator(cpu=True), torch.optim.AdamW(model.parameters())
    sharding.prepare_sharding(accelerator, model, optimizer)
    sharding.average_whole_gradients(accelerator, model)
    assert len(optimizer.param_groups) == 1 and sharding.gather_model(accelerator, model) is model
    assert all(parameter.grad is None for parameter in model.parameters())
    assert PartialState().distributed_type == DistributedType.NO
