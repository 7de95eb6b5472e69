import json
import os
from collections import Counter
from pathlib import Path

import evaluate_retrieval as command
import pytest
import torch
from helpers import TEXTS, run_main, run_processes, write_video
from PIL import Image

from fgmm_tools.cli import UserError
from fgmm_tools.corpora.parquet_shards import corpus_features, write_shard
from fgmm_tools.embedding.encoding import EncodedCorpus, encode_texts
from fgmm_tools.retrieval import evaluation, scores
from fgmm_tools.retrieval.settings import RetrievalSettings
from modeling_fgmm import FgmmModel
from modeling_fgmm.scoring_fgmm import Keys, Queries
from processing_fgmm.corpora_fgmm import CorpusError, load_corpus

DIRECTIONS = {f"{a}_to_{b}" for a in ("text", "video", "audio") for b in ("text", "video", "audio") if a != b}


def evaluate(narrated_model, corpus, **fields):
    _, model, processor = narrated_model
    settings = RetrievalSettings(**{"num_workers": 0, **fields})
    return evaluation.evaluate_retrieval(model, processor, load_corpus(str(corpus), "test"), settings)


def encode(narrated_model, corpus, **fields) -> evaluation.RetrievalItems:
    _, model, processor = narrated_model
    settings = RetrievalSettings(batch_size=4, num_workers=0, **fields)
    return evaluation.encode_items(model, processor, load_corpus(str(corpus), "test"), settings)


def test_unknown_scores_are_refused():
    with pytest.raises(UserError, match="'finer' is none of trained, fine, coarse, coarse_then_fine"):
        RetrievalSettings("finer")


@pytest.mark.parametrize("score", ["fine", "coarse"])
def test_ranks_are_those_of_the_models_scores(narrated_model, narrated, score):
    _, model, processor = narrated_model
    results = evaluate(narrated_model, narrated, score=score)
    assert set(results) == DIRECTIONS
    texts, pixels, targets = [], [], []
    for index, row in enumerate(load_corpus(str(narrated), "test")):
        inputs = processor(videos=[row["video"]["bytes"]], start=0.0, end=5.0)
        pixels.append(inputs["pixel_values_videos"])
        texts += [caption["text"] for caption in row["captions"]]
        targets += [index] * len(row["captions"])
    with torch.no_grad():
        outputs = model(pixel_values_videos=torch.cat(pixels), **processor(text=texts))
    scores = outputs.logits_per_text if score == "fine" else outputs.text_embeds @ outputs.video_embeds.T
    right = scores[torch.arange(48), torch.tensor(targets)]
    ranks = (scores >= right[:, None] - 1e-6).sum(1).float()
    for k in (1, 5):
        assert results["text_to_video"][f"R@{k}"] == pytest.approx(100 * (ranks <= k).float().mean().item(), abs=4.2)
    assert results["text_to_video"]["MnR"] == pytest.approx(ranks.mean().item(), abs=0.15)


def test_block_and_batch_sizes_change_nothing(narrated_model, narrated, monkeypatch):
    first = evaluate(narrated_model, narrated)
    monkeypatch.setattr(scores, "BLOCK_SIZE", 7)
    second = evaluate(narrated_model, narrated, batch_size=3, num_workers=2)
    assert set(first) == set(second) == DIRECTIONS
    for direction in first:
        assert first[direction]["MnR"] == pytest.approx(second[direction]["MnR"], abs=0.1)


def run_process(rank: int, world: int, port: int, bounds: list[int], folder: str) -> None:
    """One of several processes."""
    os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(world))
    os.environ.update(LOCAL_RANK=str(rank), ACCELERATE_USE_CPU="true")
    torch.set_num_threads(1)
    output = Path(folder, f"results-{world}.json")
    words = ["--model", f"{folder}/model", "--dataset", f"{folder}/corpus", "--batch_size", 3, "--num_workers", 0]
    encoded, encode_windows = [], EncodedCorpus.encode_windows
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            EncodedCorpus,
            "encode_windows",
            lambda self, clips: encoded.append(len(clips)) or encode_windows(self, clips),
        )
        run_main(patch, command, *words, "--score", "fine", "--output", output)
    torch.save((output.read_text() if rank == 0 else None, encoded), f"{folder}/{rank}.pt")
    if world > 1:
        torch.distributed.destroy_process_group()


