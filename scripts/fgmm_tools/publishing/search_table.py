"""The tables of what search finds, and how fast, from the results file of benchmark_search.py."""

MOMENTS = ("R1@0.5", "R1@0.7", "mIoU", "mAP")
ENGINES = {
    "index": "the index (inverted lists)",
    "exact": "FAISS, exact",
    "float16": "FAISS, exact, float16",
    "numpy": "NumPy",
    "lancedb": "LanceDB's scan",
}


def make_search_tables(record: dict) -> str:
    """A table for each part that was measured, and how."""
    metrics = record["metrics"]
    makers = {
        "recall": make_recall_table,
        "regions": make_regions_table,
        "latency": make_latency_table,
        "moments": make_moments_table,
        "updating": describe_indexing,
        "load": describe_load,
    }
    tables = [make(metrics) for part, make in makers.items() if part in record["parts"]]
    described = [
        f"- {part}: `{run['command']}`, {run['device']}, {run['date']}, commit {run['commit']}, {run['seconds']:.0f} s"
        + (f"; {run['note']}" if run.get("note") else "")
        for part, run in record["parts"].items()
    ]
    return "\n\n".join([*tables, "\n".join(described)])


def make_table(heads: list[str], rows: list[list[str]]) -> str:
    """Markdown; the first column is text, the others are numbers."""
    lines = [f"| {' | '.join(heads)} |", "|---|" + "---:|" * (len(heads) - 1)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def make_recall_table(metrics: dict) -> str:
    """What coarse search with fine scores for the best finds of what fine scores of all windows find."""
    numbers = sorted({int(n) for found in metrics["recall_of_full_fine"].values() for n in found["by_candidates"]})
    heads = [
        "corpus",
        "R@10, fine for all",
        "coarse alone",
        *(f"share with {number} candidates, %" for number in numbers),
    ]
    rows = [
        [
            corpus,
            f"{found['R@10_of_full']:.1f}",
            f"{found['R@10_of_coarse']:.1f}",
            *(f"{found['by_candidates'][str(number)]:.1f}" for number in numbers),
        ]
        for corpus, found in metrics["recall_of_full_fine"].items()
    ]
    return make_table(heads, rows)


def make_regions_table(metrics: dict) -> str:
    """R@10 and bytes by the number and precision of a window's regions."""
    rows = []
    for corpus, precisions in metrics["R@10_by_regions"].items():
        for precision, by_number in precisions.items():
            for number, recall in by_number.items():
                size = metrics["bytes_a_window"][corpus][precision][number]
                rows.append([corpus, precision, number, f"{recall:.1f}", f"{size:,}"])
    return make_table(["corpus", "precision", "regions of a window", "R@10", "bytes of a window"], rows)


def make_latency_table(metrics: dict) -> str:
    """Milliseconds and memory of a query."""
    latency = metrics["latency_ms"]
    rows = [
        [
            ENGINES[name],
            *(f"{found[key]:,.0f}" for key in ("p50", "p99", "first")),
            f"{found['memory_bytes'] / 1e6:,.0f}",
        ]
        for name, found in latency["engines"].items()
    ]
    title = f"{latency['num_vectors']:,} random vectors of {latency['dim']}, the best {latency['top']}"
    return make_table([title, "median, ms", "99 %, ms", "first query, ms", "memory, MB"], rows)


def make_moments_table(metrics: dict) -> str:
    """Moment retrieval in stitched videos, beside random moments."""
    rows = []
    for name, found in metrics["moments"].items():
        rows.append([f"{name}, {found['num_queries']} queries", *(f"{found[key]:.1f}" for key in MOMENTS)])
        rows.append([f"{name}, random moments", *(f"{found['chance'][key]:.1f}" for key in MOMENTS)])
    return make_table(["stitched videos", *MOMENTS], rows)


def describe_indexing(metrics: dict) -> str:
    """How fast an index is made, and how fast it takes in new files."""
    updating = metrics["updating"]
    line = (
        f"Adding {updating['added_files']} files to {updating['num_files']} takes {updating['added_seconds']:.2f} s, "
        f"{updating['share_of_seconds']:.2f} % of the {updating['seconds']:.0f} s of indexing; to find nothing new "
        f"takes {updating['unchanged_seconds']:.2f} s."
    )
    for corpus, hours in metrics.get("index_hours_an_hour", {}).items():
        size = metrics["index_bytes_a_window"][corpus]
        line += f" Indexing of {corpus}: {hours:.0f} hours of video an hour, {size:,} bytes a window."
    return line


def describe_load(metrics: dict) -> str:
    """Many clients of scripts/serve_search.py at once."""
    load = metrics["load"]
    return (
        f"{load['clients']} clients of the server at once: {load['queries_a_second']:.0f} queries a second, median "
        f"{load['p50']:.0f} ms, 99 % {load['p99']:.0f} ms, {load['failed']} of {load['num_queries']} failed; one client"
        f" alone: {load['one_client']['p50']:.0f} and {load['one_client']['p99']:.0f} ms."
    )
