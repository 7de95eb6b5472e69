"""A served search, asked by a real client over loopback; whatever it is asked for, only files of the index are sent."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from urllib.parse import quote

import pytest
from helpers import ROOT

pytest.importorskip("faiss", reason="search needs fgmm[search]")
pytest.importorskip("fastapi", reason="serving needs fgmm[serve]")
uvicorn = pytest.importorskip("uvicorn", reason="serving needs fgmm[serve]")

from searchable import index_files, write_files  # noqa: E402

from fgmm_tools.cli import UserError  # noqa: E402
from fgmm_tools.search.serving import make_app, serve  # noqa: E402
from fgmm_tools.search.serving_limits import ServingLimits  # noqa: E402
from fgmm_tools.search.video_index import VideoIndex  # noqa: E402

SECRET = b"nobody may read this"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The indexed folder; beside it a secret, to which a link inside leads."""
    root = tmp_path_factory.mktemp("served")
    folder = write_files(root / "videos")
    (root / "secret.mp4").write_bytes(SECRET)
    (root / "videos-of-others").mkdir()
    (root / "videos-of-others" / "secret.mp4").write_bytes(SECRET)
    return folder


@pytest.fixture(scope="module")
def index(files, small_model):
    index_files(files.parent / "index", small_model, files)
    return VideoIndex(files.parent / "index")


@contextmanager
def listening(index, **limits):
    """The application on a free port, which it gives, in a thread of this process."""
    with socket.create_server(("127.0.0.1", 0)) as server_socket:
        app = make_app(index, ServingLimits(**limits))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [server_socket]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield server_socket.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def port(index):
    with listening(index) as port:
        yield port


