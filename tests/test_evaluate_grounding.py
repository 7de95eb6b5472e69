import json

import evaluate_grounding
import pytest
import torch
from helpers import ROOT, run_main, write_corpus, write_video

from fgmm_tools.cli import UserError
from fgmm_tools.corpora.mentions import read_mentions
from fgmm_tools.grounding import refusal, spatial, temporal
from fgmm_tools.grounding.clips import LocatedClip, read_clips
from fgmm_tools.grounding.evaluation import evaluate_grounding as evaluate
from fgmm_tools.grounding.maps import encode_queries, join_clips, map_texts, step_at
from fgmm_tools.grounding.metrics import (
    RASTER,
    area_under_roc,
    find_span,
    is_inside,
    overlap,
    overlap_curve,
    raster_boxes,
    raster_map,
    span_overlap,
)
from fgmm_tools.grounding.settings import GroundingSettings
from modeling_fgmm import FgmmConfig, FgmmModel
from modeling_fgmm.grounding_fgmm import split_span
from modeling_fgmm.loss_fgmm import OBJECTIVES

WHOLE = (0.0, 0.0, 1.0, 1.0)


def test_boxes_and_maps_on_a_raster():
    half = raster_boxes([(0.0, 0.0, 0.5, 1.0)])
    assert half.sum() == RASTER**2 / 2 and half[:, 0].all() and not half[:, -1].any()
    assert (raster_boxes([(0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)])).all()
    assert raster_boxes([(0.999, 0.999, 1.0, 1.0)]).sum() == 1  # however small
    values = torch.tensor([[[1.0, 0.0]]])
    drawn = raster_map(values, (0.25, 0.0, 0.75, 1.0))
    assert drawn.shape == (1, RASTER, RASTER) and (drawn[0, :, : RASTER // 4] == 0).all()
    assert (drawn[0, :, RASTER // 4] == 1).all() and drawn[0, 0, RASTER // 2] < 0.6
    assert overlap(half, half) == 1 and overlap(half, ~half) == 0
    assert overlap(half, torch.ones_like(half)).item() == pytest.approx(0.5)
    assert overlap_curve([1.0]) == pytest.approx(1.0) and overlap_curve([0.0, 1.0]) == pytest.approx(0.5, abs=0.02)
    assert is_inside((0.2, 0.2), [(0.5, 0.5, 1.0, 1.0), (0.1, 0.1, 0.3, 0.3)]) and not is_inside(
        (0.4, 0.2), [WHOLE[:2] * 2]
    )


def test_spans_of_time():
    steps = split_span(10.0, 15.0, 5)
    over_time = torch.tensor([0.9, 0.1, 0.6, 1.0, 0.2])
    assert find_span(over_time, steps, 0.5) == (12.0, 14.0) and find_span(over_time, steps, 0.05) == (10.0, 15.0)
    assert span_overlap((0.0, 2.0), (1.0, 3.0)) == pytest.approx(1 / 3) and span_overlap((0.0, 1.0), (2.0, 3.0)) == 0
    assert [step_at(steps, time) for time in (10.0, 11.5, 14.99, 99.0, None)] == [0, 1, 4, 4, 0] and step_at(
        None, 3.0
    ) == 0


def test_area_under_roc():
    generator = torch.Generator().manual_seed(0)
    own, foreign = torch.rand(40, generator=generator) + 0.3, torch.rand(30, generator=generator)
    wins = sum((a > b).item() + 0.5 * (a == b).item() for a in own for b in foreign)
    assert area_under_roc(own, foreign) == pytest.approx(wins / 1200)
    assert area_under_roc(torch.ones(3), torch.ones(2)) == 0.5


@torch.no_grad()
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("modality", ["video", "audio"])
def test_maps_are_those_of_ground(config, processor, tmp_path, objective, modality):
    clip = str(write_video(tmp_path / "clip.mp4", seconds=2.0, sound=2.0))
    torch.manual_seed(0)
    model = FgmmModel(FgmmConfig(**{**config.to_dict(), "objective": objective})).eval()
    regions = model.encode_regions(**{modality: clip}, processor=processor)
    texts = ["a small dog", "two eggs and a bowl"]
    found = map_texts(model, encode_queries(model, processor, texts), regions)
    for text, values, score in zip(texts, found.maps, found.scores.tolist(), strict=True):
        grounding = model.ground(text, **{modality: clip}, processor=processor)
        assert score == pytest.approx(grounding.score, abs=1e-5)
        expected = grounding.attention
        if objective not in ("fine", "filip"):
            expected = grounding.cosines - grounding.cosines.min()
        assert torch.allclose(values, expected, atol=1e-5)


def test_clips_are_joined_in_time(model, processor, tmp_path):
    clips = [str(write_video(tmp_path / f"{seconds}.mp4", seconds=seconds, sound=float(seconds))) for seconds in (1, 2)]
    for modality in ("video", "audio"):
        parts = [model.encode_regions(**{modality: clip}, processor=processor) for clip in clips]
        joined = join_clips(parts)
        axis = 0 if modality == "video" else 1
        sizes = [part.grid[axis] for part in parts]
        assert joined.grid[axis] == sum(sizes) == len(joined.steps)
        maps = joined.keys.regions[0].unflatten(0, joined.grid)
        pieces = [part.keys.regions[0].unflatten(0, part.grid) for part in parts]
        assert torch.equal(maps, torch.cat(pieces, dim=axis))
        assert joined.steps[sizes[0]][0] == pytest.approx(parts[0].window[1])
        assert joined.window[1] == pytest.approx(sum(part.window[1] for part in parts))


class Oracle:
    """Maps that are right, or wrong, of clips whose regions are of no account."""

    def __init__(self, corpus: list[LocatedClip], right: bool):
        self.corpus = corpus
        self.right = right

    def seen(self, model, processor, clips):
        """As `list_seen`: the whole area of a box where the map is right, and the opposite corner where it is not."""
        for clip in clips:
            for located in clip.of("video"):
                frames = [(0, [box.corners]) for box in located.mention.boxes]
                truth = raster_boxes([located.mention.boxes[0].corners]).float()
                yield spatial.SeenThing((truth if self.right else truth.flip(0, 1))[None], WHOLE, frames[:1])


@pytest.mark.parametrize("right", [True, False])
def test_right_maps_are_right_and_wrong_ones_wrong(narrated, narrated_model, monkeypatch, right):
    _, model, processor = narrated_model
    clips = read_clips(model, processor, str(narrated), "test", "grounding", 4)
    monkeypatch.setattr(spatial, "list_seen", Oracle(clips, right).seen)
    threshold = spatial.choose_space_threshold(model, processor, clips)
    values = spatial.measure_space(model, processor, clips, threshold)
    assert values["iou_uniform"] == pytest.approx(values["pointing_chance"])
    if right:
        assert values["pointing"] > 95 and values["iou"] == 100 and values["iou@0.5"] == 100
    else:
        assert values["pointing"] < 20 and values["iou"] < 10


def test_spans_are_measured_in_clips_end_to_end(narrated, narrated_model, monkeypatch):
    """Maps that are 1 in the seconds of what is named, in the right clip, and 0 elsewhere."""
    _, model, processor = narrated_model
    clips = [clip for clip in read_clips(model, processor, str(narrated), "test", "grounding", 8) if clip.of("audio")]
    things = list(temporal.list_timed(model, processor, clips, "audio", 2))
    assert things and all(0 <= thing.span[0] < thing.span[1] <= 10.3 for thing in things)
    assert any(thing.span[0] >= 5 for thing in things)

    def perfect(*_):
        for thing in things:
            inside = [float(thing.span[0] <= (start + end) / 2 < thing.span[1]) for start, end in thing.steps]
            thing.values = torch.tensor(inside).unsqueeze(1)
            yield thing

    monkeypatch.setattr(temporal, "list_timed", perfect)
    choice = temporal.choose_time_threshold(model, processor, clips, "audio", 2)
    values = temporal.measure_time(model, processor, clips, "audio", 2, choice)
    assert values["pointing"] == 100 and values["iou"] > 90 and values["iou_uniform"] < 60
    assert values["pointing_chance"] == pytest.approx(values["iou_uniform"])


def test_foreign_phrases_are_refused_by_confidence(narrated, narrated_model, monkeypatch):
    _, model, processor = narrated_model
    clips = read_clips(model, processor, str(narrated), "test", "grounding", 6)
    own = {(id(clip.regions["video"]), located.text) for clip in clips for located in clip.of("video")}

    def rate(model, processor, text, regions):
        return (0.9 if (id(regions), text) in own else 0.2, 0.5)

    monkeypatch.setattr(refusal, "rate_text", rate)
    values = refusal.measure_refusal(model, processor, clips, clips, "video", 0)
    assert values["auc"] == 100 and values["own_pass"] == 100 and values["foreign_pass"] == 0
    assert values["auc_score"] == 50 and values["black_pass"] == values["noise_pass"] == 0


def test_confidence_is_that_of_ground(narrated_model, narrated):
    _, model, processor = narrated_model
    [clip] = read_clips(model, processor, str(narrated), "test", "grounding", 1)
    from processing_fgmm.corpora_fgmm import load_corpus

    row = next(iter(load_corpus(str(narrated), "test", "grounding")))
    text = clip.of("video")[0].text
    grounding = model.ground(text, video=row["video"]["bytes"], processor=processor)
    confidence, score = refusal.rate_text(model, processor, text, clip.regions["video"])
    assert (confidence, score) == (
        pytest.approx(grounding.confidence, abs=0.011),
        pytest.approx(grounding.score, abs=1e-5),
    )


def test_texts_are_the_words_of_mentions(narrated, narrated_model):
    from processing_fgmm.corpora_fgmm import load_corpus

    _, model, processor = narrated_model
    clips = read_clips(model, processor, str(narrated), "test", "grounding", 2)
    for clip, row in zip(clips, load_corpus(str(narrated), "test", "grounding"), strict=False):
        mentions = read_mentions(row)
        assert [located.mention for located in clip.texts] == mentions and clip.video_id == row["video_id"]
        for located in clip.texts:
            assert located.text in row["captions"][located.mention.caption]["text"]


def test_the_command_writes_a_results_file(narrated, narrated_model, tmp_path, monkeypatch, capsys):
    output = tmp_path / "results.json"
    options = ["--model", narrated_model[0], "--dataset", narrated, "--dataset_config", "grounding", "--limit", 4]
    run_main(monkeypatch, evaluate_grounding, *options, "--num_joined", 2, "--num_negatives", 2, "--output", output)
    record = json.loads(output.read_text())
    assert record["metrics"].keys() == {"space", "time_video", "time_audio", "refusal_video", "refusal_audio"}
    assert record["objective"] == "fine" and "2 clips end to end" in record["protocol"]
    assert {"command", "commit", "device", "seconds", "date"} <= record.keys()
    space = record["metrics"]["space"]
    assert 0 <= space["pointing"] <= 100 and 5 < space["pointing_chance"] < 30 and space["num_frames"] > 100
    assert "pointing_chance" in capsys.readouterr().out


def test_without_training_clips_the_upper_half_of_a_map_counts(narrated, narrated_model):
    _, model, processor = narrated_model
    settings = GroundingSettings(threshold="median", limit=2)
    results = evaluate(model, processor, str(narrated), "test", "grounding", settings)
    assert results.keys() == {"space"} and "threshold" not in results["space"]


def test_a_corpus_without_mentions_is_refused(narrated_model, tmp_path):
    folder, model, processor = narrated_model
    row = {"video_id": "a", "video": {"bytes": b"", "path": None}, "captions": []}
    corpus = write_corpus(tmp_path / "corpus", [row])
    with pytest.raises(UserError, match="has no column 'mentions'"):
        evaluate(model, processor, str(corpus), "train", None, GroundingSettings())
    assert (ROOT / "scripts" / "evaluate_grounding.py").exists() and folder.exists()
