"""The page to try grounding: its answers, and the page in a real browser."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from functools import partial
from pathlib import Path

import demo as command
import pytest
from helpers import ROOT, run_main, write_sound, write_video
from PIL import Image

from fgmm_tools.cli import UserError
from fgmm_tools.publishing import space

gradio = pytest.importorskip("gradio", reason="gradio, of the extra demo, is not installed")

from fgmm_tools.grounding import demo as page  # noqa: E402

TEXT = "A small dog barks, and two eggs"
# Seconds that the server and the browser may take.
PATIENCE = 400


@pytest.fixture
def answering(model, processor, tmp_path):
    """What answers requests, with a folder of one file to choose."""
    (tmp_path / "folder").mkdir()
    write_video(tmp_path / "folder" / "chosen.mp4", seconds=1.0)
    (tmp_path / "secret.mp4").write_bytes((tmp_path / "folder" / "chosen.mp4").read_bytes())
    return page.Demo(model, processor, tmp_path / "folder")


def ask(answering, path=None, chosen=None, text=TEXT, start=0, end=0) -> str:
    return answering.answer(path and str(path), chosen, text, start, end)


def test_every_kind_of_file_gets_an_answer(answering, tmp_path):
    Image.new("RGB", (60, 40), "red").save(tmp_path / "photo.jpg")
    files = [
        write_video(tmp_path / "clip.mp4", seconds=1.0, sound=1.0),
        write_sound(tmp_path / "sound.wav", 1.0),
        tmp_path / "photo.jpg",
    ]
    for path in files:
        answer = ask(answering, path)
        assert answer.startswith("<iframe") and path.name in answer
    assert "chosen.mp4" in ask(answering, chosen="chosen.mp4")


@pytest.mark.parametrize(
    ("content", "text", "times", "message"),
    [
        (b"no media", TEXT, (0, 0), "cannot be decoded"),
        (b"", TEXT, (0, 0), "cannot be decoded"),
        (None, " ", (0, 0), "Type what you look for"),
        (None, None, (0, 0), "Type what you look for"),
        (None, "qwertz", (0, 0), "knows no word"),
        (None, TEXT, (5, 0), "choose a start before its end"),
        (None, TEXT, (0.9, 0.2), "choose a start before its end"),
    ],
)
def test_what_gets_no_answer_gets_a_sentence(answering, tmp_path, content, text, times, message):
    path = write_video(tmp_path / "clip.mp4", seconds=1.0)
    if content is not None:
        path.write_bytes(content)
    answer = ask(answering, path, None, text, *times)
    assert answer.startswith('<div class="refusal"') and message in answer


def test_what_is_too_long_or_too_large_is_refused(answering, tmp_path, monkeypatch):
    path = write_video(tmp_path / "clip.mp4", seconds=2.0)
    monkeypatch.setattr(page, "MAX_SECONDS", 1.0)
    assert "at most 1 s are shown at once" in ask(answering, path) and ask(answering, path, end=0.9).startswith(
        "<iframe"
    )
    monkeypatch.setattr(page, "MAX_BYTES", 10)
    assert "give a smaller file" in ask(answering, path)


def test_only_files_of_the_folder_can_be_chosen(answering):
    assert "Give a file" in ask(answering, chosen="../secret.mp4") and "Give a file" in ask(answering)


def test_two_ask_at_once(answering, tmp_path):
    clips = [write_video(tmp_path / f"{index}.mp4", seconds=1.0) for index in range(2)]
    expected, answers = [ask(answering, clip) for clip in clips], {}
    threads = [
        threading.Thread(target=lambda number=number: answers.update({number: ask(answering, clips[number % 2])}))
        for number in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answers[number] for number in range(6)] == expected * 3


def test_names_and_texts_are_escaped(answering, tmp_path):
    path = write_video(tmp_path / "<b>clip.mp4", seconds=1.0)
    assert "<b>" not in ask(answering, path, text="small dog <script>") and "<b>" not in ask(answering, path, start=9)


def test_an_index_is_searched_and_its_moments_are_shown(narrated_model, narrated, tmp_path, monkeypatch):
    pytest.importorskip("faiss", reason="faiss, of the extra search, is not installed")
    import index_videos

    from fgmm_tools.search.video_index import VideoIndex
    from processing_fgmm.corpora_fgmm import load_corpus

    rows = list(load_corpus(str(narrated), "test").take(3))
    (tmp_path / "videos").mkdir()
    for row in rows:
        (tmp_path / "videos" / f"{row['video_id']}.mp4").write_bytes(row["video"]["bytes"])
    words = ["--model", narrated_model[0], "--videos", tmp_path / "videos", "--index", tmp_path / "index"]
    run_main(monkeypatch, index_videos, *words)
    index = VideoIndex(tmp_path / "index")
    answering = page.Demo(index.model, index.processor, index=index)
    text = rows[0]["captions"][0]["text"]
    places, note = answering.search(text)
    assert places and note and all(Path(path).parent == tmp_path / "videos" for path, _, _ in places)
    assert Path(places[0][0]).name in answering.show_place(0, places, text)
    assert answering.search(" ") == ([], "Type what you look for.")
    assert "refusal" in answering.show_place(None, places, text)
    page.make_blocks(answering)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def wait_for(question, message: str):
    """What a question answers once it answers something."""
    deadline, cause = time.monotonic() + PATIENCE, ""
    while time.monotonic() < deadline:
        try:
            if answer := question():
                return answer
        except Exception as error:
            cause = f": {error}"
        time.sleep(0.2)
    raise AssertionError(f"{message}{cause}")


@pytest.fixture
def served():
    """Starts a server by its words; its address."""
    started = []

    def start(words: list, port: int, **options) -> str:
        process = subprocess.Popen([sys.executable, *map(str, words)], stderr=subprocess.DEVNULL, **options)
        started.append(process)
        address = f"http://127.0.0.1:{port}"
        wait_for(lambda: urllib.request.urlopen(address).status == 200, "The server does not answer")
        return address

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def browser():
    """A headless Chromium; a test that needs it is skipped where it, or selenium, is absent."""
    selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    programs = [shutil.which("chromium"), shutil.which("chromedriver")]
    if None in programs:
        pytest.skip("chromium and chromedriver (Debian: chromium-driver) are not installed")
    options = selenium.ChromeOptions()
    options.binary_location = programs[0]
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1360,1000"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = selenium.Chrome(options=options, service=selenium.ChromeService(programs[1]))
    yield driver
    driver.quit()


def requested(browser) -> list[str]:
    """The addresses that the browser has asked for."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [
        message["params"]["request"]["url"] for message in messages if message["method"] == "Network.requestWillBeSent"
    ]