def test_figures_are_the_same_for_all_numbers_of_processes(narrated_model, narrated, tmp_path):
    """To the last digit, for all encode batches of the same clips: of 8 in blocks of 3."""
    (tmp_path / "model").symlink_to(narrated_model[0])
    (tmp_path / "corpus").symlink_to(narrated)
    metrics = []
    for world in (1, 2, 3):
        results, batches = zip(*run_processes(run_process, list(range(world + 1)), tmp_path), strict=True)
        assert list(batches) == [[3, 3, 2][rank::world] for rank in range(world)]
        assert results[1:] == (None,) * (world - 1)
        metrics.append(json.loads(results[0])["metrics"])
    assert metrics[0] == metrics[1] == metrics[2] and set(metrics[0]) == DIRECTIONS


@pytest.mark.parametrize("name", ["video", "audio"])
def test_the_regions_of_an_items_windows_are_joined(narrated_model, kitchen, name):
    """Against each window encoded alone; the third video has one window, the second no sound."""
    _, model, processor = narrated_model
    keys = encode(narrated_model, kitchen, num_windows=3).keys[name]
    rows = list(load_corpus(str(kitchen), "test"))
    single = 0
    for index, starts in enumerate([(0.0, 3.5, 7.0), (0.0, 3.5, 7.0), (0.0,)]):
        present = name == "video" or index != 1
        assert keys.present[index] == present
        if not present:
            continue
        outputs = []
        for start in starts:
            window = {"start": start, "end": min(start + 5.0, 12.0 if index < 2 else 3.0)}
            data = [rows[index]["video"]["bytes"]]
            with torch.no_grad():
                if name == "video":
                    outputs.append(model.get_video_features(**processor(videos=data, **window)))
                else:
                    outputs.append(model.get_audio_features(**processor(audio=data, **window)))
        regions = torch.cat([output.regions[output.region_mask] for output in outputs])
        mean = torch.cat([output.pooler_output for output in outputs]).mean(0)
        assert torch.allclose(keys.regions[index][keys.mask[index]], regions, atol=1e-5)
        assert torch.allclose(keys.embeds[index], mean / mean.norm(), atol=1e-5)
        single = single or outputs[0].regions.shape[1]
    assert keys.mask.sum(1)[2] < keys.mask.shape[1] == 3 * single


def test_a_single_window_is_left_as_it_is():
    keys = Keys(torch.rand(2, 3, 4), torch.rand(2, 3) < 0.5, torch.rand(2, 4))
    assert keys.join_windows([1, 1]) is keys


def test_each_caption_is_encoded_between_its_times(narrated_model, kitchen):
    _, model, processor = narrated_model
    results = evaluate(narrated_model, kitchen, each_caption=True)
    assert {(v["num_queries"], v["num_items"]) for v in results.values()} == {(4, 4)}
    items = encode(narrated_model, kitchen, each_caption=True)
    assert items.text_targets.tolist() == [0, 1, 2, 3] and items.num_undecodable == 1
    second = list(load_corpus(str(kitchen), "test"))[1]  # its second caption is from 1 to 2.5 s
    with torch.no_grad():
        inputs = processor(videos=[second["video"]["bytes"]], start=1.0, end=2.5)
        embeds = model.get_video_features(inputs["pixel_values_videos"]).pooler_output
    assert torch.allclose(items.keys["video"].embeds[2], embeds[0], atol=1e-5)


def test_joined_captions_are_one_query(narrated_model, kitchen):
    _, model, processor = narrated_model
    items = encode(narrated_model, kitchen, join_captions=True)
    captions = [[caption["text"] for caption in row["captions"]] for row in load_corpus(str(kitchen), "test")]
    assert max(len(texts) for texts in captions) > 1 and items.text_targets.tolist() == [0, 1, 2]
    joined = [" ".join(texts) for texts in captions[:3]]
    assert torch.equal(items.texts.embeds, encode_texts(model, processor, joined).embeds)
    with pytest.raises(UserError, match="leave it or join_captions out"):
        evaluate(narrated_model, kitchen, each_caption=True, join_captions=True)


