import io
import itertools

import numpy as np
import pytest
import torch
from helpers import TEXTS, brightness_time, make_caption, make_row
from media_files import BY_NAME, damage
from PIL import Image
from torch.utils.data import DataLoader

from fgmm_tools.corpora.parquet_shards import corpus_features, write_shard
from processing_fgmm import containers_fgmm, streams_fgmm
from processing_fgmm.corpora_fgmm import CorpusError, load_corpus
from processing_fgmm.streams_fgmm import EvaluationClips, NarratedClips, in_order


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A corpus of 14 clips in two shards, the sixth damaged."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "data").mkdir()
    rows = [make_row(folder, index) for index in range(14)]
    rows[5]["video"]["bytes"] = b"no video"
    for shard, part in enumerate((rows[:7], rows[7:])):
        write_shard(folder / "data" / f"train-{shard:05d}-of-00002.parquet", part, corpus_features("video"))
    return folder


@pytest.fixture(scope="module")
def corpus(folder):
    return load_corpus(str(folder), "train")


@pytest.fixture
def row(corpus):
    """The first row, clip-0."""
    return next(iter(corpus))


def photograph() -> dict:
    """An undecoded JPEG file of one grey value."""
    file = io.BytesIO()
    Image.fromarray(np.full((48, 64, 3), 120, np.uint8)).save(file, "JPEG")
    return {"bytes": file.getvalue(), "path": None}


def stream(corpus, processor, **options):
    return NarratedClips(corpus, processor, **{"batch_size": 4, "num_captions": 2, "block_size": 5, **options})


def take(clips, number, num_workers=0):
    loader = DataLoader(clips, batch_size=None, num_workers=num_workers)
    return list(itertools.islice(loader, number))


def same(first, second) -> bool:
    return (
        first.failures == second.failures
        and (first.epoch, first.position, first.num_clips) == (second.epoch, second.position, second.num_clips)
        and first.inputs.keys() == second.inputs.keys()
        and all(torch.equal(first.inputs[name], second.inputs[name]) for name in first.inputs)
    )


def all_same(first, second) -> bool:
    return len(first) == len(second) > 0 and all(map(same, first, second))


def test_batches_depend_on_the_seed_alone(corpus, processor):
    first = take(stream(corpus, processor), 5)
    assert all_same(first, take(stream(corpus, processor), 5))
    other = take(stream(corpus, processor, seed=1), 1)
    assert not torch.equal(first[0].inputs["pixel_values_videos"], other[0].inputs["pixel_values_videos"])


def test_batches_do_not_depend_on_workers(corpus, processor):
    alone = take(stream(corpus, processor), 5)
    for num_workers in (1, 2):
        assert all_same(alone, take(stream(corpus, processor), 5, num_workers))


def test_a_stream_resumes_at_any_batch(corpus, processor):
    whole = take(stream(corpus, processor), 7)
    assert whole[-1].epoch >= 2
    for number in (1, 3, 5):
        rest = stream(corpus, processor, epoch=whole[number - 1].epoch, position=whole[number - 1].position)
        assert all_same(whole[number : number + 2], take(rest, 2))


def test_an_epoch_has_every_row_once_in_another_order(corpus, processor):
    clips = stream(corpus, processor)
    names = [[row["video_id"] for row in clips.rows(epoch)] for epoch in range(3)]
    assert all(sorted(order) == sorted(names[0]) for order in names) and len(set(names[0])) == 14
    assert names[0] != names[1] != names[2]


def test_processes_share_the_rows(corpus, processor):
    parts = [[row["video_id"] for row in stream(corpus, processor, rank=r, world_size=2).rows(0)] for r in range(2)]
    assert not set(parts[0]) & set(parts[1]) and len(parts[0]) + len(parts[1]) == 14


def test_large_media_are_permuted_in_smaller_blocks(corpus, processor, monkeypatch):
    assert [len(block) for block in stream(corpus, processor).blocks()] == [5, 5, 4]
    whole = [row["video_id"] for row in stream(corpus, processor).rows(0)]
    one_clip = min(len(row["video"]["bytes"]) for row in corpus)
    monkeypatch.setattr(streams_fgmm, "MAX_BLOCK_BYTES", 2 * one_clip)
    smaller = stream(corpus, processor)
    assert max(len(block) for block in smaller.blocks()) < 5
    assert sorted(row["video_id"] for row in smaller.rows(0)) == sorted(whole)


