"""The table of how fast training clips are loaded, from the results file of benchmark_loading.py."""


def make_loading_table(record: dict) -> str:
    """A line for each corpus, and what was measured on a long file, on shards and on a worker's memory."""
    metrics, rates = record["metrics"], record["clips_per_second"]
    counts = list(metrics["loader_of_limit"])
    heads = ["corpus", "plain PyAV, clips/s", "media of it", *(f"loader of it, {count} workers" for count in counts)]
    lines = [f"| {' | '.join(heads)} |", "|---|" + "---:|" * (len(heads) - 1)]
    first = next(name for name in rates if name not in record["others"])
    for name, found in {first: metrics, **record["others"]}.items():
        cells = [f"{rates[name]['limit']['1']:.0f}", f"{found['media_of_limit']:.2f}"]
        cells += [f"{found['loader_of_limit'][count]:.2f}" for count in counts]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    memory = record["worker_memory_mb"]
    read = max(metrics["bytes_read_of_needed"].values())
    return "\n".join(lines) + (
        f"\n\nA window in a long file takes {metrics['long_window_of_own']:.2f} of the time of decoding from the "
        f"keyframe before it; an epoch reads {read:.3f} of the bytes that the files have; a resumed run has its first "
        f"clip after {metrics['resume_seconds']:.2f} s; a worker holds {min(memory):.0f} to {max(memory):.0f} MB over "
        f"its clips (`{record['command']}`, {record['device']}, {record['date']}, commit {record['commit']}, "
        f"{record['seconds']:.0f} s)."
    )
