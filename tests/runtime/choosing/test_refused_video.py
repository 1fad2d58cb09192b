import numpy as np
import pytest

from tests.runtime.deployed import CUT_STREAM, VIDEO_STREAM, points_of_streams
from tidesplit.envs.world.observation import Observation
from tidesplit.runtime.choosing.refused_video import AGAIN_S, RefusedVideo

IDS = ("p0-jpeg-q50", "p0-h264-q34", "p0-h264-q34-160px", "p1-c0.50-r1.00-b2-s", "device-c0.25", "p0-jpeg-q50")
VIDEO = [False, True, True, False, False, False]


def observed(mask):
    return Observation(np.zeros((1, 1), np.float32), np.zeros((1, 1, len(mask)), np.float32), np.array([mask]))


def test_points_of_video_by_their_ids():
    assert RefusedVideo.of(IDS).video.tolist() == VIDEO


def test_a_race_with_video_and_the_table_of_the_tests():
    table = points_of_streams(9)[1]
    video = RefusedVideo.of(table.ids).video
    assert [table.ids[row] for row in np.flatnonzero(video)] == [VIDEO_STREAM]
    assert CUT_STREAM in table.ids


@pytest.mark.parametrize(
    ("mask", "expected"),
    [([True] * 6, [True, False, False, True, True, True]),
     ([False, True, False, False, True, False], [False, False, False, False, True, False]),
     ([False, True, True, False, False, False], [False, True, True, False, False, False])],
)  # fmt: skip
def test_masks(mask, expected):
    refused, seen = RefusedVideo.of(IDS), observed(mask)
    assert refused.left_out(seen, 0.0) is seen
    refused.refused(5.0)
    assert refused.left_out(seen, 6.0).mask[0].tolist() == expected
    assert refused.left_out(seen, 5.0 + AGAIN_S) is seen, "another server may be there"
