import json

import numpy as np
import onnx
import pytest
import torch

from tidesplit.compression.codec.knobs import RATIOS
from tidesplit.compression.codec.pixels import natural_picture, to_input
from tidesplit.compression.net.deploy import encoder_model, part_model, tail_model
from tidesplit.compression.net.int8 import (
    extremes,
    int8_model,
    load_ranges,
    measure_ranges,
    quantized,
    save_ranges,
)
from tidesplit.compression.net.onnx_export import to_onnx
from tidesplit.compression.net.system import SplitNet
from tidesplit.compression.session import session
from tidesplit.models.cifar_resnet import CifarResNet

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


def layer(weights, biases):
    """A 1x1 convolution from and to `len(weights)` channels."""
    made = torch.nn.Conv2d(len(weights), len(weights), 1)
    made.weight.data, made.bias.data = torch.tensor(weights)[:, :, None, None], torch.tensor(biases)
    return made


def test_a_layer_equals_its_integer_arithmetic():
    """Codes of input and output are unsigned, those of weights signed with a step for each channel."""
    weight, bias = [[0.5, -1.0], [0.02, 0.01]], [0.25, -0.03]
    plain = to_onnx(layer(weight, bias).eval(), torch.zeros(1, 2, 1, 1), "layer", ("y",))
    model = quantized(plain, (-1.0, 1.0), [(-2.0, 2.0)])
    x = np.array([0.3, -0.7], np.float32)
    x_step, y_step, w_step = 2 / 255, 4 / 255, np.array([1.0, 0.02]) / 127
    x_codes = np.rint(x / x_step)  # steps from zero: the zero point cancels out
    w_codes = np.rint(np.array(weight) / w_step[:, None])
    b_codes = np.rint(np.array(bias) / (x_step * w_step))
    y = (w_codes @ x_codes + b_codes) * x_step * w_step
    found = run(model, x.reshape(1, 2, 1, 1))[0].ravel()
    assert found == pytest.approx(np.rint(y / y_step) * y_step, abs=1e-6)


def test_ranges_are_the_extremes_of_every_value():
    net = torch.nn.Sequential(layer([[3.0]], [0.0]), layer([[-1.0]], [1.0]), torch.nn.ReLU6()).eval()
    model = to_onnx(net, torch.zeros(1, 1, 1, 1), "net", ("y",))
    ranges, last = extremes(model, [np.full((1, 1, 1, 1), x, np.float32) for x in (-1.0, 1.0, -0.6)])
    assert ranges == [(-3.0, 3.0), (0.0, 4.0)]
    assert [float(y.item()) for y in last] == pytest.approx([4.0, 0.0, 2.8])


def test_int8_models_answer_nearly_as_float32_ones(system, ranges):
    x = to_input(natural_picture(32, seed=99))
    for ratio in (RATIOS[0], RATIOS[-1]):
        whole = run(int8_model(part_model(system, 0, 3, ratio), ranges), x)[0]
        assert off(whole, run(part_model(system, 0, 3, ratio), x)[0]) < 0.2
        for p in (1, 2):
            (feature,) = run(int8_model(part_model(system, 0, p, ratio), ranges), x)
            assert feature.dtype == np.float32
            assert off(feature, run(part_model(system, 0, p, ratio), x)[0]) < 0.1
            sent = run(int8_model(encoder_model(system, p, ratio), ranges), feature)
            for found, expected in zip(sent, run(encoder_model(system, p, ratio), feature), strict=True):
                assert off(found, expected) < 0.1
            finished = run(int8_model(part_model(system, p, 3, ratio), ranges), feature)[0]
            assert np.array_equal(finished, whole)


def test_weights_are_bytes_and_the_same_models_come_again(system, ranges):
    once, again = (int8_model(part_model(system, 0, 3, 1.0), ranges).SerializeToString() for _ in range(2))
    assert once == again
    assert len(once) < 0.4 * len(part_model(system, 0, 3, 1.0).SerializeToString())


def test_the_first_convolution_of_a_picture_stays_float32(system, ranges):
    def takes_x(model):
        return [node.op_type for node in model.graph.node if "x" in node.input]

    assert takes_x(int8_model(part_model(system, 0, 3, 0.5), ranges)) == ["Conv"]
    assert takes_x(int8_model(part_model(system, 1, 3, 0.5), ranges)) == ["QuantizeLinear"]


def test_names_tell_precision(system, ranges):
    models = (int8_model(part_model(system, 0, 1, 0.5), ranges), int8_model(encoder_model(system, 1, 0.5), ranges))
    assert [m.graph.name for m in models] == ["part-0-1-c0.50-i8", "encoder-p1-c0.50-i8"]
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
    short = {**ranges, "part-2-3-c1.00": ranges["part-2-3-c1.00"][:-1]}
    with pytest.raises(ValueError, match=r"part-0-3-c1\.00-i8: ranges of \d+ values received, of \d+ expected"):
        int8_model(part_model(system, 0, 3, 1.0), short)


def test_only_parts_and_encoders_have_ranges(system, ranges):
    with pytest.raises(ValueError, match="a part or an encoder of a device expected, 'tail-p1' received"):
        int8_model(tail_model(system, 1), ranges)


def test_ranges_of_an_earlier_form_are_refused(system, ranges, tmp_path):
    weights = tmp_path / "net.safetensors"
    save_ranges(weights, system, {"device-c0.25": ranges["part-0-1-c0.25"]})
    with pytest.raises(ValueError, match="of an earlier form: tidesplit fit-ranges"):
        load_ranges(weights, system)
