import json

import numpy as np
import pytest
import torch
from PIL import Image

from tidesplit.compression.codec.knobs import RATIOS, Knobs
from tidesplit.compression.codec.learned_entropy import CODED_BITS, named
from tidesplit.compression.codec.pixels import natural_picture
from tidesplit.compression.fitting.fit_streams import _Counts, fit_changes, main
from tidesplit.compression.net.cut_codec import Codec, load_changes, save_changes
from tidesplit.compression.net.system import SplitNet
from tidesplit.models.cifar_resnet import CifarResNet
from tidesplit.models.weights import save_weights
from tidesplit.profiling.measuring.trained import Trained, load_trained
from tidesplit.profiling.points.profile import OperatingPoint, StreamBytes
from tidesplit.runtime.cnn import CnnError, load_cnn
from tidesplit.runtime.export import export, for_device


@pytest.fixture(scope="module")
def system():
    torch.manual_seed(0)
    return SplitNet(CifarResNet(2)).eval()


@pytest.fixture(scope="module")
def tables(system):
    """Of one static, one handheld and one vehicle's clip."""
    return fit_changes(system, np.stack([natural_picture(38, seed=i) for i in range(3)]))


def test_streams_take_fewer_bytes_than_keys_and_are_decoded_exactly(system, tables):
    wire = Codec(system, changes=named(tables)).wire
    assert set(wire.changes) == {(p, bits) for p in (1, 2) for bits in CODED_BITS}
    rng, picture = np.random.default_rng(1), natural_picture(32, seed=9)
    frames = [(picture + rng.normal(0, 2.5, picture.shape)).clip(0, 255).astype(np.uint8) for _ in range(4)]
    x = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        _, y, score = system.head(x, 2, 1.0)
    for bits in CODED_BITS:
        knobs, memory, sizes, received = Knobs(2, 1.0, 1.0, bits), None, [], None
        for values, where in zip(y.numpy(), score.numpy(), strict=True):
            payload, memory = wire.encode_next(values, where[0], knobs, memory)
            _, _, received = wire.decode_next(payload, received)
            assert received.check == memory.check
            sizes.append(len(payload))
        assert max(sizes[1:]) < 0.5 * sizes[0]


def test_tables_are_those_of_what_was_met(system):
    """Codes that never change give the longest runs; the usual code is the most common one of a key."""
    wire = Codec(system).wire
    counts, cut = _Counts(wire, 1, 2), wire.cuts[1]
    low, step = (levels[1][1, :, None, None] for levels in (wire.low, wire.step))
    still = (np.zeros((1, cut.height, cut.width)) + low + 2 * step).astype(np.float32)
    for _ in range(5):
        counts.clip(1.0, dict.fromkeys(range(65), still))
    tables = counts.tables()
    assert (tables.usual == 2).all()
    assert tables.activity[RATIOS.index(1.0), 0, 0] == 12
    assert tables.activity[0, 0, 0] > 9  # of another ratio, never met: as at all ratios
    assert tables.activity[0, 1, 0] == 0  # of another rate


def write_weights(folder, system):
    for label in ("ant", "bee"):
        (folder / "train" / label).mkdir(parents=True)
        for i in range(2):
            Image.fromarray(natural_picture(32, seed=i)).save(folder / "train" / label / f"{i}.png")
    save_weights(folder / "w.safetensors", system, {"classes": json.dumps(["ant", "bee"])})
    return folder / "w.safetensors"


def test_tables_go_from_training_pictures_to_device_and_server(system, tmp_path, capsys):
    weights = write_weights(tmp_path, system)
    assert load_changes(weights, system) == {}
    call = ["--model", "cifar_resnet", "--data", str(tmp_path), "--weights", str(weights), "--threads", "1"]
    before = weights.read_bytes()
    assert main(call) == 0
    assert capsys.readouterr().out.endswith("w.streams.json: 6 tables, 2,580 bytes, from 4 pictures\n")
    assert weights.read_bytes() == before
    source = load_trained("cifar_resnet", weights)
    load_trained.cache_clear()
    assert named(source.codec.wire.changes) == load_changes(weights, source.system)
    cnn = export(source, tmp_path / "cnn")
    assert named(cnn.codec.changes) == named(source.codec.wire.changes)
    manifest = tmp_path / "cnn" / "cnn.json"
    told = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({k: v for k, v in told.items() if k != "changes"}))  # of an older export
    assert not load_cnn(tmp_path / "cnn").codec.changes
    manifest.write_text(json.dumps({**told, "changes": {"p1-b2": "AAAA"}}))
    with pytest.raises(CnnError, match="bytes expected, 3 received"):
        load_cnn(tmp_path / "cnn")


def test_tables_belong_to_their_weights(system, tables, tmp_path):
    weights = tmp_path / "w.safetensors"
    assert save_changes(weights, system, named(tables)) == tmp_path / "w.streams.json"
    assert load_changes(weights, system) == named(tables)
    with pytest.raises(ValueError, match="made for other weights: tidesplit fit-streams writes it"):
        load_changes(weights, SplitNet(CifarResNet(2)))


def test_a_cnn_without_tables_says_which_point_needs_them(system):
    source = Trained(system, Codec(system), ("ant", "bee"), "0" * 64)
    point = OperatingPoint(
        id="p1-c1.00-r1.00-b2-s", partition=1, channel_ratio=1.0, region_ratio=1.0, bits=2, codec="feature",
        accuracy=0.9, accuracy_ci95=(0.8, 1.0), bytes_mean=50.0, bytes_std=5.0, n=100, fallback=None,
        stream=StreamBytes(by_age=(50.0,) * 6, key=300.0),
    )  # fmt: skip
    with pytest.raises(CnnError, match=r"'p1-c1.00-r1.00-b2-s' needs tables of streams, and cifar_resnet has none"):
        for_device(source, [point])


@pytest.mark.parametrize("words", [["--data", "nowhere"], ["--data", ".", "--pictures", "0"]])
def test_a_mistake_in_the_call_is_a_sentence(words, capsys):
    assert main(words) == 2
    assert capsys.readouterr().err.startswith("tidesplit fit-streams: error: ")
