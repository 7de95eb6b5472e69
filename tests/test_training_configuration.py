import re

import pytest
import yaml
from helpers import ROOT, training_arguments

from fgmm_tools.cli import UserError
from fgmm_tools.training.configuration import SECTIONS, PretrainConfig, field_names, parse_config

REQUIRED = ["--dataset", "corpus", "--output_dir", "out"]


@pytest.fixture
def read(tmp_path):
    """Parses a configuration file's text, then words of the command line."""

    def parse(text, *words):
        (tmp_path / "config.yaml").write_text(text)
        return parse_config(["--config", str(tmp_path / "config.yaml"), *words])

    return parse


def test_the_command_line_wins_over_the_file_wherever_it_stands(read, tmp_path):
    text = "dataset: a\noutput_dir: b\nseed: 1\nmodel: {projection_dim: 8}\n"
    config = read(text, "--seed=3", "--model.projection_dim", "9")
    assert (config.dataset, config.seed, config.model) == ("a", 3, {"projection_dim": 9})
    assert parse_config(["--seed", "5", "--config", str(tmp_path / "config.yaml")]).seed == 5


def test_an_entry_leaves_the_others_of_its_mapping(read):
    text = "dataset: a\noutput_dir: b\nmodel: {projection_dim: 8, video_config: {width_multiplier: 0.5, depths: [1]}}\n"
    config = read(text, "--model.video_config.width_multiplier", "2.5e-1", "--model.audio_config.depths=[1, 2]")
    assert config.model == {
        "projection_dim": 8,
        "video_config": {"width_multiplier": 0.25, "depths": [1]},
        "audio_config": {"depths": [1, 2]},
    }


def test_values_that_yaml_reads_otherwise(read):
    config = read(
        "dataset: a\noutput_dir: b\nlearning_rate: 1e-3\nmixed_precision: no\nclip_seconds: 4\nmodel: {gce_q: 1e-1}\n"
    )
    assert (config.learning_rate, config.mixed_precision, config.clip_seconds) == (1e-3, "no", 4.0)
    assert config.model == {"gce_q": 0.1}
    assert parse_config(["--dataset", "1e-3", "--output_dir", "7", "--mixed_precision", "no"]).dataset == "1e-3"


def test_numbers_are_plain():
    """Checkpoints hold the learning rate, and torch loads no classes of a parser's."""
    config = parse_config([*REQUIRED, "--learning_rate", "1", "--batch_size", "4", "--clip_seconds", "2"])
    assert type(config.batch_size) is int and type(config.seed) is int
    assert all(type(value) in (int, float) for value in (config.learning_rate, config.clip_seconds))
    yaml.safe_dump(vars(config))


