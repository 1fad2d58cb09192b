"""A byte stream of H.264 is cut at its pictures, however it comes, and at a pause where pauses have been ends."""

import pytest

from tidesplit.runtime.camera.h264 import GOOD_PAUSES, MOST_PAUSES, AccessUnits


def unit(kind, content, start=b"\0\0\0\1"):
    return start + bytes((0x60 | kind,)) + content


DELIMITER, PARAMETERS, MORE, NOTE = (
    unit(9, b"\xf0"),
    unit(7, b"\x42\xc0\x0d"),
    unit(8, b"\xce\x3c"),
    unit(6, b"\x05\x01"),
)
KEY, NEXT = unit(5, b"\x88\x84" + b"k" * 40, b"\0\0\1"), unit(1, b"\x9a\x01" + b"n" * 20)
SECOND_SLICE = unit(1, b"\x41\x02" + b"s" * 20, b"\0\0\1")  # its first bit says that it begins within the picture
PICTURES = [
    PARAMETERS + MORE + KEY, NEXT, NEXT + SECOND_SLICE, DELIMITER + NOTE + NEXT, NEXT, PARAMETERS + MORE + KEY, NEXT,
]  # fmt: skip


def cut(data, size):
    units = AccessUnits()
    return [one for at in range(0, len(data), size) for one in units.feed(data[at : at + size])] + units.close()


@pytest.mark.parametrize("size", [1, 2, 3, 5, 17, 1000])
def test_every_picture_comes_whole_with_its_parameters_whatever_the_reads(size):
    assert cut(b"".join(PICTURES), size) == PICTURES


def test_a_picture_is_whole_when_the_next_one_begins():
    units = AccessUnits()
    assert units.feed(NEXT + NEXT[:10]) == [NEXT]
    assert not units.whole_before
    assert units.feed(NEXT[10:]) == []
    assert units.waiting == len(NEXT)
    assert units.feed(NEXT) == [NEXT]
    assert units.whole_before
    assert units.close() == [NEXT]
    assert AccessUnits().close() == []


def test_pauses_are_believed_after_some_that_were_ends_of_pictures():
    units, given = AccessUnits(), []
    for _ in range(GOOD_PAUSES + 4):
        given.append((len(units.feed(NEXT)), len(units.pause()), len(units.pause())))
    late, first, soon = (0, 0, 0), (1, 0, 0), (0, 1, 0)
    assert given == [late, *[first] * (GOOD_PAUSES - 1), (1, 1, 0), soon, soon, soon]
    assert units.close() == []
    assert units.broken == 0


def test_a_pause_within_a_picture_is_counted_and_pauses_must_prove_themselves_again():
    units = AccessUnits()
    for _ in range(GOOD_PAUSES + 1):
        units.feed(NEXT)
        units.pause()
    units.feed(KEY[:20])
    assert units.pause() == [KEY[:20]]
    assert units.feed(KEY[20:]) == []
    assert units.broken == 1
    assert units.pause() == []  # the first good one
    assert units.feed(NEXT) == []  # the rest of the key picture is not given as another one
    assert units.feed(NEXT) == [NEXT]
    again = [len(units.pause()) for _ in range(2 * GOOD_PAUSES) if units.feed(NEXT)]
    assert again == [0] * (2 * GOOD_PAUSES - 1) + [1]


def test_slices_that_come_one_after_the_other_are_one_picture():
    units, given = AccessUnits(), []
    for _ in range(2 * MOST_PAUSES):
        given += units.feed(NEXT) + units.pause() + units.feed(SECOND_SLICE) + units.pause()
    assert set(given) == {NEXT + SECOND_SLICE}
    assert (len(given), units.broken) == (2 * MOST_PAUSES - 1, 0)
