import json

import numpy as np
import onnx
import pytest
import torch

from tidesplit.compression.codec.knobs import RATIOS, device_id
from tidesplit.compression.codec.pixels import natural_picture, to_input
from tidesplit.compression.net import int8
from tidesplit.compression.net.deploy import device_model, finish_model, head_model
from tidesplit.compression.net.int8 import int8_device, int8_finish, int8_head, load_ranges, measure_ranges, save_ranges
from tidesplit.compression.net.system import SplitNet
from tidesplit.compression.session import session
from tidesplit.models.cifar_resnet import CifarResNet
from tidesplit.models.graph import Builder, Node

IMAGES = np.stack([natural_picture(32, seed=i) for i in range(8)])


@pytest.fixture(scope="module")
def system():
    torch.manual_seed(0)
    return SplitNet(CifarResNet(4)).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def ranges(system):
    return measure_ranges(system, IMAGES)


def run(model, x):
    return session(model.SerializeToString()).run(None, {"x": x})


def off(found, expected):
    """Error as a share of the values' spread."""
    return float(np.sqrt(((found - expected) ** 2).mean() / expected.var()))


def test_a_layer_equals_its_integer_arithmetic():
    """Codes of input and output are unsigned, those of weights signed with a step for each channel."""
    weight = torch.tensor([[0.5, -1.0], [0.02, 0.01]]).view(2, 2, 1, 1)
    graph = Builder((2, 1, 1)).finish("v0")
    graph.nodes.append(Node("conv", ("x",), "v0", weight, torch.tensor([0.25, -0.03])))
    model = int8._quantized(graph, "layer", ("y",), (-1.0, 1.0), [(-2.0, 2.0)])
    x = np.array([0.3, -0.7], np.float32)
    x_step, y_step, w_step = 2 / 255, 4 / 255, np.array([1.0, 0.02]) / 127
    x_codes = np.rint(x / x_step)  # steps from zero: the zero point cancels out
    w_codes = np.rint(weight.numpy()[:, :, 0, 0] / w_step[:, None])
    b_codes = np.rint(np.array([0.25, -0.03]) / (x_step * w_step))
    y = (w_codes @ x_codes + b_codes) * x_step * w_step
    found = run(model, x.reshape(1, 2, 1, 1))[0].ravel()
    assert found == pytest.approx(np.rint(y / y_step) * y_step, abs=1e-6)


def test_ranges_are_the_extremes_of_every_node():
    graph = Builder((1, 1, 1)).finish("v1")
    graph.nodes.append(Node("conv", ("x",), "v0", torch.full((1, 1, 1, 1), 3.0), torch.zeros(1)))
    graph.nodes.append(Node("conv", ("v0",), "v1", torch.full((1, 1, 1, 1), -1.0), torch.ones(1), relu6=True))
    images = np.array([0, 255, 51], np.uint8).repeat(3).reshape(3, 1, 1, 3)[..., :1]  # -1, 1 and -0.6
    assert int8._extremes(graph, images) == [(-3.0, 3.0), (0.0, 4.0)]


def test_int8_models_answer_nearly_as_float32_ones(system, ranges):
    x = to_input(natural_picture(32, seed=99))
    for ratio in RATIOS:
        assert off(run(int8_device(system, ratio, ranges), x)[0], run(device_model(system, ratio), x)[0]) < 0.2
        for partition in (1, 2):
            head = int8_head(system, partition, ratio, ranges)
            outputs = run(head, x)
            assert all(output.dtype == np.float32 for output in outputs)
            for found, expected in zip(outputs, run(head_model(system, partition, ratio), x), strict=True):
                assert off(found, expected) < 0.1
            finished = run(int8_finish(system, partition, ratio, ranges), outputs[0])[0]
            assert off(finished, run(finish_model(system, partition, ratio), outputs[0])[0]) < 0.2


def test_weights_are_bytes_and_the_same_models_come_again(system, ranges):
    once, again = (int8_device(system, 1.0, ranges).SerializeToString() for _ in range(2))
    assert once == again
    assert len(once) < 0.4 * len(device_model(system, 1.0).SerializeToString())


def test_the_first_convolution_of_a_picture_stays_float32(system, ranges):
    def takes_x(model):
        return [node.op_type for node in model.graph.node if "x" in node.input]

    assert takes_x(int8_device(system, 0.5, ranges)) == ["Conv"]
    assert takes_x(int8_finish(system, 1, 0.5, ranges)) == ["QuantizeLinear"]


def test_names_tell_precision(system, ranges):
    models = (int8_device(system, 0.5, ranges), int8_head(system, 1, 0.5, ranges), int8_finish(system, 1, 0.5, ranges))
    assert [m.graph.name for m in models] == ["device-c0.50-i8", "head-p1-c0.50-i8", "finish-p1-c0.50-i8"]
    for model in models:
        onnx.checker.check_model(model)


def test_ranges_survive_the_file_and_belong_to_their_weights(system, ranges, tmp_path):
    weights = tmp_path / "net.safetensors"
    assert load_ranges(weights, system) is None
    assert save_ranges(weights, system, ranges) == tmp_path / "net.ranges.json"
    assert load_ranges(weights, system) == ranges
    other = SplitNet(CifarResNet(4)).eval()
    other.load_state_dict(system.state_dict())
    other.net.get_parameter("stem_norm.norms.p0.bias").data += 1.0  # of image offload, which no device runs
    assert load_ranges(weights, other) == ranges
    other.net.get_parameter("stem_norm.norms.r50.bias").data += 1.0
    with pytest.raises(ValueError, match="made for other weights: tidesplit fit-ranges"):
        load_ranges(weights, other)
    weights.with_suffix(".ranges.json").write_text(json.dumps({"ranges": {}}))
    with pytest.raises(ValueError, match="other weights"):
        load_ranges(weights, system)


def test_ranges_of_another_network_are_refused(system, ranges):
    short = {**ranges, device_id(1.0): ranges[device_id(1.0)][:-1]}
    with pytest.raises(ValueError, match=r"device-c1\.00-i8: ranges of \d+ nodes received, of \d+ expected"):
        int8_device(system, 1.0, short)
