import dataclasses

import numpy as np
import pytest
import torch

from compression.config import TrainConfig
from compression.crops import epochs_in, read_crops, write_epoch
from compression.fullwidth import exclusive_masks, train_full_width
from compression.knobs import RATIOS
from compression.pictures import Pictures
from compression.pixels import natural_picture
from compression.refine import refine, trained_of
from compression.system import SplitNet
from compression.teacher import answer
from models.cifar_resnet import CifarResNet
from models.efficientnet_lite0 import EfficientNetLite0

CPU = torch.device("cpu")


@pytest.fixture
def pictures():
    images = np.stack([natural_picture(32, seed=i) for i in range(8)])
    return Pictures(images, np.arange(8) % 3, ("ant", "bee", "cat"))


@pytest.fixture
def config(tmp_path):
    return dataclasses.replace(
        TrainConfig(), out=str(tmp_path), px=32, batch=4, threads=1, fullwidth_steps=4, refine_steps=3
    )


@pytest.fixture
def system():
    torch.manual_seed(0)
    return SplitNet(CifarResNet(3)).eval()


def snapshot(module):
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def changed(before, module):
    return {name for name, value in module.state_dict().items() if not torch.equal(before[name], value)}


def test_masks_cover_the_last_quarter_of_inner_channels():
    masks = exclusive_masks(EfficientNetLite0(5))
    assert masks["blocks.3.expand"].flatten().tolist() == [0.0] * 108 + [1.0] * 36
    assert masks["blocks.3.project"].shape == (1, 144, 1, 1)
    assert masks["classifier.weight"].flatten().tolist() == [0.0] * 960 + [1.0] * 320
    assert float(masks["stem"].sum()) == 8.0


def test_training_the_full_width_leaves_the_slim_nets_as_they_are(system, pictures, config):
    image = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        before = [system.device(image, ratio) for ratio in RATIOS]
    train_full_width(system, answer(lambda x: system.device(x, 0.75)), pictures, np.arange(8), config, CPU)
    with torch.no_grad():
        after = [system.device(image, ratio) for ratio in RATIOS]
    assert [torch.equal(b, a) for b, a in zip(before, after, strict=True)] == [True, True, True, False]
    assert all(parameter.requires_grad for parameter in system.parameters())


def test_a_stopped_full_width_phase_goes_on(system, pictures, config, monkeypatch):
    monkeypatch.setattr("compression.fullwidth.SAVE_EVERY", 2)
    start = snapshot(system)
    teacher = answer(lambda x: x.new_zeros(len(x), 3))
    train_full_width(system, teacher, pictures, np.arange(8), dataclasses.replace(config, fullwidth_steps=2), CPU)
    system.load_state_dict(start)
    train_full_width(system, teacher, pictures, np.arange(8), dataclasses.replace(config, resume=True), CPU)
    assert changed(start, system)


def test_crops_hold_what_the_heads_give(system, pictures, config, tmp_path):
    write_epoch(tmp_path, 0, system, answer(lambda x: x.new_zeros(len(x), 3)), pictures, np.arange(8), 32, config, CPU)
    (epoch,) = epochs_in(tmp_path)
    crops = list(read_crops(tmp_path, 2, np.random.default_rng(0)))
    assert len(crops) == 2
    assert crops[0].feature.shape == (4, *system.net.feature_shape(system.net.cuts[1], 32))
    torch.testing.assert_close(crops[0].target.sum(1), torch.ones(4), rtol=1e-3, atol=1e-3)
    assert {crop.ratio for crop in crops} <= set(RATIOS)
    stamp = epoch.stat().st_mtime_ns
    write_epoch(tmp_path, 0, system, answer(lambda x: x.new_zeros(len(x), 3)), pictures, np.arange(8), 32, config, CPU)
    assert epoch.stat().st_mtime_ns == stamp


def test_refining_a_partition_changes_nothing_that_others_use(system, pictures, config, tmp_path):
    write_epoch(tmp_path, 0, system, answer(lambda x: x.new_zeros(len(x), 3)), pictures, np.arange(8), 32, config, CPU)
    before = snapshot(system)
    refine(system, tmp_path, dataclasses.replace(config, partitions="2"), CPU)
    found = changed(before, system)
    assert found
    assert all(name.startswith("bottlenecks.1.") or ".p2." in name for name in found)
    assert not [name for name in found if "running" in name]
    own = trained_of(system, 2)
    assert len(own) == len(set(map(id, own)))


def test_refining_without_crops_is_an_error(system, config, tmp_path):
    with pytest.raises(FileNotFoundError, match="no crops"):
        refine(system, tmp_path, config, CPU)
