"""A whole state of an index, made from the catalog and the parts; its counts are checked before it says so."""

import datetime
from pathlib import Path

import numpy as np

from modeling_fgmm import FgmmModel
from processing_fgmm import FgmmProcessor

from .calibration import (
    Calibration,
    calibrate,
    choose_background,
    foreign_texts,
    is_fresh,
    read_calibration,
    write_calibration,
)
from .candidates import Windows
from .catalog import Catalog
from .folder import IndexFolder, Manifest, write_manifest
from .marks import find_similar
from .parts import count_windows, part_path, read_embeds
from .queries import make_text_queries
from .vectors import Vectors

# Two windows of like pictures are near-duplicates when the distance of their embeddings (1 - cosine) is at most this
# share of the median distance between windows of the index.
DUPLICATE_SHARE = 0.1
# Vectors that are added to FAISS at once.
ADDED_AT_ONCE = 10_000


def make_state(
    folder: IndexFolder,
    catalog: Catalog,
    model: FgmmModel,
    processor: FgmmProcessor,
    modalities: list[str],
    num_pending: int,
    settle: bool,
) -> Manifest:
    """Makes a state of what the catalog holds now, and shows it to searches.

    Args:
        modalities: of the model that can be windows' own.
        num_pending: files that were found and are not in the catalog yet.
        settle: measures thresholds anew where the index has grown, finds near-duplicates, and checks all parts; else
            this is left for the next state.

    Returns:
        its manifest; `complete` where nothing is pending and everything was checked.
    """
    previous = folder.read_pointer()
    previous = None if previous is None else folder.states / previous
    state = folder.begin_state()
    vectors = {name: update_vectors(folder, catalog, name, previous, model) for name in modalities}
    vectors = {name: found for name, found in vectors.items() if len(found)}
    facts, agrees = catalog.read_facts(), False
    if settle:
        queries = text_vectors(model, processor)
        if queries is not None:
            vectors = {name: found.settle(queries) for name, found in vectors.items()}
        catalog.mark_duplicates(find_duplicates(folder.parts, catalog))
        agrees = check(folder, catalog, vectors)
    for name, found in vectors.items():
        found.save(state / f"{name}.faiss")
    catalog.copy_to(state / "catalog.sqlite")
    calibration = make_calibration(folder, catalog, vectors, model, processor, previous)
    write_calibration(state / "calibration.json", calibration)
    files, windows, damaged = catalog.count()
    manifest = Manifest(
        model=facts["model"],
        fingerprint=facts["fingerprint"],
        modalities=list(vectors),
        dimensions=model.config.projection_dim,
        settings=facts["settings"],
        folders=facts["folders"],
        complete=agrees and not num_pending,
        num_files=files,
        num_windows=windows,
        num_damaged=damaged,
        num_pending=num_pending,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    write_manifest(state, manifest)
    folder.publish(state)
    return manifest


def update_vectors(
    folder: IndexFolder, catalog: Catalog, modality: str, previous: Path | None, model: FgmmModel
) -> Vectors:
    """The vectors of a modality: those of the state before, without forgotten windows, with new ones."""
    vectors = Vectors.empty(model.config.projection_dim)
    if previous is not None and (previous / f"{modality}.faiss").exists():
        vectors = Vectors.load(previous / f"{modality}.faiss")
    there, wanted = np.sort(vectors.ids()), catalog.window_ids(modality)
    vectors.remove(np.setdiff1d(there, wanted, assume_unique=True))
    new = set(np.setdiff1d(wanted, there, assume_unique=True).tolist())
    ids, pieces = [], []
    for content, windows, places in catalog.list_parts(modality) if new else ():
        chosen = [(window, place) for window, place in zip(windows, places, strict=True) if window in new]
        if chosen:
            path = part_path(folder.parts, content)
            pieces.append(read_embeds(path, modality, [place for _, place in chosen]))
            ids += [window for window, _ in chosen]
        if len(ids) >= ADDED_AT_ONCE:
            vectors.add(np.array(ids), np.concatenate(pieces))
            ids, pieces = [], []
    if ids:
        vectors.add(np.array(ids), np.concatenate(pieces))
    return vectors


def text_vectors(model: FgmmModel, processor: FgmmProcessor) -> np.ndarray | None:
    """(B, D) embeddings of texts as users write them; None for a model without a text encoder."""
    if "text" not in model.config.modalities:
        return None
    queries = make_text_queries(model, processor, foreign_texts(processor), ["video", "audio"])
    return np.stack([query.comparisons[0].embeds for query in queries if query.comparisons])


def find_duplicates(parts: Path, catalog: Catalog) -> dict[int, int]:
    """Windows that show nearly the same as an earlier one: {window: the first such window}.

    Candidates look alike by their signatures; of these the embeddings must be nearly equal, too, for two scenes before
    one still camera look alike.
    """
    ids, signatures = catalog.list_signatures()
    pairs = find_similar(ids, signatures)
    if not len(pairs):
        return {}
    others = np.random.default_rng(0).choice(ids, (256, 2))
    embeds = read_some_embeds(parts, catalog, np.unique(np.concatenate([pairs.ravel(), others.ravel()])))
    typical = np.median([distance(embeds, *pair) for pair in others.tolist() if pair[0] != pair[1]] or [0.0])
    first: dict[int, int] = {}
    for earlier, later in pairs.tolist():  # ascending, so that the earlier one's own first is known
        if distance(embeds, earlier, later) <= DUPLICATE_SHARE * typical:
            first.setdefault(later, first.get(earlier, earlier))
    return first


def distance(embeds: dict[int, np.ndarray], first: int, second: int) -> float:
    """1 - cosine of two windows; infinite where one has no picture."""
    if first not in embeds or second not in embeds:
        return float("inf")
    return 1.0 - float(embeds[first] @ embeds[second])


def read_some_embeds(parts: Path, catalog: Catalog, ids: np.ndarray) -> dict[int, np.ndarray]:
    """Pooled embeddings (D,) of the pictures of windows, by their ids."""
    entries = [entry for entry in catalog.get_windows(ids).values() if entry.has_video]
    files = catalog.get_files({entry.file for entry in entries})
    by_content: dict[str, list] = {}
    for entry in entries:
        by_content.setdefault(files[entry.file].hash, []).append(entry)
    embeds = {}
    for content, of_part in by_content.items():
        rows = read_embeds(part_path(parts, content), "video", [entry.place for entry in of_part])
        embeds |= {entry.id: row for entry, row in zip(of_part, rows, strict=True)}
    return embeds


def check(folder: IndexFolder, catalog: Catalog, vectors: dict[str, Vectors]) -> bool:
    """Whether every window of the catalog has its row in a part and its vector in FAISS; damaged parts are removed, and
    their files forgotten, so that the next indexing makes them anew."""
    damaged = [
        content
        for content, number in catalog.count_windows_by_hash().items()
        if count_windows(part_path(folder.parts, content)) != number
    ]
    for content in damaged:
        part_path(folder.parts, content).unlink(missing_ok=True)
        catalog.forget_files([file.id for file in catalog.list_files() if file.hash == content])
    for name, found in vectors.items():
        ids, wanted = found.ids(), catalog.window_ids(name)
        if damaged:
            found.remove(np.setdiff1d(ids, wanted))
        elif not np.array_equal(np.sort(ids), wanted):
            return False
    return not damaged


def make_calibration(
    folder: IndexFolder,
    catalog: Catalog,
    vectors: dict[str, Vectors],
    model: FgmmModel,
    processor: FgmmProcessor,
    previous: Path | None,
) -> Calibration:
    """That of the state before while it is fresh, else a new one."""
    if previous is not None:
        calibration = read_calibration(previous / "calibration.json")
        if is_fresh(calibration, catalog):
            return calibration
    background = choose_background(catalog, list(vectors))
    windows = Windows(catalog, vectors, folder.parts, background)
    return calibrate(model, processor, windows, background)
