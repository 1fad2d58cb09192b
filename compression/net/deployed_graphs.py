"""The deployed graphs of a split network: head, middle, tail, device, finish. Weights folded, slim heads smaller."""

from __future__ import annotations

from tidesplit.compression.net.system import SplitNet
from tidesplit.models.graph import Builder, Graph
from tidesplit.models.slim import set_of_partition, set_of_ratio

__all__ = ["device_graph", "finish_graph", "head_graph", "middle_graph", "tail_graph"]


def head_graph(system: SplitNet, partition: int, ratio: float) -> Graph:
    """Image `[3, px, px]` to feature, values to send, attention score."""
    net, width_set = system.net, set_of_ratio(ratio)
    builder = Builder((3, net.input_px, net.input_px))
    feature = net.build_head(builder, width_set, net.cuts[partition - 1])
    values, score = system.bottleneck(partition).build_encoder(builder, feature, width_set)
    return builder.finish(feature, values, score)


def tail_graph(system: SplitNet, partition: int) -> Graph:
    """Wire values `[Kmax, h, w]` to logits; at partition 0 the image `[3, px, px]` to logits."""
    net, width_set = system.net, set_of_partition(partition)
    if partition == 0:
        builder = Builder((3, net.input_px, net.input_px))
        return builder.finish(net.build_tail(builder, net.build_head(builder, width_set, 0), width_set, 0))
    bottleneck = system.bottleneck(partition)
    cut = bottleneck.cut
    builder = Builder((cut.channels, cut.height, cut.width))
    feature = bottleneck.build_decoder(builder, "x")
    return builder.finish(net.build_tail(builder, feature, width_set, net.cuts[partition - 1]))


def middle_graph(system: SplitNet, first: int, second: int) -> Graph:
    """Wire values of one partition to feature, values and attention score of a later one: the middle of three tiers."""
    net, width_set, bottleneck = system.net, set_of_partition(first), system.bottleneck(first)
    builder = Builder((bottleneck.cut.channels, bottleneck.cut.height, bottleneck.cut.width))
    feature = bottleneck.build_decoder(builder, "x")
    feature = net.build_middle(builder, feature, width_set, net.cuts[first - 1], net.cuts[second - 1])
    values, score = system.bottleneck(second).build_encoder(builder, feature, set_of_ratio(1.0))
    return builder.finish(feature, values, score)


def device_graph(system: SplitNet, ratio: float) -> Graph:
    """Image `[3, px, px]` to logits, whole CNN at a channel ratio."""
    net, width_set = system.net, set_of_ratio(ratio)
    builder = Builder((3, net.input_px, net.input_px))
    return builder.finish(net.build_tail(builder, net.build_head(builder, width_set, 0), width_set, 0))


def finish_graph(system: SplitNet, partition: int, ratio: float) -> Graph:
    """Uncompressed feature of a head at `ratio` to logits: the local fallback."""
    net, cut = system.net, system.net.cuts[partition - 1]
    builder = Builder(net.feature_shape(cut, net.input_px))
    return builder.finish(net.build_tail(builder, "x", set_of_ratio(ratio), cut))
