import sqlite3

import numpy as np
import pytest

from fgmm_tools.search.catalog import Catalog


def entry(name, folder="/videos", **changes):
    base = {"folder": folder, "name": name, "kind": "video", "size": 10, "modified": 5, "hash": f"hash of {name}"}
    return {**base, "duration": 20.0, "frame_rate": 25.0, "subtitles": "", "problem": None, "damage": None, **changes}


def windows(number=4, **changes):
    base = {"has_video": True, "has_audio": False, "dark": False, "still": False, "signature": None}
    return [
        {"place": place, "start": 5.0 * place, "end": 5.0 * place + 10, **base, **changes} for place in range(number)
    ]


@pytest.fixture
def catalog(tmp_path):
    catalog = Catalog(tmp_path / "catalog.sqlite")
    yield catalog
    catalog.close()


def test_files_windows_and_captions_come_and_go_together(catalog):
    first = catalog.add_file(entry("a.mp4"), windows(), [(0.0, 2.0, "two eggs")])
    second = catalog.add_file(entry("b.mp4"), windows(2, has_audio=True), [(1.0, 2.0, "a bowl")])
    assert catalog.count() == (2, 6, 0) and catalog.count_cues() == 2
    assert catalog.window_ids("audio").tolist() == [5, 6]
    assert [(hash_, ids) for hash_, ids, _ in catalog.list_parts("video")] == [
        ("hash of a.mp4", [1, 2, 3, 4]),
        ("hash of b.mp4", [5, 6]),
    ]
    catalog.forget_files([first])
    assert catalog.count() == (1, 2, 0) and catalog.count_cues() == 1
    assert catalog.find_spoken('"egg"', 5) == [] and catalog.find_spoken('"bowls"', 5)[0].file == second
    third = catalog.add_file(entry("c.mp4"), windows(1), [])
    assert min(catalog.get_windows([7])) == 7 and third > second  # ids of what was forgotten are not used again


def test_a_file_of_the_same_name_replaces_the_one_before(catalog):
    catalog.add_file(entry("a.mp4"), windows(), [(0.0, 1.0, "old words")])
    catalog.add_file(entry("a.mp4", size=11), windows(1), [(0.0, 1.0, "new words")])
    assert [file.size for file in catalog.list_files()] == [11] and catalog.count()[1] == 1
    assert [cue.text for cue in catalog.find_spoken('"words"', 5)] == ["new words"]


def test_a_transaction_that_fails_changes_nothing(catalog):
    catalog.add_file(entry("a.mp4"), windows(), [])
    with pytest.raises(sqlite3.IntegrityError):
        catalog.add_file(entry("b.mp4"), windows(1, has_video=None), [])
    assert [file.name for file in catalog.list_files()] == ["a.mp4"] and catalog.count()[1] == 4


def test_odd_names_and_words(catalog):
    name = 'Ünï "quoted" %20 #7 \'; DROP TABLE files; --\n.mp4'
    catalog.add_file(entry(name), windows(1), [(0.0, 1.0, 'he said "O\'Brien AND NOT near"')])
    assert catalog.list_files()[0].name == name
    assert catalog.cues_with("o'brien").tolist() == catalog.cues_with("AND").tolist() == [1]
    assert catalog.cues_with('"').tolist() == [] and catalog.cues_with("eggs OR he").tolist() == []


def test_windows_below_a_folder_and_after_a_time(catalog):
    catalog.add_file(entry("trips/a.mp4", modified=100), windows(1), [])
    catalog.add_file(entry("trips2/b.mp4", modified=200), windows(1), [])
    catalog.add_file(entry("trips/x/c_d.mp4", "/other", modified=300), windows(1), [])
    select = catalog.select_windows
    assert select("/videos/trips", None).tolist() == [1] and select("/videos", None).tolist() == [1, 2]
    assert select("trips", None).tolist() == [1, 3] and select("trips/", 200).tolist() == [3]
    assert select("/other/trips/x/c_d.mp4", None).tolist() == [3]  # a file
    assert select("tri_s", None).tolist() == [] and select(None, 200).tolist() == [2, 3]


def test_neighbours_and_captions_by_time(catalog):
    file = catalog.add_file(entry("a.mp4"), windows(), [(0.0, 1.0, "one"), (9.0, 11.0, "two"), (30.0, 31.0, "late")])
    second = catalog.get_windows([2])[2]
    assert [window.place for window in catalog.neighbours(second)] == [0, 2]
    assert [window.place for window in catalog.windows_of_file(file, 9.0, 11.0)] == [0, 1, 2]
    assert [cue.text for cue in catalog.cues_of_file(file, 0.5, 10.0)] == ["one", "two"]
    assert [[cue[0] for cue in cues] for cues in catalog.cues_of_windows([second], 5.0)] == [[1, 2]]


def test_many_ids_at_once(catalog):
    catalog.add_file(entry("a.mp4"), windows(2500), [])
    assert len(catalog.get_windows(np.arange(1, 2501))) == 2500


def test_a_copy_is_read_while_the_catalog_changes(catalog, tmp_path):
    catalog.add_file(entry("a.mp4"), windows(), [(0.0, 1.0, "words")])
    catalog.copy_to(tmp_path / "copy.sqlite")
    copy = Catalog(tmp_path / "copy.sqlite", read_only=True)
    catalog.forget_files([1])
    assert copy.count() == (1, 4, 0) and len(copy.find_spoken('"word"', 3)) == 1
    with pytest.raises(sqlite3.OperationalError):
        copy.database.execute("DELETE FROM files")
    copy.close()


def test_a_full_disk_is_the_system_s_error(catalog):
    catalog.database.execute("PRAGMA max_page_count = 20")
    with pytest.raises(OSError, match="No space left"):
        catalog.add_file(entry("a.mp4"), windows(5000), [])
    assert catalog.count()[1] == 0
