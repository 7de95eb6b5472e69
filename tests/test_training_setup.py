import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from helpers import ROOT, TINY_RUN, training_arguments, write_corpus
from safetensors.torch import load_file
from tiny_encoders import make_model
from transformers import AutoModel, AutoProcessor, AutoTokenizer

from fgmm_tools.cli import UserError
from fgmm_tools.training import setup
from fgmm_tools.training.checkpoints import Progress
from fgmm_tools.training.checks import check_config, settle_config
from fgmm_tools.training.configuration import parse_config
from fgmm_tools.training.parameter_groups import make_parameter_groups
from modeling_fgmm import FgmmConfig, FgmmModel
from processing_fgmm.corpora_fgmm import load_corpus


@pytest.mark.parametrize("name", ["fgmm-tiny", "fgmm-small", "flickr8k", "grid"])
def test_shipped_configurations_build_a_model(name, tokenizer, tmp_path):
    words = ["--config", str(ROOT / "scripts" / "configs" / f"{name}.yaml"), "--output_dir", str(tmp_path)]
    config = parse_config(words)
    check_config(config)
    processor = setup.FgmmProcessor(
        setup.FgmmVideoProcessor(**config.video_processor),
        setup.FgmmFeatureExtractor(**config.feature_extractor),
        tokenizer,
    )
    with torch.device("meta"):
        model = setup.make_model(config, processor)
    assert set(model.encoders) == set(model.config.modalities)


def rows(number, text):
    caption = {"text": text, "start": 0.0, "end": 1.0}
    return [
        {"video_id": str(index), "video": {"bytes": b"x", "path": None}, "captions": [caption]}
        for index in range(number)
    ]


@pytest.mark.parametrize(
    "number,text,named",
    [(8, " ", "no caption anywhere"), (4, "a red ball", "4 clips in its split 'train', fewer than batch_size 8")],
)
def test_a_corpus_with_too_little_to_learn_from_is_refused(tmp_path, number, text, named):
    folder = write_corpus(tmp_path, rows(number, text))
    config = parse_config(training_arguments(folder, "out"))
    with pytest.raises(UserError, match=named):
        setup.make_processor(config, load_corpus(str(folder), "train"))


def test_each_process_needs_a_batch(tmp_path, monkeypatch):
    folder = write_corpus(tmp_path, rows(12, "a red ball"))
    monkeypatch.setattr(setup, "PartialState", lambda: SimpleNamespace(num_processes=2))
    with pytest.raises(
        UserError, match="12 clips in its split 'train', fewer than batch_size 8 in each of 2 processes"
    ):
        setup.make_processor(parse_config(training_arguments(folder, "out")), load_corpus(str(folder), "train"))


def test_the_tokenizer_knows_the_words_of_the_corpus(tmp_path):
    folder = write_corpus(tmp_path, rows(8, "a red ball"))
    corpus = load_corpus(str(folder), "train")
    processor = setup.make_processor(parse_config(training_arguments(folder, "out")), corpus)
    assert set(processor.tokenizer.get_vocab()) == {"[PAD]", "[UNK]", "a", "red", "ball"}
    config = parse_config(training_arguments(folder, "out", tokenizer="/nowhere"))
    with pytest.raises(UserError, match="The tokenizer '/nowhere' does not exist"):
        setup.make_processor(config, corpus)


WITHOUT_MODEL = {name: None for name in TINY_RUN if name.startswith("model.")}
OTHER_WORDS = "a red ball does push ups"


@pytest.mark.parametrize("given", ["init_from", "tokenizer"])
def test_words_of_the_corpus_are_added_to_the_vocabulary(small_model, tmp_path, capsys, given):
    folder = write_corpus(tmp_path, rows(8, OTHER_WORDS))
    known = AutoProcessor.from_pretrained(small_model).tokenizer.get_vocab()
    corpus, fields = load_corpus(str(folder), "train"), {**WITHOUT_MODEL, given: small_model}
    processor = setup.make_processor(parse_config(training_arguments(folder, "out", **fields)), corpus)
    added = {"does": len(known), "push": len(known) + 1, "ups": len(known) + 2}
    assert processor.tokenizer.get_vocab() == known | added
    printed = " ".join(capsys.readouterr().out.split())
    assert "does not know 50% of the words of the captions: 'push', 'ups'." in printed
    assert printed.endswith(
        f"Added 3 words and marks to its {len(known)}. The tokenizer knows all words of the captions."
    )


@pytest.mark.parametrize(
    "fields,reason",
    [
        ({"add_words": False}, "as add_words is false"),
        ({"model.frozen": "[text]"}, "as the text encoder is frozen"),
        ({"vocab_size": 5}, "No word is added (vocab_size 5, min_frequency 1)"),
        ({"min_frequency": 9}, "No word is added (vocab_size 20000, min_frequency 9)"),
    ],
)
def test_words_are_not_added_where_they_are_not_wanted(small_model, tmp_path, capsys, fields, reason):
    folder = write_corpus(tmp_path, rows(8, OTHER_WORDS))
    config = parse_config(training_arguments(folder, "out", **WITHOUT_MODEL, init_from=small_model, **fields))
    processor = setup.make_processor(config, load_corpus(str(folder), "train"))
    assert processor.tokenizer.get_vocab() == AutoProcessor.from_pretrained(small_model).tokenizer.get_vocab()
    printed = capsys.readouterr().out
    assert "does not know 50% of the words" in printed and reason in printed


