from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import IterableDataset

from fgmm_tools.embedding import encoding
from fgmm_tools.embedding.encoding import EncodedCorpus, EncodedItem, encode_keys, encode_texts
from modeling_fgmm.outputs_fgmm import as_keys, as_queries
from modeling_fgmm.scoring_fgmm import Keys
from processing_fgmm.clips_fgmm import Clip
from processing_fgmm.corpora_fgmm import load_corpus
from processing_fgmm.streams_fgmm import NO_MEDIA, EvaluationClips, EvaluationItem

CPU = torch.device("cpu")


class NumberedClips(IterableDataset):
    """Stands in for [`EvaluationClips`]: windows hold a number each, and model inputs are these numbers.

    Args:
        rows: of each row, the number of windows of its items; 0: an item that cannot be decoded.
    """

    with_video, with_audio, rank, world_size = False, True, 0, 1

    def __init__(self, rows: list[list[int]], block_rows: int = 1000):
        self.rows = rows
        self.block_rows = block_rows
        self.decoded = 0

    place_of = EvaluationClips.place_of

    @staticmethod
    def processor(audio, **others):
        return {"input_features": torch.stack(audio)}

    def __iter__(self):
        for position, sizes in enumerate(self.rows):
            items = []
            for place, size in enumerate(sizes):
                windows = [
                    Clip(f"{position}-{place}", None, torch.tensor([self.decoded + window]), [])
                    for window in range(size)
                ]
                self.decoded += size
                items.append(EvaluationItem(windows, [f"caption {place}"], position) if size else f"damaged {place}")
            yield position, items


def batch_sizes(number, batch_size) -> list[int]:
    """Of the batches of a block of rows with a number of windows."""
    return [min(batch_size, number - first) for first in range(0, number, batch_size)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 7), max_size=3), max_size=6), st.integers(1, 9), st.integers(1, 7))
def test_each_item_has_the_results_of_its_own_windows(rows, batch_size, block_rows):
    clips, batches, expected, number = NumberedClips(rows, block_rows), [], [], 0

    def encode(inputs):
        assert not torch.is_grad_enabled()
        batches.append(inputs["input_features"].flatten().tolist())
        return [10 * value for value in batches[-1]]

    for position, sizes in enumerate(rows):
        for place, size in enumerate(sizes):
            if size:
                results = [10 * window for window in range(number, number + size)]
                expected.append(EncodedItem(f"{position}-{place}", results, [f"caption {place}"], position))
                number += size
    corpus = EncodedCorpus(clips, encode, device=CPU, batch_size=batch_size, num_workers=0)
    assert list(corpus) == expected
    assert [value for batch in batches for value in batch] == list(range(number))
    assert [len(batch) for batch in batches] == [
        size
        for first in range(0, len(rows), block_rows)
        for size in batch_sizes(sum(map(sum, rows[first : first + block_rows])), batch_size)
    ]
    assert not corpus.damaged
    assert corpus.failures == [f"damaged {place}" for sizes in rows for place, size in enumerate(sizes) if not size]


def test_no_more_is_decoded_than_a_batch_needs():
    clips = NumberedClips([[2]] * 50)
    corpus = EncodedCorpus(clips, lambda inputs: inputs["input_features"], device=CPU, batch_size=4, num_workers=0)
    items = iter(corpus)
    next(items), next(items)
    assert clips.decoded <= 6
    next(items)
    assert clips.decoded <= 10


def make_corpus(narrated_model, folder, *, num_workers=0, batch_size=4, **options) -> EncodedCorpus:
    _, model, processor = narrated_model
    clips = EvaluationClips(load_corpus(str(folder), "test"), processor, **options)
    return EncodedCorpus(
        clips, partial(encode_keys, model), device=model.device, batch_size=batch_size, num_workers=num_workers
    )


def assert_same(first: Keys, second: Keys) -> None:
    assert torch.equal(first.mask, second.mask)
    assert torch.allclose(first.regions[first.mask], second.regions[second.mask], atol=1e-5)
    assert torch.allclose(first.embeds, second.embeds, atol=1e-5)


def test_real_clips_are_encoded_as_alone(narrated_model, kitchen, capsys):
    """Windows of long videos are spread over batches; the damaged video is named and left out."""
    _, model, processor = narrated_model
    corpus = make_corpus(narrated_model, kitchen, num_windows=3)
    items, rows = list(corpus), list(load_corpus(str(kitchen), "test"))
    assert [item.video_id for item in items] == ["video-0", "video-1", "video-2"]
    assert [len(item.windows) for item in items] == [3, 3, 1]
    assert [item.captions for item in items] == [[c["text"] for c in row["captions"]] for row in rows[:3]]
    assert len(corpus.failures) == 1 and "video-3" in corpus.failures[0]
    assert f"Skipped a clip: {corpus.failures[0]}" in capsys.readouterr().err
    for item, row, end in zip(items, rows, (12.0, 12.0, 3.0), strict=False):
        for start, keys in zip((0.0, 3.5, 7.0), item.windows, strict=False):
            inputs = processor(videos=[row["video"]["bytes"]], start=start, end=min(start + 5.0, end))
            with torch.no_grad():
                alone = as_keys(model.get_video_features(**inputs))
            assert_same(keys["video"], alone)
            assert keys["audio"].present.tolist() == [item.video_id != "video-1"]
    list(corpus)
    assert len(corpus.failures) == 1  # of the last pass


