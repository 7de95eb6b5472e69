"""Publishes a trained model on the Hub: weights, code, processor, card with pictures, and results files."""

from dataclasses import dataclass
from pathlib import Path

import yaml
from huggingface_hub import ModelCard, ModelCardData, constants

from ..cli import UserError
from ..paths import CARDS, check_folder
from . import cards, model_card
from .hub import check_repo_id, publish
from .origins import Origin, choose_license, find_origins, read_settings, read_training
from .results import is_random_init, read_json, read_results

# Files of a model's folder that are published as they are; its results files go into results/.
SUFFIXES = (".safetensors", ".json", ".py", ".yaml", ".txt", ".model", ".jinja")
TAGS = ["fgmm", "video", "audio"]
# Paths in the repository that a push writes, and deletes where it no longer writes them.
OWNED = ("*.safetensors", "*.safetensors.index.json", "*_fgmm.py", "results/*", "pictures/*", ".eval_results/*")


@dataclass(frozen=True)
class Card:
    """A filled card.

    Args:
        text: of the card.
        pictures: folder that its links to pictures are relative to.
        results: folder of its results files.
        records: its results of the model's own weights, by the names of their files.
    """

    text: str
    pictures: Path
    results: Path
    records: dict[str, dict]


def push(folder: Path, repo_id: str, private: bool, datasets: list[str], license_id: str | None) -> str:
    """Publishes a model in one commit.

    Args:
        folder: of the model.
        repo_id: ORG/NAME.
        private: whether only its owners may see it.
        datasets: Hub ids of the datasets that it was trained or measured on, see [`ids_by_name`].
        license_id: of the weights, as the Hub names it; None: that of the model that they began from, or of the card.

    Returns:
        the address of the commit.

    Raises:
        UserError: when it cannot be published; then nothing is.
    """
    check_repo_id(repo_id)
    check_model(folder)
    dataset_ids = ids_by_name(datasets)
    origins = find_origins(folder)
    card = make_card(folder, repo_id, dataset_ids, origins, license_id or choose_license(folder, origins))
    check_datasets(dataset_ids, folder, card)
    files = collect_files(folder, card, repo_id, dataset_ids)
    return publish(repo_id, "model", files, OWNED, private, f"{repo_id.split('/')[1]}: weights, code, card, results")


def check_model(folder: Path) -> None:
    """Checks that a folder holds an fgmm model with its code and processor.

    Raises:
        UserError: naming what is missing.
    """
    remedy = "give a folder that scripts/pretrain.py wrote"
    check_folder(folder, remedy)
    needed = {
        "config.json": "no model",
        "model.safetensors": "no weights in safetensors",
        "processor_config.json": "no processor",
        "modeling_fgmm.py": "no code",
        "processing_fgmm.py": "no code",
    }
    for name, lack in needed.items():
        sharded = name == "model.safetensors" and (folder / "model.safetensors.index.json").exists()
        if not (folder / name).exists() and not sharded:
            raise UserError(f"{folder} has {lack} ({name} does not exist); {remedy}.")
    kind = read_json(folder / "config.json").get("model_type")
    if kind != "fgmm":
        raise UserError(f"{folder} holds a model of the kind {kind}, not fgmm.")


def ids_by_name(datasets: list[str]) -> dict[str, str]:
    """Hub ids of datasets by the names of the corpora that they hold.

    Args:
        datasets: ORG/NAME, which holds the corpus NAME, or CORPUS=ORG/NAME.

    Raises:
        UserError: when an id is not of the form ORG/NAME, or two are given for a corpus.
    """
    ids = {}
    for dataset in datasets:
        corpus, _, repo_id = dataset.rpartition("=")
        check_repo_id(repo_id, "--dataset")
        corpus = Path(corpus).name or repo_id.split("/")[1]
        if corpus in ids:
            raise UserError(f"--dataset names both {ids[corpus]} and {repo_id} for the corpus {corpus}; give one.")
        ids[corpus] = repo_id
    return ids


def make_card(
    folder: Path, repo_id: str, dataset_ids: dict[str, str], origins: list[Origin], license_id: str | None
) -> Card:
    """The card of a model: its own in model_cards where that has results of this training run, else the template.

    Args:
        folder: of the model.
        repo_id: ORG/NAME.
        dataset_ids: see [`ids_by_name`].
        origins: the models that the weights began from.
        license_id: of the weights; None: that of the card.

    Raises:
        UserError: when the card in model_cards disagrees with its results files, or results in the folder are of
            another training run.
    """
    training = read_training(folder)
    own = CARDS / f"{folder.resolve().name}.md"
    if own.exists() and has_results_of(own.read_text(), training):
        text, results, pictures = read_card(own).replace(f"ORG/{own.stem}", repo_id), CARDS / "results", CARDS
        print(f"The card is model_cards/{own.name}.")
    else:
        text, results, pictures = fill_template(folder, repo_id, training), folder, folder
        print("The card is made from model_cards/templates/model.md and the results files in the model's folder.")
    named = cards.read_records(text, results)
    records = {name: record for name, record in named.items() if not is_random_init(record)}
    corpus = read_corpus_name(folder)
    metadata = {"datasets": [dataset_ids[corpus]]} if corpus in dataset_ids else {}
    metadata |= {"license": license_id} if license_id else {}
    bases = [origin.name for origin in origins if origin.on_hub]
    metadata |= {"base_model": bases} if bases else {}
    text = model_card.fill_metadata(text, list(records.values()), dataset_ids, **metadata)
    return Card(text, pictures, results, records)


