"""What a net is for: how far an answer is off, how good it is, how it is written.

All other steps know an answer only as a vector of values `[N]`. So another task is one more class here, such as
detection with a precision of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from tidesplit.compression.net.measure import wilson
from tidesplit.runtime.wire.output_tensors import AnswerForm

FLAT = 0.5
"""Share of the even distribution in the answers whose gradients count. Sure answers have hardly any gradient."""
TINY = 1e-12
Floats = npt.NDArray[np.float32]


class Words(NamedTuple):
    """What a task's figures are called.

    Args:
        measure: its name.
        interval: the kind of it.
        meaning: of the measure, for the card.
        same: the meaning of the likeness to the uncut net's answers.
        brief: the same in front of a figure.
    """

    measure: str
    interval: str
    meaning: str
    same: str
    brief: str


class Task(Protocol):
    """A task, for one folder of pictures."""

    @property
    def form(self) -> AnswerForm:
        """The answer on the wire and in the log."""

    @property
    def words(self) -> Words:
        """Names for what is measured."""

    def losses(self, answers: Tensor, targets: Tensor) -> Tensor:
        """Losses `[B]` of answers `[B, N]` against those of the uncut net."""

    def directions(self, answers: Tensor, generator: torch.Generator) -> Tensor:
        """Random directions `[B, N]` of answers. Their covariance is the curvature of the loss."""

    def knowing(self, references: Callable[[], Iterable[Floats]]) -> Task:
        """The task after a look at the answers `[N]` to all pictures that judge, if it needs one."""

    def answer(self, values: Floats) -> Any:
        """The answer in values `[N]`, as it is compared."""

    def expected(self, picture: int, reference: Callable[[], Floats]) -> Any:
        """The right answer to a picture of the folder. `reference` is the server's to the undamaged picture."""

    def score(self, answer: Any, expected: Any) -> float:
        """How good an answer is, from 0 to 1."""

    def interval(self, total: float, squares: float, n: int) -> tuple[float, float]:
        """95 % interval of the mean score, from the sum of `n` scores and that of their squares."""


@dataclass(frozen=True)
class Classes:
    """Classification. Without labels, an answer is right where it is the uncut net's.

    Args:
        form: with the names of the classes.
        labels: of the pictures that judge, by index; None where they are not known.
    """

    form: AnswerForm
    labels: tuple[int, ...] | None

    @property
    def words(self) -> Words:
        """Top-1 or agreement."""
        same = "the share of answers equal to the uncut net's", "same answer on"
        if self.labels is not None:
            return Words("top-1", "wilson", "top-1 accuracy: the share of right answers", *same)
        meaning = "agreement: the share of answers equal to the server's to the undamaged picture, by its whole net"
        return Words("agreement", "wilson", meaning, *same)

    def losses(self, answers: Tensor, targets: Tensor) -> Tensor:
        """Kullback-Leibler divergences `[B]`, of logits `[B, classes]`."""
        return F.kl_div(answers.log_softmax(1), targets.log_softmax(1), log_target=True, reduction="none").sum(1)

    def directions(self, answers: Tensor, generator: torch.Generator) -> Tensor:
        """Directions whose covariance is the Fisher information of the classes."""
        share = (1 - FLAT) * answers.softmax(1) + FLAT / answers.shape[1]
        drawn = share.sqrt() * torch.randn(share.shape, generator=generator)
        return drawn - share * drawn.sum(1, keepdim=True)

    def knowing(self, references: Callable[[], Iterable[Floats]]) -> Classes:
        """The same."""
        del references
        return self

    def answer(self, values: Floats) -> int:
        """The class by index."""
        return int(np.argmax(values))

    def expected(self, picture: int, reference: Callable[[], Floats]) -> int:
        """The label, or else the class of the reference."""
        return self.answer(reference()) if self.labels is None else self.labels[picture]

    def score(self, answer: int, expected: int) -> float:
        """1 where the classes are the same, else 0."""
        return answer == expected

    def interval(self, total: float, squares: float, n: int) -> tuple[float, float]:
        """Wilson's."""
        del squares
        return wilson(total, n)


