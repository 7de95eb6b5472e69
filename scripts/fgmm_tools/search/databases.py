"""The windows of an index in Qdrant and LanceDB, for collections that one machine does not hold.

Each window is a point (row) with its file, start and end (s), and of each modality that it has two vectors: `video` (or
`audio`), its pooled embedding, and `video_regions`, its regions as a multivector. Nearest neighbours by a pooled
embedding are those of the index itself.

The multivector score of both databases is MaxSim: for each vector of the query the *maximum* of its cosines with the
regions, and the sum of these. The model's own score is another one: it weighs regions by attention, a softmax of finite
sharpness γ, then phrases by their gates, and the text as a whole is one more phrase. MaxSim is its limit for γ → ∞ with
equal weights. So the order differs, and with it what the model was trained for; take the database's best as candidates
and score them with [`VideoIndex.search`] or the objective of the model.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from ..cli import UserError
from ..corpora.problems import escape
from .parts import part_path, read_keys
from .video_index import OpenState, VideoIndex

try:
    import lancedb
    import pyarrow
    from qdrant_client import QdrantClient, models
except ImportError as error:
    raise UserError("Exporting an index needs lancedb and qdrant-client; install fgmm[export].") from error

# Windows that are sent at once.
BATCH = 256


@dataclass
class ExportedWindow:
    """A window as a database keeps it.

    id: of the index. path: of its file; kind: "video", "audio" or "image". start, end: s.
    vectors: by modality its pooled embedding (D,) and its regions (n, D), float32, all L2-normalised.
    """

    id: int
    path: str
    kind: str
    start: float
    end: float
    vectors: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def payload(self) -> dict:
        """What is known of it beside its vectors."""
        return {"path": self.path, "kind": self.kind, "start": self.start, "end": self.end}


def list_windows(parts: Path, state: OpenState) -> Iterator[ExportedWindow]:
    """All windows of a state of an index, file by file.

    Args:
        parts: the folder of the index' parts.
    """
    for file in state.catalog.list_files():
        entries = state.catalog.windows_of_file(file.id, -1.0, math.inf)
        windows = {
            entry.place: ExportedWindow(entry.id, escape(str(file.path)), file.kind, entry.start, entry.end)
            for entry in entries
        }
        for modality in state.manifest.modalities:
            places = [entry.place for entry in entries if getattr(entry, f"has_{modality}")]
            if places:
                keys = read_keys([(part_path(parts, file.hash), places)], modality)
                for row, place in enumerate(places):
                    pooled, regions = keys.embeds[row].numpy(), keys.regions[row][keys.mask[row]].numpy()
                    windows[place].vectors[modality] = (pooled, regions)
        yield from windows.values()


def in_batches(windows: Iterator[ExportedWindow]) -> Iterator[list[ExportedWindow]]:
    """Windows, some at once."""
    while batch := list(islice(windows, BATCH)):
        yield batch


def export_to_qdrant(index: VideoIndex, client: QdrantClient, name: str, replace: bool = False) -> int:
    """Writes all windows of an index into a new collection.

    Args:
        client: of a server, or in-process (`QdrantClient(path=...)`).
        name: of the collection. replace: one of this name is deleted first, and not refused.

    Returns:
        how many windows.

    Raises:
        UserError: when the collection exists, or not all windows arrived.
    """
    state = index.state()
    manifest = state.manifest
    if client.collection_exists(name):
        if not replace:
            raise UserError(f"The collection {name!r} exists; give another --name, or --replace it.")
        client.delete_collection(name)
    cosine, size = models.Distance.COSINE, manifest.dimensions
    maximum = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    params = {modality: models.VectorParams(size=size, distance=cosine) for modality in manifest.modalities}
    params |= {
        f"{modality}_regions": models.VectorParams(size=size, distance=cosine, multivector_config=maximum)
        for modality in manifest.modalities
    }
    client.create_collection(name, vectors_config=params)
    for batch in in_batches(list_windows(index.folder.parts, state)):
        points = []
        for window in batch:
            vectors = {modality: pooled.tolist() for modality, (pooled, _) in window.vectors.items()}
            vectors |= {f"{modality}_regions": regions.tolist() for modality, (_, regions) in window.vectors.items()}
            points.append(models.PointStruct(id=window.id, vector=vectors, payload=window.payload()))
        client.upsert(name, points)
    return check_count(client.count(name).count, manifest.num_windows, "Qdrant")


def export_to_lancedb(index: VideoIndex, database: "lancedb.DBConnection", name: str, replace: bool = False) -> int:
    """Writes all windows of an index into a new table; arguments, result and errors as of [`export_to_qdrant`]."""
    state = index.state()
    manifest = state.manifest
    if name in database.table_names(limit=10**6) and not replace:
        raise UserError(f"The table {name!r} exists; give another --name, or --replace it.")
    vector = pyarrow.list_(pyarrow.float32(), manifest.dimensions)
    fields = [("id", pyarrow.int64()), ("path", pyarrow.string()), ("kind", pyarrow.string())]
    fields += [("start", pyarrow.float64()), ("end", pyarrow.float64())]
    for modality in manifest.modalities:
        fields += [(modality, vector), (f"{modality}_regions", pyarrow.list_(vector))]
    schema = pyarrow.schema(fields)
    table = database.create_table(name, schema=schema, mode="overwrite")
    for batch in in_batches(list_windows(index.folder.parts, state)):
        rows = []
        for window in batch:
            row = {"id": window.id, **window.payload()}
            for modality in manifest.modalities:
                pooled, regions = window.vectors.get(modality, (None, None))
                row |= {modality: pooled, f"{modality}_regions": None if regions is None else list(regions)}
            rows.append(row)
        table.add(pyarrow.Table.from_pylist(rows, schema=schema))
    return check_count(table.count_rows(), manifest.num_windows, "LanceDB")


def check_count(found: int, wanted: int, database: str) -> int:
    """The number of windows that a database has.

    Raises:
        UserError: when it is another than that of the index.
    """
    if found != wanted:
        raise UserError(
            f"{database} has {found} windows of {wanted}, as the index was changed meanwhile; export it with --replace."
        )
    return found