@pytest.mark.parametrize(
    "fields,named",
    [
        ({"learning_rat": 1}, "no field 'learning_rat'; did you mean 'learning_rate'"),
        ({"max_steps": "many"}, "max_steps"),
        ({"batch_size": 1}, "batch_size: Not of type IntFrom2: 1"),
        ({"batch_size": 8.5}, "batch_size"),
        ({"max_steps": 0}, "max_steps: Not of type PositiveInt: 0"),
        ({"encoder_chunk_size": -1}, "encoder_chunk_size: Not of type NonNegativeInt: -1"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps: Not of type PositiveInt: 0"),
        ({"mixed_precision": "fp8"}, "mixed_precision"),
        ({"min_crop_area": 0}, "min_crop_area: Not of type FloatAbove0To1: 0"),
        ({"flip": "maybe"}, "flip"),
        ({"model": "small"}, "model: Expected a dict"),
        ({"modle.projection_dim": 8}, "no field 'modle'; did you mean 'model'"),
        ({"seed.first": 8}, "seed is 0 and has no entries"),
        ({"learning_rate": ".nan"}, "learning_rate: Not of type PositiveFloat"),
        ({"clip_seconds": ".inf"}, "clip_seconds: Not of type FloatAbove0To3600: "),
        ({"clip_seconds": 4000}, "v>0 and v<=3600"),
        ({"seed": -1}, "seed: Not of type NonNegativeInt: -1"),
        ({"seed": 2**32}, "seed must not be larger than 4294967295"),
        ({"num_workers": 2000}, "num_workers: Not of type IntFrom0To1024: 2000"),
        ({"model.gce_q": ".nan"}, "model.gce_q must be a finite number, not nan"),
        ({"model.video_config.depths": "[1, -.inf]"}, "model.video_config.depths must be a finite number, not -inf"),
        ({"model.gce_q": "[1"}, "--model.gce_q '[1' is not YAML"),
        ({"config": "nowhere.yaml"}, "'nowhere.yaml' cannot be used: config: File does not exist"),
    ],
)
def test_errors_of_the_command_line_are_one_sentence(fields, named):
    with pytest.raises(UserError) as caught:
        parse_config(training_arguments("corpus", "out", **fields))
    assert named in str(caught.value) and "\n" not in str(caught.value)


def test_corpus_and_model_folder_must_be_named():
    with pytest.raises(UserError, match="required: output_dir"):
        parse_config([])
    for words in ([], ["--dataset", "a", "--datasets", "[{dataset: b}]"]):
        with pytest.raises(UserError, match="Give either dataset or datasets"):
            parse_config(["--output_dir", "out", *words])


def test_several_corpora_have_weights_and_names():
    one = parse_config(["--dataset", "data/a/", "--output_dir", "out"])
    assert (one.corpus_names, one.corpus_weights) == (["a"], [1.0])
    words = "[{dataset: data/a, weight: 3}, {dataset: b, dataset_config: fold1, train_split: all}]"
    several = parse_config(["--datasets", words, "--output_dir", "out"])
    assert (several.corpus_names, several.corpus_weights) == (["a", "b"], [3.0, 1.0])
    assert (several.corpora[1].dataset_config, several.corpora[1].train_split) == ("fold1", "all")
    same = parse_config(["--datasets", "[{dataset: x/a}, {dataset: y/a}]", "--output_dir", "out"])
    assert same.corpus_names == ["x/a", "y/a"]
    for entry in ("{dataset: a, weight: 0}", "{dataset: a, weight: .inf}", "{dataset: a, wait: 1}", "{weight: 1}"):
        with pytest.raises(UserError):
            parse_config(["--datasets", f"[{entry}]", "--output_dir", "out"])


@pytest.mark.parametrize("words", [["--seed"], ["--model.projection_dim"], ["--config"], ["stray"]])
def test_words_without_a_partner_are_refused(words):
    with pytest.raises(UserError, match=words[0]):
        parse_config([*REQUIRED, *words])


@pytest.mark.parametrize(
    "text,named",
    [
        ("learning_rat: 1", "no field 'learning_rat'; did you mean 'learning_rate'"),
        ("max_steps: many", "max_steps"),
        ("tokenizer: 5", "tokenizer: Expected a str. Got value: 5"),
        ("trackers: tensorboard", "trackers: Expected a list"),
        ("model: [1]", "model: Expected a dict"),
        ("seed: [1", "parsing config"),
        ("seed", "Unexpected config"),
        ("learning_rate: .nan", "learning_rate"),
        ("clip_seconds: -.inf", "clip_seconds: Not of type FloatAbove0To3600"),
        ("model: &a {x: *a}", "contains itself by an alias"),
    ],
)
def test_errors_of_the_file_name_it(read, tmp_path, text, named):
    with pytest.raises(UserError) as caught:
        read(text)
    assert named in str(caught.value) and str(tmp_path / "config.yaml") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1"])
def test_a_file_of_another_encoding_is_named(tmp_path, encoding):
    (tmp_path / "config.yaml").write_text("dataset: Küche\noutput_dir: b\n", encoding=encoding)
    with pytest.raises(UserError, match=r"config\.yaml' is not UTF-8 text; save it as UTF-8|cannot be used: .*special"):
        parse_config(["--config", str(tmp_path / "config.yaml")])


def test_help_has_sections_and_every_field_with_its_meaning_and_type(capsys):
    with pytest.raises(SystemExit) as caught:
        parse_config(["--help"], "What it does.\n\n    python command.py\n")
    text = capsys.readouterr().out
    assert caught.value.code == 0 and "\n    python command.py\n" in text
    assert all(f"\n{section.__doc__}:\n" in text for section in SECTIONS)
    options = " ".join(text.partition("\nData:\n")[2].split())
    for entry in field_names(PretrainConfig):
        assert re.search(rf"--{entry} \S+ (--\S+ \S+ )?(?!\()((?!--).)+ \((required, )?type: ", options), entry
    assert "of AdamW, after warm-up (type: PositiveFloat, default: 0.001)" in options


def test_a_saved_configuration_is_read_again(tmp_path):
    config = parse_config(training_arguments("corpus", "out"))
    (tmp_path / "pretrain.yaml").write_text(yaml.safe_dump(vars(config), sort_keys=False))
    assert parse_config(["--config", str(tmp_path / "pretrain.yaml")]) == config


@pytest.mark.parametrize("path", sorted((ROOT / "scripts" / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_files_are_read(path):
    assert parse_config(["--dataset", "corpus", "--output_dir", "out", "--config", str(path)]).dataset == "corpus"
