"""Checks of .ci/aarch64 on the emulated processor: imports, sessions and codec of a deployed CNN."""

import sys
from pathlib import Path

import numpy as np

import tidesplit.runtime.device.client  # noqa: F401  # loads gRPC, protobuf and cryptography
from tidesplit.compression.codec.knobs import Knobs, device_id
from tidesplit.compression.codec.pixels import natural_picture, to_input
from tidesplit.runtime.cnn import load_cnn
from tidesplit.runtime.models import finish_name, head_name

cnn = load_cnn(Path(sys.argv[1]))
print(f"{cnn.name} {cnn.version}", flush=True)
x = to_input(natural_picture(cnn.input_px))
for ratio in (0.25, 1.0):
    logits = cnn.session(device_id(ratio)).run(None, {"x": x})[0]
    assert np.isfinite(logits).all()
    print(f"{device_id(ratio)}: {cnn.classes[int(logits.argmax())]}", flush=True)
feature, values, score = cnn.session(head_name(2, 0.5)).run(None, {"x": x})
knobs = Knobs(2, 0.5, 1.0, 2)
payload = cnn.codec.encode(values[0], score[0, 0], knobs)
decoded, back = cnn.codec.decode(payload)
assert back == knobs
finished = cnn.session(finish_name(2, 0.5)).run(None, {"x": feature})[0]
assert np.isfinite(finished).all()
print(f"{knobs.id}: {len(payload)} bytes; finished: {cnn.classes[int(finished.argmax())]}")
