"""Embedded windows as Arrow tables, a row a window, which `datasets` and Parquet readers open as they are."""

import numpy as np
import pyarrow
import torch
from datasets import Features, List, Value

from modeling_fgmm.scoring_fgmm import Keys

from .pooling import decompress
from .settings import EmbeddingSettings
from .windows import MODALITIES, EmbeddedModality, Window

# What a window keeps of a modality, the ends of its columns' names.
PARTS = ("embeds", "regions", "scale", "features")
KEPT = {f"{modality}_{part}": (modality, part) for modality in MODALITIES for part in PARTS}
CAPTION = {"text": Value("string"), "start": Value("float64"), "end": Value("float64")}


def window_features(modalities: list[str], dimension: int, settings: EmbeddingSettings, **extra) -> Features:
    """The columns of a table of windows.

    Of each modality there are `video_embeds` (D,) float32, `video_regions` (n·D,) float16 or int8, the regions end to
    end, `video_scale`, the factor of int8 regions, and `video_features` (C,) float32; likewise of audio. They are null
    where a window lacks the modality.

    Args:
        modalities: of the model.
        dimension: of the shared space (D).
        settings: say which columns there are.
        extra: columns `label` and `group` of the corpus.
    """
    columns = {
        "video_id": Value("string"),
        "start": Value("float64"),
        "end": Value("float64"),
        "is_image": Value("bool"),
        "captions": List(CAPTION),
    }
    for name in MODALITIES:
        if name not in modalities:
            continue
        columns[f"{name}_embeds"] = List(Value("float32"), length=dimension)
        if settings.num_regions:
            columns[f"{name}_regions"] = List(Value(settings.precision))
            if settings.precision == "int8":
                columns[f"{name}_scale"] = Value("float32")
        if settings.with_features:
            columns[f"{name}_features"] = List(Value("float32"))
    return Features({**columns, **extra})


def to_table(windows: list[Window], features: Features) -> pyarrow.Table:
    """Windows as a table with the columns of [`window_features`]."""
    schema = features.arrow_schema
    columns = []
    for field in schema:
        if place := KEPT.get(field.name):
            modality, part = place
            values = [getattr(getattr(window, modality), part, None) for window in windows]
            columns.append(to_array(values, field.type))
        else:
            columns.append(pyarrow.array([getattr(window, field.name) for window in windows], field.type))
    return pyarrow.Table.from_arrays(columns, schema=schema)


def to_array(values: list[np.ndarray | float | None], kind: pyarrow.DataType) -> pyarrow.Array:
    """A column of numbers or arrays, without a detour over Python's numbers."""
    if not isinstance(kind, (pyarrow.FixedSizeListType, pyarrow.ListType)):
        return pyarrow.array(values, kind)
    missing = np.array([value is None for value in values], bool)
    if isinstance(kind, pyarrow.FixedSizeListType):
        empty = np.zeros(kind.list_size, np.float32)
        flat = [empty if value is None else value for value in values]
    else:
        flat = [np.zeros(0) if value is None else value.reshape(-1) for value in values]
    dtype = kind.value_type.to_pandas_dtype()
    content = pyarrow.array(np.concatenate(flat or [np.zeros(0)]).astype(dtype), kind.value_type)
    if isinstance(kind, pyarrow.FixedSizeListType):
        return pyarrow.FixedSizeListArray.from_arrays(content, type=kind, mask=pyarrow.array(missing))
    offsets = np.cumsum([0, *map(len, flat)]).astype(np.int32)
    return pyarrow.ListArray.from_arrays(offsets, content, type=kind, mask=pyarrow.array(missing))


def from_table(table: pyarrow.Table) -> list[Window]:
    """What [`to_table`] was given."""
    plain = [name for name in table.column_names if name not in KEPT]
    windows = [Window(**row) for row in table.select(plain).to_pylist()]
    for modality in MODALITIES:
        if f"{modality}_embeds" not in table.column_names:
            continue
        parts = {name: read_arrays(table, f"{modality}_{name}") for name in ("embeds", "regions", "features")}
        scales = table[f"{modality}_scale"].to_pylist() if f"{modality}_scale" in table.column_names else None
        for row, window in enumerate(windows):
            embeds, regions, features = (parts[name][row] for name in ("embeds", "regions", "features"))
            if embeds is not None:
                regions = None if regions is None else regions.reshape(-1, len(embeds))
                kept = EmbeddedModality(embeds, regions, scales[row] if scales else 1.0, features)
                setattr(window, modality, kept)
    return windows


def read_arrays(table: pyarrow.Table, name: str) -> list[np.ndarray | None]:
    """The arrays of a column of lists; None where it is null, and for all rows where there is no such column."""
    if name not in table.column_names:
        return [None] * len(table)
    column = table[name].combine_chunks()
    values = [scalar.values for scalar in column]
    return [None if value is None else value.to_numpy(zero_copy_only=False) for value in values]


def window_keys(window: Window, modalities: list[str]) -> dict[str, Keys]:
    """A window as what scoring takes, as of [`encode_keys`]: by "video" and "audio" regions (1, n, D), of which the
    pooled embedding is the only one where none are kept, and embeds (1, D); of a modality that it lacks a masked one.

    Args:
        modalities: "video", "audio" or both: of the model.
    """
    keys = {}
    dimension = next(len(kept.embeds) for kept in (window.video, window.audio) if kept)
    for name in modalities:
        kept = getattr(window, name)
        embeds = torch.zeros(1, dimension) if kept is None else torch.tensor(kept.embeds)[None]
        regions = embeds[None] if kept is None or kept.regions is None else decompress(kept.regions, kept.scale)[None]
        mask = torch.full(regions.shape[:2], kept is not None)
        keys[name] = Keys(regions, mask, embeds)
    return keys
