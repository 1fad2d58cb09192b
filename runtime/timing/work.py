"""What is timed: the pieces that every operating point is made of, and functions that run them.

A turn is a few pieces that are opened together: one whole net, one tail, a head with its codec and its finish, or all
pictures. Only one turn's models are in memory at a time, because all of them together would fill a small device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from tidesplit.compression.codec.image_codec import encode_image, seen_by_server
from tidesplit.compression.codec.knobs import VIDEO_CODECS, Knobs, Precision, cut_id
from tidesplit.compression.codec.pixels import Pixels, natural_picture, to_input
from tidesplit.compression.session import Session
from tidesplit.profiling.points.profile import OperatingPoint, Profile
from tidesplit.profiling.streams.senders import MemorySender, Values, VideoSender
from tidesplit.profiling.streams.stream_work import ends, film
from tidesplit.runtime.cnn import Cnn, CnnError
from tidesplit.runtime.models import finish_model, first_model, knobs_of, tail_name

Work = dict[str, Callable[[], object]]
"""Functions by the name of the piece that they run."""
Turn = Callable[[], Work]


class Pieces(NamedTuple):
    """The pieces of one operating point by name, None where it has none. Those of a net are called like its model."""

    head: str | None = None
    encode: str | None = None
    decode: str | None = None
    tail: str | None = None
    finish: str | None = None

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models."""
        return tuple(name for name in (self.head, self.finish, self.tail) if name is not None)


def pieces_of(point: OperatingPoint) -> Pieces:
    """The pieces of a point. The codec of a cut does not depend on the head's precision."""
    head, finish = first_model(point), finish_model(point)
    if point.codec == "none":
        return Pieces(head=head)
    coded = cut_id(knobs_of(point), stream=point.stream is not None) if head else point.id
    return Pieces(head, f"encode {coded}", f"decode {coded}", tail_name(point.partition), finish)


def check_models(cnn: Cnn, profile: Profile) -> None:
    """Raises CnnError where the folder is another CNN's, or lacks a model that a point needs."""
    expected = profile.cnn.get("weights_sha256", cnn.weights_sha256)
    if (cnn.name, cnn.weights_sha256) != (profile.name, expected):
        raise CnnError(
            f"{cnn.folder} holds {cnn.name} with weights {cnn.version}, "
            f"the profile is of {profile.name} with weights {str(expected)[:16]}"
        )
    lacking = {p.id: [m for m in pieces_of(p).models if not cnn.has(m)] for p in profile.points}
    lacking = {point_id: models for point_id, models in lacking.items() if models}
    if lacking:
        point_id, (model, *_) = next(iter(lacking.items()))
        raise CnnError(
            f"{cnn.folder} has no model {model} for {point_id}, and lacks models of {len(lacking)} of "
            f"{len(profile.points)} points: run tidesplit export --profile {cnn.name} again, or name fewer --points"
        )


def turns_of(cnn: Cnn, profile: Profile, threads: int) -> list[Turn]:
    """The turns in which every piece of every point of the profile is timed once."""
    pixels, pieces = natural_picture(cnn.input_px), [pieces_of(point) for point in profile.points]
    wholes = dict.fromkeys(p.head for p in pieces if p.head and p.encode is None)
    wholes |= dict.fromkeys(p.finish for p in pieces if p.finish and p.head is None)
    tails = dict.fromkeys(p.tail for p in pieces if p.tail)
    pictures = [point for point in profile.points if point.partition == 0 and point.codec not in VIDEO_CODECS]
    videos = [point for point in profile.points if point.codec in VIDEO_CODECS]
    return [
        *(partial(_whole, cnn, name, threads, pixels) for name in wholes),
        *(partial(_tail, cnn, name, threads) for name in tails),
        *_cuts(cnn, profile, threads, pixels),
        *([partial(_pictures, pictures, pixels)] if pictures else []),
        *([partial(_videos, videos, cnn.input_px)] if videos else []),
    ]


def _cuts(cnn: Cnn, profile: Profile, threads: int, pixels: Pixels) -> Iterator[Turn]:
    """A turn for each head. The codec is timed with the first head that makes its values."""
    timed: set[tuple[Knobs, bool]] = set()
    cuts = sorted((p for p in profile.points if p.codec == "feature"), key=_cut)
    for _, same in groupby(cuts, key=_cut):
        points = list(same)
        coded = [c for c in ((knobs_of(p), p.stream is not None) for p in points) if c not in timed]
        timed.update(coded)
        heads, *_, finishes = zip(*(pieces_of(point) for point in points), strict=True)
        models = [heads[0], *dict.fromkeys(name for name in finishes if name)]
        yield partial(_cut_work, cnn, models, coded, threads, pixels)


def _cut(point: OperatingPoint) -> tuple[int, float, Precision]:
    return point.partition, point.channel_ratio, point.precision


def _from_pixels(run: Session, pixels: Pixels) -> Callable[[], Any]:
    return lambda: run.run(None, {"x": to_input(pixels)})


def _whole(cnn: Cnn, name: str, threads: int, pixels: Pixels) -> Work:
    return {name: _from_pixels(cnn.device_session(name, threads), pixels)}


def _tail(cnn: Cnn, name: str, threads: int) -> Work:
    run = cnn.session(name, threads)
    shape = [side if isinstance(side, int) else 1 for side in run.get_inputs()[0].shape]
    return {name: partial(run.run, None, {"x": np.random.default_rng(0).standard_normal(shape, dtype=np.float32)})}


def _cut_work(cnn: Cnn, models: list[str], coded: Iterable[tuple[Knobs, bool]], threads: int, pixels: Pixels) -> Work:
    """The head is the first of ``models``, and its finish the second, if there is one. ``coded``: settings of the
    codec, with True for a stream."""
    head, *finishes = models
    session = cnn.device_session(head, threads)
    run = _from_pixels(session, pixels)
    feature, values, score = run()
    work: Work = {head: run}
    for name in finishes:
        work[name] = partial(cnn.device_session(name, threads).run, None, {"x": feature})
    coded = list(coded)
    for k in (k for k, stream in coded if not stream):
        work[f"encode {k.id}"] = partial(cnn.codec.encode, values[0], score[0, 0], k)
        work[f"decode {k.id}"] = partial(cnn.codec.decode, cnn.codec.encode(values[0], score[0, 0], k))
    if streams := [k for k, stream in coded if stream]:
        outputs = [session.run(None, {"x": to_input(frame)}) for frame in film(cnn.input_px)]
        seen = [Values(y[0], s[0, 0]) for _, y, s in outputs]
        for k in streams:
            both = ends(partial(MemorySender, seen.__getitem__, cnn.codec, k), picture=False)
            work |= {f"encode {k.id}-s": both.encode, f"decode {k.id}-s": both.decode}
    return work


def _pictures(points: list[OperatingPoint], pixels: Pixels) -> Work:
    work: Work = {}
    for point in points:
        encode = partial(encode_image, pixels, point.codec, point.bits, point.resolution)
        work |= {f"encode {point.id}": encode, f"decode {point.id}": partial(_seen, encode(), pixels.shape[0])}
    return work


def _videos(points: list[OperatingPoint], px: int) -> Work:
    work: Work = {}
    frames = film(px)
    for p in points:
        both = ends(partial(VideoSender, frames, p.codec, p.bits, p.resolution), picture=True)
        work |= {f"encode {p.id}": both.encode, f"decode {p.id}": both.decode}
    return work


def _seen(payload: bytes, px: int) -> object:
    """The work of a server on a picture, up to the tail's input."""
    return to_input(seen_by_server(payload, px))