def test_tokenizers_of_subwords_stay_as_they_are(encoders_at, tmp_path, capsys):
    folder = write_corpus(tmp_path, rows(8, "a red ball and 蛋"))
    config = parse_config(training_arguments(folder, "out", tokenizer=encoders_at / "bert"))
    processor = setup.make_processor(config, load_corpus(str(folder), "train"))
    assert processor.tokenizer.get_vocab() == AutoTokenizer.from_pretrained(encoders_at / "bert").get_vocab()
    printed = " ".join(capsys.readouterr().out.split())
    assert (
        "33% of the words of the captions: '蛋'. Its tokens are parts of words, so that no words are added." in printed
    )


def test_a_new_tokenizer_says_what_it_does_not_know(tmp_path, capsys):
    folder = write_corpus(tmp_path, [*rows(8, "a red ball"), *rows(1, "a rare word")])
    config = parse_config(training_arguments(folder, "out", min_frequency=2))
    setup.make_processor(config, load_corpus(str(folder), "train"))
    assert "The tokenizer does not know 11% of the words of the captions: 'rare', 'word'." in capsys.readouterr().out


def test_a_model_that_knows_other_words_is_trained_further(small_model, narrated, pretrain_here, tmp_path):
    """On a corpus whose words its tokenizer does not know: they get vectors of their own, and are saved with it."""
    fields = {**WITHOUT_MODEL, "init_from": small_model, "video_processor": None, "feature_extractor": None}
    pretrain_here(narrated, tmp_path / "out", max_steps=2, clip_seconds=0.5, learning_rate=1e-9, **fields)
    model, processor = FgmmModel.from_pretrained(tmp_path / "out"), AutoProcessor.from_pretrained(tmp_path / "out")
    start, known = FgmmModel.from_pretrained(small_model), AutoProcessor.from_pretrained(small_model).tokenizer
    weights, before = model.get_input_embeddings().weight, start.get_input_embeddings().weight
    assert len(weights) == len(processor.tokenizer) == model.config.text_config.vocab_size > len(known) + 20
    assert torch.allclose(weights[: len(known)], before, atol=1e-6)
    assert processor.check_words(["a blue ring", "a green star"]) == ([], [])
    assert not torch.equal(*torch.from_numpy(model.encode(text=["a blue ring", "a green star"], processor=processor)))


def test_weights_of_one_dimension_do_not_decay(model):
    config = parse_config(training_arguments("corpus", "out", weight_decay=0.3))
    model.encoders["text"].requires_grad_(False)
    decayed, other = setup.make_optimizer(make_parameter_groups(model, 1e-3, config.weight_decay)).param_groups
    assert (decayed["weight_decay"], other["weight_decay"]) == (0.3, 0)
    assert {p.ndim for p in other["params"]} == {0, 1} and 1 not in {p.ndim for p in decayed["params"]}
    trained = {id(p) for p in (*decayed["params"], *other["params"])}
    assert trained == {id(p) for p in model.parameters() if p.requires_grad} != set()


def test_batches_start_where_the_progress_is(narrated, trained):
    processor = AutoProcessor.from_pretrained(trained[0])
    corpus = load_corpus(str(narrated), "train")
    config, accelerator = parse_config(training_arguments(narrated, "out")), Accelerator(cpu=True)
    modalities = ["video", "text"]
    whole = iter(setup.make_batches(config, corpus, processor, modalities, accelerator, Progress()))
    first, second = next(whole), next(whole)
    progress = Progress(epoch=first.epoch, position=first.position)
    resumed = next(iter(setup.make_batches(config, corpus, processor, modalities, accelerator, progress)))
    assert "input_features" not in first.inputs and len(first.inputs["pixel_values_videos"]) == 8
    assert all(torch.equal(value, resumed.inputs[name]) for name, value in second.inputs.items())
    assert not torch.equal(first.inputs["pixel_values_videos"], resumed.inputs["pixel_values_videos"])


def test_a_model_is_initialised_from_another_but_for_the_objective(trained, narrated, tmp_path):
    source, _ = trained
    fields = {**WITHOUT_MODEL, "init_from": source, "model.learnable_sharpness": False}
    config = parse_config(training_arguments(narrated, tmp_path, **fields, **{"model.sharpness_init_value": 3}))
    processor = setup.make_processor(config, load_corpus(str(narrated), "train"))
    model = setup.make_model(config, processor)
    before, after = load_file(source / "model.safetensors"), model.state_dict()
    encoders = [name for name in before if not name.startswith("objectives.")]
    assert all(torch.equal(after[name], before[name]) for name in encoders) and len(encoders) > 90
    assert after["objectives.text_video.log_sharpness"].exp().item() == pytest.approx(3)
    assert before["objectives.text_video.log_sharpness"].exp().item() != pytest.approx(3, abs=0.5)
    assert processor.tokenizer.get_vocab() == AutoProcessor.from_pretrained(source).tokenizer.get_vocab()


