from fgmm_tools.publishing.search_table import make_search_tables

RUN = {"command": "measure", "device": "CPU", "date": "2026-01-01", "commit": "abc", "seconds": 1.4}


def test_only_the_parts_that_were_measured_are_shown():
    recall = {"R@10_of_full": 50.0, "R@10_of_coarse": 25.0, "by_candidates": {"100": 95.0, "50": 90.0}}
    record = {"metrics": {"recall_of_full_fine": {"rendered": recall}}, "parts": {"recall": RUN}}
    text = make_search_tables(record)
    assert "| rendered | 50.0 | 25.0 | 90.0 | 95.0 |" in text and "random moments" not in text
    assert text.endswith("- recall: `measure`, CPU, 2026-01-01, commit abc, 1 s")


def test_moments_stand_beside_chance():
    found = {"R1@0.5": 51.0, "R1@0.7": 21.0, "mIoU": 41.0, "mAP": 25.0, "num_queries": 100}
    chance = {**dict.fromkeys(found, 1.0)}
    record = {
        "metrics": {"moments": {"rendered": {**found, "chance": chance}}},
        "parts": {"moments": RUN | {"note": "busy"}},
    }
    text = make_search_tables(record)
    assert "| rendered, 100 queries | 51.0 | 21.0 | 41.0 | 25.0 |" in text
    assert "| rendered, random moments | 1.0 |" in text and text.endswith("; busy")
