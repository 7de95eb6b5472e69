import itertools

import numpy as np
import pytest
import torch
from conftest import TEXTS, write_video
from datasets import Dataset, Features, List, Value, Video
from parquet_shards import corpus_features, make_shards, write_shard
from torch.utils.data import DataLoader

from processing_fgmm.corpora_fgmm import (
    CorpusError,
    FixedClips,
    NarratedClips,
    candidate_captions,
    load_corpus,
    middle_window,
    random_window,
)


def make_row(folder, index, damaged=False):
    path = write_video(folder / f"{index}.mp4", seconds=3, sound=3.0)
    captions = [{"text": f"{TEXTS[index % 4]} {second}", "start": second, "end": second + 1.0} for second in range(3)]
    data = b"no video" if damaged else path.read_bytes()
    return {"video_id": f"clip-{index}", "video": {"bytes": data, "path": path.name}, "captions": captions}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A corpus of 14 clips in two shards, the sixth damaged."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "data").mkdir()
    rows = [make_row(folder, index, damaged=index == 5) for index in range(14)]
    for shard, part in enumerate((rows[:7], rows[7:])):
        write_shard(folder / "data" / f"train-{shard:05d}-of-00002.parquet", part, corpus_features("video"))
    return folder


def stream(folder, processor, **options):
    clips = NarratedClips(
        load_corpus(str(folder), "train"), processor, **{"batch_size": 4, "num_captions": 2, "block_size": 5, **options}
    )
    return clips


def take(clips, number, num_workers=0):
    loader = DataLoader(clips, batch_size=None, num_workers=num_workers)
    return list(itertools.islice(loader, number))


def same(first, second) -> bool:
    return (
        first.failures == second.failures
        and (first.epoch, first.position, first.num_clips) == (second.epoch, second.position, second.num_clips)
        and all(torch.equal(first.inputs[name], second.inputs[name]) for name in first.inputs)
    )


def test_batches_depend_on_the_seed_alone(folder, processor):
    first, again = take(stream(folder, processor), 5), take(stream(folder, processor), 5)
    assert all(map(same, first, again))
    other = take(stream(folder, processor, seed=1), 1)
    assert not torch.equal(first[0].inputs["pixel_values_videos"], other[0].inputs["pixel_values_videos"])


def test_batches_do_not_depend_on_workers(folder, processor):
    alone = take(stream(folder, processor), 5)
    for workers in (1, 2):
        assert all(map(same, alone, take(stream(folder, processor), 5, workers)))


def test_stream_goes_on_from_any_batch(folder, processor):
    whole = take(stream(folder, processor), 7)
    assert whole[-1].epoch >= 2
    for number in (1, 3, 5):
        rest = take(stream(folder, processor, epoch=whole[number - 1].epoch, position=whole[number - 1].position), 2)
        assert all(map(same, whole[number : number + 2], rest))


def test_an_epoch_shows_every_row_once_in_another_order(folder, processor):
    clips = stream(folder, processor)
    names = [[row["video_id"] for row in clips.rows(epoch)] for epoch in range(3)]
    assert all(sorted(order) == sorted(names[0]) for order in names) and len(set(names[0])) == 14
    assert names[0] != names[1] != names[2]


def test_processes_share_the_rows(folder, processor):
    parts = [[row["video_id"] for row in stream(folder, processor, rank=r, world_size=2).rows(0)] for r in range(2)]
    assert not set(parts[0]) & set(parts[1]) and len(parts[0]) + len(parts[1]) == 14


def test_damaged_clip_is_skipped_and_named(folder, processor):
    batches = take(stream(folder, processor, batch_size=7), 2)
    failures = [message for batch in batches for message in batch.failures]
    assert len(failures) == 1 and "clip-5" in failures[0]
    assert sorted(batch.num_clips for batch in batches) == [6, 7]
    assert all(len(batch.inputs["input_ids"]) == batch.num_clips for batch in batches)


def test_fixed_clips_are_all_there_in_order_with_all_captions(folder, processor):
    corpus = load_corpus(str(folder), "train")
    for workers in (0, 2):
        answers = dict(DataLoader(FixedClips(corpus, processor), batch_size=None, num_workers=workers))
        assert sorted(answers) == list(range(14))
        assert isinstance(answers[5], str) and "clip-5" in answers[5]
        assert [answers[place].video_id for place in (0, 1, 13)] == ["clip-0", "clip-1", "clip-13"]
        assert len(answers[0].captions) == 3 and answers[0].waveform.shape == (32000,)
    # The middle two seconds of three: 0.5 s to 2.5 s, painted as grey by write_video.
    brightness = answers[0].frames.float().mean((1, 2, 3))
    assert brightness.mean() == pytest.approx(20 + 40 * 1.5, abs=5)


