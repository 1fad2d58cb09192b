"""Streams on two machines: .ci/aarch64 makes payloads here, and both machines decode them to the very same state.

aarch64_streams.py make FILE FRAMES CNN [FOLDER]   send clips of pictures in FOLDER/<class>, or of generated ones
aarch64_streams.py take FILE CNN [JSON]            receive the payloads in FILE, and compare with the machine of `make`

At random, frames are not sent, ratio, bits and partition change, messages are lost, the sender connects again, and the
receiver forgets. Video is left out where PyAV is missing. JSON: file to which `take` writes what it has compared.
benchmarks/aarch64_streams.json is that of clips of 1,000 frames on the emulated machine.
"""

import base64
import hashlib
import importlib.util
import json
import platform
import sys
import time
from functools import lru_cache
from itertools import repeat
from pathlib import Path

import numpy as np

from tidesplit.compression.codec.errors import ReferenceUnknownError
from tidesplit.compression.codec.knobs import RATIOS, Knobs
from tidesplit.compression.codec.pixels import load_square, natural_picture, to_input
from tidesplit.compression.codec.video import VideoDecoder, VideoEncoder
from tidesplit.compression.codec.wire import MARGINS
from tidesplit.runtime.cnn import load_cnn
from tidesplit.runtime.models import head_name

NOT_SENT, LOST, AGAIN, FORGOTTEN = 0.2, 0.02, 0.01, 0.01  # share of frames
SWITCHES = {"partition": 0.04, "ratio": 0.1, "bits": 0.1}
VIDEO = {"video, 224 px": ("h264", 30, 224), "video, 160 px": ("h264", 36, 160)}


class CutReceiver:
    """The server's end: what it knows at each partition, and a hash of all that it decoded."""

    def __init__(self, cnn):
        self._codec, self.hash = cnn.codec, hashlib.sha256()
        self.forget()

    def forget(self):
        """Lose all state, as a server that starts again."""
        self._memories = {}

    def take(self, payload):
        """True where the payload was decoded, False where its reference is unknown."""
        partition = payload[1] >> 4
        try:
            values, knobs, memory = self._codec.decode_next(payload, self._memories.get(partition))
        except ReferenceUnknownError:
            self.hash.update(b"reference unknown")
            return False
        self._memories[partition] = memory
        self.hash.update(knobs.id.encode() + memory.codes.tobytes() + values.tobytes())
        return True


class VideoReceiver:
    """The same for video. `key`: of VIDEO."""

    def __init__(self, key):
        self._codec, _, self._px = VIDEO[key]
        self.hash = hashlib.sha256()
        self.forget()

    def forget(self):
        """Lose all state."""
        self._decoder = VideoDecoder(self._codec, self._px)

    def take(self, payload):
        """True where the payload was decoded, False where its reference is unknown."""
        try:
            self.hash.update(self._decoder.decode(payload).tobytes())
        except ReferenceUnknownError:
            self.hash.update(b"reference unknown")
            return False
        return True


def receiver_of(kind, cnn):
    """A receiver of cuts or of a kind of video."""
    return CutReceiver(cnn) if kind == "cuts" else VideoReceiver(kind)


class CutSender:
    """The device's end, which changes its settings at random."""

    def __init__(self, cnn, rng):
        self._codec, self._rng, self._memories = cnn.codec, rng, {}
        self._head = lru_cache(lambda partition, ratio: cnn.session(head_name(partition, ratio)))
        self._now = {name: rng.choice(some) for name, some in self._choices().items()}
        self.switches = 0

    def _choices(self):
        return {"partition": sorted(self._codec.cuts), "ratio": RATIOS, "bits": sorted(MARGINS)}

    def begin(self, pixels):
        """Take the next frame."""
        for name, share in SWITCHES.items():
            if self._rng.random() < share:
                self._now[name] = self._rng.choice(self._choices()[name])
                self.switches += 1
        self._knobs = Knobs(int(self._now["partition"]), float(self._now["ratio"]), 1.0, int(self._now["bits"]))
        model = self._head(self._knobs.partition, self._knobs.ratio)
        self._y, self._score = (found[0] for found in model.run(["y", "score"], {"x": to_input(pixels)}))

    def payload(self, key):
        """The payload of that frame."""
        if key:
            self._memories.clear()
        p = self._knobs.partition
        payload, self._memories[p] = self._codec.encode_next(
            self._y, self._score[0], self._knobs, self._memories.get(p)
        )
        return payload


