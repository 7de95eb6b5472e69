"""Publishes a prepared corpus on the Hub: Parquet shards, and a card with columns, sizes and licence."""

import tempfile
from pathlib import Path

import pyarrow
import pyarrow.parquet as parquet
from huggingface_hub import DatasetCard
from tqdm import tqdm

from ..cli import UserError
from ..corpora.benchmarks import MODULES, load_benchmark
from ..corpora.parquet_shards import MEDIA
from ..paths import CARDS
from . import cards, dataset_card
from .hub import check_repo_id, publish
from .model_card import LINK
from .results import read_json

# Paths in the repository that a push writes, and deletes where it no longer writes them.
OWNED = ("data/*", "*.parquet", "pictures/*")
IDS_TEXT = (
    "**Ids and times only.** The licence does not allow everybody to redistribute the media: the column {medium} has "
    "no bytes, and the row's `video_id` as path; captions keep their times but not their texts. To train or evaluate "
    "on it, get the media from the publisher and prepare them with `scripts/prepare_dataset.py`."
)
MEDIA_TEXT = "**With media.** The files are in the column {medium}; the licence at the top of this page is theirs."


def push(folder: Path, repo_id: str, private: bool, with_media: bool) -> str:
    """Publishes a corpus in one commit.

    Args:
        folder: of the corpus.
        repo_id: ORG/NAME.
        private: whether only its owners may see it.
        with_media: whether the user has the right to publish media and captions that not everybody may redistribute.

    Returns:
        the address of the commit.

    Raises:
        UserError: when it cannot be published; then nothing is.
    """
    check_repo_id(repo_id)
    original = dataset_card.describe_corpus(folder)
    if with_media and not is_redistributable(original):
        print(f"By --with_media you say that you have the right to redistribute the media and captions of {folder}.")
    with_media = with_media or is_redistributable(original)
    names = dataset_card.all_files(original)
    with tempfile.TemporaryDirectory() as scratch:
        if with_media:
            source, record = folder, original
        else:
            check_columns(original)
            source = Path(scratch)
            for name in tqdm(names, desc="Leaving out media", unit="shard"):
                strip_media(folder / name, source / name)
            record = dataset_card.with_sizes(original, source)
            print(
                "Publishing ids and times only: not everybody may redistribute the media of this corpus; --with_media "
                "publishes them, too."
            )
        text, pictures = make_card(folder, repo_id, record, original, with_media)
        files: dict[str, Path | bytes] = {name: source / name for name in names}
        files |= {target: pictures / target for target in LINK.findall(text) if (pictures / target).is_file()}
        files["README.md"] = text.encode()
        return publish(repo_id, "dataset", files, OWNED, private, f"{repo_id.split('/')[1]}: shards and card")


def is_redistributable(record: dict) -> bool:
    """Whether everybody may redistribute the media of a corpus: of the narrated one, and where a licence allows it.

    Args:
        record: see [`dataset_card.describe_corpus`].
    """
    made_of = record["made_of"]
    if made_of is None:
        return False
    if "name" not in made_of:
        return True  # written by scripts/make_narrated_corpus.py
    return made_of["name"] in MODULES and load_benchmark(made_of["name"]).redistributable


def check_columns(record: dict) -> None:
    """Checks that a corpus has no unknown column, whose content might not be redistributable.

    Raises:
        UserError: naming the first.
    """
    for feature in record["features"]:
        if feature["name"] not in dataset_card.COLUMNS:
            raise UserError(
                f"The column {feature['name']!r} of {record['name']} is not one of a corpus, and may hold what must "
                "not be redistributed; remove it, or publish everything with --with_media."
            )


def strip_media(source: Path, target: Path) -> None:
    """Writes a shard without what must not be redistributed; the media are not even read.

    Args:
        source: a shard of a corpus.
        target: the file to write, of the same schema: media without bytes and with the row's id as path, captions
            without texts, and no mentions.
    """
    schema = parquet.read_schema(source)
    media = [name for name in schema.names if name in MEDIA]
    table = parquet.read_table(source, columns=[name for name in schema.names if name not in media])
    ids = table["video_id"].to_pylist()
    columns = {name: [{"bytes": None, "path": row_id} for row_id in ids] for name in media}
    if "captions" in schema.names:
        rows = table["captions"].to_pylist()
        columns["captions"] = [[caption | {"text": None} for caption in captions or []] for captions in rows]
    if "mentions" in schema.names:  # words and places in media that are not published
        columns["mentions"] = [None] * len(ids)
    arrays = [
        pyarrow.array(columns[name], schema.field(name).type) if name in columns else table[name]
        for name in schema.names
    ]
    target.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_arrays(arrays, schema=schema), target)


def make_card(folder: Path, repo_id: str, record: dict, original: dict, with_media: bool) -> tuple[str, Path]:
    """The card of a corpus as published, and the folder that its pictures are in.

    Args:
        folder: of the corpus.
        repo_id: ORG/NAME.
        record: of what is published.
        original: of the corpus in the folder.
        with_media: whether media are published.

    Raises:
        UserError: when the corpus names no licence.
    """
    own, note = CARDS / f"{folder.name}.md", CARDS / "results" / "corpora" / f"{folder.name}.json"
    if own.exists() and note.exists() and with_media and read_json(note) == original:
        print(f"The card is model_cards/{own.name}.")
        return cards.fill(own.read_text(), CARDS / "results").replace(f"ORG/{own.stem}", repo_id), CARDS
    print("The card is made from the README.md, columns and sizes of the corpus.")
    card = DatasetCard(dataset_card.read_card(folder))
    if not card.data.get("license"):
        raise UserError(f"{folder}/README.md names no licence; write `license: NAME` into the block at its top.")
    medium = " and ".join(f"`{name}`" for name in dataset_card.media_columns(record))
    terms = (MEDIA_TEXT if with_media else IDS_TEXT).format(medium=medium)
    text = f"{str(card).rstrip()}\n\n## Terms\n\n{terms}\n\n## Columns and sizes\n\n{dataset_card.make_table(record)}\n"
    return dataset_card.fill_metadata(text, record), folder
