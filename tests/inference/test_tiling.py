from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from hyenadna_hf.inference.tiling import Tile, tiles


@given(st.integers(0, 300), st.integers(1, 40), st.data())
def test_every_position_is_kept_once(length, window, data):
    stride = data.draw(st.integers(1, window))
    cut = list(tiles(length, window, stride))
    assert [p for tile in cut for p in range(tile.keep_start, tile.keep_end)] == list(range(length))
    for tile in cut:
        assert 0 <= tile.start <= tile.keep_start <= tile.keep_end <= tile.end <= length
        assert tile.end - tile.start == min(length, window)
    for left, right in pairwise(cut):
        assert 1 <= right.start - left.start <= stride
        assert left.keep_end == (right.start + left.end) // 2  # the middle of their overlap


def test_an_example():
    assert list(tiles(10, 6, 3)) == [Tile(0, 6, 0, 4), Tile(3, 9, 4, 6), Tile(4, 10, 6, 10)]
    assert list(tiles(6, 6, 3)) == [Tile(0, 6, 0, 6)]
