import dataclasses

import numpy as np
import pytest
import torch

from tidesplit.compression.codec.knobs import RATIOS
from tidesplit.compression.codec.pixels import natural_picture
from tidesplit.compression.net.system import SplitNet
from tidesplit.compression.phase.config import TrainConfig
from tidesplit.compression.phase.parts import load_checkpoint
from tidesplit.compression.phase.phase_loop import TrainingJob
from tidesplit.compression.pictures.labelled import Pictures, split
from tidesplit.compression.training.distillation import answer
from tidesplit.compression.training.fullwidth import exclusive_masks, train_full_width
from tidesplit.compression.training.refine import _lesson, blend, refine, trained_of
from tidesplit.compression.training.warmup import warm_bottlenecks
from tidesplit.models.cifar_resnet import CifarResNet
from tidesplit.models.efficientnet_lite0 import EfficientNetLite0
from tidesplit.models.slim import fold_tails


def job(pictures, config, **more):
    return TrainingJob(pictures, np.arange(8), dataclasses.replace(config, **more), torch.device("cpu"))


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
    train_full_width(system, answer(lambda x: system.device(x, 0.75)), job(pictures, config))
    with torch.no_grad():
        after = [system.device(image, ratio) for ratio in RATIOS]
    assert [torch.equal(b, a) for b, a in zip(before, after, strict=True)] == [True, True, True, False]
    assert all(parameter.requires_grad for parameter in system.parameters())


def test_a_stopped_full_width_phase_goes_on(system, pictures, config, monkeypatch):
    monkeypatch.setattr("tidesplit.compression.phase.phase_loop.SAVE_S", 0.0)
    start = snapshot(system)
    teacher = answer(lambda x: x.new_zeros(len(x), 3))
    train_full_width(system, teacher, job(pictures, config, fullwidth_steps=2))
    system.load_state_dict(start)
    train_full_width(system, teacher, job(pictures, config, resume=True))
    assert changed(start, system)


def test_crops_become_larger_and_milder_at_the_end(config):
    late = dataclasses.replace(config, px=16, end_px=32, end_area=0.5, end_share=0.25)
    assert [late.crops(fraction).px for fraction in (0.0, 0.7, 0.75, 1.0)] == [16, 16, 32, 32]
    assert late.crops(0.8).area == (0.5, 1.0)
    assert config.crops(1.0) == config.crops(0.0)


def test_every_picture_can_be_trained_on(pictures):
    index, held = split(pictures.labels, 0.0, 0)
    assert index.tolist() == list(range(8))
    assert held.tolist() == []


@pytest.mark.parametrize("size", [4, 5])
def test_half_of_a_batch_is_blended_with_the_other(size):
    image, hard = torch.rand(size, 3, 2, 2), torch.eye(size)
    blended, target = blend(image, hard, np.random.default_rng(0))
    plain = size - size // 2
    assert torch.equal(blended[:plain], image[:plain])
    torch.testing.assert_close(target.sum(1), torch.ones(size))
    torch.testing.assert_close(blended, torch.einsum("ij,jchw->ichw", target, image))
    assert bool((target[plain:].amax(1) < 1.0).all())


def test_refining_a_partition_changes_nothing_that_others_use(system, pictures, config):
    before = snapshot(system)
    refine(system, job(pictures, config, partitions="2"))
    found = changed(before, system)
    assert found
    assert all(name.startswith("bottlenecks.1.") or ".p2." in name for name in found)
    assert not [name for name in found if "running" in name]
    own = trained_of(system, 2)
    assert len(own) == len(set(map(id, own)))
    assert all(parameter.requires_grad for parameter in system.parameters())


def test_a_stopped_refinement_goes_on(system, pictures, config, monkeypatch):
    monkeypatch.setattr("tidesplit.compression.phase.phase_loop.SAVE_S", 0.0)
    refine(system, job(pictures, config, refine_steps=2))
    state = load_checkpoint(config.folder / "refine.pt")
    assert state["step"] == 2
    refine(system, job(pictures, config, refine_steps=5, resume=True))
    state = load_checkpoint(config.folder / "refine.pt")
    assert state["step"] == 5


def test_refining_by_the_clock_ends(system, pictures, config):
    refine(system, job(pictures, config, refine_minutes=0.01))


def test_cuts_set_back_are_the_uncut_net_after_a_perfect_bottleneck(system, pictures, config):
    """The tail loses all that it had learned before, and nothing else changes."""
    own = trained_of(system, 2)
    with torch.no_grad():
        for parameter in own:
            parameter.add_(0.1)
    before, image = snapshot(system), torch.rand(2, 3, 32, 32) * 2 - 1
    warm_bottlenecks(system, job(pictures, config, partitions="2", warmup_steps=2, start_px=32))
    system.eval()
    with torch.no_grad():
        feature = system.net.heads(image, "r100", 2)[1]
        torch.testing.assert_close(system.net.part(feature, "p2", 2, 3), system.device(image, 1.0))
    assert all(name.startswith("bottlenecks.1.") or ".p2" in name for name in changed(before, system))
    assert changed(before, system)


def test_folded_statistics_leave_the_function_as_it_is(system):
    with torch.no_grad():
        for buffer in system.net.buffers():
            if buffer.is_floating_point():
                buffer.uniform_(0.5, 2.0)
        feature = torch.rand(2, *system.net.shape(1))
        expected = system.net.part(feature, "p1", 1, 3)
        whole = system.device(torch.zeros(1, 3, 32, 32), 1.0)
        fold_tails(system.net)
        torch.testing.assert_close(system.net.part(feature, "p1", 1, 3), expected)
        assert torch.equal(system.device(torch.zeros(1, 3, 32, 32), 1.0), whole)
    statistics = [b for name, b in system.net.named_buffers() if ".p1.running_mean" in name]
    assert statistics
    assert not any(bool(b.any()) for b in statistics)


def test_features_are_used_several_times(system, pictures, config, monkeypatch):
    made = []
    monkeypatch.setattr(
        "tidesplit.compression.training.refine._lesson", lambda *a, of=_lesson: made.append(1) or of(*a)
    )
    refine(system, job(pictures, config, refine_steps=8, refine_reuse=4))
    assert len(made) == 2
