"""The bundled CIFAR-10 CNN: its profile makes a world, and the server exports it at the first start."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.runtime.servers import Client, ServerThread
from tidesplit.compression.codec.image_codec import encode_image
from tidesplit.compression.codec.pixels import natural_picture
from tidesplit.envs.simulation.scenario import scenario_from
from tidesplit.runtime.export import cached_server
from tidesplit.runtime.server.serving import ServerOptions
from tidesplit.runtime.wire.answers import read_answer
from tidesplit.runtime.wire.messages import Request, build_request

NAME = "cifar_resnet"


def test_its_profile_makes_a_world() -> None:
    table = scenario_from(profile=NAME, fps=20, deadline_ms=100).table
    assert table.local.any()
    assert (table.hops[0].partition < 3).any()
    assert table.accuracy.max() > 0.75


def test_it_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cnn = cached_server(NAME)
    payload = encode_image(natural_picture(cnn.input_px), "webp", 90)
    request = Request(cnn.name, 0, cnn.version, "0", payload)
    with ServerThread(cnn, ServerOptions()) as running, Client(running.address) as client:
        answer = read_answer(client.call("ModelInfer", build_request(request)), request, cnn.form)
    assert answer.logits.shape == (10,)
    assert np.isfinite(answer.logits).all()