def test_a_browser_shows_where_and_when(narrated_model, narrated, served, browser, tmp_path):
    """A file is uploaded, a text typed, moments shown and played, and nothing is asked for elsewhere."""
    from processing_fgmm.corpora_fgmm import load_corpus

    row = next(iter(load_corpus(str(narrated), "test")))
    (tmp_path / "clip.mp4").write_bytes(row["video"]["bytes"])
    port = free_port()
    words = [ROOT / "scripts" / "demo.py", "--model", narrated_model[0], "--folder", tmp_path, "--port", port]
    address = served(words, port)
    browser.get(address)
    find = partial(browser.find_elements, "css selector")
    [area] = wait_for(lambda: find("#text textarea"), "There is no field for the text")
    find("input[type=file]")[0].send_keys(str(tmp_path / "clip.mp4"))
    wait_for(lambda: find("video"), "The file is not uploaded")
    area.send_keys(row["captions"][0]["text"])
    find("#show")[0].click()
    [frame] = wait_for(lambda: find("iframe.grounding"), "There is no answer")
    browser.switch_to.frame(frame)
    phrases = wait_for(lambda: find("#phrases button"), "There are no phrases")
    words = " ".join(phrase.text for phrase in phrases)
    assert "weight" in words and "sure" in words
    drawn = "const c = document.querySelector('#screen canvas'); return c.width * c.height > 0 && "
    drawn += "c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(value => value > 0)"
    wait_for(lambda: browser.execute_script(drawn), "No map is drawn")
    play = next(button for button in find("#controls button") if "seen" in button.text or "heard" in button.text)
    second = float(re.search(r"([\d.]+) s to", play.text)[1])
    play.click()
    wait_for(lambda: browser.execute_script("return !document.querySelector('video').paused"), "It does not play")
    assert browser.execute_script("return document.querySelector('video').currentTime") >= second - 0.3
    elsewhere = [url for url in requested(browser) if not url.startswith((address, "data:", "blob:"))]
    assert elsewhere == []


def test_the_server_forbids_browsers_to_load_elsewhere(answering):
    from fastapi.testclient import TestClient

    answer = TestClient(page.make_app(answering)).get("/")
    policy = answer.headers["Content-Security-Policy"]
    assert answer.status_code == 200 and "default-src 'self'" in policy and "http" not in policy
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"


def test_a_space_runs_where_it_is(narrated_model, served, tmp_path):
    space.write_space(narrated_model[0], tmp_path / "space", None)
    header = (tmp_path / "space" / "README.md").read_text()
    assert "sdk: gradio" in header and "app_file: app.py" in header
    requirements = (tmp_path / "space" / "requirements.txt").read_text()
    assert "gradio" in requirements and "torch>" in requirements and "matplotlib" in requirements
    port = free_port()
    environment = {**os.environ, "GRADIO_SERVER_PORT": str(port)}
    address = served(["app.py"], port, cwd=tmp_path / "space", env=environment)
    assert b"gradio" in urllib.request.urlopen(address).read()
    assert not list((tmp_path / "space").rglob("checkpoints"))


def test_a_space_is_not_written_over_something(narrated_model, tmp_path):
    (tmp_path / "a.txt").touch()
    with pytest.raises(UserError, match="holds something already"):
        space.write_space(narrated_model[0], tmp_path, None)
    with pytest.raises(UserError, match="has no model"):
        space.write_space(tmp_path, tmp_path / "space", None)


def test_a_folder_that_is_none_is_explained(monkeypatch, tmp_path):
    with pytest.raises(UserError, match="nowhere is no folder"):
        run_main(monkeypatch, command, "--model", "m", "--folder", tmp_path / "nowhere")
    assert Path(command.__file__).parent == ROOT / "scripts"
