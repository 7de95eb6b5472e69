import json

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from tiny_encoders import AUDIO, VIDEO
from tiny_objectives import make_items, make_pair
from transformers import AutoConfig

from modeling_fgmm import FgmmConfig
from modeling_fgmm.configuration_fgmm import ENCODER_SETTINGS, OBJECTIVES_OF_OPTION, REMOVED_OPTIONS
from modeling_fgmm.loss_fgmm import OBJECTIVES

# Another value than the default of each option that has no effect with some objective.
OTHER_VALUES = {
    "logit_scale_init_value": 1.5,
    "gce_q": 0.4,
    "sharpness_init_value": 3.0,
    "learnable_sharpness": False,
    "phrase_sharpness_init_value": 2.0,
    "learnable_phrase_sharpness": False,
    "phrase_gates": False,
    "whole_captions": False,
    "coarse_loss_weight": 0.7,
}
PAIRS_OF_OPTIONS = [(objective, option) for objective in OBJECTIVES for option in OTHER_VALUES]


def test_configuration_round_trip(tmp_path):
    config = FgmmConfig(
        modalities=["video", "text"], projection_dim=24, video_config={"width_multiplier": 0.25, "depths": [2]}
    )
    config.save_pretrained(tmp_path)
    loaded = FgmmConfig.from_pretrained(tmp_path)
    assert loaded.to_dict() == config.to_dict() == FgmmConfig(**config.to_dict()).to_dict()
    assert loaded.video_config.depths == [2] and loaded.modalities == ["video", "text"]


def test_whole_numbers_are_taken_for_every_number():
    config = FgmmConfig(
        logit_scale_init_value=1, video_config={"width_multiplier": 1}, text_config={"dropout": 0}, coarse_loss_weight=1
    )
    assert config.video_config.width_multiplier == 1 and config.text_config.dropout == 0


@pytest.mark.parametrize(
    "wrong,named",
    [
        ({"modalities": ["video"]}, "modalities"),
        ({"modalities": ["video", "smell"]}, "modalities"),
        ({"modalities": ["video", "text"], "frozen": ["audio"]}, "frozen"),
        ({"projection_dim": "many"}, "projection_dim"),
        ({"objective": "clip"}, "objective='clip' is none of 'fine'"),
        ({"scoring_implementation": "quick"}, "scoring_implementation"),
        ({"sharpness_init_value": 0}, "sharpness_init_value"),
        ({"gce_q": -0.1}, "gce_q"),
        ({"classifier_dropout": 1}, "classifier_dropout"),
        ({"video_config": {"depths": [3]}}, "depths"),
        ({"video_config": {"temporal_padding": "mirror"}}, "temporal_padding"),
        ({"video_config": {"width_multiplier": -1.0}}, "width_multiplier"),
        ({"audio_config": {"hidden_sizes": [8]}}, "hidden_sizes"),
        ({"text_config": {"num_hidden_layers": 1, "num_attention_heads": 7}}, "num_attention_heads"),
    ],
)
def test_wrong_values_name_the_field(wrong, named):
    with pytest.raises(StrictDataclassError, match=named):
        FgmmConfig(**wrong)


@pytest.mark.parametrize(
    "wrong,message",
    [
        ({"objectve": "fine"}, "FgmmConfig has no option 'objectve'; did you mean 'objective'"),
        ({"temperature": 0.07}, "'temperature'; there are audio_config, audio_padding_value, .*, whole_captions"),
        ({"max_length": 20}, "no option 'max_length'"),  # transformers would drop options of text generation
        ({"robustness": 0.3}, "no option 'robustness' any more; it is now 'gce_q'"),
        ({"contrast_unit": "phrase"}, "no option 'contrast_unit' any more; .* contrast_unit='caption'"),
        ({"video_config": {"width_multplier": 0.5}}, "FgmmVideoConfig has .* did you mean 'width_multiplier'"),
        ({"audio_config": {"mel_bins": 3}}, "FgmmAudioConfig has .* 'num_mel_bins'"),
        ({"text_config": {"vocab": 3}}, "FgmmTextConfig has .* 'vocab_size'"),
        ({"video_config": {"model_type": "nonesuch"}}, "'nonesuch', which transformers lacks"),
    ],
)
def test_unknown_options_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        FgmmConfig(**wrong)


def test_what_transformers_itself_takes_is_taken():
    config = FgmmConfig(num_labels=3, attn_implementation="eager", torch_dtype="bfloat16", name_or_path="org/model")
    assert config.num_labels == 3 and config.text_config._attn_implementation == "eager"
    assert config.dtype == torch.bfloat16 and config.name_or_path == "org/model"
    assert FgmmConfig(output_attentions=True, auto_map={"AutoConfig": "a.b"}).output_attentions
    assert AutoConfig.for_model("fgmm", projection_dim=8).projection_dim == 8


def save(values: dict, folder):
    """A saved configuration with other values."""
    config = FgmmConfig(objective=values.get("objective", "fine"), projection_dim=24).to_dict()
    (folder / "config.json").write_text(json.dumps({**config, **values}))
    return folder


