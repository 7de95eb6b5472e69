"""The pooled embeddings of an index in FAISS: exact up to a size, inverted lists (IVF) past it."""

import errno
import math
import os
import shutil
from pathlib import Path

import numpy as np

from ..cli import UserError

try:
    import faiss
except ImportError as error:
    raise UserError("Search needs faiss; install fgmm[search].") from error

# Up to so many vectors all are compared: 128 dimensions take 12 ms on a CPU core then.
MAX_EXACT = 250_000
# Vectors of which each inverted list is trained, as FAISS advises.
TRAINING_VECTORS = 64
# Of the best windows of a query so many must be found in inverted lists, on average.
WANTED_RECALL = 0.99
RECALL_AT = 100


class Vectors:
    """The embeddings of one modality, L2-normalised, so that inner products are cosines.

    Args:
        index: of FAISS, with ids of its own.
    """

    def __init__(self, index):
        self.index = index

    def __len__(self) -> int:
        return self.index.ntotal

    @classmethod
    def empty(cls, dimensions: int) -> "Vectors":
        """No vectors yet, of D dimensions."""
        return cls(faiss.IndexIDMap(faiss.IndexFlatIP(dimensions)))

    @classmethod
    def load(cls, path: Path, shared: bool = False) -> "Vectors":
        """The vectors in a file.

        Args:
            shared: maps the file to memory, which then is that of all processes that search; nothing can be changed.
        """
        if shared:
            read_through(path)
        return cls(faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if shared else 0))

    def save(self, path: Path) -> None:
        """Writes a file.

        Raises:
            OSError: when the disk is full.
        """
        try:
            faiss.write_index(self.index, str(path))
        except RuntimeError as error:  # FAISS does not say what the system answered
            if shutil.disk_usage(path.parent).free < self.index.ntotal * self.index.d * 4:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
            raise

    @property
    def is_exact(self) -> bool:
        return not isinstance(faiss.downcast_index(self.index), faiss.IndexIVF)

    def add(self, ids: np.ndarray, vectors: np.ndarray) -> None:
        """Adds vectors (n, D) float32 with ids (n,) int64, which must be new."""
        if len(ids):
            self.index.add_with_ids(np.ascontiguousarray(vectors, np.float32), np.ascontiguousarray(ids, np.int64))

    def remove(self, ids: np.ndarray) -> None:
        """Forgets ids (n,) int64."""
        if len(ids):
            self.index.remove_ids(np.ascontiguousarray(ids, np.int64))

    def ids(self) -> np.ndarray:
        """(n,) int64, in no order."""
        index = faiss.downcast_index(self.index)
        if self.is_exact:
            return faiss.vector_to_array(index.id_map)
        lists = index.invlists
        pieces = [
            faiss.rev_swig_ptr(lists.get_ids(number), lists.list_size(number)).copy()
            for number in range(lists.nlist)
            if lists.list_size(number)
        ]
        return np.concatenate(pieces) if pieces else np.zeros(0, np.int64)

    def search(
        self, queries: np.ndarray, number: int, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The nearest vectors.

        Args:
            queries: (B, D), L2-normalised.
            number: of results for each query.
            allowed: (n,) int64 ids that may be found; None: all.

        Returns:
            Cosines (B, number) float32, descending, and ids (B, number) int64, -1 where there are no more.
        """
        number = min(number, len(self) if allowed is None else len(allowed))
        queries = np.ascontiguousarray(queries, np.float32)
        if not number:
            return np.zeros((len(queries), 0), np.float32), np.zeros((len(queries), 0), np.int64)
        if allowed is None:
            return self.index.search(queries, number)
        selector = faiss.IDSelectorBatch(np.ascontiguousarray(allowed, np.int64))
        if self.is_exact:
            return self.index.search(queries, number, params=faiss.SearchParameters(sel=selector))
        # All lists: few of the allowed may be in the nearest ones.
        index = faiss.downcast_index(self.index)
        return self.index.search(queries, number, params=faiss.SearchParametersIVF(sel=selector, nprobe=index.nlist))

    def settle(self, queries: np.ndarray) -> "Vectors":
        """These vectors in the kind of index that fits their number.

        Past MAX_EXACT they go into 4·sqrt(n) inverted lists, of which as many are searched as these queries need to
        find WANTED_RECALL of their RECALL_AT nearest vectors; the lists are trained anew when their number has doubled.

        Args:
            queries: (B, D) float32 as those of users, L2-normalised.
        """
        number = len(self)
        if number <= MAX_EXACT:
            return self if self.is_exact else self._rebuild(faiss.IndexIDMap(faiss.IndexFlatIP(self.index.d)))
        num_lists = int(4 * math.sqrt(number))
        if not self.is_exact and num_lists < 2 * faiss.downcast_index(self.index).nlist:
            return self
        lists = faiss.IndexIVFFlat(faiss.IndexFlatIP(self.index.d), self.index.d, num_lists, faiss.METRIC_INNER_PRODUCT)
        _, vectors = self._content()
        sample = np.random.default_rng(0).permutation(number)[: TRAINING_VECTORS * num_lists]
        lists.train(vectors[sample])
        settled = self._rebuild(lists)
        settled._choose_probes(queries)
        return settled

    def _content(self) -> tuple[np.ndarray, np.ndarray]:
        """Ids (n,) int64 and vectors (n, D) float32."""
        ids = self.ids()
        if self.is_exact:
            flat = faiss.downcast_index(faiss.downcast_index(self.index).index)
            return ids, faiss.rev_swig_ptr(flat.get_xb(), len(ids) * self.index.d).reshape(len(ids), -1).copy()
        index = faiss.downcast_index(self.index)
        pieces = [
            faiss.rev_swig_ptr(index.invlists.get_codes(place), index.invlists.list_size(place) * index.code_size)
            for place in range(index.nlist)
            if index.invlists.list_size(place)
        ]
        return ids, np.concatenate(pieces).view(np.float32).reshape(len(ids), -1)

    def _rebuild(self, index) -> "Vectors":
        """The same vectors in another index."""
        rebuilt = Vectors(index)
        rebuilt.add(*self._content())
        return rebuilt

    def _choose_probes(self, queries: np.ndarray) -> None:
        """The fewest lists, by doubling, that find the wanted share of the nearest vectors."""
        index = faiss.downcast_index(self.index)
        index.nprobe = index.nlist
        _, nearest = self.search(queries, RECALL_AT)
        index.nprobe = 1
        while index.nprobe < index.nlist:
            _, found = self.search(queries, RECALL_AT)
            recall = np.mean([len(np.intersect1d(*pair)) / RECALL_AT for pair in zip(nearest, found, strict=True)])
            if recall >= WANTED_RECALL:
                break
            index.nprobe = min(2 * index.nprobe, index.nlist)


def read_through(path: Path) -> None:
    """Brings a file into the system's cache: mapped memory that is read page by page from a disk takes ten times as
    long."""
    buffer = bytearray(2**22)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
