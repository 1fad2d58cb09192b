"""The files that the device's models are chains of, so that models of one channel ratio share their layers.

A ratio's net is divided at the cuts that its heads and finishes need, and nowhere else, because each further part costs
a run of its own. A whole net without such cuts is one file of its own name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import combinations, pairwise
from typing import TYPE_CHECKING

from tidesplit.compression.codec.knobs import FLOAT32, Precision, device_id
from tidesplit.runtime.models import encoder_name, finish_name, head_name, part_name

if TYPE_CHECKING:
    import onnx

    from tidesplit.profiling.measuring.trained import Trained


@dataclass(frozen=True)
class Plan:
    """Models to export: the chain of files of each, without suffix, and the function that makes each file."""

    chains: Mapping[str, tuple[str, ...]]
    makers: Mapping[str, Callable[[], onnx.ModelProto]]


def device_plan(source: Trained, wanted: Collection[str] | None = None) -> Plan:
    """The plan of the device's models with these names, or of all that there can be. Unknown names are left out."""
    chains: dict[str, tuple[str, ...]] = {}
    makers: dict[str, Callable[[], onnx.ModelProto]] = {}
    for ratio in source.system.ratios:
        float32: dict[str, bytes] = {}
        for precision in source.precisions:
            family = _Family(source, ratio, precision, float32)
            chains |= family.chains(family.models() if wanted is None else wanted)
            makers |= family.makers()
    return Plan(chains, {file: makers[file] for chain in chains.values() for file in chain})


@dataclass(frozen=True)
class _Family:
    """The device's models of one ratio and precision. `float32`: what is made, so that int8 models are made of it."""

    source: Trained
    ratio: float
    precision: Precision
    float32: dict[str, bytes]

    @property
    def _last(self) -> int:
        return self.source.system.partitions

    def models(self) -> list[str]:
        """Names of all of them."""
        made = [name(p, self.ratio, self.precision) for p in range(1, self._last) for name in (head_name, finish_name)]
        return [device_id(self.ratio, self.precision), *made]

    def chains(self, wanted: Collection[str]) -> dict[str, tuple[str, ...]]:
        """The chain of each of them that is wanted."""
        of = self.ratio, self.precision
        whole, cuts = device_id(*of), range(1, self._last)
        bounds = [0, *(p for p in cuts if {head_name(p, *of), finish_name(p, *of)} & {*wanted}), self._last]
        found = {whole: self._parts(bounds)}
        for p in bounds[1:-1]:
            at = bounds.index(p)
            found[head_name(p, *of)] = (*self._parts(bounds[: at + 1]), encoder_name(p, *of))
            found[finish_name(p, *of)] = self._parts(bounds[at:])
        return {name: chain for name, chain in found.items() if name in wanted}

    def _parts(self, bounds: list[int]) -> tuple[str, ...]:
        return tuple(self._part(first, last) for first, last in pairwise(bounds))

    def _part(self, first: int, last: int) -> str:
        if (first, last) == (0, self._last):
            return device_id(self.ratio, self.precision)
        return part_name(first, last, self.ratio, self.precision)

    def makers(self) -> Mapping[str, Callable[[], onnx.ModelProto]]:
        """A function for each file that a chain can have."""
        ends, cuts = combinations(range(self._last + 1), 2), range(1, self._last)
        made = {self._part(*of): partial(self._make_part, *of) for of in ends}
        return made | {encoder_name(p, self.ratio, self.precision): partial(self._make_encoder, p) for p in cuts}

    def _make_part(self, first: int, last: int) -> onnx.ModelProto:
        from tidesplit.compression.net.deploy import part_model

        return self._in_precision(f"{first}-{last}", partial(part_model, self.source.system, first, last, self.ratio))

    def _make_encoder(self, partition: int) -> onnx.ModelProto:
        from tidesplit.compression.net.deploy import encoder_model

        return self._in_precision(f"{partition}", partial(encoder_model, self.source.system, partition, self.ratio))

    def _in_precision(self, name: str, make: Callable[[], onnx.ModelProto]) -> onnx.ModelProto:
        import onnx

        from tidesplit.compression.net.int8 import int8_model

        if name not in self.float32:
            self.float32[name] = make().SerializeToString()
        model = onnx.load_from_string(self.float32[name])
        return model if self.precision == FLOAT32 else int8_model(model, self.source.ranges or {})
