"""The card of a prepared net: gains against the uncut net, and pictures that do as well as a cut."""

from __future__ import annotations

import numpy as np
import pytest

from tidesplit.compression.pictures.labelled import Pictures
from tidesplit.prepare.result.card import as_good_picture, summary
from tidesplit.prepare.result.judged import UNCUT, Judged, judge
from tidesplit.prepare.task import Classes
from tidesplit.profiling.points.profile import OperatingPoint, Profile, Provenance
from tidesplit.runtime.wire.output_tensors import AnswerForm


def test_gains_are_of_the_same_pictures() -> None:
    """Of ten pictures, one is won, two are lost, and one more has another wrong answer."""
    judged, task = Judged(), Classes(AnswerForm.of_classes("abcd"), None)
    answers = [(1, 0), (0, 1), (0, 1), (2, 3), *[(1, 1)] * 6]  # of the point and of the uncut net, where 1 is right
    for answer, uncut in answers:
        judged.note(task.score(answer, 1), task.score(uncut, 1), task.score(answer, uncut), 100)
    assert (judged.n, judged.right, judged.gained, judged.gained_square, judged.same) == (10, 7, -1, 3, 6)
    mean, half = judged.gain()
    assert mean == pytest.approx(-0.1)
    assert half == pytest.approx(1.96 * ((0.3 - 0.01) / 10) ** 0.5)


def point(name: str, codec: str, accuracy: float, size: float) -> OperatingPoint:
    return OperatingPoint(
        id=name, partition=0 if codec == "webp" else 1, channel_ratio=1.0, region_ratio=1.0, bits=4,
        codec=codec, accuracy=accuracy, accuracy_ci95=(0.0, 1.0), bytes_mean=size, n=100,
    )  # fmt: skip


def test_a_picture_of_no_more_bytes_is_a_rival() -> None:
    small, large = point("p0-small", "webp", 0.6, 400), point("p0-large", "webp", 0.9, 900)
    cuts = [point("p1-a", "feature", 0.7, 480), point("p1-b", "feature", 0.85, 950), point("p1-c", "feature", 0.5, 300)]
    source = Provenance(kind="measured", source="test", machine="test", n=100, spread="none")
    profile = Profile(
        name="x", partitions=2, points=(small, large, *cuts), devices={}, cnn={}, accuracy_provenance=source
    )
    assert [as_good_picture(cut, profile) for cut in cuts] == [None, large, None]
    counts = {
        "p1-a": Judged(n=100, right=70, gained=-2, gained_square=4, same=90), UNCUT: Judged(n=100, right=72, same=100),
    }  # fmt: skip
    assert summary(profile, counts, Classes(AnswerForm.of_classes("abc"), (0,)).words) == (
        "best cut of at most 500 bytes: p1-a, 480 bytes, -2.0 ± 3.9 points to the uncut net on 100 pictures, same "
        "answer on 90.0%; a picture of no more bytes does as well as 1 of 3 points at cuts"
    )


class _Answers:
    """In place of a `Judge`: answers of the uncut net in turn."""

    def __init__(self, uncut: list[int]) -> None:
        self._uncut = iter(uncut)

    def answers(self, pixels: object) -> dict[str, tuple[int, int]]:
        del pixels
        return {UNCUT: (next(self._uncut), 0)}

    def reference(self, pixels: object) -> None:
        """Not needed where there are labels."""


@pytest.mark.parametrize(("uncut", "said"), [([3, 3, 3], "answers class 3 to all 3 pictures"), ([3, 3, 4], "")])
def test_a_net_of_one_answer_is_named(uncut: list[int], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = Pictures(np.zeros((3, 2, 2, 3), np.uint8), np.full(3, 3), ("a",))
    counts = judge(_Answers(uncut), pictures, Classes(AnswerForm.of_classes("a"), (3, 3, 3)))  # type: ignore[arg-type]
    assert counts[UNCUT].right == uncut.count(3)
    told = capsys.readouterr().err
    assert said in told
    assert bool(told) == bool(said)
