"""Evaluation on stored embeddings against evaluation on the media."""

import json
from collections import Counter

import pyarrow.parquet as parquet
import pytest
import torch
from datasets import ClassLabel
from helpers import CLASS_NAMES, write_labelled_corpus

from fgmm_tools.classification.evaluation import evaluate_classification
from fgmm_tools.classification.settings import ClassificationSettings
from fgmm_tools.cli import UserError
from fgmm_tools.embedding.corpus import embed_corpus
from fgmm_tools.embedding.settings import EmbeddingSettings
from fgmm_tools.embedding.stored import open_embeddings
from fgmm_tools.models import with_random_weights
from fgmm_tools.retrieval.evaluation import build_task, describe_protocol, encode_items, evaluate_retrieval
from fgmm_tools.retrieval.scores import score_pairs
from fgmm_tools.retrieval.settings import RetrievalSettings
from processing_fgmm.corpora_fgmm import CorpusError, load_corpus


@pytest.fixture(scope="module")
def embed(tmp_path_factory):
    """Embeds a corpus in a folder of its own, whose path it returns."""

    def run(model, dataset, **settings) -> str:
        folder = tmp_path_factory.mktemp("embeddings") / "of_it"
        embed_corpus(str(model), str(dataset), folder, EmbeddingSettings(**settings))
        return str(folder)

    return run


@pytest.fixture(scope="module")
def stored_kitchen(embed, narrated_model, kitchen) -> str:
    return embed(narrated_model[0], kitchen, num_windows=3, num_regions=1000)


def retrieve(narrated_model, corpus, **fields):
    _, model, processor = narrated_model
    return evaluate_retrieval(model, processor, corpus, RetrievalSettings(**{"num_workers": 0, **fields}))


def test_coarse_retrieval_is_that_of_the_media(narrated_model, kitchen, stored_kitchen):
    from_media = retrieve(narrated_model, load_corpus(str(kitchen), "test"), score="coarse", num_windows=3)
    stored = open_embeddings(stored_kitchen, "test")
    from_stored = retrieve(narrated_model, stored, score="coarse")
    assert from_stored == from_media and all(values["num_undecodable"] == 1 for values in from_stored.values())
    assert retrieve(narrated_model, stored, num_windows=3, join_captions=True).keys() == from_media.keys()
    protocol = describe_protocol(RetrievalSettings(), 5.0, False, stored=stored)
    assert ", 3 x 5 s of each item, stored embeddings, at most 1000 regions of a window in float16" in protocol


def test_fine_scores_are_those_of_the_media(narrated_model, kitchen, stored_kitchen):
    """But for the digits that float16 has; ranks of random weights depend on these."""
    _, model, processor = narrated_model
    settings, scores = RetrievalSettings(num_workers=0, num_windows=3), []
    for corpus in (load_corpus(str(kitchen), "test"), open_embeddings(stored_kitchen, "test")):
        items = encode_items(model, processor, corpus, settings)
        assert items.keys["audio"].present.tolist() == [True, False, True] and items.text_targets.tolist() == [
            0,
            1,
            1,
            2,
        ]
        with torch.no_grad():
            for pair in ("text_video", "text_audio", "audio_video"):
                queries, keys, _ = build_task(items, *pair.split("_"), skip_silent=False)
                scores.append(score_pairs(model.objectives[pair], queries, keys, "fine", 1, Counter())[0])
    for of_media, of_stored in zip(scores[:3], scores[3:], strict=True):
        assert torch.allclose(of_stored, of_media, atol=1e-3)