def test_a_damaged_clip_is_left_out_and_named(corpus, processor):
    batches = take(stream(corpus, processor, batch_size=7), 2)
    failures = [failure for batch in batches for failure in batch.failures]
    assert len(failures) == 1 and failures[0].video_id == "clip-5" and "clip-5" in failures[0].reason
    assert sorted(batch.num_clips for batch in batches) == [6, 7]
    assert all(len(batch.inputs["input_ids"]) == batch.num_clips for batch in batches)


def test_a_batch_of_damaged_clips_is_empty(corpus, processor, row):
    row["video"] = {"bytes": b"no video", "path": None}
    batch = stream(corpus, processor).make_batch(2, 3, [row, row])
    assert (batch.inputs, batch.num_clips, len(batch.failures)) == ({}, 0, 2)
    assert (batch.epoch, batch.position) == (2, 4)


def test_damaged_parts_are_left_out_and_named(corpus, processor, row):
    broken = {
        **row,
        "video_id": "half",
        "video": {"bytes": damage(BY_NAME["mp4-h264-aac"], "audio", 0, 5), "path": None},
    }
    batch = stream(corpus, processor).make_batch(0, 0, [row, broken])
    assert (batch.num_clips, batch.failures, list(batch.damaged)) == (2, [], ["half"])
    assert "half: its audio is damaged" in batch.damaged["half"]


def test_only_the_wanted_modalities_are_decoded(corpus, processor, row):
    [sounds] = take(stream(corpus, processor, with_video=False), 1)
    assert "pixel_values_videos" not in sounds.inputs and sounds.inputs["input_features_mask"].any(1).all()
    [videos] = take(stream(corpus, processor, with_audio=False), 1)
    assert "input_features" not in videos.inputs and videos.inputs["video_mask"].all()
    assert stream(corpus, processor, with_video=False).sample_clip(row, np.random.default_rng(0)).frames is None
    assert videos.failures == sounds.failures and len(videos.inputs["input_ids"]) == videos.num_clips


def test_an_epoch_smaller_than_a_batch_is_an_error(corpus, processor):
    with pytest.raises(CorpusError, match=r"14 clips .* lower batch_size or add clips"):
        take(stream(corpus, processor, batch_size=20), 1)


def test_evaluation_items_are_all_there_in_order_with_all_captions(corpus, processor):
    for num_workers in (0, 1, 2):
        loader = DataLoader(EvaluationClips(corpus, processor), batch_size=None, num_workers=num_workers)
        answers = list(in_order(loader))
        assert [position for position, _ in answers] == list(range(14))
        items = [item for _, [item] in answers]
        assert isinstance(items[5], str) and "clip-5" in items[5]
        assert [items[place].windows[0].video_id for place in (0, 1, 13)] == ["clip-0", "clip-1", "clip-13"]
        assert items[0].captions == [f"{TEXTS[0]} {second}" for second in range(3)] and items[0].label is None
        assert items[0].windows[0].waveform.shape == (32000,)
    # The middle two seconds of three: 0.5 s to 2.5 s.
    assert brightness_time(items[0].windows[0].frames) == pytest.approx(1.5, abs=0.1)


def test_processes_share_the_evaluation_items_and_keep_their_order(corpus, processor):
    for rank, num_workers in ((0, 0), (1, 1), (2, 2)):
        clips = EvaluationClips(corpus, processor, rank=rank, world_size=3)
        answers = in_order(DataLoader(clips, batch_size=None, num_workers=num_workers))
        assert [position for position, _ in answers] == list(range(rank, 14, 3))


def test_order_does_not_wait_for_the_end():
    """What has come in order is yielded at once: else a share of the corpus would be held decoded in memory."""
    taken = []

    class Loader(list):
        dataset = EvaluationClips(None, None, rank=1, world_size=2)

        def __iter__(self):
            for entry in super().__iter__():
                taken.append(entry)
                yield entry

    answers = in_order(Loader([(1, "a"), (5, "c"), (3, "b"), (7, "d")]))
    assert next(answers) == (1, "a") and len(taken) == 1
    assert list(answers) == [(3, "b"), (5, "c"), (7, "d")]


def window_times(item) -> list[float]:
    """The mean time of each window, s."""
    return [brightness_time(window.frames) for window in item.windows]


def test_several_windows_reach_from_one_end_to_the_other(row, processor):
    [item] = EvaluationClips([], processor, num_windows=3).decode_row(row)
    assert window_times(item) == pytest.approx([1.0, 1.5, 2.0], abs=0.1)
    assert [window.waveform.shape for window in item.windows] == [(32000,)] * 3
    processor.clip_seconds = 4.0  # all of the clip
    [item] = EvaluationClips([], processor, num_windows=3).decode_row(row)
    assert window_times(item) == pytest.approx([1.5], abs=0.1)


