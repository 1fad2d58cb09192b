"""Two consecutive cuts through the real codec, on an untrained CNN: counts, and pairs that are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.profiles import synthetic_profile
from tidesplit.compression.codec.pixels import load_square, natural_picture
from tidesplit.compression.net.deploy import head_model, middle_model
from tidesplit.compression.net.system import SplitNet
from tidesplit.compression.pictures.labelled import scale
from tidesplit.compression.session import session
from tidesplit.models.efficientnet_lite0 import EfficientNetLite0
from tidesplit.models.weights import save_weights
from tidesplit.profiling.measuring.cut_pairs import _again, _arrived, assumption, chain_table, measure_chains
from tidesplit.profiling.measuring.trained import load_trained
from tidesplit.profiling.points.profile import Chain

NAME = "efficientnet_lite0"
FROM_PICTURE, FROM_CUT = ("p0-jpeg-q50", "p5-c1.00-r1.00-b4"), ("p4-c0.25-r1.00-b8", "p5-c1.00-r0.50-b2")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    save_weights(path, SplitNet(EfficientNetLite0(2)), {"classes": json.dumps(["ant", "bee"])})
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for label in ("ant", "bee"):
        (folder / label).mkdir()
        Image.fromarray(natural_picture(64, seed=len(label))).save(folder / label / "0.png")
    return folder


def test_pairs_are_counted_with_their_first_cuts(weights: Path, images: Path, tmp_path: Path) -> None:
    pairs = [FROM_PICTURE, FROM_CUT]
    chains = measure_chains(NAME, images, pairs, 0, tmp_path / "part.jsonl", jobs=1, weights=weights)
    assert [(c.first, c.second, c.n) for c in chains] == [(*pair, 2) for pair in pairs]
    for chain in chains:
        assert chain.accuracy in (0.0, 0.5, 1.0)
        assert -1.0 <= chain.lost <= 1.0
        assert chain.bytes_mean > 0.0
    assert chains[0].bytes_mean <= 32 * 49 * 4 / 8 + 8  # 32 channels of 7x7 in four bits, and a header
    again = measure_chains(NAME, images, pairs, 0, tmp_path / "part.jsonl", jobs=1, weights=weights)
    assert again == chains
    assert chain_table(NAME, chains, "here").provenance.n == 2


def test_the_middle_server_runs_what_is_deployed(weights: Path, images: Path) -> None:
    """The same values by hand, out of the models that `runtime` exports."""
    trained = load_trained(NAME, weights)
    pixels = np.stack([load_square(images / label / "0.png", trained.system.net.input_px) for label in ("ant", "bee")])
    knobs = {k.id: k for k in trained.knobs}
    first, second = knobs[FROM_CUT[0]], knobs[FROM_CUT[1]]
    with torch.inference_mode():
        ((point, arrived, partition, sizes),) = _arrived(trained, pixels, {FROM_CUT[0]})
        assert (point, partition, len(sizes)) == (FROM_CUT[0], 4, 2)
        ((found, later, values, onward),) = _again(NAME, weights, arrived, partition, [FROM_CUT[1]])
        assert (found, later) == (FROM_CUT[1], 5)
        models = head_model(trained.system, 4, 0.25), middle_model(trained.system, 4, 5)
        head, middle = (session(model.SerializeToString()) for model in models)
        for row in range(2):
            _, y, score = map(torch.from_numpy, head.run(None, {"x": scale(pixels[row : row + 1]).numpy()}))
            sent, _ = trained.codec.decompress(trained.codec.compress(y[0], score[0, 0], first))
            _, y, score = map(torch.from_numpy, middle.run(None, {"x": sent[None].numpy()}))
            payload = trained.codec.compress(y[0], score[0, 0], second)
            assert abs(len(payload) - onward[row]) <= 4
            close = torch.isclose(values[row], trained.codec.decompress(payload)[0], atol=1e-3)
            assert close.float().mean() > 0.97  # a value on the border of two steps may fall to either side


@pytest.mark.parametrize(
    ("pair", "sentence"),
    [
        (("device-c1.00", "p5-c1.00-r1.00-b4"), "a picture or an inner cut expected"),
        (("p0-jpeg-q50", "p0-jpeg-q30"), "an inner cut behind it"),
        (("p4-c0.25-r1.00-b8", "p4-c1.00-r1.00-b4"), "a second cut behind the first expected"),
        (("p0-jpeg-q50", "p5-c0.50-r1.00-b4"), r"at ratio 1\.00"),
    ],
)
def test_pairs_that_cannot_be(
    pair: tuple[str, str], sentence: str, weights: Path, images: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=sentence):
        measure_chains(NAME, images, [pair], 0, tmp_path / "part.jsonl", jobs=1, weights=weights)


def test_foreign_classes_are_refused(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    with pytest.raises(ValueError, match="class folders that the CNN does not know"):
        measure_chains(NAME, tmp_path, [FROM_CUT], 0, tmp_path / "part.jsonl", jobs=1, weights=weights)


def test_how_far_the_assumption_is_off() -> None:
    """The uncut CNN has 0.92, one with the second cut only 0.89: 0.03 is the cost if losses add up."""

    def chain(lost: float) -> Chain:
        return Chain(
            first="jpeg95", second="cut2-w100-b2", accuracy=0.8, accuracy_ci95=(0.7, 0.9), lost=lost, bytes_mean=1.0,
            bytes_std=0.0, n=9,
        )  # fmt: skip

    told = assumption(synthetic_profile(), [chain(0.05), chain(0.02)])
    assert told == "if losses added up: 0.0150 off in the mean, 0.0200 at most, 1 of 2 too hopeful"
