import json
from pathlib import Path

import pytest
import yaml
from huggingface_hub import HfApi

from fgmm_tools.cli import UserError
from fgmm_tools.publishing.origins import Origin, choose_license, find_origins
from modeling_fgmm import FgmmModel


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, hub_server):
    """The folder that the test works in, beside a Hub."""
    monkeypatch.chdir(tmp_path)


def put(name, init_from=None, trained=True, encoders=None):
    """A folder of a model as training leaves it, with no weights; `encoders` are named by FgmmModel.from_encoders."""
    parts = {f"{modality}_config": {"model_type": f"fgmm_{modality}"} for modality in ("video", "text")}
    for modality, encoder in (encoders or {}).items():
        parts[f"{modality}_config"] = {"model_type": "bert", "_name_or_path": encoder}
    folder = Path(name)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "fgmm", "modalities": ["video", "text"], **parts}))
    if trained:
        (folder / "training.json").write_text("{}")
        (folder / "pretrain.yaml").write_text(yaml.safe_dump({"init_from": init_from}))
    return folder


def publish(name, license_id):
    """A model on the Hub."""
    HfApi().create_repo(name)
    card = f"---\nlicense: {license_id}\n---\n".encode() if license_id else b"nothing"
    HfApi().upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id=name)


def test_weights_trained_from_random_ones_have_no_origin():
    folder = put("mine")
    assert find_origins(folder) == [] and choose_license(folder, []) is None


def test_a_model_of_the_hub_and_its_licence():
    publish("org/start", "cc-by-4.0")
    folder = put("mine", "org/start")
    assert find_origins(folder) == [Origin("org/start", True, "cc-by-4.0")]
    assert choose_license(folder, find_origins(folder)) == "cc-by-4.0"


def test_a_folder_is_followed_to_what_it_began_from(encoders_at):
    publish("org/eyes", "mit")
    publish("org/words", "mit")
    start = put("start", trained=False, encoders={"video": "org/eyes", "text": "org/words"})
    folder = put("last", str(put("middle", "start")))
    assert (
        find_origins(folder)
        == find_origins(start)
        == [Origin("org/eyes", True, "mit"), Origin("org/words", True, "mit")]
    )
    assert choose_license(folder, find_origins(folder)) == "mit"
    scratch = put("second", str(put("first")))
    assert find_origins(scratch) == []
    assert find_origins(put("itself", "itself")) == [Origin("itself", False, None)]


def test_names_of_encoders_are_saved_with_a_model(encoders_at):
    FgmmModel.from_encoders(audio=encoders_at / "ast", text=encoders_at / "bert").save_pretrained("joint")
    assert [origin.name for origin in find_origins(Path("joint"))] == [
        str(encoders_at / name) for name in ("ast", "bert")
    ]


def test_licences_that_are_not_known_or_differ_are_asked_for():
    publish("org/a", "mit")
    publish("org/b", "apache-2.0")
    publish("org/none", None)
    several = put("several", trained=False, encoders={"video": "org/a", "text": "org/b"})
    with pytest.raises(UserError, match=r"different licences \(org/a: mit, org/b: apache-2.0\); name .* --license"):
        choose_license(several, find_origins(several))
    for start in ("org/none", "org/missing", "/nowhere/at/all"):
        folder = put(f"from{start}".replace("/", "-"), start)
        with pytest.raises(UserError, match=f"began from '{start}', whose licence is not known; name .* --license"):
            choose_license(folder, find_origins(folder))
    untold = put("untold", trained=False)
    with pytest.raises(UserError, match=r"The weights in untold are of unknown origin; name .* --license"):
        choose_license(untold, find_origins(untold))


def test_the_card_of_a_folder_tells_its_licence():
    Path("encoder").mkdir()
    Path("encoder/README.md").write_text("---\nlicense: openrail\n---\n")
    assert find_origins(put("mine", "encoder")) == [Origin("encoder", False, "openrail")]