def write_rows(folder, medium: str, rows: list[dict]):
    """A test split of rows, each with a caption without times."""
    captions = [{"text": TEXTS[0], "start": None, "end": None}]
    rows = [{"captions": captions, **row} for row in rows]
    write_shard(folder / "test-00000-of-00001.parquet", rows, corpus_features(medium))
    return folder


def test_captions_without_times_are_no_items(narrated_model, tmp_path):
    data = write_video(tmp_path / "a.mp4").read_bytes()
    write_rows(tmp_path, "video", [{"video_id": "a", "video": {"bytes": data, "path": None}}])
    with pytest.raises(CorpusError, match="of a has no start and end"):
        evaluate(narrated_model, tmp_path, each_caption=True)


def test_images_are_called_so(narrated_model, tmp_path):
    rows = []
    for number in range(3):
        Image.new("RGB", (40, 40), (80 * number, 200, 30)).save(tmp_path / "picture.png")
        data = (tmp_path / "picture.png").read_bytes()
        rows.append({"video_id": f"p{number}", "image": {"bytes": data, "path": None}})
    results = evaluate(narrated_model, write_rows(tmp_path, "image", rows))
    assert set(results) == {"text_to_image", "image_to_text"}


def test_a_corpus_that_cannot_be_decoded_is_an_error(narrated_model, tmp_path, capsys):
    rows = [{"video_id": f"v{number}", "video": {"bytes": b"nothing", "path": None}} for number in range(2)]
    with pytest.raises(
        UserError, match=r"No clip of the corpus could be decoded \(2 failed\); the first: v0 cannot be"
    ):
        evaluate(narrated_model, write_rows(tmp_path, "video", rows))
    assert "2 clips could not be decoded, named above." in capsys.readouterr().err


def test_a_corpus_published_as_ids_is_told_so_once(narrated_model, tmp_path, capsys):
    rows = [{"video_id": f"v{number}", "video": None} for number in range(9)]
    with pytest.raises(
        UserError, match=r"\(9 failed\); the first: The rows of this corpus hold no media, .*prepare_data"
    ):
        evaluate(narrated_model, write_rows(tmp_path, "video", rows))
    assert capsys.readouterr().err.count("hold no media") == 1


def test_captions_that_are_left_out_are_not_undecodable(narrated_model, kitchen, tmp_path, capsys):
    rows = list(load_corpus(str(kitchen), "test"))[:2]
    late = [{"text": f"late {number}", "start": 90.0 + number, "end": 91.0 + number} for number in range(9)]
    rows[0]["captions"] = rows[0]["captions"] + late
    results = evaluate(narrated_model, write_rows(tmp_path, "video", rows), each_caption=True)
    assert {values["num_queries"] for values in results.values()} == {3}
    assert all("num_undecodable" not in values for values in results.values())
    printed = capsys.readouterr().err
    assert printed.count("begins after the clip") == 5
    assert "9 captions were left out or repaired, the first 5 of which are named above." in printed


def test_one_modality_alone_cannot_be_compared(narrated_model):
    items = perfect_items(silent=())
    items.texts, items.keys = None, {"video": items.keys["video"]}
    with pytest.raises(UserError, match="share no two modalities"):
        evaluation.measure_retrieval(narrated_model[1], items, RetrievalSettings(), Counter())


@pytest.mark.parametrize("part", ["encoders.video", "encoders.text", "objectives.text_video"])
@pytest.mark.parametrize("score", ["trained", "coarse_then_fine"])
def test_damaged_weights_are_one_sentence(narrated_model, kitchen, part, score):
    _, model, processor = narrated_model
    damaged = FgmmModel(model.config).eval()
    damaged.load_state_dict(model.state_dict())
    with torch.no_grad():
        for parameter in damaged.get_submodule(part).parameters():
            parameter.fill_(float("nan"))
    with pytest.raises(UserError, match=r"Scores of text with video are not numbers \(NaN\)") as error:
        evaluate((None, damaged, processor), kitchen, score=score)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("query", "key"), [("text", "video"), ("text", "audio"), ("audio", "video")])
