"""Training by two processes with workers on a mix of corpora, killed at random moments and resumed.

FGMM_KILLS is how often, 2 unless it is set.
"""

import gc
import json
import os
import random
import socket
import time

import pretrain
import pytest
import torch
import torch.multiprocessing as multiprocessing
from accelerate import Accelerator
from helpers import training_arguments
from safetensors.torch import load_file
from torch.nn.parallel import DistributedDataParallel

from fgmm_tools.corpora.narrated import render_corpus
from fgmm_tools.training import monitoring
from fgmm_tools.training.configuration import parse_config

KILLS = int(os.environ.get("FGMM_KILLS", "2"))
MAX_STEPS = 8 + 6 * KILLS  # more than are taken between so many kills


def train(rank: int, world: int, port: int, arguments: list[str], record: str) -> None:
    """One process of a run; losses and clips of its steps, and the wrapped models at its end, are added to files."""
    os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=str(port), RANK=str(rank), LOCAL_RANK=str(rank))
    os.environ.update(WORLD_SIZE=str(world), LOCAL_WORLD_SIZE=str(world), ACCELERATE_USE_CPU="true")
    multiprocessing.set_start_method("fork", force=True)  # of workers, as in a process that a launcher starts
    torch.set_num_threads(1)
    log, add = Accelerator.log, monitoring.FailedClips.add

    def write(name: str, values: dict) -> None:
        with open(f"{record}/{name}-{rank}.jsonl", "a") as file:
            file.write(json.dumps(values) + "\n")

    def log_and_write(self, values, step):
        write("losses", {"step": step, **{name: value for name, value in values.items() if name.startswith("loss")}})
        log(self, values, step=step)

    def add_and_write(self, batch):
        clips = dict(zip(batch.numbers, zip(batch.corpora, batch.video_ids, strict=True), strict=True))
        write("clips", {"state": batch.state.number, "clips": clips})
        add(self, batch)

    def count_and_destroy(group=None):
        write("wrapped", {"models": sum(isinstance(thing, DistributedDataParallel) for thing in gc.get_objects())})
        destroy(group)

    Accelerator.log, monitoring.FailedClips.add = log_and_write, add_and_write
    destroy, torch.distributed.destroy_process_group = torch.distributed.destroy_process_group, count_and_destroy
    pretrain.main(parse_config(arguments))


def start(world: int, arguments: list[str], record) -> list:
    record.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["accelerate", "modeling_fgmm", "fgmm_tools.corpora.preparation", "pretrain"])
    processes = [
        context.Process(target=train, args=(rank, world, port, arguments, str(record))) for rank in range(world)
    ]
    for process in processes:
        process.start()
    return processes


def finish(processes: list) -> None:
    for process in processes:
        process.join(240)
    assert [process.exitcode for process in processes] == [0] * len(processes)


def kill(processes: list) -> None:
    for process in processes:
        process.kill()
    for process in processes:
        process.join()


def wait_for_steps(record, number: int, deadline: float) -> None:
    """Waits until that many more steps have been begun, at the latest until the deadline."""
    path = record / "clips-0.jsonl"

    def count() -> int:
        return len(path.read_text().splitlines()) if path.exists() else 0

    number += count()
    while count() < number and time.monotonic() < deadline:
        time.sleep(0.01)


def read_losses(record) -> dict[int, dict]:
    """The losses of each step as they were logged last."""
    lines = map(json.loads, (record / "losses-0.jsonl").read_text().splitlines())
    return {entry.pop("step"): entry for entry in lines}


def read_clips(record) -> dict[int, dict]:
    """The clips of each batch, by the number in the stream after it, of all processes; where a batch was seen again,
    after a kill, they must be the same."""
    batches = {}
    for path in record.glob("clips-*.jsonl"):
        for entry in map(json.loads, path.read_text().splitlines()):
            clips = batches.setdefault(entry["state"], {})
            assert all(clips.get(number, clip) == clip for number, clip in entry["clips"].items())
            clips.update(entry["clips"])
    return batches


@pytest.fixture(scope="module")
def options(narrated, tmp_path_factory):
    """The fields of a run on two corpora."""
    other = tmp_path_factory.mktemp("other") / "second"
    render_corpus(other, num_train=20, num_test=1, noise=0.0, seed=1, num_proc=1)
    corpora = f"[{{dataset: {narrated}, weight: 2}}, {{dataset: {other}}}]"
    fields = {"datasets": corpora, "num_workers": 1, "save_steps": 2, "log_steps": 1, "max_steps": MAX_STEPS}
    return lambda output, **more: training_arguments("", output, **{**fields, **more})


@pytest.fixture(scope="module")
def undisturbed(options, tmp_path_factory):
    """The folder of a run that nothing disturbs, and its record."""
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(start(2, options(folder / "out"), folder / "record"))
    return folder / "out", folder / "record"


def test_the_wrapped_model_is_gone_before_the_process_group(undisturbed):
    """Else its destructor may hang, see [`Training.release`]."""
    for rank in (0, 1):
        assert json.loads((undisturbed[1] / f"wrapped-{rank}.jsonl").read_text()) == {"models": 0}


def test_a_run_that_is_killed_again_and_again_ends_as_if_nothing_had_been(options, undisturbed, tmp_path):
    """Losses and weights bit for bit."""
    whole, whole_record = undisturbed
    generator, arguments = random.Random(0), options(tmp_path / "out", resume_from="latest")
    for _ in range(KILLS):
        processes = start(2, arguments, tmp_path / "record")
        wait_for_steps(tmp_path / "record", generator.randint(0, 5), time.monotonic() + 60)
        time.sleep(generator.uniform(0, 1))
        assert any(process.is_alive() for process in processes)
        kill(processes)
    finish(start(2, arguments, tmp_path / "record"))
    assert read_losses(tmp_path / "record") == read_losses(whole_record)
    assert set(read_losses(whole_record)) == set(range(1, MAX_STEPS + 1))
    assert all({"loss/corpus", "loss/second"} & entry.keys() for entry in read_losses(whole_record).values())
    clips = read_clips(whole_record)
    resumed = read_clips(tmp_path / "record")
    assert {state: resumed[state] for state in clips} == clips and len(clips) == MAX_STEPS
    first, second = (load_file(folder / "model.safetensors") for folder in (whole, tmp_path / "out"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_other_numbers_of_processes_and_workers_go_on_with_the_same_clips(options, undisturbed, tmp_path):
    clips, seen = read_clips(undisturbed[1]), {}
    for world, steps, workers in ((1, 4, 0), (3, 10, 2), (2, MAX_STEPS, 1)):
        fields = {"resume_from": "latest", "max_steps": steps, "num_workers": workers}
        finish(start(world, options(tmp_path / "out", **fields), tmp_path / f"record-{steps}"))
        part = read_clips(tmp_path / f"record-{steps}")
        assert not seen.keys() & part.keys()
        seen.update(part)
    assert seen == clips
    assert json.loads((tmp_path / "out" / "training.json").read_text())["clips_seen"] == 8 * MAX_STEPS
