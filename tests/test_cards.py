import pytest
from helpers import ROOT
from huggingface_hub import DatasetCard, ModelCard

from fgmm_tools.cli import UserError
from fgmm_tools.publishing import cards
from fgmm_tools.publishing.model_card import LINK
from fgmm_tools.publishing.studies import STUDIES
from fgmm_tools.publishing.study_results import read_runs

RESULTS = ROOT / "model_cards" / "results"


@pytest.mark.parametrize("name", ["fgmm-tiny", "fgmm-small", "narrated"])
def test_published_cards_are_valid(hub_server, name):
    kind = DatasetCard if name == "narrated" else ModelCard
    card = kind.load(ROOT / "model_cards" / f"{name}.md")
    card.validate()
    assert card.data.license == "apache-2.0" and "fgmm" in card.data.tags
    if name == "fgmm-tiny":
        assert len(card.data.eval_results) > 10
    if name == "fgmm-small":
        assert "Not trained yet" in card.text and not card.data.eval_results
        assert "<!--" not in card.text and "R@" not in card.text  # no table, no metric


def test_a_number_changed_in_the_metadata_alone_is_noticed():
    text = (ROOT / "model_cards" / "fgmm-tiny.md").read_text()
    assert text.count("value: 55.9") == 1
    assert cards.fill(text, RESULTS) == text
    assert cards.fill(text.replace("value: 55.9", "value: 57.7"), RESULTS) == text


def test_text_outside_the_tables_stays():
    text = (
        "before\n<!-- training: narrated_fine -->\nold\n<!-- end of training -->\nbetween\n<!-- no table -->\nafter\n"
    )
    filled = cards.fill(text, RESULTS)
    assert "old" not in filled and "| clips seen | 16,600 |" in filled
    assert filled.startswith("before\n<!-- training") and filled.endswith("\nbetween\n<!-- no table -->\nafter\n")


@pytest.mark.parametrize(
    ("kind", "names", "message"),
    [
        ("result", "narrated_fine", "the unknown kind 'result'"),
        ("results", "nothing", r"nothing\.json, which does not exist"),
        ("comparison", "nothing", "the study 'nothing', but there are only rates"),
        ("downstream", "nothing", "results of nothing, which scripts/measure_downstream.sh did not write"),
        ("summary", "narrated nothing", "no row 'nothing', only narrated"),
    ],
)
def test_a_place_for_an_unknown_table_is_named(kind, names, message):
    with pytest.raises(UserError, match=message):
        cards.fill(f"<!-- {kind}: {names} -->\n<!-- end of {kind} -->\n", RESULTS)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("It finds 47 % of the clips.", "47 %"),
        ("It reaches 47.7 at best.", "47.7"),
        ("R@10 of 47 is what it reaches.", "R@10 of 47"),
        ("[more](comparison.md)", "comparison.md"),
        ("![x](pictures/gone.png)", "pictures/gone.png"),
        ("Up to 1.5 s late; Apache-2.0; [paper](https://arxiv.org/abs/2112.12182); `--noise 0.5`.", None),
        ("<!-- results: x -->\n| 47.7 |\n<!-- end of results -->", None),
    ],
)
def test_numbers_and_links_in_the_text_of_a_published_card(tmp_path, text, problem):
    problems = cards.find_problems(f"---\nlicense: mit\n---\n{text}\n", tmp_path)
    assert len(problems) == (problem is not None) and (problem is None or problem in problems[0])
    assert cards.find_problems(text, tmp_path) == []  # no metadata: not published


def test_documents_are_short_and_their_links_lead_somewhere():
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "model_cards").glob("*.md")]
    targets = [(path, target) for path in documents for target in LINK.findall(path.read_text())]
    assert len(targets) > 15
    assert not [(path.name, target) for path, target in targets if not (path.parent / target).exists()]
    lengths = [len((ROOT / name).read_text().splitlines()) for name in ("README.md", "CONTRIBUTING.md")]
    assert lengths[0] <= 200 and lengths[1] <= 60


def test_every_picture_and_result_is_shown_in_a_card():
    """No file is left behind by a card that changed."""
    text = "".join(path.read_text() for path in [ROOT / "README.md", *(ROOT / "model_cards").glob("*.md")])
    pictures = {path.name for path in (ROOT / "model_cards" / "pictures").iterdir()}
    assert pictures and not {name for name in pictures if f"pictures/{name})" not in text}
    results = read_runs(RESULTS / "comparison")
    assert results.keys() <= {run for study in STUDIES.values() for run in study.runs(study.seeds, results)}