def ask(port, target, method="GET", body=None, headers=None):
    """Sends a request as it is, without any tidying of its path: (status, headers, content)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.putrequest(method, target, skip_host="Host" in (headers or {}))
    for name, value in {**(headers or {}), **({"Content-Length": len(body)} if body is not None else {})}.items():
        connection.putheader(name, value)
    connection.endheaders(body)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, response.headers, content


def search(port, **options):
    query = "&".join(f"{name}={quote(str(value))}" for name, value in options.items())
    status, _, content = ask(port, f"/search?{query}")
    return status, json.loads(content)


def number_of(port, name):
    """The number of a file in the index."""
    moments = search(port, text="a red ball", top=100)[1]["moments"]
    return next(moment["url"] for moment in moments if moment["path"].endswith(name)).split("/")[2].split("#")[0]


def test_answers_are_those_of_the_index(port, index):
    status, answer = search(port, text="a red ball rolls", top=3)
    expected = index.search("a red ball rolls", top=3).to_dict()
    assert status == 200 and len(answer["moments"]) == 3
    for moment, other in zip(answer["moments"], expected["moments"], strict=True):
        url = moment.pop("url")
        assert moment == other
        start, end = (0, 0) if moment["kind"] == "image" else map(float, url.partition("#t=")[2].split(","))
        assert url.startswith("/media/") and (start, end) == (moment["start"], moment["end"])
    assert answer["complete"] and answer["nothing_matches"] == expected["nothing_matches"]
    assert search(port, text="zzyzx")[1]["unknown_words"] == ["zzyzx"]


def test_moments_of_a_folder(port, files):
    for inside in ("trips", files / "trips", "trips/Käse & #1 100%.mp4"):
        status, answer = search(port, text="a red ball", inside=inside)
        assert status == 200 and {moment["path"].split("/")[-2] for moment in answer["moments"]} == {"trips"}
    assert search(port, text="a red ball", after="2100-01-01")[1]["moments"] == []
    assert search(port, text="a red ball", after="yesterday")[0] == 400


@pytest.mark.parametrize("inside", ["/etc", "../secret.mp4", "../videos-of-others", "trips/../..", "a\0b", "none"])
def test_nothing_is_told_of_other_folders(port, inside):
    """The answer is the same whether or not there is something of that name."""
    status, answer = search(port, text="a red ball", inside=inside)
    assert status == 400 and answer["detail"].endswith("is not in the index.")


@pytest.mark.parametrize("kind,name", [("picture", "red.png"), ("sound", "tone.wav"), ("clip", "silent.mp4")])
def test_search_by_media(port, index, files, kind, name):
    status, _, content = ask(port, f"/search/{kind}?top=2", "POST", (files / name).read_bytes())
    expected = index.search(**{kind: files / name}, top=2).to_dict()["moments"]
    moments = [
        {name: value for name, value in moment.items() if name != "url"} for moment in json.loads(content)["moments"]
    ]
    assert status == 200 and moments == expected
    part = ask(port, "/search/clip?start=1&end=2&top=1", "POST", (files / "silent.mp4").read_bytes())
    assert part[0] == 200 and json.loads(part[2])["moments"]


def test_files_are_sent_whole_and_in_parts(port, files):
    content = (files / "silent.mp4").read_bytes()
    target = f"/media/{number_of(port, 'silent.mp4')}"
    status, headers, body = ask(port, target)
    assert (status, body, headers["Content-Type"]) == (200, content, "video/mp4")
    assert headers["Accept-Ranges"] == "bytes" and headers["X-Content-Type-Options"] == "nosniff"
    for range_, part in {"0-9": content[:10], "100-": content[100:], "-7": content[-7:]}.items():
        status, headers, body = ask(port, target, headers={"Range": f"bytes={range_}"})
        assert (status, body) == (206, part) and headers["Content-Range"].endswith(f"/{len(content)}")
    assert ask(port, target, headers={"Range": f"bytes={len(content)}-"})[0] == 416
    status, headers, body = ask(port, target, "HEAD")
    assert (status, body, int(headers["Content-Length"])) == (200, b"", len(content))
    odd = ask(port, f"/media/{number_of(port, '100%.mp4')}")
    assert odd[0] == 200 and odd[2] == (files / "trips" / "Käse & #1 100%.mp4").read_bytes()


@pytest.mark.parametrize(
    "target",
    [
        "/media/../../secret.mp4",
        "/media/..%2f..%2fsecret.mp4",
        "/media/%2e%2e/%2e%2e/secret.mp4",
        "/media/%252e%252e%252fsecret.mp4",
        "/media/..\\secret.mp4",
        "/media//etc/passwd",
        "/media/%2fetc%2fpasswd",
        "//etc/passwd",
        "/../secret.mp4",
        "http://127.0.0.1/../secret.mp4",
        "/media/1%00",
        "/media/-1",
        "/media/1e3",
        "/media/99999",
        "/media/99999999999999999999999999",
        "/static/../secret.mp4",
    ],
)
def test_no_other_path_is_served(port, files, target):
    for path in (target, target.replace("secret.mp4", str(files.parent / "secret.mp4"))):
        status, _, content = ask(port, path)
        assert status in (400, 404, 422) and SECRET not in content and b"root:" not in content


def test_links_that_lead_out_are_not_followed(port, files):
    """A file of the index that is replaced by a link, in its place or in that of its folder."""
    target = f"/media/{number_of(port, '100%.mp4')}"
    assert ask(port, target)[0] == 200
    path, folder = files / "trips" / "Käse & #1 100%.mp4", files / "trips"
    kept = path.rename(files.parent / "kept.mp4")
    for outside in ("../../secret.mp4", str(files.parent / "videos-of-others" / "secret.mp4"), path.name):
        path.symlink_to(outside)
        status, _, content = ask(port, target)
        path.unlink()
        assert status == 404 and SECRET not in content
    folder.rmdir()
    folder.symlink_to(files.parent / "videos-of-others")
    (files.parent / "videos-of-others" / path.name).write_bytes(SECRET)
    status, _, content = ask(port, target)
    assert status == 404 and SECRET not in content
    folder.unlink()
    folder.mkdir()
    assert ask(port, target)[0] == 404  # gone
    path.symlink_to("../silent.mp4")  # a link to another file of the folder is none that leads out
    assert ask(port, target)[2] == (files / "silent.mp4").read_bytes()
    path.unlink()
    os.mkfifo(path)  # reading it would never end
    assert ask(port, target)[0] == 404
    path.unlink()
    kept.rename(path)


def test_requests_are_bounded(index, port):
    assert search(port, text="x" * 1001)[0] == 422 and search(port, text="")[0] == 422
    assert search(port, text="a ball", top=101)[0] == 422 and search(port, text="a ball", top=0)[0] == 422
    assert ask(port, "/search?text=" + "x" * 200_000)[0] in (400, 414, 422, 431)
    assert ask(port, "/search/voice", "POST", b"x")[0] == 422 and ask(port, "/search/sound", "POST", b"")[0] == 400
    status, _, content = ask(port, "/search/picture", "POST", b"no picture")
    assert status == 400 and json.loads(content)["detail"].startswith("the file of the query")
    with listening(index, max_upload=1000, timeout=0.5, max_waiting=0) as bounded:
        assert ask(bounded, "/search/picture", "POST", b"x" * 1001)[0] == 413
        with socket.create_connection(("127.0.0.1", bounded)) as slow:  # announces more than it sends
            slow.sendall(b"POST /search/picture HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\nabc")
            time.sleep(0.2)
            assert ask(bounded, "/search/picture", "POST", b"x")[0] == 503  # one arrives already
            assert b" 408 " in slow.recv(1000).split(b"\r\n")[0]


def test_slow_searches_and_too_many_are_turned_away(index, monkeypatch):
    finished = threading.Event()
    monkeypatch.setattr(index, "search", lambda *_, **__: finished.wait(20))
    with listening(index, timeout=0.3, max_searches=1, max_waiting=1) as bounded:
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(search(bounded, text="a"))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        details = sorted(answer["detail"] for _, answer in answers)
        assert [status for status, _ in answers] == [503] * 4
        assert details == ["The search took longer than 0.3 s."] * 2 + ["Too many searches wait; try again soon."] * 2
        assert ask(bounded, "/index")[0] == 200  # other requests are answered meanwhile
        assert search(bounded, text="a")[1]["detail"].startswith("Too many")  # a late search still holds its thread
        finished.set()
        monkeypatch.undo()
        time.sleep(0.2)
        assert search(bounded, text="a ball", top=1)[0] in (200, 503)


def test_pages_of_other_names_are_not_answered(port):
    assert ask(port, "/index", headers={"Host": "evil.example"})[0] == 400
    assert ask(port, "/index", headers={"Host": f"localhost:{port}"})[0] == 200


def test_the_interface_describes_itself(port, files):
    status, _, content = ask(port, "/openapi.json")
    paths = json.loads(content)["paths"]
    assert status == 200 and {"/search", "/search/{kind}", "/index", "/media/{file}"} <= paths.keys()
    assert ask(port, "/")[0] == 307 and ask(port, "/docs")[0] == 200
    described = json.loads(ask(port, "/index")[2])
    assert described["complete"] and described["num_files"] == 4 and described["folders"] == [str(files)]


def test_the_command_serves_until_it_is_stopped(index, files):
    words = ["--index", str(files.parent / "index"), "--port", "0"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "scripts/serve_search.py"), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = process.stdout.readline()
    assert line.startswith("Serving ") and "http://127.0.0.1:" in line, process.stderr.read()
    assert search(int(line.rpartition(":")[2]), text="a ball", top=1)[0] == 200
    process.send_signal(signal.SIGINT)
    process.wait(20)
    assert "Traceback" not in process.stderr.read()


def test_a_port_that_is_taken_is_named(index):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(UserError, match=r"127.0.0.1, port \d+, cannot be listened on \(Address already in use\)"):
            serve(index, ServingLimits(), "127.0.0.1", taken.getsockname()[1])


def test_limits_are_checked():
    with pytest.raises(UserError, match="--timeout 0 must be more than 0"):
        ServingLimits(timeout=0)
    with pytest.raises(UserError, match="--max_searches 0 must be at least 1"):
        ServingLimits(max_searches=0)