def test_fine_scores_of_chosen_pairs_are_those_of_all_pairs(narrated_model, narrated, query, key):
    objective = narrated_model[1].objectives[f"{query}_{key}"]
    queries, keys, _ = evaluation.build_task(encode(narrated_model, narrated), query, key, skip_silent=False)
    with torch.no_grad():
        fine, _ = scores.score_pairs(objective, queries, keys, "fine", 1000, Counter())
        both = scores.score_pairs(objective, queries, keys, "coarse_then_fine", 1000, Counter())
    for chosen in both:
        assert torch.allclose(chosen, fine, atol=1e-6)


def perfect_items(silent) -> evaluation.RetrievalItems:
    """Twelve clips that are told from each other without a mistake; some have no sound. Two texts each."""
    embeds = torch.eye(12, 16)
    has_sound = torch.tensor([index not in silent for index in range(12)]).unsqueeze(1)
    everything = torch.ones(12, 1, dtype=torch.bool)
    texts = embeds.repeat_interleave(2, 0).unsqueeze(1)
    mask = torch.ones(24, 1, dtype=torch.bool)
    keys = {
        "video": Keys(embeds.unsqueeze(1), everything, embeds),
        "audio": Keys((embeds * has_sound).unsqueeze(1), has_sound, embeds * has_sound),
    }
    queries = Queries(texts, mask, torch.zeros(24, 1, dtype=torch.long), texts, mask)
    return evaluation.RetrievalItems(keys, queries, torch.arange(12).repeat_interleave(2))


@pytest.mark.parametrize("score", ["coarse", "fine", "coarse_then_fine"])
def test_clips_without_sound_count_as_errors_or_are_left_out(narrated_model, score):
    """AVLnet's convention: neither as a query nor as a right answer is a clip without sound found."""
    counted, left_out = (
        evaluation.measure_retrieval(
            narrated_model[1],
            perfect_items(silent=(0, 5, 7)),
            RetrievalSettings(score, rerank_k=4, skip_silent=skip_silent),
            Counter(),
        )
        for skip_silent in (False, True)
    )
    # Of the 24 texts of an item without sound the 22 of others stand before the best of its own.
    last = {"text_to_audio": 12, "audio_to_text": 23, "audio_to_video": 12, "video_to_audio": 12}
    for direction, rank in last.items():
        values = counted[direction]
        assert values["R@1"] == values["R@10"] == values["nDCG@10"] == 75
        assert values["MnR"] == (9 * 1 + 3 * rank) / 12
        values = left_out[direction]
        assert values["R@1"] == values["nDCG@10"] == 100 and values["MnR"] == 1
        sizes = {"text_to_audio": (18, 9), "audio_to_text": (9, 18)}.get(direction, (9, 9))
        assert (values["num_queries"], values["num_items"]) == sizes
    for direction in ("text_to_video", "video_to_text"):  # these need no sound
        assert counted[direction] == left_out[direction] and counted[direction]["R@1"] == 100


def test_each_direction_is_ranked_by_its_own_scores(narrated_model, monkeypatch):
    """Perfect scores for ranking the keys of a query, and none for ranking the queries of a key."""
    right = {24: torch.eye(12).repeat_interleave(2, 0), 12: torch.eye(12)}
    monkeypatch.setattr(
        evaluation, "score_pairs", lambda _, queries, *rest: (right[len(queries.mask)], -right[len(queries.mask)])
    )
    items = perfect_items(silent=())
    results = evaluation.measure_retrieval(narrated_model[1], items, RetrievalSettings(), Counter())
    assert {direction: values["R@1"] for direction, values in results.items()} == {
        **dict.fromkeys(("text_to_video", "text_to_audio", "audio_to_video"), 100.0),
        **dict.fromkeys(("video_to_text", "audio_to_text", "video_to_audio"), 0.0),
    }


def test_a_file_without_a_sound_stream_is_silent(narrated_model, kitchen):
    items = encode(narrated_model, kitchen)
    assert items.keys["audio"].present.tolist() == [True, False, True]
    assert items.keys["video"].present.all() and items.visual == "video"


def test_older_results_without_ndcg_make_a_table():
    values = {"R@1": 1.0, "R@5": 5.0, "R@10": 10.0, "MedR": 3.0, "MnR": 4.0, "num_queries": 7, "num_items": 9}
    head, line = evaluation.format_table({"text_to_video": values}).splitlines()
    assert "nDCG" not in head and line.split() == ["text_to_video", "1.0", "5.0", "10.0", "3.0", "4.0", "7", "9"]
