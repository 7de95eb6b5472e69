"""Several clients at once of a served search, over loopback."""

import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import numpy as np

from ..cli import UserError
from ..corpora.problems import Problems
from ..paths import ROOT
from .moments import index_folder, moment_sets
from .settings import BenchmarkSettings

START_SECONDS = 300.0


def run_load(settings: BenchmarkSettings) -> dict:
    """The part `load`.

    Returns:
        `load`: `clients`, `queries_a_second`, `p50`, `p99` and `first` (ms), `failed` (answers that are none), and the
        same of one client alone under `one_client`; on the index of the first set of moments.
    """
    _, source, module, split = next(iter(moment_sets(settings)))
    index = settings.work / "indexes" / source.name
    index_folder(index, settings, source)
    texts = [query.text for query in module.read_queries(source, split, Problems())]
    with serving(index) as port:
        first = ask(port, texts[:1])
        alone = ask_together(port, texts, 1, max(1, settings.num_queries // 4))
        together = ask_together(port, texts, settings.clients, settings.num_queries)
    return {"load": {**together, "first": round(1000 * first[0][0], 1), "one_client": alone}}


@contextmanager
def serving(index: Path) -> Iterator[int]:
    """scripts/serve_search.py on a free port of this machine, which it gives.

    Raises:
        UserError: when it does not start.
    """
    command = [sys.executable, str(ROOT / "scripts" / "serve_search.py"), "--index", str(index), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        if "http://" not in line:
            raise UserError(f"The server did not start; {' '.join(command)} says why.")
        yield int(line.rstrip().rpartition(":")[2])
    finally:
        process.terminate()
        process.wait()


def ask(port: int, texts: list[str]) -> list[tuple[float, bool]]:
    """Asks one text after the other over one connection: of each the seconds, and whether there was an answer."""
    connection, answers = http.client.HTTPConnection("127.0.0.1", port, timeout=START_SECONDS), []
    for text in texts:
        started = time.perf_counter()
        connection.request("GET", f"/search?text={quote(text)}")
        response = connection.getresponse()
        content = response.read()
        seconds = time.perf_counter() - started
        answers.append((seconds, response.status == 200 and "moments" in json.loads(content)))
    connection.close()
    return answers


def ask_together(port: int, texts: list[str], clients: int, number: int) -> dict:
    """`number` queries of several clients at once, each of which asks its next as soon as it is answered."""
    shares = [[texts[place % len(texts)] for place in range(client, number, clients)] for client in range(clients)]
    answers: list[tuple[float, bool]] = []
    threads = [threading.Thread(target=lambda share=share: answers.extend(ask(port, share))) for share in shares]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    p50, p99 = np.percentile([answer[0] for answer in answers], [50, 99])
    return {
        "clients": clients,
        "num_queries": len(answers),
        "queries_a_second": round(len(answers) / seconds, 2),
        "p50": round(1000 * float(p50), 1),
        "p99": round(1000 * float(p99), 1),
        "failed": number - sum(good for _, good in answers),
    }
