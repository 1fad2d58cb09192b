import json

import numpy as np
import pytest
import torch
from PIL import Image

from tidesplit.compression.codec.knobs import RATIOS, Knobs, all_knobs
from tidesplit.compression.codec.learned_entropy import named
from tidesplit.compression.codec.pixels import natural_picture
from tidesplit.compression.fitting.fit_entropy import fit_tables, main
from tidesplit.compression.net.cut_codec import Codec
from tidesplit.compression.net.system import SplitNet
from tidesplit.models.cifar_resnet import CifarResNet
from tidesplit.models.weights import load_tables, read_metadata, save_weights
from tidesplit.profiling.measuring.trained import load_trained
from tidesplit.runtime.cnn import CnnError, load_cnn
from tidesplit.runtime.export import export


@pytest.fixture(scope="module")
def system():
    torch.manual_seed(0)
    return SplitNet(CifarResNet(2)).eval()


@pytest.fixture(scope="module")
def tables(system):
    return fit_tables(system, np.stack([natural_picture(32, seed=i) for i in range(30)]))


def head(system, partition, ratio, seed):
    image = torch.from_numpy(natural_picture(32, seed=seed)).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        _, y, score = system.head(image, partition, ratio)
    return y[0], score[0, 0]


def test_every_operating_point_is_decoded_exactly_and_most_take_fewer_bytes(system, tables):
    plain, coded = Codec(system), Codec(system, tables=named(tables))
    heads = {(p, ratio): head(system, p, ratio, seed=100) for p in (1, 2) for ratio in RATIOS}
    shorter = []
    for knobs in all_knobs(system.net.partitions):
        y, score = heads[knobs.partition, knobs.ratio]
        data = coded.compress(y, score, knobs)
        values, read = coded.decompress(data)
        assert read == knobs
        assert torch.equal(values, coded.forward(y, score, knobs)), knobs.id
        size = len(plain.compress(y, score, knobs))
        assert len(data) <= size
        shorter.append(len(data) < size)
    assert np.mean(shorter) > 0.5  # of 8 bits there are no tables


def test_tables_go_from_the_weights_file_to_device_and_server(system, tmp_path):
    for label in ("ant", "bee"):
        (tmp_path / "data" / "train" / label).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(natural_picture(32, seed=i)).save(tmp_path / "data" / "train" / label / f"{i}.png")
    weights = tmp_path / "w.safetensors"
    save_weights(weights, system, {"classes": json.dumps(["ant", "bee"])})
    threads = torch.get_num_threads()
    arguments = ["--model", "cifar_resnet", "--data", str(tmp_path / "data"), "--weights", str(weights)]
    try:
        assert main(arguments) == main(arguments) == 0  # the second time in place of the first's
    finally:
        torch.set_num_threads(threads)
    assert read_metadata(weights)["classes"] == '["ant", "bee"]'
    source = load_trained("cifar_resnet", weights)
    assert len(source.codec.wire.tables) == 6
    cnn = export(source, tmp_path / "cnn")
    assert named(cnn.codec.tables) == load_tables(weights)
    knobs = Knobs(1, 0.25, 1.0, 2)
    y, score = head(source.system, 1, 0.25, seed=5)
    assert cnn.codec.encode(y.numpy(), score.numpy(), knobs) == source.codec.compress(y, score, knobs)


def test_a_folder_without_tables_loads_and_one_with_broken_ones_does_not(system, tmp_path):
    weights = tmp_path / "w.safetensors"
    save_weights(weights, system, {"classes": json.dumps(["ant", "bee"])})
    assert load_tables(weights) == {}
    source = load_trained("cifar_resnet", weights)
    assert not export(source, tmp_path / "cnn").codec.tables
    manifest = tmp_path / "cnn" / "cnn.json"
    told = json.loads(manifest.read_text())
    del told["tables"]
    manifest.write_text(json.dumps(told))
    assert not load_cnn(tmp_path / "cnn").codec.tables
    manifest.write_text(json.dumps({**told, "tables": {"p1-b2": "AAAA"}}))
    with pytest.raises(CnnError, match="bytes expected, 3 received"):
        load_cnn(tmp_path / "cnn")


def test_a_file_that_is_missing_is_a_sentence(tmp_path, capsys):
    assert main(["--data", str(tmp_path), "--weights", str(tmp_path / "none")]) == 2
    assert "tidesplit fit-entropy: error" in capsys.readouterr().err
