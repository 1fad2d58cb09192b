import json

import numpy as np
import pytest
import torch
from PIL import Image

from tidesplit.compression.codec.pixels import natural_picture
from tidesplit.compression.fitting.fit_ranges import main
from tidesplit.compression.net.int8 import measure_ranges
from tidesplit.compression.net.system import SplitNet
from tidesplit.models.cifar_resnet import CifarResNet
from tidesplit.models.weights import load_weights, save_weights
from tidesplit.profiling.measuring.trained import load_trained


def test_ranges_go_from_training_pictures_to_the_trained_network(tmp_path, capsys):
    for label in ("ant", "bee"):
        (tmp_path / "train" / label).mkdir(parents=True)
        for i in range(2):
            Image.fromarray(natural_picture(32, seed=i)).save(tmp_path / "train" / label / f"{i}.png")
    torch.manual_seed(0)
    weights, system = tmp_path / "w.safetensors", SplitNet(CifarResNet(2))
    save_weights(weights, system, {"classes": json.dumps(["ant", "bee"])})
    assert load_trained("cifar_resnet", weights).ranges is None
    load_trained.cache_clear()
    call = ["--model", "cifar_resnet", "--data", str(tmp_path), "--weights", str(weights), "--threads", "1"]
    assert main(call) == 0
    assert capsys.readouterr().out.endswith("values, from 4 pictures\n")
    trained = load_trained("cifar_resnet", weights)
    load_trained.cache_clear()
    load_weights(weights, system)
    images = np.stack([natural_picture(32, seed=i) for i in range(2)])
    assert trained.ranges == measure_ranges(system, images)
    assert trained.precisions == ("float32", "int8")


@pytest.mark.parametrize("words", [["--data", "nowhere"], ["--data", ".", "--pictures", "0"], ["--weights", "none"]])
def test_a_users_mistake_gets_a_sentence(words, capsys):
    assert main([*words, *([] if "--data" in words else ["--data", "."])]) == 2
    assert capsys.readouterr().err.startswith("tidesplit fit-ranges: error: ")
