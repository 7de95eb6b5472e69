"""The part of one content in an index: embeddings and regions of its windows, in safetensors, of which any rows can be
read without the others.

Of each modality, with W windows, R regions at most and D dimensions:

    video_embeds    (W, D) float32, L2-normalised; 0 for windows without the modality
    video_regions   (W, R, D) float16 or int8, with padding at the end
    video_counts    (W,) int16, regions of each window
    video_scales    (W,) float32, the factor of its regions
"""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save

from modeling_fgmm.scoring_fgmm import Keys

from ..cli import UserError
from ..embedding.windows import MODALITIES, EmbeddedModality, Window

# Of a header, bytes; that of a part has some hundreds.
MAX_HEADER = 1_000_000
# The types of arrays, as safetensors calls them.
DTYPES = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16), "I16": np.dtype(np.int16), "I8": np.dtype(np.int8)}


def part_path(parts: Path, content: str) -> Path:
    """Where the part of a content is, by its hash; folders of two digits keep each short."""
    return parts / content[:2] / f"{content}.safetensors"


def write_part(path: Path, windows: Sequence[Window]) -> None:
    """Writes a part, whole or not at all."""
    arrays = {}
    for name in MODALITIES:
        kept = [getattr(window, name) for window in windows]
        if any(one is not None for one in kept):
            arrays |= {f"{name}_{field}": array for field, array in stack(kept).items()}
    path.parent.mkdir(exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_bytes(save(arrays, {"windows": str(len(windows))}))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def stack(kept: list[EmbeddedModality | None]) -> dict[str, np.ndarray]:
    """The arrays of one modality, for all windows of a part; None where a window lacks it."""
    present = [one for one in kept if one is not None]
    counts = np.array([0 if one is None else len(one.regions) for one in kept], np.int16)
    regions = np.zeros((len(kept), counts.max(), len(present[0].embeds)), present[0].regions.dtype)
    embeds = np.zeros((len(kept), len(present[0].embeds)), np.float32)
    for row, one in enumerate(kept):
        if one is not None:
            regions[row, : counts[row]] = one.regions
            embeds[row] = one.embeds
    scales = np.array([1.0 if one is None else one.scale for one in kept], np.float32)
    return {"embeds": embeds, "regions": regions, "counts": counts, "scales": scales}


def count_windows(path: Path) -> int:
    """The windows of a part; -1 where it is damaged or absent."""
    try:
        with open(path, "rb") as file:
            header, data = read_header(file)
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
            is_whole = data + max(ends) == os.fstat(file.fileno()).st_size
            return int(header["__metadata__"]["windows"]) if is_whole else -1
    except (OSError, ValueError, LookupError, TypeError):
        return -1


def read_header(file: BinaryIO) -> tuple[dict, int]:
    """The header of an open safetensors file, and where its data begins; raises ValueError for another file."""
    size = int.from_bytes(file.read(8), "little")
    if not 0 < size <= MAX_HEADER:
        raise ValueError("it has no header of safetensors")
    return json.loads(file.read(size)), 8 + size


def read_rows(path: Path, names: Sequence[str], rows: Sequence[int]) -> dict[str, np.ndarray]:
    """Some rows of arrays of a part, by the arrays' names; those that the part has not are left out.

    Only what lies between the first and the last of these rows is read, without the library's maps to memory, which
    would take longer than all of this: a search reads a hundred parts.

    Raises:
        UserError: when the part is damaged.
        FileNotFoundError: when it is not there.
    """
    first, last = min(rows), max(rows) + 1
    found = {}
    try:
        with open(path, "rb") as file:
            header, data = read_header(file)
            for name in names:
                if name not in header:
                    continue
                kind, (number, *shape) = DTYPES[header[name]["dtype"]], header[name]["shape"]
                length = kind.itemsize * math.prod(shape)
                if last > number:
                    raise ValueError(f"it has {number} windows")
                file.seek(data + header[name]["data_offsets"][0] + first * length)
                content = np.frombuffer(file.read((last - first) * length), kind)
                found[name] = content.reshape(last - first, *shape)[np.asarray(rows) - first]
    except (ValueError, LookupError, TypeError) as error:
        raise UserError(f"{path} of the index is damaged ({error}); run index_videos.py again.") from error
    return found


def read_embeds(path: Path, modality: str, rows: Sequence[int]) -> np.ndarray:
    """Pooled embeddings of some windows of a part, (rows, D) float32; errors as of [`read_rows`]."""
    return read_rows(path, [f"{modality}_embeds"], rows)[f"{modality}_embeds"]


def read_keys(requests: Sequence[tuple[Path, Sequence[int]]], modality: str) -> Keys:
    """Windows of several parts as scoring takes them; errors as of [`read_rows`].

    Args:
        requests: paths of parts, and rows of each, B in all.

    Returns:
        regions (B, R, D), mask (B, R) and embeds (B, D), in the order of the requests.
    """
    names = [f"{modality}_{name}" for name in ("regions", "counts", "scales", "embeds")]
    pieces = [read_rows(path, names, rows) for path, rows in requests]
    regions, counts, scales, embeds = ([piece[name] for piece in pieces] for name in names)
    most = max(piece.shape[1] for piece in regions)
    padded = np.zeros((sum(map(len, regions)), most, regions[0].shape[2]), regions[0].dtype)
    row = 0
    for piece in regions:
        padded[row : row + len(piece), : piece.shape[1]] = piece
        row += len(piece)
    values = torch.from_numpy(padded).float() * torch.from_numpy(np.concatenate(scales)).view(-1, 1, 1)
    mask = torch.arange(most) < torch.from_numpy(np.concatenate(counts)).view(-1, 1)
    return Keys(F.normalize(values, dim=-1), mask, torch.from_numpy(np.concatenate(embeds)))
