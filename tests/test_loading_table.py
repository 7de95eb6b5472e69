from fgmm_tools.publishing.loading_table import make_loading_table


def test_each_corpus_is_a_line():
    found = {"media_of_limit": 1.1, "loader_of_limit": {"1": 0.8, "2": 0.9}}
    record = {
        "metrics": {
            **found,
            "long_window_of_own": 0.84,
            "bytes_read_of_needed": {"0": 1.0, "2": 1.04},
            "resume_seconds": 0.1,
        },
        "others": {"b": {"media_of_limit": 0.9, "loader_of_limit": {"1": 0.5, "2": 0.6}}},
        "clips_per_second": {"b": {"limit": {"1": 70.0}}, "a": {"limit": {"1": 200.0}}},
        "worker_memory_mb": [700.0, 710.0],
        **{"command": "measure", "device": "CPU", "date": "2026-01-01", "commit": "abc", "seconds": 60.0},
    }
    text = make_loading_table(record)
    assert "| a | 200 | 1.10 | 0.80 | 0.90 |" in text and "| b | 70 | 0.90 | 0.50 | 0.60 |" in text
    assert "reads 1.040 of the bytes" in text and "700 to 710 MB" in text