def test_configurations_of_earlier_versions_load(tmp_path):
    old = {**REMOVED_OPTIONS, "robustness": 0.3, "coarse_loss_weight": 0.5, "objective": "coarse"}
    folder = save(old, tmp_path)
    saved = json.loads((folder / "config.json").read_text())
    del saved["gce_q"]
    (folder / "config.json").write_text(json.dumps(saved))
    for auto in (FgmmConfig, AutoConfig):
        config = auto.from_pretrained(folder)
        assert (config.objective, config.gce_q, config.projection_dim) == ("coarse", 0.3, 24)
        assert config.coarse_loss_weight == 0.2  # it had no effect
        assert not {*REMOVED_OPTIONS, "robustness"} & vars(config).keys()
    config.save_pretrained(tmp_path / "again")
    assert not REMOVED_OPTIONS.keys() & json.loads((tmp_path / "again/config.json").read_text()).keys()
    config, unused = FgmmConfig.from_pretrained(folder, return_unused_kwargs=True, num_frames=3, mine=4)
    assert config.num_frames == 3 and unused == {"mine": 4}


@pytest.mark.parametrize("option", REMOVED_OPTIONS)
def test_models_of_removed_options_are_refused(option, tmp_path):
    folder = save({option: {True: False, False: True}.get(REMOVED_OPTIONS[option], "other")}, tmp_path)
    with pytest.raises(ValueError, match=f"trained with {option}=.*, which this version of fgmm lacks"):
        FgmmConfig.from_pretrained(folder)


def test_the_fixed_share_of_whole_captions_is_refused_where_it_counted(tmp_path):
    with pytest.raises(ValueError, match=r"trained with whole_caption_weight=0\.5"):
        FgmmConfig.from_pretrained(save({"whole_caption_weight": 0.5}, tmp_path))
    assert not FgmmConfig.from_pretrained(save({"whole_caption_weight": 0.0}, tmp_path)).whole_captions
    coarse = FgmmConfig.from_pretrained(save({"whole_caption_weight": 0.5, "objective": "coarse"}, tmp_path))
    assert coarse.whole_captions and not hasattr(coarse, "whole_caption_weight")
    with pytest.raises(ValueError, match="did you mean 'whole_captions'"):
        FgmmConfig(whole_caption_weight=0.5)


def test_attributes_that_others_saved_are_kept(tmp_path):
    config = FgmmConfig.from_pretrained(save({"written_by": "somebody"}, tmp_path))
    assert config.written_by == "somebody" and config.to_dict()["written_by"] == "somebody"


@pytest.mark.parametrize(("objective", "option"), PAIRS_OF_OPTIONS)
def test_an_option_without_effect_is_refused(objective, option):
    values = {"objective": objective, option: OTHER_VALUES[option]}
    if objective in OBJECTIVES_OF_OPTION[option]:
        assert getattr(FgmmConfig(**values), option) == OTHER_VALUES[option]
        return
    with pytest.raises(StrictDataclassError, match=f"{option}=.* has no effect with objective='{objective}', only"):
        FgmmConfig(**values)
    at_default = FgmmConfig(**{**values, option: getattr(FgmmConfig, option)})
    assert at_default.objective == objective


def behaviour(config: FgmmConfig) -> list:
    """Everything by which an objective's options can be told apart: what is learnable, its start, its values."""
    objective = OBJECTIVES[config.objective](config).double()
    with torch.no_grad():
        for name, value in objective.initial_values().items():
            getattr(objective, name).fill_(value)
    pair = make_pair(*make_items())
    tensors = [objective(*pair), objective.scores(*pair), objective.fine_scores(*pair), objective.logits(*pair)]
    learnable = sorted(name for name, _ in objective.named_parameters())
    return [learnable, objective.initial_values(), *(tensor.detach().tolist() for tensor in tensors)]


@pytest.mark.parametrize(("objective", "option"), PAIRS_OF_OPTIONS)
def test_the_table_of_options_tells_the_truth(objective, option):
    config = FgmmConfig(objective=objective, projection_dim=8)
    before = behaviour(config)
    setattr(config, option, OTHER_VALUES[option])  # without the check
    assert (behaviour(config) != before) == (objective in OBJECTIVES_OF_OPTION[option])


def test_the_table_names_objectives_and_options():
    assert OTHER_VALUES.keys() == OBJECTIVES_OF_OPTION.keys() <= FgmmConfig.own_options()
    assert {name for names in OBJECTIVES_OF_OPTION.values() for name in names} <= OBJECTIVES.keys()


def test_encoders_of_transformers_drop_nothing_at_random():
    given = {"video_config": VIDEO["siglip"], "audio_config": AUDIO["wav2vec2"]}
    config = FgmmConfig(**given)
    for name in ("layerdrop", "mask_time_prob"):
        assert given["audio_config"].__dict__[name] != ENCODER_SETTINGS[name] == getattr(config.audio_config, name)
    assert given["video_config"].vision_use_head and not config.video_config.vision_use_head
