import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fgmm_tools.cli import UserError
from fgmm_tools.embedding.pooling import compress
from fgmm_tools.embedding.tables import window_keys
from fgmm_tools.embedding.windows import EmbeddedModality, Window
from fgmm_tools.search.parts import count_windows, part_path, read_embeds, read_keys, write_part


def make_windows(seed, number, precision="int8", dimensions=8):
    """Windows of which some lack their sound, with 1 to 5 regions."""
    generator = torch.Generator().manual_seed(seed)

    def modality():
        count = int(torch.randint(1, 6, (), generator=generator))
        regions = F.normalize(torch.randn(count, dimensions, generator=generator), dim=-1)
        embeds = F.normalize(torch.randn(dimensions, generator=generator), dim=-1)
        values, scale = compress(regions, precision)
        return EmbeddedModality(embeds.numpy(), values, scale)

    return [
        Window("v", float(place), place + 1.0, video=modality(), audio=modality() if place % 2 else None)
        for place in range(number)
    ]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 12), st.sampled_from(["int8", "float16"]))
def test_what_is_read_is_what_scoring_takes_of_the_windows(tmp_path_factory, seed, number, precision):
    parts = tmp_path_factory.mktemp("parts")
    contents = {name: make_windows(seed + place, number, precision) for place, name in enumerate(("aa1", "ab2"))}
    for name, windows in contents.items():
        write_part(part_path(parts, name), windows)
        assert count_windows(part_path(parts, name)) == number
    generator = np.random.default_rng(seed)
    for modality, places in (("video", range(number)), ("audio", range(1, number, 2))):
        requests = [(name, generator.choice(places, 3).tolist()) for name in contents]
        keys = read_keys([(part_path(parts, name), rows) for name, rows in requests], modality)
        wanted = [window_keys(contents[name][row], [modality])[modality] for name, rows in requests for row in rows]
        assert len(keys.mask) == len(wanted)
        for row, one in enumerate(wanted):
            assert torch.allclose(keys.regions[row][keys.mask[row]], one.regions[0], atol=1e-6)
            assert torch.equal(keys.embeds[row], one.embeds[0])
    assert np.array_equal(read_embeds(part_path(parts, "aa1"), "video", [1, 0])[1], contents["aa1"][0].video.embeds)


def test_a_damaged_part_is_named(tmp_path):
    path = part_path(tmp_path, "aa1")
    assert count_windows(path) == -1
    write_part(path, make_windows(0, 4))
    content = path.read_bytes()
    for damaged in (content[:-1], content[:20], b"", b"x" * len(content)):
        path.write_bytes(damaged)
        assert count_windows(path) == -1
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"aa1\.safetensors of the index is damaged"):
        read_keys([(path, [3])], "video")


def test_a_part_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = part_path(tmp_path, "aa1")

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fgmm_tools.search.parts.os.replace", fail)
    with pytest.raises(OSError, match="No space"):
        write_part(path, make_windows(0, 2))
    assert list(tmp_path.rglob("*.*")) == []