def test_the_first_that_cannot_be_used_are_named_and_all_counted(capsys):
    rows = [[0], [1], [0]]

    class WithoutMedia(NumberedClips):
        def __iter__(self):
            for position, items in super().__iter__():
                left_out = EvaluationItem([], [], caption_problems=[f"{position} has the caption '', left out."])
                failed = [NO_MEDIA if position == 0 else f"{position} is damaged {place}" for place in range(4)]
                yield position, [*items, left_out, *failed]

    corpus = EncodedCorpus(WithoutMedia(rows), lambda inputs: [0], device=CPU, batch_size=4, num_workers=0)
    assert len(corpus.gather()) == 1 and len(corpus.failures) == 14 and len(corpus.caption_problems.found) == 3
    printed = capsys.readouterr().err  # a progress bar may stand in the same lines
    assert printed.count(f"Skipped a clip: {NO_MEDIA}") == 1 and printed.count("Skipped a clip: ") == 5
    assert "14 clips could not be decoded, the first 5 named above." in printed
    assert "3 captions were left out or repaired, named above." in printed


class HalfDamagedClips(NumberedClips):
    def __iter__(self):
        for position, items in super().__iter__():
            for window in items[-1].windows:
                window.damage = f"{position} is damaged."
            yield position, items


def test_damaged_parts_are_named_and_counted(capsys):
    clips = HalfDamagedClips([[1, 2], [1]])
    corpus = EncodedCorpus(clips, lambda inputs: [0] * 4, device=CPU, batch_size=4, num_workers=0)
    assert len(list(corpus)) == 3 and corpus.failures == []
    assert corpus.damaged == {"0-1", "1-0"}
    printed = capsys.readouterr().err
    assert "Used without its damaged part: 1 is damaged." in printed
    assert printed.count("0 is damaged.") == 1  # of both windows of one clip


def test_workers_and_batches_change_nothing(narrated_model, kitchen):
    first = list(make_corpus(narrated_model, kitchen, num_windows=3))
    for num_workers, batch_size in ((2, 4), (0, 1), (0, 100)):
        corpus = make_corpus(narrated_model, kitchen, num_windows=3, num_workers=num_workers, batch_size=batch_size)
        second = list(corpus)
        assert [item.video_id for item in second] == [item.video_id for item in first]
        assert len(corpus.failures) == 1
        for item, other in zip(first, second, strict=True):
            for window, same in zip(item.windows, other.windows, strict=True):
                assert torch.allclose(window["video"].embeds, same["video"].embeds, atol=1e-5)
                assert torch.allclose(window["audio"].embeds, same["audio"].embeds, atol=1e-5)


def test_shares_of_processes_are_the_whole(narrated_model, kitchen):
    shares = [list(make_corpus(narrated_model, kitchen, rank=rank, world_size=2)) for rank in (0, 1)]
    assert [[item.video_id for item in share] for share in shares] == [["video-0", "video-2"], ["video-1"]]


@pytest.mark.parametrize("modality", ["video", "audio"])
def test_one_modality(narrated_model, kitchen, modality):
    flags = {f"with_{name}": name == modality for name in ("video", "audio")}
    items = list(make_corpus(narrated_model, kitchen, **flags))
    assert all(set(window) == {modality} for item in items for window in item.windows)
    # A file without sound cannot be decoded where sound alone is asked for.
    assert len(items) == (3 if modality == "video" else 2)


def test_texts_are_encoded_as_alone(narrated_model, monkeypatch, caplog):
    _, model, processor = narrated_model
    texts = ["a small red star", "a sound", "a large blue circle moves over a black background", "", "a star"] * 2
    monkeypatch.setattr(encoding, "TEXT_BATCH_SIZE", 3)
    queries = encode_texts(model, processor, texts)
    assert len(caplog.messages) == 1 and "'sound'." in caplog.text  # of all batches
    assert queries.embeds.shape == (10, 1, 16) and queries.present.tolist() == [True, True, True, False, True] * 2
    for row, text in enumerate(texts):
        with torch.no_grad():
            alone = as_queries(model.get_text_features(**processor(text=[text])))
        mask = queries.mask[row]
        assert mask.sum() == alone.mask.sum()
        assert torch.allclose(queries.phrases[row][mask], alone.phrases[alone.mask], atol=1e-5)
        assert torch.allclose(queries.embeds[row], alone.embeds[0], atol=1e-5)
