import pytest
from helpers import training_arguments

from fgmm_tools.cli import UserError
from fgmm_tools.training.checks import check_config
from fgmm_tools.training.configuration import parse_config


@pytest.mark.parametrize(
    "fields,named",
    [
        (
            {"model.projection_dims": 8},
            "The field 'model' is wrong: FgmmConfig has no option 'projection_dims'; did you mean 'projection_dim'",
        ),
        ({"model.video_config": "{width: 2}"}, "FgmmVideoConfig has no option 'width'"),
        ({"model.video_config": "small"}, "'model.video_config' must hold"),
        ({"video_processor": "{frames: 2}"}, "'video_processor.frames'; did you mean 'video_processor.num_frames'"),
        ({"feature_extractor.hop": 2}, "'feature_extractor.hop'"),
        ({"trackers": "[wandbx]"}, "'wandbx'"),
    ],
)
def test_what_is_misspelt_or_missing_is_named(tmp_path, fields, named):
    config = parse_config(training_arguments("corpus", **{"output": tmp_path, **fields}))
    with pytest.raises(UserError) as caught:
        check_config(config)
    assert named in str(caught.value) and "\n" not in str(caught.value)


def test_fields_of_encoders_of_transformers_are_left_to_them(tmp_path):
    words = ["--dataset", "corpus", "--output_dir", str(tmp_path), "--model.video_config.model_type", "vit"]
    check_config(parse_config([*words, "--model.video_config.patch_size", "16"]))