@pytest.mark.parametrize(
    "fields,named",
    [
        ({"model.projection_dim": 8}, r"projections\.video\.weight of the model .* has shape .* asks for"),
        ({"init_from": "/nowhere"}, "The model '/nowhere' does not exist"),
        ({"init_from": "bert"}, "is of type 'bert', not fgmm"),
        ({"model.objective": "clip"}, "objective='clip' is none of"),
        ({"model.video_config": "{depths: [9]}"}, "depths"),
    ],
)
def test_what_a_model_cannot_be_made_from_is_named(trained, narrated, tmp_path, fields, named):
    source, _ = trained
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
    fields = {**WITHOUT_MODEL, "init_from": source, **fields}
    if fields["init_from"] == "bert":
        fields["init_from"] = tmp_path / "bert"
    config = parse_config(training_arguments(narrated, "out", **fields))
    with pytest.raises(UserError, match=named):
        setup.make_model(config, AutoProcessor.from_pretrained(source))


def test_what_is_given_of_a_processor_is_set_and_the_rest_taken_over(trained, narrated):
    """Of a model whose windows are 5 s, frames 32 pixels and spectrograms 32 bands."""
    words = ["--dataset", str(narrated), "--output_dir", "out", "--init_from", str(trained[0]), "--batch_size", "8"]
    corpus, accelerator = load_corpus(str(narrated), "train"), Accelerator(cpu=True)
    config = parse_config([*words, "--eval_steps", "0", "--video_processor.num_frames", "2"])
    config = settle_config(config, accelerator)
    assert (config.clip_seconds, config.max_phrase_words) == (5.0, 4)
    processor = setup.make_processor(config, corpus)
    assert (processor.clip_seconds, processor.video_processor.num_frames) == (5.0, 2)
    assert processor.video_processor.size == {"shortest_edge": 32} and processor.feature_extractor.feature_size == 32
    config = settle_config(parse_config([*words, "--eval_steps", "0", "--clip_seconds", "2"]), accelerator)
    assert setup.make_processor(config, corpus).clip_seconds == 2.0


def test_a_model_whose_weights_are_others_than_its_configuration_says_is_refused(trained, narrated, tmp_path):
    folder = shutil.copytree(trained[0], tmp_path / "model", ignore=shutil.ignore_patterns("checkpoints"))
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, "projection_dim": 24}))
    fields = {**WITHOUT_MODEL, "init_from": folder}
    config = parse_config(training_arguments(narrated, tmp_path / "out", **fields))
    with pytest.raises(UserError, match=f"model '{folder}'"):
        setup.make_model(config, AutoProcessor.from_pretrained(trained[0]))


def test_a_blank_clip_leaves_the_model_as_it_is(trained, caplog):
    model, processor = AutoModel.from_pretrained(trained[0]).train(), AutoProcessor.from_pretrained(trained[0])
    before, numbers = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    setup.check_processor(processor)
    setup.check_model(model, processor)
    assert not caplog.records  # about words of its caption that the tokenizer does not know
    assert model.training and torch.equal(torch.get_rng_state(), numbers)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_batch_normalisation_over_processes_keeps_the_weights(model):
    weights = model.state_dict()
    norms = sum(isinstance(module, torch.nn.modules.batchnorm._BatchNorm) for module in model.modules())
    made = setup.synchronise_batch_norm(model, SimpleNamespace(num_processes=1, device=torch.device("cpu")))
    assert sum(isinstance(module, torch.nn.SyncBatchNorm) for module in made.modules()) == norms > 0
    assert all(torch.equal(value, weights[name]) for name, value in made.state_dict().items())
    with pytest.raises(UserError, match="sync_batch_norm works on GPUs only"):
        setup.synchronise_batch_norm(model, SimpleNamespace(num_processes=2, device=torch.device("cpu")))


def test_our_encoders_fit_the_processor(processor):
    config = parse_config(["--dataset", "corpus", "--output_dir", "out", "--model.projection_dim", "12"])
    made = setup.make_model_config(config, None, processor)
    assert isinstance(made, FgmmConfig) and made.projection_dim == 12
    assert made.text_config.vocab_size == len(processor.tokenizer) and made.audio_config.num_mel_bins == 32


def test_encoders_of_transformers_keep_their_own_sizes(processor):
    start = make_model(video="vit", audio="wav2vec2", text="bert")
    config = parse_config(["--dataset", "corpus", "--output_dir", "out"])
    made = setup.make_model_config(config, start.config, processor)
    assert made.text_config.vocab_size == start.config.text_config.vocab_size != len(processor.tokenizer)
    assert made.projection_dim == start.config.projection_dim and made.video_config.model_type == "vit"