def test_nearest_captions_are_candidates():
    captions = [{"text": str(second), "start": second, "end": second + 1} for second in range(10)]
    nearest = candidate_captions(captions, 4.0, 6.0, 3, np.random.default_rng(0))
    assert set(nearest[:2]) == {"4", "5"} and len(nearest) == 3 and nearest[2] in ("3", "6")
    assert len(candidate_captions(captions[:2], 4.0, 6.0, 3, np.random.default_rng(0))) == 2
    assert candidate_captions([], 0.0, 1.0, 3, np.random.default_rng(0)) == []


def test_captions_of_the_whole_item_are_drawn():
    captions = [{"text": str(index), "start": None, "end": None} for index in range(5)]
    drawn = {candidate_captions(captions, 0.0, 1.0, 1, np.random.default_rng(seed))[0] for seed in range(60)}
    assert drawn == {"0", "1", "2", "3", "4"}


def test_windows():
    assert middle_window(10.0, 4.0) == (3.0, 7.0) and middle_window(2.0, 4.0) == (0.0, 2.0)
    windows = [random_window(10.0, 4.0, np.random.default_rng(seed)) for seed in range(50)]
    assert all(0 <= start <= 6 and end == start + 4 for start, end in windows)
    assert min(windows)[0] < 1 and max(windows)[0] > 5
    assert random_window(3.0, 4.0, np.random.default_rng(0)) == (0.0, 3.0)


def test_batch_larger_than_the_corpus_is_an_error(folder, processor):
    with pytest.raises(CorpusError, match="14 clips"):
        take(stream(folder, processor, batch_size=20), 1)


def write_corpus(folder, columns, features):
    (folder / "data").mkdir(parents=True)
    Dataset.from_dict(columns, features=features).to_parquet(folder / "data" / "train-00000-of-00001.parquet")
    return str(folder)


def test_schema_errors_name_the_field(tmp_path):
    video, text = Video(decode=False), Value("string")
    media = [{"bytes": b"x", "path": None}]
    no_id = write_corpus(tmp_path / "a", {"name": ["x"], "video": media}, Features(name=text, video=video))
    no_media = write_corpus(tmp_path / "b", {"video_id": ["x"], "film": ["y"]}, Features(video_id=text, film=text))
    no_end = write_corpus(
        tmp_path / "c",
        {"video_id": ["x"], "video": media, "captions": [[{"text": "a", "start": 0.0}]]},
        Features(video_id=text, video=video, captions=List({"text": text, "start": Value("float64")})),
    )
    for path, field in ((no_id, "video_id"), (no_media, "'video', 'image', 'audio'"), (no_end, "'end'")):
        with pytest.raises(CorpusError, match=field):
            load_corpus(path, "train")


def test_missing_corpus_and_split_are_named(folder, tmp_path):
    with pytest.raises(CorpusError, match="nowhere"):
        load_corpus(str(tmp_path / "nowhere"), "train")
    with pytest.raises(CorpusError, match=r"'dev'.*only train"):
        load_corpus(str(folder), "dev")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match="empty"):
        load_corpus(str(tmp_path / "empty"), "train")


def row_maker(items):
    if "boom" in items:
        raise RuntimeError("boom")
    return [{"video_id": item, "video": {"bytes": b"x", "path": None}, "captions": []} for item in items]


def test_shards_are_whole_or_absent(tmp_path, monkeypatch):
    monkeypatch.setattr("parquet_shards.ROWS_PER_SHARD", 2)
    (tmp_path / "data").mkdir()
    with pytest.raises(RuntimeError, match="boom"):
        make_shards(tmp_path, "train", ["a", "b", "c", "boom"], row_maker, corpus_features("video"), 1)
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["train-00000-of-00002.parquet"]
    before = (tmp_path / "data" / "train-00000-of-00002.parquet").stat().st_mtime_ns
    make_shards(tmp_path, "train", ["a", "b", "c", "d"], row_maker, corpus_features("video"), 1)
    assert [row["video_id"] for row in load_corpus(str(tmp_path), "train")] == ["a", "b", "c", "d"]
    assert (tmp_path / "data" / "train-00000-of-00002.parquet").stat().st_mtime_ns == before