class VideoSender:
    """The same for video."""

    switches = 0

    def __init__(self, key):
        self._encoder = VideoEncoder(*VIDEO[key])

    def begin(self, pixels):
        """Take the next frame."""
        self._pixels = pixels

    def payload(self, key):
        """The payload of that frame."""
        return self._encoder.encode(self._pixels, key)


def sent(frames, rng, sender, receiver):
    """Events of one clip: payloads that arrive, and None where the receiver forgets."""
    events, again = [], True

    def deliver(payload):
        events.append(base64.b64encode(payload).decode())
        return receiver.take(payload)

    for pixels in frames:
        if rng.random() < NOT_SENT:
            continue
        sender.begin(pixels)
        if rng.random() < FORGOTTEN:
            events.append(None)
            receiver.forget()
        again |= rng.random() < AGAIN
        payload, again = sender.payload(again), False
        if rng.random() >= LOST and not deliver(payload):
            assert deliver(sender.payload(True))
    return events


def make(file, count, cnn, folder=None):
    """Send a clip of each camera, and store the events with the hash of the receiver's state."""
    from tidesplit.compression.pictures.clips import CAMERAS, MARGIN, camera_frames

    side, document = round(MARGIN * cnn.input_px), {}
    video = list(VIDEO) if importlib.util.find_spec("av") else []
    files = sorted(Path(folder).glob("*/*")) if folder else []
    for i, (camera, kind) in enumerate((c, k) for c in CAMERAS for k in ("cuts", *video)):
        rng = np.random.default_rng(i)
        still = load_square(files[rng.integers(len(files))], side) if files else natural_picture(side, i)
        frames = camera_frames(repeat(still, int(count)), CAMERAS[camera], cnn.input_px, rng)
        sender, receiver = CutSender(cnn, rng) if kind == "cuts" else VideoSender(kind), receiver_of(kind, cnn)
        events = sent(frames, rng, sender, receiver)
        document[f"{camera}, {kind}"] = {
            "kind": kind, "frames": int(count), "switches": sender.switches, "made_on": platform.machine(),
            "events": events, "sha256": receiver.hash.hexdigest(),
        }  # fmt: skip
        print(f"{camera}, {kind}: {count} frames, {len(events)} events, {sender.switches} switches", flush=True)
    Path(file).write_text(json.dumps(document))


def take(file, cnn, kept=None):
    """Receive the events of every clip, and store what was compared."""
    found = {}
    for name, clip in json.loads(Path(file).read_text()).items():
        if clip["kind"] != "cuts" and not importlib.util.find_spec("av"):
            print(f"{name}: left out, PyAV is missing")
            continue
        found[name], ms = taken(name, clip, cnn)
        one = found[name]
        print(
            f"{name}: {one['decoded']} payloads of {one['bytes'] / one['decoded']:.0f} bytes decoded to the same state "
            f"in {ms:.1f} ms each, {one['reference_unknown']} refused as reference unknown, "
            f"{one['forgotten']} times forgotten",
            flush=True,
        )
        if kept:
            Path(kept).write_text(json.dumps({"decoded_on": platform.machine(), "clips": found}, indent=1) + "\n")


def taken(name, clip, cnn):
    """The facts of one clip that decodes to the same state, and milliseconds a payload."""
    receiver = receiver_of(clip["kind"], cnn)
    facts = {key: value for key, value in clip.items() if key not in ("kind", "events")}
    facts |= {"payloads": 0, "bytes": 0, "decoded": 0, "reference_unknown": 0, "forgotten": 0}
    start = time.perf_counter()
    for event in clip["events"]:
        if event is None:
            receiver.forget()
            facts["forgotten"] += 1
            continue
        payload = base64.b64decode(event)
        known = receiver.take(payload)
        facts["payloads"] += 1
        facts["bytes"] += len(payload)
        facts["decoded" if known else "reference_unknown"] += 1
    ms = 1e3 * (time.perf_counter() - start) / facts["decoded"]
    assert receiver.hash.hexdigest() == clip["sha256"], f"{name}: other codes, values or pixels than there"
    return facts, ms


if __name__ == "__main__":
    verb, file, second, *rest = sys.argv[1:]
    if verb == "make":
        make(file, second, load_cnn(Path(rest[0])), *rest[1:])
    else:
        take(file, load_cnn(Path(second)), *rest)
