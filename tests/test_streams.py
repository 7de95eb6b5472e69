import io
import itertools

import numpy as np
import pytest
import torch
from helpers import TEXTS, brightness_time, encode_sound, make_caption, make_row, write_shards
from media_files import BY_NAME, damage
from PIL import Image
from torch.utils.data import DataLoader

from fgmm_tools.corpora.parquet_shards import corpus_features, write_shard
from processing_fgmm import containers_fgmm, streams_fgmm
from processing_fgmm.clips_fgmm import collate
from processing_fgmm.corpora_fgmm import load_corpus
from processing_fgmm.loaders_fgmm import ClipLoader
from processing_fgmm.orders_fgmm import StreamState
from processing_fgmm.rowgroups_fgmm import RowGroupError, open_row_groups
from processing_fgmm.streams_fgmm import NO_MEDIA, EvaluationClips, FailedClip, NarratedClips, WindowReader, in_order


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


@pytest.fixture(scope="module")
def rows(folder):
    return open_row_groups(str(folder), "train")


@pytest.fixture
def row(corpus):
    """The first row, clip-0."""
    return next(iter(corpus))


def photograph(grey=120) -> dict:
    """An undecoded JPEG file of one grey value."""
    file = io.BytesIO()
    Image.fromarray(np.full((48, 64, 3), grey, np.uint8)).save(file, "JPEG")
    return {"bytes": file.getvalue(), "path": None}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """37 pictures, some with a sound of their own, in 1, 2, 3, 7 and 9 shards of uneven row groups."""
    generator, folder = np.random.default_rng(0), tmp_path_factory.mktemp("pictures")
    rows = []
    for index in range(37):
        noise = generator.integers(0, 255, (40, 56, 3), np.uint8)
        picture = io.BytesIO()
        Image.fromarray(noise).save(picture, "PNG")
        sound = encode_sound(200 + 10 * index, 2 + index % 3, generator) if index % 4 == 1 else None
        captions = [make_caption(TEXTS[(index + second) % 4], second, second + 1.0) for second in range(index % 4)]
        media = {"image": {"bytes": picture.getvalue(), "path": None}, "audio": {"bytes": sound, "path": None}}
        rows.append({"video_id": f"{index}", **media, "captions": captions})
    features = corpus_features("image", "audio")
    return {number: write_shards(folder / str(number), rows, number, features) for number in (1, 2, 3, 7, 9)}


def stream(rows, processor, **options):
    rows = rows if isinstance(rows, list) else [rows]
    return NarratedClips(rows, processor, **{"batch_size": 4, "num_captions": 2, "block_size": 5, **options})


def take(clips, number, num_workers=0):
    return list(itertools.islice(ClipLoader(clips, num_workers), number))


def same(first, second) -> bool:
    return (
        (first.failures, first.state, first.numbers) == (second.failures, second.state, second.numbers)
        and (first.video_ids, first.corpora) == (second.video_ids, second.corpora)
        and first.inputs.keys() == second.inputs.keys()
        and all(torch.equal(first.inputs[name], second.inputs[name]) for name in first.inputs)
    )


def all_same(first, second) -> bool:
    return len(first) == len(second) > 0 and all(map(same, first, second))


def take_together(rows, processor, number, world_size, num_workers, monkeypatch, **options):
    """The first global batches, joined from the parts of all workers of all processes; no worker is a process here."""
    num_workers = max(1, num_workers)
    parts = []
    for rank, worker in itertools.product(range(world_size), range(num_workers)):
        clips = stream(rows, processor, rank=rank, world_size=world_size, **options)
        monkeypatch.setattr(streams_fgmm, "worker_share", lambda worker=worker: (worker, num_workers))
        parts.append(list(itertools.islice(clips, number)))
    monkeypatch.undo()
    loader = ClipLoader(stream(rows, processor, **options), 0)
    return [loader.join(list(of_batch)) for of_batch in zip(*parts, strict=True)]


