"""The form of an answer: logits of named classes, or named tensors of any shape.

Models, queues and messages inside a process hold all values of an answer as one vector. It gets its shapes only where
it crosses the wire and where it is written.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidesplit.runtime.wire.protocol import MAX_MESSAGE_BYTES

OUTPUT = "logits"
MOST_TENSORS, MOST_AXES, MOST_NAME_CHARACTERS = 16, 8, 100
MOST_VALUES = (MAX_MESSAGE_BYTES - (64 << 10)) // 4  # float32; the rest of a message has names and timings

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class AnswerForm:
    """The tensors of an answer, all float32.

    Args:
        shapes: by name, in the order of their values. The first axis is that of the pictures, so it has length one.
        classes: names of the classes, where the answer is their logits. Empty for all other answers.

    Raises:
        ValueError: too many tensors, names or shapes that cannot be, or more values than a message takes.
    """

    shapes: Mapping[str, tuple[int, ...]]
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= len(self.shapes) <= MOST_TENSORS:
            raise ValueError(f"an answer of {len(self.shapes)} tensors received, 1 to {MOST_TENSORS} expected")
        for name, shape in self.shapes.items():
            if not (name.isprintable() and 0 < len(name) <= MOST_NAME_CHARACTERS):
                raise ValueError(f"an output called {name[:MOST_NAME_CHARACTERS]!r} received, a short name expected")
            if shape[:1] != (1,) or min(shape) < 1:
                raise ValueError(f"output {name!r} of shape {list(shape)} received, [1, ...] expected")
            if len(shape) > MOST_AXES:
                raise ValueError(f"output {name!r} of {len(shape)} axes received, at most {MOST_AXES} expected")
        if self.size > MOST_VALUES:
            raise ValueError(f"an answer of {self.size} values received, at most {MOST_VALUES} expected")

    @classmethod
    def of_classes(cls, classes: Sequence[str]) -> AnswerForm:
        """The form of a classifier's answer."""
        return cls({OUTPUT: (1, len(classes))}, tuple(classes))

    @property
    def byte_sizes(self) -> list[int]:
        """Bytes of each tensor."""
        return [4 * math.prod(shape) for shape in self.shapes.values()]

    @property
    def size(self) -> int:
        """Number of values."""
        return sum(self.byte_sizes) // 4

    def tensors(self, values: Floats) -> dict[str, Floats]:
        """The tensors by name, from all values `[size]`."""
        found, first = dict[str, Floats](), 0
        for name, shape in self.shapes.items():
            last = first + math.prod(shape)
            found[name], first = values[first:last].reshape(shape), last
        return found
