import io
import itertools

import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch
import yaml
from datasets import Dataset, Features, List, Value, Video
from helpers import TEXTS, write_video
from PIL import Image
from torch.utils.data import DataLoader

from fgmm_tools.corpora import parquet_shards
from fgmm_tools.corpora.parquet_shards import corpus_features, make_shards, write_shard
from processing_fgmm import streams_fgmm
from processing_fgmm.clips_fgmm import candidate_captions, random_window, spread_windows
from processing_fgmm.corpora_fgmm import CorpusError, check_times, list_configs, load_corpus
from processing_fgmm.streams_fgmm import EvaluationClips, NarratedClips, in_order


def make_row(folder, index, damaged=False):
    path = write_video(folder / f"{index}.mp4", seconds=3, sound=3.0)
    captions = [{"text": f"{TEXTS[index % 4]} {second}", "start": second, "end": second + 1.0} for second in range(3)]
    data = b"no video" if damaged else path.read_bytes()
    return {"video_id": f"clip-{index}", "video": {"bytes": data, "path": path.name}, "captions": captions}


def timed(text, start, end):
    return {"text": text, "start": start, "end": end}


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


def brightness(clip) -> float:
    """The mean time that write_video painted as grey, s."""
    return (clip.frames.float().mean().item() - 20) / 40


def test_fixed_clips_are_all_there_in_order_with_all_captions(folder, processor):
    corpus = load_corpus(str(folder), "train")
    for workers in (0, 1, 2):
        answers = list(in_order(DataLoader(EvaluationClips(corpus, processor), batch_size=None, num_workers=workers)))
        assert [position for position, _ in answers] == list(range(14))
        items = [item for _, [item] in answers]
        assert isinstance(items[5], str) and "clip-5" in items[5]
        assert [items[place].windows[0].video_id for place in (0, 1, 13)] == ["clip-0", "clip-1", "clip-13"]
        assert items[0].captions == [f"{TEXTS[0]} {second}" for second in range(3)] and items[0].label is None
        assert items[0].windows[0].waveform.shape == (32000,)
    # The middle two seconds of three: 0.5 s to 2.5 s.
    assert brightness(items[0].windows[0]) == pytest.approx(1.5, abs=0.1)


def test_processes_share_the_fixed_clips_and_keep_their_order(folder, processor):
    corpus = load_corpus(str(folder), "train")
    for rank, workers in ((0, 0), (1, 1), (2, 2)):
        clips = EvaluationClips(corpus, processor, rank=rank, world_size=3)
        answers = in_order(DataLoader(clips, batch_size=None, num_workers=workers))
        assert [position for position, _ in answers] == list(range(rank, 14, 3))


def test_order_does_not_wait_for_the_end():
    """What has come in order is given at once: else a share of the corpus would stand decoded in memory."""
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


def test_several_windows_reach_from_one_end_to_the_other(folder, processor):
    row = next(iter(load_corpus(str(folder), "train")))
    [item] = EvaluationClips([], processor, num_windows=3).decode_row(row)
    assert [brightness(window) for window in item.windows] == pytest.approx([1.0, 1.5, 2.0], abs=0.1)
    assert [window.waveform.shape for window in item.windows] == [(32000,)] * 3
    processor.clip_seconds = 4.0  # all of the clip
    [item] = EvaluationClips([], processor, num_windows=3).decode_row(row)
    assert [brightness(window) for window in item.windows] == pytest.approx([1.5], abs=0.1)


def test_each_caption_is_an_item_shown_between_its_times(folder, processor):
    row = next(iter(load_corpus(str(folder), "train")))
    row["captions"] = [timed("all", 0.0, 3.0), timed("end", 2.0, 9.0), timed("late", 4.0, 5.0), timed("no", 2.0, 1.0)]
    whole, end, late, backwards = EvaluationClips([], processor, each_caption=True).decode_row(row)
    assert (whole.captions, end.captions) == (["all"], ["end"])
    assert brightness(whole.windows[0]) == pytest.approx(1.5, abs=0.1)  # its middle two seconds
    assert brightness(end.windows[0]) == pytest.approx(2.5, abs=0.1) and end.windows[0].waveform.shape == (16000,)
    assert "clip-0 cannot be decoded at 4 s to 5 s: it is 3 s long" in late
    assert "clip-0 cannot be decoded at 2 s to 1 s" in backwards
    whole, *_ = EvaluationClips([], processor, each_caption=True, num_windows=2).decode_row(row)
    assert [brightness(window) for window in whole.windows] == pytest.approx([1.0, 2.0], abs=0.1)


def test_a_clip_of_unknown_duration_is_shown_to_its_end(folder, processor, monkeypatch):
    monkeypatch.setattr("processing_fgmm.streams_fgmm.row_duration", lambda row: 0.0)
    row = next(iter(load_corpus(str(folder), "train")))
    [item] = EvaluationClips([], processor, num_windows=3).decode_row(row)
    assert [window.waveform.shape for window in item.windows] == [(48000,)]
    row["captions"] = [timed("at once", 0.0, 0.0), timed("end", 2.0, 3.0)]
    at_once, end = EvaluationClips([], processor, each_caption=True).decode_row(row)
    assert "clip-0 cannot be decoded at 0 s to 0 s" in at_once and end.windows[0].waveform.shape == (16000,)