def has_results_of(text: str, training: dict | None) -> bool:
    """Whether the results files of a card are of this training run, apart from those of random weights."""
    runs = [read_results(path)["training"] for path in cards.results_files(text, CARDS / "results")]
    return training is not None and training in runs and all(run in (training, None) for run in runs)


def read_card(path: Path) -> str:
    """A card in model_cards, ready for publishing.

    Raises:
        UserError: when it disagrees with its results files, or has in its text what only results files give.
    """
    text = path.read_text()
    if cards.fill(text, CARDS / "results") != text:
        raise UserError(f"{path.name} differs from its results files; run python scripts/update_cards.py.")
    if problems := cards.find_problems(text, CARDS):
        raise UserError(f"{path.name} has {problems[0]}; it is not published with that.")
    return text


def fill_template(folder: Path, repo_id: str, training: dict | None) -> str:
    """The card made from model_cards/templates/model.md and the results files in the model's folder.

    Raises:
        UserError: when one of them is of another training run.
    """
    records = {name: record for name, record in find_results(folder).items() if not is_random_init(record)}
    for name, record in records.items():
        if record["training"] != training:
            raise UserError(f"{folder}/{name}.json is of another training run than the weights; evaluate anew.")
    card = ModelCard.from_template(
        ModelCardData(license="apache-2.0", library_name="transformers", pipeline_tag="feature-extraction", tags=TAGS),
        template_path=CARDS / "templates" / "model.md",
        name=repo_id.split("/")[1],
        repo_id=repo_id,
        modalities=read_json(folder / "config.json")["modalities"],
        foreign_encoders=encoder_kinds(folder),
        corpus=read_corpus_name(folder),
        init_from=read_settings(folder).get("init_from"),
        trained=training is not None,
        results=" ".join(records),
    )
    return cards.fill(str(card), folder)


def check_datasets(dataset_ids: dict[str, str], folder: Path, card: Card) -> None:
    """Checks that the model was trained or measured on the datasets.

    Raises:
        UserError: naming the first on which it was not.
    """
    corpora = {read_corpus_name(folder)} | {Path(record["dataset"]).name for record in card.records.values()}
    for name, dataset_id in dataset_ids.items():
        if name not in corpora:
            known = ", ".join(sorted(corpora - {None})) or "none is known"
            raise UserError(
                f"--dataset {dataset_id}: {name} is no corpus that {folder} was trained or measured on ({known}); say "
                f"which of them the repository holds, as --dataset CORPUS={dataset_id}."
            )


def collect_files(folder: Path, card: Card, repo_id: str, dataset_ids: dict[str, str]) -> dict[str, Path | bytes]:
    """Everything that is published, by its path in the repository; no checkpoints."""
    measured = find_results(folder)
    files: dict[str, Path | bytes] = {
        path.name: path
        for path in sorted(folder.iterdir())
        if path.is_file() and path.suffix in SUFFIXES and path.stem not in measured
    }
    files["README.md"] = card.text.encode()
    files |= {target: card.pictures / target for target in model_card.LINK.findall(card.text)}
    for path in [*cards.results_files(card.text, card.results), *cards.grounding_files(card.text, card.results)]:
        files[f"results/{path.relative_to(card.results)}"] = path
    results_url = f"{constants.ENDPOINT}/{repo_id}/blob/main/results"
    for name, record in card.records.items():
        dataset_id = dataset_ids.get(Path(record["dataset"]).name)
        if dataset_id:
            entries = model_card.make_eval_entries(record, name, dataset_id, results_url)
            files[f".eval_results/{name}.yaml"] = yaml.safe_dump(entries, sort_keys=False).encode()
        else:
            print(f"Left out .eval_results/{name}.yaml: name the Hub's id of {record['dataset']} by --dataset.")
    return files


def find_results(folder: Path) -> dict[str, dict]:
    """The results files in a model's folder, by their names."""
    contents = {path.stem: read_json(path) for path in sorted(folder.glob("*.json"))}
    return {
        name: content
        for name, content in contents.items()
        if isinstance(content, dict) and {"metrics", "protocol", "dataset"} <= content.keys()
    }


def read_corpus_name(folder: Path) -> str | None:
    """The last part of the name of the corpus that the model was trained on; None where it is unknown."""
    dataset = read_settings(folder).get("dataset")
    return dataset and Path(dataset).name


def encoder_kinds(folder: Path) -> dict[str, str]:
    """The model types of the encoders that are transformers' own, by modality."""
    config = read_json(folder / "config.json")
    kinds = {modality: config[f"{modality}_config"]["model_type"] for modality in config["modalities"]}
    return {modality: kind for modality, kind in kinds.items() if not kind.startswith("fgmm_")}
