"""How the device learns of its link, as tables of events: probes after silence, odd answers and losses."""

from __future__ import annotations

import numpy as np
import pytest

from tidesplit.envs.world.belief import believe
from tidesplit.envs.world.physics import World
from tidesplit.runtime.core.knowledge import LinkKnowledge
from tidesplit.runtime.core.sending import Reply
from tidesplit.runtime.wire.answers import ServerTiming
from tidesplit.runtime.wire.estimator import Settled, transfers_of

WORLD = World()
LOGITS = np.zeros(4, np.float32)


def knowledge(*took: tuple[float, float, float]) -> LinkKnowledge:
    """A link whose messages took (uplink, round trip, wait) seconds; the last one was answered at 0."""
    links, now_s = LinkKnowledge(WORLD, 1, np.random.default_rng(0)), -1.0
    for key, (uplink_s, rtt_s, wait_s) in enumerate(((0.0, 0.06, 0.0), *took)):
        now_s = -1.0 if key == 0 else 0.0
        exchange(links, key, now_s, uplink_s, rtt_s, wait_s)
    return links


def exchange(links: LinkKnowledge, key: int, now_s: float, uplink_s: float, rtt_s: float, wait_s: float) -> None:
    links.sent(key, now_s - uplink_s - rtt_s - wait_s, Settled(500.0))
    timing = ServerTiming(now_s - rtt_s - wait_s, wait_s, 0.0)
    links.answered(key, now_s, Reply(LOGITS, timing))


@pytest.mark.parametrize(
    ("took", "after_s"),
    [
        ((0.01, 0.06, 0.0), 0.5),
        ((1.9, 0.06, 0.0), 0.1),
        ((0.0, 1.9, 0.0), 0.1),
        ((0.0, 0.06, 1.9), 0.1),
        ((0.1, 0.06, 0.0), 0.5),  # twice as long is usual
    ],
)
def test_after_an_odd_answer_a_probe_is_sent_soon(took: tuple[float, float, float], after_s: float) -> None:
    links = knowledge(took)
    sent_s = -sum(took)
    assert links.due_probe(sent_s + after_s - 0.01) is None
    assert links.due_probe(max(sent_s + after_s, 0.0) + 0.01) is not None


@pytest.mark.parametrize("took", [(1.9, 0.06, 0.0), (0.0, 1.9, 0.0), (0.0, 0.06, 1.9)])
def test_a_device_that_sends_only_probes_corrects_one_bad_answer_within_a_second(
    took: tuple[float, float, float],
) -> None:
    links = knowledge(took)
    for now_s in np.arange(0.0, 1.0, 0.02):
        if (probe := links.due_probe(float(now_s))) is not None:
            timing = ServerTiming(float(now_s) + 0.001, 0.0, 0.0)
            links.answered(probe.key, float(now_s) + 0.061, Reply(None, timing))
    belief = believe(transfers_of(links.messages()[0]), np.array([1.0]), 0.06)
    link = belief.hop
    assert link.rtt_s[0] == pytest.approx(0.06, abs=0.01)
    assert belief.server_wait_s[0] < 0.01
    assert link.goodput[0] > 500_000.0


def test_a_message_that_was_lost_alone_is_forgotten() -> None:
    """Only failures open the breaker, and this one would fail after two seconds."""
    links = knowledge()
    links.sent(9, 0.0, Settled(500.0))
    assert links.due_probe(0.4) is None
    probe = links.due_probe(0.51)
    assert probe is not None
    links.answered(probe.key, 0.57, Reply(None, ServerTiming(0.511, 0.0, 0.0)))
    link = believe(transfers_of(links.messages()[0]), np.array([0.6]), 0.06).hop
    assert (link.in_flight[0], link.stalled_s[0]) == (0.0, 0.0)


def test_a_message_that_is_only_late_is_not() -> None:
    links = knowledge()
    links.sent(9, 0.0, Settled(500.0))
    exchange(links, 10, 0.4, 0.0, 0.06, 0.0)
    assert believe(transfers_of(links.messages()[0]), np.array([0.4]), 0.06).hop.in_flight[0] == 1.0


def test_a_server_that_lacks_a_reference_is_no_broken_link() -> None:
    links = knowledge()
    links.sent(9, 0.0, Settled(500.0))
    links.reference_unknown(9)
    link = believe(transfers_of(links.messages()[0]), np.array([0.3]), 0.06).hop
    assert (link.in_flight[0], link.stalled_s[0], links.breaker.state) == (0.0, 0.0, "closed")
    links.failed(10, 0.4, "UNAVAILABLE: gone")
    links.reference_unknown(11)
    assert links.breaker.state == "closed", "a server has answered"
