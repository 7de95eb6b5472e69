import json
import shutil
import subprocess
import sys
from collections import Counter

import evaluate
import evaluate_retrieval as script
import pytest
import torch
import torch.nn.functional as F
from helpers import ROOT, TEXTS, run_main, write_video
from transformers import BertConfig, BertModel

from fgmm_tools.corpora.parquet_shards import corpus_features, write_shard
from fgmm_tools.models import load_model
from fgmm_tools.retrieval import evaluation, scores
from fgmm_tools.training.tokenizer import iterate_captions, train_word_tokenizer
from modeling_fgmm import FgmmConfig, FgmmModel
from modeling_fgmm.loss_fgmm import OBJECTIVES
from modeling_fgmm.scoring_fgmm import Keys, Queries
from processing_fgmm import FgmmProcessor
from processing_fgmm.corpora_fgmm import CorpusError, load_corpus
from processing_fgmm.streams_fgmm import EvaluationClips


@pytest.fixture(scope="module")
def saved(narrated, tmp_path_factory):
    """A model with random weights beside a processor that knows the corpus' words."""
    from processing_fgmm import FgmmFeatureExtractor, FgmmVideoProcessor

    texts = (text for row in iterate_captions(load_corpus(str(narrated), "train")) for text in row)
    tokenizer = train_word_tokenizer(texts, 500)
    processor = FgmmProcessor(
        FgmmVideoProcessor(num_frames=4, size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        FgmmFeatureExtractor(feature_size=32, hop_length=640),
        tokenizer,
        clip_seconds=5.0,
    )
    torch.manual_seed(0)
    model = FgmmModel(
        FgmmConfig(
            projection_dim=16,
            video_config={"width_multiplier": 0.125, "depths": [1, 1]},
            audio_config={"num_mel_bins": 32, "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]},
            text_config={"vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 32},
        )
    ).eval()
    folder = tmp_path_factory.mktemp("saved")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder, model, processor


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory):
    """Four videos: of 12 s with sound, of 12 s without, of 3 s with sound, a damaged one; each with timed captions."""
    folder = tmp_path_factory.mktemp("kitchen")
    rows = []
    for index, (seconds, sound) in enumerate([(12, 12.0), (12, None), (3, 3.0), (3, None)]):
        path = write_video(folder / f"{index}.mp4", seconds=seconds, sound=sound)
        captions = [{"text": TEXTS[place], "start": float(place), "end": place + 1.5} for place in range(index % 2 + 1)]
        data = path.read_bytes() if index < 3 else b"no video"
        rows.append({"video_id": f"video-{index}", "video": {"bytes": data, "path": None}, "captions": captions})
    (folder / "corpus").mkdir()
    write_shard(folder / "corpus" / "test-00000-of-00001.parquet", rows, corpus_features("video"))
    return folder / "corpus"


def encode(saved, corpus, **options):
    """What the script makes of a corpus."""
    _, model, processor = saved
    with torch.no_grad():
        clips = EvaluationClips(load_corpus(str(corpus), "test"), processor, **options)
        return evaluation.encode_corpus(model, processor, clips, batch_size=4, num_workers=0)


DIRECTIONS = {f"{a}_to_{b}" for a in ("text", "video", "audio") for b in ("text", "video", "audio") if a != b}


def test_results_file(saved, narrated, tmp_path):
    output = tmp_path / "deep" / "results.json"
    command = [sys.executable, "scripts/evaluate_retrieval.py", "--model", str(saved[0]), "--dataset", str(narrated)]
    answer = subprocess.run([*command, "--output", str(output)], cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    record = json.loads(output.read_text())
    assert set(record) >= {"model", "dataset", "split", "protocol", "metrics", "seed", "training"}
    assert set(record) >= {"command", "commit", "device", "seconds", "date"}
    assert set(record["metrics"]) == DIRECTIONS and record["dataset_config"] is None
    values = record["metrics"]["text_to_video"]
    assert set(values) == {"R@1", "R@5", "R@10", "nDCG@10", "MedR", "MnR", "num_queries", "num_items"}
    assert (values["num_queries"], values["num_items"]) == (48, 8)
    assert "text_to_video" in answer.stdout and "nDCG@10" in answer.stdout and "Traceback" not in answer.stderr
    assert record["protocol"] == (
        "retrieval, trained score, the middle 5 s of each item, "
        "clips without sound count as errors (AVLnet's convention)"
    )
    stages = record["seconds_of_stages"]
    assert set(stages) == {"encoding", "coarse_scoring", "fine_scoring"} and stages["coarse_scoring"] == 0
    assert stages["encoding"] > 0 and stages["fine_scoring"] > 0 and sum(stages.values()) <= record["seconds"] + 0.1
    assert sorted(path.name for path in output.parent.iterdir()) == ["results.json"]


def test_every_option_is_in_the_protocol(saved, kitchen, tmp_path, monkeypatch):
    output = tmp_path / "results.json"
    options = ["--score", "coarse_then_fine", "--rerank_k", "2", "--num_windows", "2", "--each_caption"]
    options += ["--skip_silent", "--dataset_config", "default", "--num_workers", "0", "--output", str(output)]
    run_main(monkeypatch, script, "--model", saved[0], "--dataset", kitchen, *options)
    record = json.loads(output.read_text())
    assert record["protocol"] == (
        "retrieval, coarse_then_fine score (the best 2 finely), 2 x 5 s of each caption, "
        "clips without sound are left out"
    )
    assert record["dataset_config"] == "default" and record["seconds_of_stages"]["fine_scoring"] > 0
    sizes = {name: (values["num_queries"], values["num_items"]) for name, values in record["metrics"].items()}
    assert all(values["num_undecodable"] == 1 for values in record["metrics"].values())  # the damaged one
    assert sizes["text_to_video"] == sizes["video_to_text"] == (4, 4)
    assert sizes["text_to_audio"] == sizes["audio_to_video"] == (2, 2)


def test_random_init_forgets_the_weights(saved, kitchen, tmp_path, monkeypatch):
    shutil.copytree(saved[0], tmp_path / "model")
    (tmp_path / "model" / "training.json").write_text('{"seed": 7}')
    options = ["--model", tmp_path / "model", "--dataset", kitchen, "--num_workers", "0"]
    options += ["--output", tmp_path / "results.json"]
    records = []
    for seed in (3, 3, 4):
        run_main(monkeypatch, script, *options, "--random_init", "--seed", seed)
        records.append(json.loads((tmp_path / "results.json").read_text()))
        assert records[-1]["protocol"].startswith("retrieval, trained score of random weights, the middle 5 s")
        assert records[-1]["seed"] == seed and records[-1]["training"] is None
    run_main(monkeypatch, script, *options)
    records.append(json.loads((tmp_path / "results.json").read_text()))
    assert records[-1]["seed"] == 7
    first, again, other, trained = ([values["MnR"] for values in record["metrics"].values()] for record in records)
    assert first == again and first != other and trained not in (first, other)


def test_older_results_without_ndcg_make_a_table():
    values = {"R@1": 1.0, "R@5": 5.0, "R@10": 10.0, "MedR": 3.0, "MnR": 4.0, "num_queries": 7, "num_items": 9}
    head, line = evaluation.format_table({"text_to_video": values}).splitlines()
    assert "nDCG" not in head and line.split() == ["text_to_video", "1.0", "5.0", "10.0", "3.0", "4.0", "7", "9"]


@pytest.mark.parametrize("score", ["fine", "coarse"])
def test_scores_are_those_of_the_model(saved, narrated, score):
    _, model, processor = saved
    corpus = load_corpus(str(narrated), "test")
    results = evaluation.evaluate_retrieval(model, processor, corpus, score=score, num_workers=0)
    texts, pixels, owners = [], [], []
    for index, row in enumerate(corpus):
        inputs = processor(videos=[row["video"]["bytes"]], start=0.0, end=5.0)
        pixels.append(inputs["pixel_values_videos"])
        texts += [caption["text"] for caption in row["captions"]]
        owners += [index] * len(row["captions"])
    with torch.no_grad():
        outputs = model(pixel_values_videos=torch.cat(pixels), **processor(text=texts))
    scores = outputs.logits_per_text if score == "fine" else outputs.text_embeds @ outputs.video_embeds.T
    right = scores[torch.arange(48), torch.tensor(owners)]
    ranks = (scores >= right[:, None] - 1e-6).sum(1).float()
    for k in (1, 5):
        assert results["text_to_video"][f"R@{k}"] == pytest.approx(100 * (ranks <= k).float().mean().item(), abs=4.2)
    assert results["text_to_video"]["MnR"] == pytest.approx(ranks.mean().item(), abs=0.15)


def test_block_and_batch_sizes_change_nothing(saved, narrated, monkeypatch):
    _, model, processor = saved
    corpus = load_corpus(str(narrated), "test")
    first = evaluation.evaluate_retrieval(model, processor, corpus, num_workers=0)
    for module in (evaluation, scores):
        monkeypatch.setattr(module, "BLOCK_SIZE", 7)
    second = evaluation.evaluate_retrieval(model, processor, corpus, batch_size=3, num_workers=2)
    assert set(first) == set(second) == DIRECTIONS
    for direction in first:
        assert first[direction]["MnR"] == pytest.approx(second[direction]["MnR"], abs=0.1)


@pytest.mark.parametrize("name", ["video", "audio"])
def test_windows_are_laid_end_to_end(saved, kitchen, name):
    """Against each window encoded alone; the third video has one window, the second no sound."""
    _, model, processor = saved
    keys = encode(saved, kitchen, num_windows=3).parts[name]
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
                    inputs = processor(videos=data, **window)
                    outputs.append(model.get_video_features(inputs["pixel_values_videos"]))
                else:
                    inputs = processor(audio=data, **window)
                    outputs.append(model.get_audio_features(inputs["input_features"], inputs["input_features_mask"]))
        regions = torch.cat([output.regions[output.region_mask] for output in outputs])
        mean = torch.cat([output.pooler_output for output in outputs]).mean(0)
        assert torch.allclose(keys.regions[index][keys.mask[index]], regions, atol=1e-5)
        assert torch.allclose(keys.embeds[index], mean / mean.norm(), atol=1e-5)
        single = single or outputs[0].regions.shape[1]
    assert keys.mask.sum(1)[2] < keys.mask.shape[1] == 3 * single


def test_one_window_is_left_as_it_is():
    keys = Keys(torch.rand(2, 3, 4), torch.rand(2, 3) < 0.5, torch.rand(2, 4))
    assert keys.join_windows([1, 1]) is keys


def test_each_caption_finds_its_own_stretch(saved, kitchen):
    _, model, processor = saved
    corpus = load_corpus(str(kitchen), "test")
    results = evaluation.evaluate_retrieval(model, processor, corpus, num_workers=0, each_caption=True)
    assert {(v["num_queries"], v["num_items"]) for v in results.values()} == {(4, 4)}
    encoded = encode(saved, kitchen, each_caption=True)
    assert encoded.targets.tolist() == [0, 1, 2, 3]
    second = list(corpus)[1]  # its second caption is from 1 to 2.5 s
    inputs = processor(videos=[second["video"]["bytes"]], start=1.0, end=2.5)
    with torch.no_grad():
        embeds = model.get_video_features(inputs["pixel_values_videos"]).pooler_output
    assert torch.allclose(encoded.parts["video"].embeds[2], embeds[0], atol=1e-5)


def test_captions_without_times_are_no_items(saved, tmp_path):
    path = write_video(tmp_path / "a.mp4")
    captions = [{"text": TEXTS[0], "start": None, "end": None}]
    rows = [{"video_id": "a", "video": {"bytes": path.read_bytes(), "path": None}, "captions": captions}]
    write_shard(tmp_path / "test-00000-of-00001.parquet", rows, corpus_features("video"))
    _, model, processor = saved
    with pytest.raises(CorpusError, match="of a has no start and end"):
        evaluation.evaluate_retrieval(model, processor, load_corpus(str(tmp_path), "test"), each_caption=True)


def random_queries(number, generator, num_phrases=3, dim=16, empty=()) -> Queries:
    def unit(*shape):
        return F.normalize(torch.randn(*shape, generator=generator), dim=-1)

    mask = torch.arange(num_phrases) < torch.randint(1, num_phrases + 1, (number, 1), generator=generator)
    mask[list(empty)] = False
    captions = torch.zeros_like(mask, dtype=torch.long)
    return Queries(unit(number, num_phrases, dim), mask, captions, unit(number, 1, dim), mask.any(1, keepdim=True))


def random_keys(number, generator, num_regions=5, dim=16, empty=()) -> Keys:
    mask = torch.rand(number, num_regions, generator=generator) < 0.7
    mask[:, 0] = True
    mask[list(empty)] = False
    regions = F.normalize(torch.randn(number, num_regions, dim, generator=generator), dim=-1)
    embeds = F.normalize(torch.randn(number, dim, generator=generator), dim=-1)
    return Keys(regions, mask, embeds * mask.any(1, keepdim=True))


@pytest.fixture
def objective():
    torch.manual_seed(0)
    objective = OBJECTIVES["fine"](FgmmConfig(projection_dim=16))
    with torch.no_grad():
        for name, value in objective.initial_values().items():
            getattr(objective, name).fill_(value)
        objective.phrase_gate.normal_()
    return objective


def score(objective, queries, keys, name, k=100):
    with torch.no_grad():
        return scores.score_pairs(objective, queries, keys, name, k, Counter())


@pytest.mark.parametrize("texts_ask", [True, False])
def test_the_best_are_scored_finely_and_the_others_keep_their_order(objective, texts_ask):
    """With loops: of each query the k best by cosine, in the order of their fine scores, then the rest by cosine."""
    generator, k = torch.Generator().manual_seed(1), 4
    keys = random_keys(12, generator, empty=[3])
    queries = random_queries(30, generator, empty=[7])
    if not texts_ask:
        queries = Queries.from_keys(random_keys(30, generator, empty=[7]))
    coarse, fine = (score(objective, queries, keys, name)[0] for name in ("coarse", "fine"))
    of_queries, of_items = score(objective, queries, keys, "coarse_then_fine", k)
    differs = 0
    for both, cosines, exact, missing in (
        (of_queries, coarse, fine, (7, 3)),
        (of_items.T, coarse.T, fine.T, (3, 7)),
    ):
        for row in range(len(both)):
            ranked = both[row].argsort(descending=True).tolist()
            if row == missing[0]:
                assert len(set(both[row].tolist())) == 1
                continue
            by_cosine = [place for place in cosines[row].argsort(descending=True).tolist() if place != missing[1]]
            best = sorted(by_cosine[:k], key=lambda place: -exact[row][place])
            assert ranked == [*best, *by_cosine[k:], missing[1]]
            differs += best != by_cosine[:k]
    assert differs > 20  # the fine score says something else
    lowest = of_queries.min()
    assert (of_queries[7] == lowest).all() and (of_queries[:, 3] == lowest).all()


def test_as_many_as_there_are_give_the_ranks_of_the_fine_score(objective):
    generator = torch.Generator().manual_seed(2)
    queries, keys = random_queries(40, generator, empty=[0]), random_keys(15, generator, empty=[14])
    owners = torch.arange(40).numpy() % 15
    metric = evaluate.load(evaluation.METRIC)
    exact = metric.compute(predictions=score(objective, queries, keys, "fine")[0].numpy(), references=owners)
    of_queries, of_items = score(objective, queries, keys, "coarse_then_fine", 40)
    assert metric.compute(predictions=of_queries.numpy(), references=owners)["text_to_item"] == exact["text_to_item"]
    assert metric.compute(predictions=of_items.numpy(), references=owners)["item_to_text"] == exact["item_to_text"]
    coarse = metric.compute(predictions=score(objective, queries, keys, "coarse")[0].numpy(), references=owners)
    assert coarse["text_to_item"]["MnR"] != exact["text_to_item"]["MnR"]


def test_only_the_best_are_scored_finely(objective, monkeypatch):
    generator, pairs = torch.Generator().manual_seed(3), []
    queries, keys = random_queries(200, generator), random_keys(100, generator)
    fine_scores = objective.fine_scores

    def counted(queries, keys):
        pairs.append(len(queries.mask) * len(keys.mask))
        return fine_scores(queries, keys)

    monkeypatch.setattr(objective, "fine_scores", counted)
    score(objective, queries, keys, "coarse_then_fine", 5)
    assert 5 * 200 <= sum(pairs) <= 5 * (200 + 100)  # of 20,000


@pytest.mark.parametrize("name", ["trained", "fine", "coarse", "coarse_then_fine"])
def test_texts_without_any_word_come_last(objective, name):
    generator = torch.Generator().manual_seed(4)
    queries, keys = random_queries(3, generator, empty=[0, 1, 2]), random_keys(4, generator)
    for found in score(objective, queries, keys, name):
        assert (found == scores.MISSING).all()


@pytest.mark.parametrize(
    "objective_name, name, stage",
    [
        ("fine", "trained", "fine"),
        ("filip", "trained", "fine"),
        ("mil_nce", "trained", "coarse"),
        ("mil_nce", "fine", "fine"),
        ("fine", "coarse", "coarse"),
    ],
)
def test_time_belongs_to_its_stage(objective_name, name, stage):
    generator, seconds = torch.Generator().manual_seed(5), Counter()
    objective = OBJECTIVES[objective_name](FgmmConfig(projection_dim=16))
    with torch.no_grad():
        for parameter in (*objective.parameters(), *objective.buffers()):
            parameter.fill_(1.0)
        queries, keys = random_queries(3, generator), random_keys(3, generator)
        scores.score_pairs(objective, queries, keys, name, 2, seconds)
    assert set(seconds) == {f"{stage}_scoring"} and seconds[f"{stage}_scoring"] > 0


@pytest.mark.parametrize(("ask", "answer"), [("text", "video"), ("text", "audio"), ("audio", "video")])
def test_fine_scores_of_chosen_pairs_are_those_of_all_pairs(saved, narrated, ask, answer):
    model = saved[1]
    queries, keys, _ = evaluation.build_task(encode(saved, narrated), ask, answer, skip_silent=False)
    objective = model.objectives[f"{ask}_{answer}"]
    fine, _ = score(objective, queries, keys, "fine")
    for both in score(objective, queries, keys, "coarse_then_fine", 1000):
        assert torch.allclose(both, fine, atol=1e-6)


def perfect_corpus(silent) -> evaluation.EncodedCorpus:
    """Twelve clips that are told from each other without a mistake; some have no sound. Two texts each."""
    embeds = torch.eye(12, 16)
    has_sound = torch.tensor([index not in silent for index in range(12)]).unsqueeze(1)
    everything = torch.ones(12, 1, dtype=torch.bool)
    texts = embeds.repeat_interleave(2, 0)
    mask = torch.ones(24, 1, dtype=torch.bool)
    parts = {
        "video": Keys(embeds.unsqueeze(1), everything, embeds),
        "audio": Keys((embeds * has_sound).unsqueeze(1), has_sound, embeds * has_sound),
        "text": Queries(texts.unsqueeze(1), mask, torch.zeros(24, 1, dtype=torch.long), texts.unsqueeze(1), mask),
    }
    return evaluation.EncodedCorpus(parts, torch.arange(12).repeat_interleave(2), "video", 0)


@pytest.mark.parametrize("name", ["coarse", "fine", "coarse_then_fine"])
def test_clips_without_sound_count_as_errors_or_are_left_out(saved, monkeypatch, name):
    """AVLnet's convention: neither as a query nor as a right answer is a clip without sound found."""
    silent = (0, 5, 7)
    monkeypatch.setattr(evaluation, "encode_corpus", lambda *arguments: perfect_corpus(silent))
    _, model, processor = saved
    counted, left_out = (
        evaluation.evaluate_retrieval(model, processor, None, name, rerank_k=4, skip_silent=skip)
        for skip in (False, True)
    )
    # Of the 24 texts of an item without sound the 22 of others stand before the best of its own.
    last = {"text_to_audio": 12, "audio_to_text": 23, "audio_to_video": 12, "video_to_audio": 12}
    for direction, rank in last.items():
        values = counted[direction]
        assert values["R@1"] == values["R@10"] == values["nDCG@10"] == 75
        assert values["MnR"] == (9 * 1 + 3 * rank) / 12
        values = left_out[direction]
        assert values["R@1"] == values["nDCG@10"] == 100 and values["MnR"] == 1
        texts = {"text_to_audio": (18, 9), "audio_to_text": (9, 18)}.get(direction, (9, 9))
        assert (values["num_queries"], values["num_items"]) == texts
    for direction in ("text_to_video", "video_to_text"):  # sound is not asked for
        assert counted[direction] == left_out[direction] and counted[direction]["R@1"] == 100


def test_each_direction_is_ranked_by_its_own_scores(saved, monkeypatch):
    """Perfect scores for finding items, and none for finding queries."""
    monkeypatch.setattr(evaluation, "encode_corpus", lambda *arguments: perfect_corpus(silent=()))
    right = {24: torch.eye(12).repeat_interleave(2, 0), 12: torch.eye(12)}
    monkeypatch.setattr(
        script, "score_pairs", lambda _, queries, *rest: (right[len(queries.mask)], -right[len(queries.mask)])
    )
    results = evaluation.evaluate_retrieval(saved[1], saved[2], None)
    assert {direction: values["R@1"] for direction, values in results.items()} == {
        **dict.fromkeys(("text_to_video", "text_to_audio", "audio_to_video"), 100.0),
        **dict.fromkeys(("video_to_text", "audio_to_text", "video_to_audio"), 0.0),
    }


def test_a_file_without_a_sound_stream_is_silent(saved, kitchen):
    encoded = encode(saved, kitchen)
    assert encoded.parts["audio"].present.tolist() == [True, False, True]
    assert encoded.parts["video"].present.all() and encoded.kind == "video"


@pytest.mark.parametrize(
    ("option", "value"), [("--rerank_k", 0), ("--num_windows", 0), ("--batch_size", 0), ("--num_workers", -1)]
)
def test_too_small_numbers_are_refused(option, value, monkeypatch, capsys):
    with pytest.raises(SystemExit) as error:
        run_main(monkeypatch, script, "--model", "a", "--dataset", "b", option, value)
    assert error.value.code == 2 and f"{option}: {value} is less than" in capsys.readouterr().err


def test_wrong_paths_are_one_sentence(saved, narrated, tmp_path, monkeypatch):
    nothing = tmp_path / "nothing"
    command = [sys.executable, "scripts/evaluate_retrieval.py", "--model", saved[0], "--dataset", nothing]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 1 and "nothing" in answer.stderr and "Traceback" not in answer.stderr
    with pytest.raises(CorpusError, match=r"nowhere.* is no folder here, and could not be loaded") as error:
        run_main(monkeypatch, script, "--model", tmp_path / "nowhere", "--dataset", narrated)
    assert "\n" not in str(error.value)


def test_results_that_cannot_be_written_are_named_before_the_work(saved, narrated, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    command = ["--model", saved[0], "--dataset", narrated, "--output"]
    for output, message in ((tmp_path, "is a folder"), (tmp_path / "file" / "deep" / "a.json", "cannot be made")):
        monkeypatch.setattr(script, "load_corpus", None)
        with pytest.raises(CorpusError, match=message):
            run_main(monkeypatch, script, *command, output)


def test_other_and_damaged_models_are_named(saved, tmp_path):
    BertModel(
        BertConfig(vocab_size=16, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    ).save_pretrained(tmp_path / "bert")
    with pytest.raises(CorpusError, match="of the kind bert, not fgmm"):
        load_model(str(tmp_path / "bert"))
    shutil.copytree(saved[0], tmp_path / "damaged")
    (tmp_path / "damaged" / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(CorpusError, match="damaged' could not be loaded"):
        load_model(str(tmp_path / "damaged"))


def test_other_processes_do_not_wait(monkeypatch):
    class Other:
        is_main_process = False

    monkeypatch.setattr(script, "PartialState", Other)
    run_main(monkeypatch, script, "--model", "nowhere", "--dataset", "nowhere")