def test_captions_without_times_are_named(folder, tmp_path):
    check_times(load_corpus(str(folder), "train"))
    row = make_row(tmp_path, 0)
    for name, captions, message in (
        ("none", [], "has no caption"),
        ("some", [timed("a", 0.0, 1.0), timed("b", None, None)], "'b' of clip-0 has no start and end"),
    ):
        (tmp_path / name).mkdir()
        rows = [{**row, "captions": captions}]
        write_shard(tmp_path / name / "train-00000-of-00001.parquet", rows, corpus_features("video"))
        with pytest.raises(CorpusError, match=message):
            check_times(load_corpus(str(tmp_path / name), "train"))


def test_a_picture_is_one_window_with_its_label(processor):
    file = io.BytesIO()
    Image.fromarray(np.full((48, 64, 3), 120, np.uint8)).save(file, "JPEG")
    row = {"video_id": "still", "image": {"bytes": file.getvalue(), "path": None}, "captions": None, "label": 3}
    [item] = EvaluationClips([], processor, num_windows=2).decode_row(row)
    assert (item.label, item.captions, len(item.windows), len(item.windows[0].frames)) == (3, [], 1, 1)
    assert item.windows[0].waveform is None and brightness(item.windows[0]) == pytest.approx(2.5, abs=0.1)
    [item] = EvaluationClips([], processor).decode_row({**row, "image": {"bytes": b"no picture", "path": None}})
    assert "still is not an image" in item


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
    assert spread_windows(0.0, 10.0, 4.0, 1) == [(3.0, 7.0)] and spread_windows(0.0, 2.0, 4.0, 1) == [(0.0, 2.0)]
    assert spread_windows(5.0, 15.0, 4.0, 3) == [(5.0, 9.0), (8.0, 12.0), (11.0, 15.0)]
    assert spread_windows(5.0, 8.0, 4.0, 3) == [(5.0, 8.0)]
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


def test_configurations_are_official_splits(tmp_path):
    row = make_row(tmp_path, 0)
    card = {"configs": []}
    for name in ("split1", "split2"):
        folder = tmp_path / "corpus" / "data" / name
        folder.mkdir(parents=True)
        rows = [{**row, "video_id": name}]
        write_shard(folder / "test-00000-of-00001.parquet", rows, corpus_features("video"))
        card["configs"].append({"config_name": name, "data_files": [{"split": "test", "path": f"data/{name}/test-*"}]})
    path = str(tmp_path / "corpus")
    readme = tmp_path / "corpus" / "README.md"

    def first(config_name):
        return next(iter(load_corpus(path, "test", config_name)))["video_id"]

    readme.write_text(f"---\n{yaml.safe_dump(card)}---\n")
    assert list_configs(path) == ["split1", "split2"]
    assert (first("split1"), first("split2"), first(None)) == ("split1", "split2", "split1")
    card["configs"][1]["default"] = True
    readme.write_text(f"---\n{yaml.safe_dump(card)}---\n")
    assert first(None) == "split2"
    with pytest.raises(CorpusError, match=r"no configuration 'split3', only split1, split2"):
        load_corpus(path, "test", "split3")


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


def test_large_media_are_permuted_in_smaller_blocks(folder, processor, monkeypatch):
    sizes = [len(block) for block in stream(folder, processor, block_size=5).blocks()]
    assert sizes == [5, 5, 4]
    whole = [row["video_id"] for row in stream(folder, processor, block_size=5).rows(0)]
    one_clip = min(len(row["video"]["bytes"]) for row in load_corpus(str(folder), "train") if row["video"])
    monkeypatch.setattr(streams_fgmm, "BLOCK_BYTES", 2 * one_clip)
    smaller = stream(folder, processor, block_size=5)
    assert max(len(block) for block in smaller.blocks()) < 5
    assert sorted(row["video_id"] for row in smaller.rows(0)) == sorted(whole)


def test_row_groups_are_smaller_where_media_are_large(tmp_path, monkeypatch):
    rows = [{"video_id": str(i), "video": {"bytes": bytes(1000), "path": None}, "captions": []} for i in range(10)]
    write_shard(tmp_path / "one.parquet", rows, corpus_features("video"))
    monkeypatch.setattr(parquet_shards, "BYTES_PER_GROUP", 3500)
    write_shard(tmp_path / "several.parquet", rows, corpus_features("video"))
    groups = [parquet.read_metadata(tmp_path / name).num_row_groups for name in ("one.parquet", "several.parquet")]
    assert groups == [1, 4]


def test_a_corpus_that_is_not_prepared_to_the_end_is_refused(tmp_path):
    (tmp_path / "data").mkdir()
    row = {"video_id": "a", "video": {"bytes": b"", "path": None}, "captions": []}
    write_shard(tmp_path / "data/train-00000-of-00002.parquet", [row], corpus_features("video"))
    (tmp_path / "corpus.json").write_text("{}")
    with pytest.raises(CorpusError, match="not prepared to the end"):
        load_corpus(str(tmp_path), "train")
    (tmp_path / "README.md").write_text("done")
    assert len(list(load_corpus(str(tmp_path), "train"))) == 1