def take_plainly(rows, processor, number, **options):
    """The first batches by the obvious way: every row is read and decoded in turn, and a batch collated at once."""
    clips, batches = stream(rows, processor, **options), []
    state = clips.state
    for _ in range(number):
        draws, state = clips.order.next_batch(state, clips.batch_size)
        decoded = []
        for draw in draws:
            row = clips.order.corpora[draw.corpus].read(draw.place.group)(draw.place.row)
            decoded.append(clips.sample_clip(row, np.random.default_rng([streams_fgmm.CLIP, clips.seed, draw.number])))
        batches.append((collate(processor, decoded), [clip.video_id for clip in decoded]))
    return batches


@pytest.mark.parametrize("num_shards", [1, 2, 3, 7, 9])
def test_global_batches_are_the_same_for_all_numbers_of_processes_and_workers(
    pictures, processor, monkeypatch, num_shards
):
    """Their rows, windows, crops and captions; each row is in an epoch once."""
    rows = open_row_groups(str(pictures[num_shards]), "train")
    options = {"batch_size": 16, "min_crop_area": 0.5, "flip": True, "seed": 3}
    plain = take_plainly(rows, processor, 4, **options)
    names = [name for _, of_batch in plain[:3] for name in of_batch]
    assert sorted(names, key=int) == [str(index) for index in range(37)] and len(plain[2][1]) == 5
    for world_size, num_workers in itertools.product((1, 2, 3, 4), (0, 1, 2, 3)):
        batches = take_together(rows, processor, 4, world_size, num_workers, monkeypatch, **options)
        for batch, (inputs, video_ids) in zip(batches, plain, strict=True):
            assert batch.video_ids == video_ids and batch.inputs.keys() == inputs.keys()
            assert all(torch.equal(batch.inputs[name], inputs[name]) for name in inputs)


def test_a_stream_goes_on_with_other_numbers_of_processes_and_workers(pictures, processor, monkeypatch):
    """1 to 4 to 2 processes, stopped after any batch."""
    rows = [open_row_groups(str(pictures[number]), "train") for number in (9, 2)]
    options = {"batch_size": 10, "weights": [2.0, 1.0]}
    whole = take_together(rows, processor, 9, 1, 0, monkeypatch, **options)
    for stop in (1, 3, 6):
        state, batches = whole[stop - 1].state, []
        for number, world_size, num_workers in ((2, 4, 3), (1, 2, 2)):
            batches += take_together(
                rows, processor, number, world_size, num_workers, monkeypatch, state=state, **options
            )
            state = batches[-1].state
        assert all_same(batches, whole[stop : stop + 3])


def test_each_row_group_is_read_by_one_worker_of_one_process(pictures, processor):
    rows = open_row_groups(str(pictures[9]), "train")
    for world_size, num_workers in itertools.product((1, 2, 4), (1, 2, 3, 4)):
        reads = []
        rows.read = lambda group, reads=reads: reads.append(group) or (lambda row: None)
        for rank, worker in itertools.product(range(world_size), range(num_workers)):
            clips = stream(rows, processor, rank=rank, world_size=world_size, batch_size=37)
            reader, (draws, _) = WindowReader(rows), clips.order.next_batch(clips.state, 37)
            for draw in draws:
                if clips.owner(draw, num_workers) == (rank, worker):
                    reader.read(draw)
        assert sorted(reads) == list(range(len(rows.sizes)))