@dataclass(frozen=True)
class Tensors:
    """Any output: tensors, compared with those of the uncut net. No labels are used.

    *Fidelity* of a tensor y is 1 - |y - y0|^2 / |mean - y0|^2, and at least 0. The uncut net answers y0, and the mean
    is that of its answers to all pictures that judge. So the right answer has 1, and one that does not depend on the
    picture has 0. Several tensors have the mean of their fidelities.

    Args:
        form: names and shapes of the tensors.
        mean: `[N]`; None before a look at the answers.
    """

    form: AnswerForm
    mean: Floats | None = None

    @property
    def words(self) -> Words:
        """Fidelity."""
        meaning = (
            "fidelity: 1 - |y - y0|^2 / |mean - y0|^2, at least 0, where y0 is the server's answer to the undamaged "
            "picture, by its whole net"
        )
        return Words("fidelity", "normal", meaning, "fidelity to the uncut net's answer", "fidelity to its answer")

    def losses(self, answers: Tensor, targets: Tensor) -> Tensor:
        """Squared errors `[B]` over the variance in the batch, in the mean over tensors."""
        off = (answers - targets).square()
        spread = (targets - targets.mean(0)).square()
        pairs = zip(self._split(off), self._split(spread), strict=True)
        return torch.stack([a.sum(1) / b.sum(1).mean().clamp(min=TINY) for a, b in pairs]).mean(0)

    def directions(self, answers: Tensor, generator: torch.Generator) -> Tensor:
        """Normal values, of the weight that each tensor has in the loss."""
        spread = (answers - answers.mean(0)).square()
        drawn = torch.randn(answers.shape, generator=generator)
        pairs = zip(self._split(drawn), self._split(spread), strict=True)
        return torch.cat([a * b.sum(1).mean().clamp(min=TINY).rsqrt() for a, b in pairs], 1)

    def _split(self, values: Tensor) -> tuple[Tensor, ...]:
        return torch.split(values, [math.prod(shape) for shape in self.form.shapes.values()], 1)

    def knowing(self, references: Callable[[], Iterable[Floats]]) -> Tensors:
        """The task with the mean of the references."""
        total, count = np.zeros(self.form.size), 0
        for values in references():
            total, count = total + values, count + 1
        return replace(self, mean=(total / count).astype(np.float32))

    def answer(self, values: Floats) -> Floats:
        """The values themselves."""
        return values

    def expected(self, picture: int, reference: Callable[[], Floats]) -> Floats:
        """The reference."""
        del picture
        return reference()

    def score(self, answer: Floats, expected: Floats) -> float:
        """Fidelity of values `[N]`, in the mean over tensors."""
        assert self.mean is not None
        off, spread = (self.form.tensors(some - expected) for some in (answer, self.mean))
        return float(np.mean([_fidelity(off[name], spread[name]) for name in off]))

    def interval(self, total: float, squares: float, n: int) -> tuple[float, float]:
        """The normal one of the mean."""
        mean = total / n
        half = 1.96 * math.sqrt(max(0.0, squares / n - mean * mean) / n)
        return max(0.0, mean - half), min(1.0, mean + half)


def _fidelity(off: Floats, spread: Floats) -> float:
    """1 where nothing is off, 0 where as much is as if the answer were the mean."""
    wrong, whole = float(np.vdot(off, off)), float(np.vdot(spread, spread))
    return max(0.0, 1.0 - wrong / whole) if whole > 0 else float(wrong == 0)


def task_of(shapes: Mapping[str, tuple[int, ...]], classes: tuple[str, ...], labels: tuple[int, ...] | None) -> Task:
    """The task of a net with these outputs. A net without classes gives tensors."""
    return Classes(AnswerForm.of_classes(classes), labels) if classes else Tensors(AnswerForm(shapes))