def test_embeddings_that_do_not_fit_are_refused(narrated_model, kitchen, stored_kitchen, embed):
    _, model, processor = narrated_model
    stored = open_embeddings(stored_kitchen, "test")
    stored.check_model(model, processor)
    with pytest.raises(UserError, match=r"of_it holds embeddings of another model, '.*narrated_model0', or of another"):
        stored.check_model(with_random_weights(model, 3), processor)
    with pytest.raises(UserError, match=r"of each item 3, not 2; .* embed the corpus with --num_windows 2"):
        retrieve(narrated_model, stored, num_windows=2)
    with pytest.raises(UserError, match="no windows of its own for each caption"):
        retrieve(narrated_model, stored, each_caption=True)
    with pytest.raises(CorpusError, match="of_it has no split 'train', only test"):
        open_embeddings(stored_kitchen, "train")
    assert open_embeddings(str(kitchen), "test") is None
    without = open_embeddings(embed(narrated_model[0], kitchen, num_regions=0), "test")
    for score in ("fine", "trained", "coarse_then_fine"):
        with pytest.raises(
            UserError, match=f"of_it has no regions, which the score {score} needs; give --score coarse"
        ):
            retrieve(narrated_model, without, score=score)
    assert retrieve(narrated_model, without, score="coarse")


def test_incomplete_embeddings_are_refused(narrated_model, kitchen, embed, tmp_path):
    folder = embed(narrated_model[0], kitchen)
    path = f"{folder}/embeddings.json"
    with open(path) as file:
        manifest = json.load(file)
    with open(path, "w") as file:
        json.dump({**manifest, "complete": False}, file)
    with pytest.raises(
        UserError, match=r"is incomplete; run the command of scripts/embed_corpus.py that made it again"
    ):
        open_embeddings(folder, "test")
    with open(path, "w") as file:
        file.write("{")
    with pytest.raises(UserError, match=r"embeddings.json is damaged; delete the folder and embed the corpus again"):
        open_embeddings(folder, "test")


def classify(model, dataset, protocol, **fields):
    return evaluate_classification(str(model), str(dataset), ClassificationSettings(protocol, num_workers=0, **fields))


def test_classification_is_that_of_the_media(small_model, sounds, embed):
    folder = embed(small_model, sounds, num_windows=2, with_features=True, num_regions=1000)
    for protocol, fields in (("linear", {}), ("linear", {"few_shot": True}), ("knn", {}), ("zero_shot", {})):
        media = classify(small_model, sounds, protocol, num_windows=2, **fields)
        stored = classify(small_model, folder, protocol, **fields)
        assert set(stored.runs) == set(media.runs) and stored.class_names == media.class_names
        for fold, run in media.runs.items():
            assert stored.runs[fold]["num_clips"] == run["num_clips"]
            assert stored.runs[fold]["top1"] == pytest.approx(run["top1"], abs=1e-9)
        assert stored.protocol.endswith("mean over 2 windows of 0.5 s, " + open_embeddings(folder, "test").describe())
    with pytest.raises(UserError, match="has no media, which finetune trains on"):
        classify(small_model, folder, "finetune")
    with pytest.raises(UserError, match="was not embedded with random weights"):
        classify(small_model, folder, "knn", random_init=True)
    with pytest.raises(UserError, match="leave out --clip_seconds"):
        classify(small_model, folder, "knn", clip_seconds=0.2)
    with pytest.raises(UserError, match="of each item 2, not 3"):
        classify(small_model, folder, "knn", num_windows=3)
    plain = embed(small_model, sounds)
    with pytest.raises(UserError, match=r"has no features, which linear takes; .* --with_features"):
        classify(small_model, plain, "linear")
    assert classify(small_model, plain, "knn").runs


def test_undecodable_clips_count_as_errors(small_model, sounds, embed, tmp_path):
    parts = {part: parquet.read_table(sounds / "data" / f"{part}.parquet").to_pylist() for part in "ab"}
    parts["b"][2]["audio"] = {"bytes": b"nothing", "path": None}
    configs = {"default": {"train": ["a"], "test": ["b"]}}
    folder = write_labelled_corpus(tmp_path / "corpus", parts, configs, label=ClassLabel(names=CLASS_NAMES))
    stored = classify(small_model, embed(small_model, folder, num_windows=4), "knn")
    media = classify(small_model, folder, "knn")
    assert stored.runs == media.runs and stored.runs["default"]["num_undecodable"] == 1


def test_torch_threads_are_left_alone(narrated_model, kitchen, embed):
    """They are those of the worker processes alone."""
    before = torch.get_num_threads()
    embed(narrated_model[0], kitchen)
    assert torch.get_num_threads() == before
