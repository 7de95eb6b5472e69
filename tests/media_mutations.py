"""Damage of every kind to the bytes of a file, the same for the same seed."""

import numpy as np

HEADER = 4096  # bytes at the beginning and at the end where containers hold what they say of themselves
EXTREMES = [
    b"\x00" * 4,
    b"\xff" * 4,
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\x80\x00\x00\x00",
    b"\x00\x00\x00\x80",
]


def mutate(data: bytes, seed: int) -> bytes:
    """The file with one to three kinds of damage."""
    random = np.random.default_rng(seed)
    damaged = bytearray(data)
    for _ in range(random.integers(1, 4)):
        damage = MUTATIONS[random.integers(len(MUTATIONS))]
        damaged = damage(damaged, random) if damaged else damaged
    return bytes(damaged)


def some_place(data: bytearray, random) -> int:
    """Half of the damage is to the headers."""
    area = random.integers(4)
    if area == 0:
        return int(random.integers(min(HEADER, len(data))))
    if area == 1:
        return int(random.integers(max(0, len(data) - HEADER), len(data)))
    return int(random.integers(len(data)))


def flip_bits(data: bytearray, random) -> bytearray:
    for _ in range(random.integers(1, 9)):
        data[some_place(data, random)] ^= 1 << random.integers(8)
    return data


def flip_many_bits(data: bytearray, random) -> bytearray:
    for place in random.integers(len(data), size=1 + len(data) // 500):
        data[place] ^= 1 << random.integers(8)
    return data


def write_extremes(data: bytearray, random) -> bytearray:
    for _ in range(random.integers(1, 4)):
        place = some_place(data, random)
        data[place : place + 4] = EXTREMES[random.integers(len(EXTREMES))][: len(data) - place]
    return data


def write_noise(data: bytearray, random) -> bytearray:
    place = some_place(data, random)
    size = min(int(random.integers(1, 300)), len(data) - place)
    data[place : place + size] = random.bytes(size)
    return data


def cut_off(data: bytearray, random) -> bytearray:
    return data[: some_place(data, random)]


def cut_out(data: bytearray, random) -> bytearray:
    place = some_place(data, random)
    del data[place : place + int(random.integers(1, 2000))]
    return data


def copy_block(data: bytearray, random) -> bytearray:
    source, target = some_place(data, random), some_place(data, random)
    block = data[source : source + int(random.integers(1, 2000))]
    end = target if random.integers(2) else target + len(block)  # put in between, or over what is there
    data[target:end] = block
    return data


MUTATIONS = [flip_bits, flip_many_bits, write_extremes, write_noise, cut_off, cut_out, copy_block]
