import ctypes
import itertools
import os
import signal
import types

import pytest
import torch
from helpers import make_row, write_shards
from torch.utils.data import get_worker_info
from torch.utils.data._utils.pin_memory import pin_memory

from fgmm_tools.corpora.parquet_shards import corpus_features
from processing_fgmm import loaders_fgmm
from processing_fgmm.loaders_fgmm import ClipLoader, WorkerError
from processing_fgmm.orders_fgmm import StreamState
from processing_fgmm.rowgroups_fgmm import open_row_groups
from processing_fgmm.streams_fgmm import Batch, NarratedClips


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    videos = [make_row(folder, index) for index in range(6)]
    return open_row_groups(str(write_shards(folder, videos, 2, corpus_features("video"), 1)), "train")


class Suicidal(NarratedClips):
    """Workers that are killed, as by a system without memory, at some clips of the stream.

    Args:
        at: numbers of these clips; each kills once, where `notes` is a folder that remembers it.
    """

    def __init__(self, *arguments, at=(), notes=None, **options):
        super().__init__(*arguments, **options)
        self.at, self.notes = at, notes

    def make_batch(self, draws, readers, state):
        for draw in draws:
            note = self.notes and self.notes / str(draw.number)
            if draw.number in self.at and get_worker_info() and not (note and note.exists()):
                if note:
                    note.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().make_batch(draws, readers, state)


def take(clips, number, num_workers):
    return list(itertools.islice(ClipLoader(clips, num_workers), number))


def test_a_killed_worker_is_started_again_at_its_place(rows, processor, tmp_path, caplog):
    options = {"batch_size": 3, "with_audio": False}
    plain = take(NarratedClips([rows], processor, **options), 6, 0)
    torch.manual_seed(0)
    before, handler = torch.get_rng_state(), signal.getsignal(signal.SIGCHLD)
    batches = take(Suicidal([rows], processor, at=(4, 9), notes=tmp_path, **options), 6, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["4", "9"]
    assert caplog.text.count("A worker that reads clips was killed") == 2
    assert [batch.video_ids for batch in batches] == [batch.video_ids for batch in plain]
    for batch, other in zip(batches, plain, strict=True):
        assert batch.state == other.state
        assert all(torch.equal(value, other.inputs[name]) for name, value in batch.inputs.items())
    # A worker's death interrupts no step, and its restart draws no number of the training's.
    assert torch.equal(torch.get_rng_state(), before) and signal.getsignal(signal.SIGCHLD) == handler


def test_workers_that_are_killed_again_and_again_end_the_run(rows, processor, monkeypatch):
    monkeypatch.setattr(loaders_fgmm, "MAX_RESTARTS", 1)
    with pytest.raises(
        WorkerError, match="killed 2 times, perhaps for want of memory; lower num_workers or batch_size"
    ):
        take(Suicidal([rows], processor, batch_size=3, at=(4,)), 6, 1)


def test_errors_of_workers_stay_what_they_are(rows, processor, monkeypatch):
    clips = NarratedClips([rows], processor, batch_size=3)
    monkeypatch.setattr(clips, "make_inputs", None)
    with pytest.raises(TypeError, match="not callable"):
        take(clips, 1, 1)


def test_parts_are_pinned_for_a_gpu(monkeypatch):
    """DataLoader pins what has such a method; without a GPU the tensors' own one fails."""
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self, *device: pinned.append(self) or self + 1)
    batch = Batch({"input_ids": torch.zeros(2, 3)}, StreamState(2, ((0, 2),)), [0, 1], video_ids=["a", "b"])
    moved = pin_memory(batch)
    assert len(pinned) == 1 and moved.inputs["input_ids"].sum() == 6
    assert (moved.state, moved.numbers, moved.video_ids) == (batch.state, batch.numbers, batch.video_ids)


def test_workers_keep_what_they_free(monkeypatch):
    """glibc takes both options; a worker calls its own init function besides."""
    answers, called = [], []
    mallopt = ctypes.CDLL(None).mallopt
    library = types.SimpleNamespace(mallopt=lambda *option: answers.append(mallopt(*option)))
    monkeypatch.setattr(loaders_fgmm.ctypes, "CDLL", lambda name: library)
    clips = types.SimpleNamespace(processor=types.SimpleNamespace(feature_extractor=None))
    ClipLoader(clips, 1, worker_init_fn=called.append).start_worker(3)
    assert answers == [1, 1] and called == [3]