def test_each_caption_is_an_item_between_its_times(row, processor):
    times = {"all": (0.0, 3.0), "end": (2.0, 9.0), "late": (4.0, 5.0), "no": (2.0, 1.0)}
    row["captions"] = [make_caption(text, *window) for text, window in times.items()]
    whole, end, late, backwards = EvaluationClips([], processor, each_caption=True).decode_row(row)
    assert (whole.captions, end.captions) == (["all"], ["end"])
    assert window_times(whole) == pytest.approx([1.5], abs=0.1)  # its middle two seconds
    assert window_times(end) == pytest.approx([2.5], abs=0.1) and end.windows[0].waveform.shape == (16000,)
    assert late == "clip-0 has the caption 'late' from 4.0 to 5.0 s, which begins after the clip of 3 s: left out."
    assert "clip-0 has the caption 'no' from 2.0 to 1.0 s, which does not end after its start" in backwards
    [cut] = end.problems
    assert "clip-0 has the caption 'end' from 2.0 to 9.0 s, which outlasts the clip" in cut and not whole.problems
    whole, *_ = EvaluationClips([], processor, each_caption=True, num_windows=2).decode_row(row)
    assert window_times(whole) == pytest.approx([1.0, 2.0], abs=0.1)


def test_a_clip_of_unknown_duration_is_decoded_to_its_end(row, processor, monkeypatch):
    monkeypatch.setattr(streams_fgmm, "row_duration", lambda row: 0.0)
    [item] = EvaluationClips([], processor, num_windows=3).decode_row(row)
    assert [window.waveform.shape for window in item.windows] == [(48000,)]
    row["captions"] = [make_caption("at once", 0.0, 0.0), make_caption("end", 2.0, 3.0)]
    at_once, end = EvaluationClips([], processor, each_caption=True).decode_row(row)
    assert "does not end after its start" in at_once and end.windows[0].waveform.shape == (16000,)
    row["captions"] = [make_caption("to its end", 2.0)]
    [rest] = EvaluationClips([], processor, each_caption=True).decode_row(row)
    assert rest.windows[0].waveform.shape == (16000,)


def test_bad_captions_are_left_out_of_batches_and_items_alike_and_named(corpus, row, processor):
    row["captions"] = [make_caption(None, 0.0, 3.0), make_caption("stir", 0.0, None), make_caption("late", 9.0, 10.0)]
    named = [
        "clip-0 has the caption None from 0.0 to 3.0 s, which has no word: left out.",
        "clip-0 has the caption 'stir' from 0.0 to None s, which has no end: it ends at 3 s.",
        "clip-0 has the caption 'late' from 9.0 to 10.0 s, which begins after the clip of 3 s: left out.",
    ]
    batch = stream(corpus, processor).make_batch(0, 0, [row])
    assert batch.problems == named and batch.inputs["caption_lengths"].shape == (1, 1)
    [item] = EvaluationClips([], processor).decode_row(row)
    assert item.captions == ["stir"] and item.problems == named
    [item] = EvaluationClips([], processor).decode_row({**row, "video": None, "image": photograph()})
    assert item.captions == ["stir", "late"]  # an image is the same at all times


def test_each_row_is_opened_once(corpus, row, processor, monkeypatch):
    opened, really_open = [], containers_fgmm.av.open
    monkeypatch.setattr(containers_fgmm.av, "open", lambda *args, **kw: opened.append(args) or really_open(*args, **kw))
    processor.clip_seconds = 1.0
    stream(corpus, processor).sample_clip(row, np.random.default_rng(0))
    assert len(opened) == 1
    EvaluationClips([], processor, num_windows=3).decode_row(row)
    assert len(opened) == 2
    EvaluationClips([], processor, each_caption=True).decode_row(row)
    assert len(opened) == 3


def test_an_image_is_one_window_with_its_label(processor):
    row = {"video_id": "still", "image": photograph(), "captions": None, "label": 3}
    [item] = EvaluationClips([], processor, num_windows=2).decode_row(row)
    assert (item.label, item.captions, len(item.windows), len(item.windows[0].frames)) == (3, [], 1, 1)
    assert item.windows[0].waveform is None and window_times(item) == pytest.approx([2.5], abs=0.1)
    [item] = EvaluationClips([], processor).decode_row({**row, "image": {"bytes": b"no image", "path": None}})
    assert "still is not an image" in item


def test_evaluation_without_video_has_the_audio_alone(row, processor):
    [item] = EvaluationClips([], processor, with_video=False).decode_row(row)
    assert item.windows[0].frames is None and item.windows[0].waveform.shape == (32000,)
