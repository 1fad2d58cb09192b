"""Image offload fitted to small pictures, on a few pictures and an untrained net."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tidesplit.compression.codec.image_codec import SMALLER_PX
from tidesplit.compression.codec.learned_entropy import named
from tidesplit.compression.codec.pixels import natural_picture
from tidesplit.compression.fitting.fit_entropy import fit_tables
from tidesplit.compression.net.system import SplitNet
from tidesplit.compression.phase.config import TrainConfig
from tidesplit.compression.phase.parts import load_checkpoint
from tidesplit.compression.phase.phase_loop import TrainingJob
from tidesplit.compression.pictures.labelled import Pictures
from tidesplit.compression.training import small_pictures
from tidesplit.compression.training.distillation import answer
from tidesplit.compression.training.fit_pictures import main
from tidesplit.compression.training.fullwidth import train_full_width
from tidesplit.compression.training.small_pictures import Crops, fit_small_pictures, offload_parameters, sent
from tidesplit.models.cifar_resnet import CifarResNet
from tidesplit.models.efficientnet_lite0 import RANKS, EfficientNetLite0
from tidesplit.models.weights import load_tables, load_weights, read_metadata, save_tables, save_weights


def net_of(made, *arguments):
    torch.manual_seed(0)
    return SplitNet(made(*arguments)).eval()


@pytest.fixture
def job(tmp_path):
    images = np.stack([natural_picture(32, seed=i) for i in range(8)])
    config = dataclasses.replace(TrainConfig(), out=str(tmp_path / "run"), batch=4, threads=1, pictures_steps=3)
    return TrainingJob(Pictures(images, np.arange(8) % 2, ("ant", "bee")), np.arange(8), config, torch.device("cpu"))


@pytest.fixture(autouse=True)
def torch_settings():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small tensors: a second thread only waits
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


def changed(before, module):
    return {name for name, value in module.state_dict().items() if not torch.equal(before[name], value)}


def snapshot(module):
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("made", [CifarResNet, EfficientNetLite0])
def test_only_weights_of_image_offload_change_and_no_statistics(made, job):
    system = net_of(made, 2)
    system.net.input_px = 32
    before = snapshot(system)
    fit_small_pictures(system, job)
    found = changed(before, system)
    assert found
    assert all("p0" in name.split(".") for name in found)
    assert not [name for name in found if "running" in name]
    assert any("_low.up.p0" in name for name in found) == (made is EfficientNetLite0)
    assert all(parameter.requires_grad for parameter in system.parameters())


def test_a_stopped_fit_goes_on_and_a_fit_by_the_clock_ends(job, monkeypatch):
    monkeypatch.setattr("tidesplit.compression.phase.phase_loop.SAVE_S", 0.0)
    system = net_of(CifarResNet, 2)
    fit_small_pictures(system, job)
    assert load_checkpoint(job.config.folder / "pictures.pt")["step"] == 3
    longer = dataclasses.replace(job.config, pictures_steps=6, resume=True)
    fit_small_pictures(system, dataclasses.replace(job, config=longer))
    assert load_checkpoint(job.config.folder / "pictures.pt")["step"] == 6
    brief = dataclasses.replace(job.config, pictures_minutes=0.005)
    fit_small_pictures(system, dataclasses.replace(job, config=brief))


def test_training_lowers_the_loss(job):
    system = net_of(CifarResNet, 2)

    def loss():
        rng = np.random.default_rng(0)
        hard = torch.from_numpy(job.pictures.labels)
        image = torch.from_numpy(job.pictures.images).permute(0, 3, 1, 2) / 127.5 - 1
        lesson: Crops = small_pictures._crops(system, image, hard, rng)
        with torch.no_grad():
            return float(sum(small_pictures._losses(system, lesson, rng)))

    with torch.no_grad():
        for parameter in offload_parameters(system):
            parameter.mul_(0.5)
    before = loss()
    config = dataclasses.replace(job.config, pictures_steps=24, pictures_lr=2e-2)
    fit_small_pictures(system, dataclasses.replace(job, config=config))
    assert loss() < 0.9 * before


def test_pictures_cross_at_every_size_and_with_both_codecs(monkeypatch):
    seen = []
    original = small_pictures.encode_image
    monkeypatch.setattr(small_pictures, "encode_image", lambda *a: seen.append(a[1:]) or original(*a))
    rng, picture = np.random.default_rng(0), natural_picture(224)
    for _ in range(200):
        assert sent(picture, rng).shape == picture.shape
    codecs, qualities, sides = zip(*seen, strict=True)
    assert set(codecs) == {"jpeg", "webp"}
    assert set(sides) == {224, *SMALLER_PX}
    assert 5 <= min(qualities) < 20
    assert 80 < max(qualities) <= 95
    assert sent(natural_picture(32), rng).shape == (32, 32, 3)


def test_the_full_width_does_not_inherit_a_fit_for_small_pictures(job, monkeypatch):
    """The uncut net gets the BatchNorms of image offload, but it cannot have its additions."""
    monkeypatch.setitem(RANKS, "p0", 2)
    system = net_of(EfficientNetLite0, 2)
    system.net.input_px = 32
    with torch.no_grad():
        for name, parameter in system.net.named_parameters():
            if "_low.up.p0" in name:
                parameter.fill_(0.1)
    short = dataclasses.replace(job.config, fullwidth_steps=1, px=32)
    train_full_width(system, answer(lambda x: x.new_zeros(len(x), 2)), dataclasses.replace(job, config=short))
    image = torch.rand(1, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        assert torch.equal(system.offload(image), system.device(image, 1.0))


def test_the_command_changes_image_offload_in_the_file_and_nothing_else(tmp_path, capsys):
    for label in ("ant", "bee"):
        (tmp_path / "data" / "train" / label).mkdir(parents=True)
        for i in range(5):
            Image.fromarray(natural_picture(32, seed=i)).save(tmp_path / "data" / "train" / label / f"{i}.png")
    system, weights = net_of(CifarResNet, 2), tmp_path / "w.safetensors"
    save_weights(weights, system, {"classes": json.dumps(["ant", "bee"])})
    save_tables(weights, named(fit_tables(system, np.stack([natural_picture(32)]))))
    tables, before = load_tables(weights), load_file(weights)
    load_weights(weights, system)
    state = snapshot(system)
    arguments = ["--model", "cifar_resnet", "--data", str(tmp_path / "data"), "--weights", str(weights)]
    arguments += ["--out", str(tmp_path / "run"), "--steps", "3", "--batch", "4", "--holdout", "0.2", "--lr", "0.01"]
    assert main([*arguments, "--threads", "1"]) == 0
    assert "held-out accuracy (n = 2)" in capsys.readouterr().out
    load_weights(weights, system)
    found = changed(state, system)
    assert found
    assert all("p0" in name.split(".") for name in found)
    assert load_tables(weights) == tables
    assert all(torch.equal(tensor, load_file(weights)[name]) for name, tensor in before.items() if ".p0." not in name)
    assert json.loads(read_metadata(weights)["pictures"])["pictures_steps"] == 3
    assert read_metadata(weights)["classes"] == '["ant", "bee"]'
