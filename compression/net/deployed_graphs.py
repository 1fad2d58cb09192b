"""The graphs of a split network as deployed: head, middle, tail, device, finish. BatchNorms are folded in."""

from __future__ import annotations

from tidesplit.compression.net.system import SplitNet
from tidesplit.models.graph import Builder, Graph
from tidesplit.models.slim import set_of_partition, set_of_ratio


def head_graph(system: SplitNet, partition: int, ratio: float) -> Graph:
    """Image `[3, px, px]` to feature, values to send and attention score."""
    net, width_set = system.net, set_of_ratio(ratio)
    builder = Builder((3, net.input_px, net.input_px))
    feature = net.build_head(builder, width_set, net.cuts[partition - 1])
    return builder.finish(feature, *system.bottleneck(partition).build_encoder(builder, feature, width_set))


def part_graph(system: SplitNet, first: int, last: int, ratio: float) -> Graph:
    """Feature at one partition to the feature at a later one. From the image where `first` is 0, to logits at the end.

    Parts in a row make the net: heads, finishes and the whole CNN of one ratio share them.
    """
    net, width_set = system.net, set_of_ratio(ratio)
    begin = net.cuts[first - 1] if first else 0
    builder = Builder(net.feature_shape(begin, net.input_px) if first else (3, net.input_px, net.input_px))
    x = "x" if first else net.build_head(builder, width_set, 0)
    if last == net.partitions:
        return builder.finish(net.build_tail(builder, x, width_set, begin))
    return builder.finish(net.build_middle(builder, x, width_set, begin, net.cuts[last - 1]))


def encoder_graph(system: SplitNet, partition: int, ratio: float) -> Graph:
    """Feature of a head at `ratio` to values to send and attention score."""
    net = system.net
    builder = Builder(net.feature_shape(net.cuts[partition - 1], net.input_px))
    return builder.finish(*system.bottleneck(partition).build_encoder(builder, "x", set_of_ratio(ratio)))


def heads_graph(system: SplitNet, ratio: float) -> Graph:
    """Image `[3, px, px]` to the values and the attention score of every cut in turn."""
    net, width_set = system.net, set_of_ratio(ratio)
    builder = Builder((3, net.input_px, net.input_px))
    feature, before, outputs = net.build_head(builder, width_set, 0), 0, list[str]()
    for partition, cut in enumerate(net.cuts, start=1):
        feature = net.build_middle(builder, feature, width_set, before, cut)
        outputs += system.bottleneck(partition).build_encoder(builder, feature, width_set)
        before = cut
    return builder.finish(*outputs)


def tail_graph(system: SplitNet, partition: int) -> Graph:
    """Wire values `[Kmax, h, w]` to logits; at partition 0 the image `[3, px, px]` to logits."""
    net, width_set = system.net, set_of_partition(partition)
    if partition == 0:
        return _whole(system, width_set)
    builder, feature = _decoded(system, partition)
    return builder.finish(net.build_tail(builder, feature, width_set, net.cuts[partition - 1]))


def middle_graph(system: SplitNet, first: int, second: int) -> Graph:
    """Wire values of one partition to feature, values and attention score of a later one, for a middle server."""
    net, (builder, feature) = system.net, _decoded(system, first)
    feature = net.build_middle(builder, feature, set_of_partition(first), net.cuts[first - 1], net.cuts[second - 1])
    return builder.finish(feature, *system.bottleneck(second).build_encoder(builder, feature, set_of_ratio(1.0)))


def device_graph(system: SplitNet, ratio: float) -> Graph:
    """Image `[3, px, px]` to logits, by the whole CNN at a channel ratio."""
    return part_graph(system, 0, system.net.partitions, ratio)


def finish_graph(system: SplitNet, partition: int, ratio: float) -> Graph:
    """Uncompressed feature of a head at `ratio` to logits: the local fallback."""
    return part_graph(system, partition, system.net.partitions, ratio)


def _whole(system: SplitNet, width_set: str) -> Graph:
    """Image to logits at one width set."""
    net = system.net
    builder = Builder((3, net.input_px, net.input_px))
    return builder.finish(net.build_tail(builder, net.build_head(builder, width_set, 0), width_set, 0))


def _decoded(system: SplitNet, partition: int) -> tuple[Builder, str]:
    """A graph from wire values to the rebuilt feature, and the feature's name."""
    cut = system.bottleneck(partition).cut
    builder = Builder((cut.channels, cut.height, cut.width))
    return builder, system.bottleneck(partition).build_decoder(builder, "x")