def test_processes_share_batches_evenly(tmp_path, processor):
    rows = open_row_groups(str(write_shards(tmp_path, [{"video_id": str(n)} for n in range(96)], 24)), "train")
    for world_size in (1, 2, 3, 4, 6, 8):
        clips = stream(rows, processor, batch_size=24, world_size=world_size)
        draws, _ = clips.order.next_batch(clips.state, 24)
        shares = [clips.owner(draw, 1)[0] for draw in draws]
        assert [shares.count(rank) for rank in range(world_size)] == [24 // world_size] * world_size


def test_to_resume_is_to_read_one_row_group_of_each_lane(pictures, processor, monkeypatch):
    rows = open_row_groups(str(pictures[7]), "train")
    reads, read = [], type(rows).read
    monkeypatch.setattr(type(rows), "read", lambda self, group: reads.append(group) or read(self, group))
    for place in range(0, 37, 5):
        reads.clear()
        take(stream(rows, processor, batch_size=1, state=StreamState(place, ((0, place),))), 1)
        assert len(reads) == 1


def test_batches_depend_on_the_seed_alone(rows, processor):
    first = take(stream(rows, processor), 5)
    assert all_same(first, take(stream(rows, processor), 5))
    other = take(stream(rows, processor, seed=1), 1)
    assert not torch.equal(first[0].inputs["pixel_values_videos"], other[0].inputs["pixel_values_videos"])


def test_batches_do_not_depend_on_workers(rows, processor):
    """Of real worker processes."""
    alone = take(stream(rows, processor), 5)
    for num_workers in (1, 2, 3):
        assert all_same(alone, take(stream(rows, processor), 5, num_workers))


def test_a_stream_resumes_at_any_batch(rows, processor):
    whole = take(stream(rows, processor), 7)
    assert whole[-1].state.positions == ((1, 12),) and whole[3].state == StreamState(14, ((1, 0),))
    for number in (1, 3, 4, 5):
        rest = stream(rows, processor, state=whole[number - 1].state)
        assert all_same(whole[number : number + 2], take(rest, 2))


def test_a_damaged_clip_is_left_out_and_named(rows, processor):
    batches = take(stream(rows, processor, batch_size=7), 2)
    failures = [failure for batch in batches for failure in batch.failures]
    assert len(failures) == 1 and failures[0].video_id == "clip-5" and "clip-5" in failures[0].reason
    assert sorted(batch.num_clips for batch in batches) == [6, 7]
    assert all(len(batch.inputs["input_ids"]) == batch.num_clips for batch in batches)


def test_a_row_group_that_cannot_be_read_is_left_out_and_named_once_a_row(rows, processor, monkeypatch):
    read, tried = type(rows).read, []

    def fail(self, group):
        tried.append(group)
        if group == 1:
            raise RowGroupError("Row group 1 of a", "folder/a", "it is lost")
        return read(self, group)

    monkeypatch.setattr(type(rows), "read", fail)
    batches = take(stream(rows, processor), 4)
    failures = [failure for batch in batches for failure in batch.failures if failure.video_id != "clip-5"]
    assert failures == [FailedClip("Row group 1 of a", "folder/a", "Row group 1 of a cannot be read: it is lost")] * 7
    assert sorted(tried) == [0, 1] and sum(batch.num_clips for batch in batches) in (6, 7)


def test_a_process_without_a_clip_has_an_empty_item(rows, processor):
    [batch] = take(stream(rows, processor, batch_size=2, rank=3, world_size=4), 1)
    assert (batch.num_clips, batch.video_ids, batch.failures) == (0, [], [])
    assert batch.state.number == 2 and len(batch.inputs["input_ids"]) == 1
    masks = ("video_mask", "input_features_mask", "phrase_mask", "attention_mask")
    assert not any(batch.inputs[name].any() for name in masks)


class Row:
    """Row groups of one row."""

    sizes, group_bytes, name = np.array([1], np.int32), 1.0, "one row"
    num_rows = 1

    def __init__(self, row):
        self.row = row

    def read(self, group):
        return lambda row: self.row


def test_damaged_parts_are_left_out_and_named(processor, row):
    media = {"bytes": damage(BY_NAME["mp4-h264-aac"], "audio", 0, 5), "path": None}
    [batch] = take(stream(Row({**row, "video_id": "half", "video": media}), processor), 1)
    assert (batch.num_clips, batch.failures, list(batch.damaged)) == (1, [], ["half"])
    assert "half: its audio is damaged" in batch.damaged["half"]


def test_only_the_wanted_modalities_are_decoded(rows, processor, row):
    [sounds] = take(stream(rows, processor, with_video=False), 1)
    assert "pixel_values_videos" not in sounds.inputs and sounds.inputs["input_features_mask"].any(1).all()
    [videos] = take(stream(rows, processor, with_audio=False), 1)
    assert "input_features" not in videos.inputs and videos.inputs["video_mask"].all()
    assert stream(rows, processor, with_video=False).sample_clip(row, np.random.default_rng(0)).frames is None
    assert videos.failures == sounds.failures and len(videos.inputs["input_ids"]) == videos.num_clips


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


@pytest.mark.parametrize("num_workers", [0, 2])
def test_processes_share_the_evaluation_items_in_blocks(corpus, processor, num_workers):
    """Blocks are those of any number of processes."""
    shares = []
    for rank in range(3):
        clips = EvaluationClips(corpus, processor, block_rows=4, rank=rank, world_size=3)
        answers = in_order(DataLoader(clips, batch_size=None, num_workers=num_workers))
        shares.append([position for position, _ in answers])
    assert shares == [[0, 1, 2, 3, 12, 13], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_rows_without_media_are_told_from_damaged_ones(row, processor):
    for without in ({"video": None}, {"video": {"bytes": None, "path": None}}):
        assert EvaluationClips([], processor).decode_row({**row, **without}) == [NO_MEDIA]


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
    assert not late.windows and not backwards.windows  # left out, and not undecodable
    assert late.caption_problems == [
        "clip-0 has the caption 'late' from 4.0 to 5.0 s, which begins after the clip of 3 s: left out."
    ]
    assert "'no' from 2.0 to 1.0 s, which does not end after its start" in backwards.caption_problems[0]
    [cut] = end.caption_problems
    assert (
        "clip-0 has the caption 'end' from 2.0 to 9.0 s, which outlasts the clip" in cut and not whole.caption_problems
    )
    whole, *_ = EvaluationClips([], processor, each_caption=True, num_windows=2).decode_row(row)
    assert window_times(whole) == pytest.approx([1.0, 2.0], abs=0.1)


def test_a_clip_of_unknown_duration_is_decoded_to_its_end(row, processor, monkeypatch):
    monkeypatch.setattr(streams_fgmm, "row_duration", lambda row: 0.0)
    [item] = EvaluationClips([], processor, num_windows=3).decode_row(row)
    assert [window.waveform.shape for window in item.windows] == [(48000,)]
    row["captions"] = [make_caption("at once", 0.0, 0.0), make_caption("end", 2.0, 3.0)]
    at_once, end = EvaluationClips([], processor, each_caption=True).decode_row(row)
    assert "does not end after its start" in at_once.caption_problems[0] and end.windows[0].waveform.shape == (16000,)
    row["captions"] = [make_caption("to its end", 2.0)]
    [rest] = EvaluationClips([], processor, each_caption=True).decode_row(row)
    assert rest.windows[0].waveform.shape == (16000,)


def test_bad_captions_are_left_out_of_batches_and_items_alike_and_named(row, processor):
    row["captions"] = [make_caption(None, 0.0, 3.0), make_caption("stir", 0.0, None), make_caption("late", 9.0, 10.0)]
    named = [
        "clip-0 has the caption None from 0.0 to 3.0 s, which has no word: left out.",
        "clip-0 has the caption 'stir' from 0.0 to None s, which has no end: it ends at 3 s.",
        "clip-0 has the caption 'late' from 9.0 to 10.0 s, which begins after the clip of 3 s: left out.",
    ]
    [batch] = take(stream(Row(row), processor), 1)
    assert batch.caption_problems == named and batch.inputs["caption_lengths"].shape == (1, 1)
    [item] = EvaluationClips([], processor).decode_row(row)
    assert item.captions == ["stir"] and item.caption_problems == named
    [item] = EvaluationClips([], processor).decode_row({**row, "video": None, "image": photograph()})
    assert item.captions == ["stir", "late"]  # an image is the same at all times


def test_each_row_is_opened_once(rows, row, processor, monkeypatch):
    opened, really_open = [], containers_fgmm.av.open
    monkeypatch.setattr(containers_fgmm.av, "open", lambda *args, **kw: opened.append(args) or really_open(*args, **kw))
    processor.clip_seconds = 1.0
    stream(rows, processor).sample_clip(row, np.random.default_rng(0))
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
