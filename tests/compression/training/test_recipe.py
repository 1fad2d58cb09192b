import dataclasses
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from tidesplit.compression.codec.pixels import natural_picture
from tidesplit.compression.fitting import fit_entropy
from tidesplit.compression.net.system import SplitNet
from tidesplit.compression.phase.config import TrainConfig, parse
from tidesplit.compression.pictures import packed
from tidesplit.compression.pictures.labelled import Pictures, load_pictures
from tidesplit.compression.pictures.packed import load_packed, write_folder
from tidesplit.compression.training import fit_pictures, recipe
from tidesplit.compression.training.recipe import train
from tidesplit.models.cifar_resnet import CifarResNet
from tidesplit.models.registry import MODELS, weights_path
from tidesplit.models.weights import load_weights, read_metadata, save_weights


@pytest.fixture
def config(tmp_path):
    for label in ("ant", "bee"):
        (tmp_path / "data" / "train" / label).mkdir(parents=True)
        for i in range(12):
            Image.fromarray(natural_picture(32, seed=i)).save(tmp_path / "data" / "train" / label / f"{i}.png")
    return dataclasses.replace(
        TrainConfig(),
        model="cifar_resnet", data=str(tmp_path / "data"), out=str(tmp_path / "run"), weights=str(tmp_path / "w"),
        px=32, start_px=32, batch=8, finetune_epochs=1, rank_steps=2, warmup_steps=2, sandwich_epochs=1.0,
        fullwidth_steps=2, refine_steps=2, pictures_steps=2, threads=1,
    )  # fmt: skip


def commands(text):
    """Arguments of each `tidesplit train-cnn` that begins a line of a card, without its comment."""
    lines = text.replace("\\\n", " ").splitlines()
    found = [line.split("#")[0].split() for line in lines if line.startswith("    tidesplit train-cnn")]
    return [words[2:] for words in found]


@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_cards_commands_are_understood(name):
    asked = commands(weights_path(name).with_suffix(".md").read_text(encoding="utf-8"))
    assert asked
    for words in asked:
        assert parse(words).model == name


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["tidesplit.compression.training.recipe", "--data", "nowhere"], r"tidesplit train-cnn: error: .*nowhere"),
        (["tidesplit.compression.training.recipe", "--model", "resnet"], r"no CNN called 'resnet'"),
        (
            ["tidesplit.compression.training.recipe", "--teacher", "lite9"],
            r"tidesplit train-cnn: error: no teacher called 'lite9'",
        ),
        (
            ["tidesplit.compression.pictures.packed", "nowhere.npz", "out"],
            r"tidesplit unpack: error: .*nowhere\.npz",
        ),
        (
            ["tidesplit.compression.fitting.fit_entropy", "--data", "nowhere", "--weights", "w"],
            r"tidesplit fit-entropy: error: .*w",
        ),
        (
            ["tidesplit.compression.training.fit_pictures", "--data", "nowhere", "--weights", "w"],
            r"tidesplit fit-pictures: error: .*w",
        ),
    ],
)
def test_a_users_mistake_gets_a_sentence(words, sentence, tmp_path):
    call = [
        sys.executable,
        "-m",
        *words,
        *(["--out", str(tmp_path)] if words[0] == "tidesplit.compression.training.recipe" else []),
    ]
    done = subprocess.run(call, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert re.search(sentence, done.stderr)
    assert "Traceback" not in done.stderr


@pytest.fixture(autouse=True)
def torch_settings():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


def test_all_phases_run_and_a_stopped_run_goes_on(config, tmp_path, capsys):
    with pytest.raises(SystemExit, match="rank"):
        train(dataclasses.replace(config, until="rank"))
    assert not (tmp_path / "w").exists()
    train(dataclasses.replace(config, resume=True))
    assert capsys.readouterr().out.count("finetune 2/2") == 1
    net = SplitNet(CifarResNet(2))
    load_weights(tmp_path / "w", net)
    assert read_metadata(tmp_path / "w")["classes"] == '["ant", "bee"]'
    with torch.no_grad():
        assert torch.isfinite(net.device(torch.zeros(1, 3, 32, 32), 0.25)).all()


def test_the_last_phases_start_from_weights_and_do_not_change_slim_nets(config, tmp_path):
    torch.manual_seed(0)
    start = SplitNet(CifarResNet(2)).eval()
    save_weights(tmp_path / "start", start, {})
    load_weights(tmp_path / "start", start)
    train(dataclasses.replace(config, start_from=str(tmp_path / "start"), holdout=0.0, end_px=40))
    after, image = SplitNet(CifarResNet(2)), torch.rand(1, 3, 32, 32)
    load_weights(tmp_path / "w", after)
    with torch.no_grad():
        assert torch.equal(after.device(image, 0.5), start.device(image, 0.5))
        assert not torch.equal(after.device(image, 1.0), start.device(image, 1.0))


def test_an_unknown_partition_is_an_error_before_any_phase(config, tmp_path):
    with pytest.raises(ValueError, match="--partitions 2,7 received, of 1, 2 expected"):
        train(dataclasses.replace(config, partitions="2,7"))
    assert not (tmp_path / "run").exists()


def test_an_unknown_teacher_is_an_error(config, tmp_path):
    save_weights(tmp_path / "start", SplitNet(CifarResNet(2)), {})
    with pytest.raises(ValueError, match="no teacher called 'lite9'"):
        train(dataclasses.replace(config, start_from=str(tmp_path / "start"), teacher="lite9"))


def test_packed_pictures_of_the_shared_folder(shared, tmp_path):
    path = shared / "data" / "cifar10" / "cifar10_jpeg_test_packed.npz"
    if not path.exists():
        pytest.skip("needs the packed CIFAR-10 pictures")
    pictures = load_packed(path)
    assert pictures.images.shape == (10000, 32, 32, 3)
    assert [pictures.classes[i] for i in pictures.labels[:4]] == ["cat", "ship", "ship", "airplane"]
    few = Pictures(pictures.images[:3], pictures.labels[:3], pictures.classes)
    write_folder(few, tmp_path / "out")
    assert load_pictures(tmp_path / "out", 32).classes == pictures.classes


def test_published_pixels_become_class_folders(tmp_path):
    images = np.stack([natural_picture(32, seed=i) for i in range(3)])
    arrays = {"x_test": images, "y_test": np.uint8([1, 0, 1]), "label_names": np.array(["bee", "ant"])}
    np.savez(tmp_path / "few.npz", **arrays)
    packed.main([str(tmp_path / "few.npz"), str(tmp_path / "out")])
    again = load_pictures(tmp_path / "out", 32)
    assert again.classes == ("ant", "bee")
    assert again.labels.tolist() == [0, 0, 1]
    assert np.array_equal(again.images, images[[0, 2, 1]])


@pytest.mark.parametrize("main", [recipe.main, fit_entropy.main, fit_pictures.main, packed.main])
def test_help_is_printed(main, capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "usage: tidesplit" in capsys.readouterr().out
