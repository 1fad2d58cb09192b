"""The judge runs the points of any deployed CNN, of several channel ratios too."""

from __future__ import annotations

from pathlib import Path

from tests.runtime.deployed import small_source
from tidesplit.compression.codec.image_codec import encode_image, seen_by_server
from tidesplit.compression.codec.knobs import device_id
from tidesplit.compression.codec.pixels import natural_picture, to_input
from tidesplit.compression.net.cuttable import knobs_of
from tidesplit.prepare.result.judged import Judge
from tidesplit.prepare.task import Classes
from tidesplit.profiling.measuring.assemble import settings_of
from tidesplit.runtime.export import export, for_device, for_server
from tidesplit.runtime.models import head_name, tail_name


def test_points_of_a_slimmable_net(tmp_path: Path) -> None:
    source, pixels = small_source(), natural_picture(32)
    cnn = export(source, tmp_path, for_server(source, False), for_device(source))
    settings = settings_of(source.system, source.image_points, source.precisions)
    files = {name: cnn.read(name) for name in cnn.files}
    found = Judge(files, cnn.models, cnn.codec, settings, Classes(cnn.form, None)).answers(pixels)
    assert found.keys() == settings.keys()

    def answer(model: str, x: object) -> int:
        return int(cnn.session(model).run(None, {"x": x})[0].argmax())

    for knobs in knobs_of(source.system):
        _, y, score = cnn.session(head_name(knobs.partition, knobs.ratio)).run(None, {"x": to_input(pixels)})
        payload = cnn.codec.encode(y[0], score[0, 0], knobs)
        arrived = cnn.codec.decode(payload)[0][None]
        assert found[knobs.id] == (answer(tail_name(knobs.partition), arrived), len(payload))
    for ratio in source.system.ratios:
        assert found[device_id(ratio)] == (answer(device_id(ratio), to_input(pixels)), 0)
    payload = encode_image(pixels, "jpeg", 20)
    assert found["p0-jpeg-q20"] == (answer(tail_name(0), to_input(seen_by_server(payload, 32))), len(payload))
