import numpy as np
import pytest

from tidesplit.runtime.core.breaker import Breaker

# A story, its events and their times, the breaker after them (state, blocked, wants a probe), and the time of that.
STORIES = [
    ("closed until something fails", [], ("closed", False, False), 5.0),
    ("a failure opens it", [("fail", 1.0)], ("open", True, False), 1.05),
    ("after its back-off it wants a probe", [("fail", 1.0)], ("open", True, True), 1.13),
    ("a probe under way", [("fail", 1.0), ("probe", 1.13)], ("half-open", True, False), 1.2),
    ("an answer closes it", [("fail", 1.0), ("probe", 1.13), ("answer", 1.3)], ("closed", False, False), 1.3),
    ("a late answer closes it too", [("fail", 1.0), ("answer", 1.01)], ("closed", False, False), 1.02),
    ("a failed probe opens it for longer", [("fail", 1.0), ("probe", 1.1), ("fail", 2.0)], ("open", True, False), 2.15),
    ("and then it wants one again", [("fail", 1.0), ("probe", 1.1), ("fail", 2.0)], ("open", True, True), 2.25),
    ("many failures at once are one", [("fail", 1.0)] + [("fail", 1.01)] * 8, ("open", True, True), 1.13),
]


@pytest.mark.parametrize(("story", "events", "expected", "at_s"), STORIES, ids=[s[0] for s in STORIES])
def test_stories(story, events, expected, at_s):
    breaker = Breaker(np.random.default_rng(0))
    for what, when in events:
        if what == "fail":
            breaker.failed(when, "gone")
        else:
            {"probe": breaker.probing, "answer": breaker.succeeded}[what]()
    assert (breaker.state, breaker.blocked, breaker.wants_probe(at_s)) == expected


def test_back_off_doubles_to_its_limit_and_starts_again_after_an_answer():
    breaker = Breaker(np.random.default_rng(0), jitter=0.0)
    waits = []
    for _ in range(5):
        breaker.failed(0.0, "gone")
        waits.append(breaker.retry_s)
        breaker.probing()
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.5, 0.5])
    assert breaker.succeeded()
    breaker.failed(0.0, "gone")
    assert breaker.retry_s == pytest.approx(0.1)


def test_jitter_comes_from_the_generator_passed_in():
    def retries(seed):
        breaker = Breaker(np.random.default_rng(seed))
        breaker.failed(0.0, "gone")
        return breaker.retry_s

    assert retries(1) == retries(1) != retries(2)
    assert all(0.08 <= retries(seed) <= 0.12 for seed in range(50))


def test_the_reason_is_kept_until_it_closes():
    breaker = Breaker(np.random.default_rng(0))
    breaker.failed(0.0, "token refused")
    assert breaker.reason == "token refused"
    breaker.succeeded()
    assert breaker.reason == ""


def test_a_reason_that_lasts_is_asked_about_ever_more_rarely():
    breaker = Breaker(np.random.default_rng(0), jitter=0.0)
    waits = []
    for _ in range(8):
        breaker.failed(0.0, "token refused", lasts=True)
        waits.append(breaker.retry_s)
        breaker.probing()
    assert waits == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60])
    breaker.failed(0.0, "gone")
    assert breaker.retry_s == pytest.approx(0.5), "a link that is down is asked about often"


@pytest.mark.parametrize(("pause_s", "least", "most"), [(0.0, 0.08, 0.12), (0.05, 0.08, 0.12), (3.0, 3.0, 3.6)])
def test_a_pause_that_the_server_asks_for_is_never_cut_short(pause_s, least, most):
    for seed in range(30):
        breaker = Breaker(np.random.default_rng(seed))
        breaker.failed(1.0, "full", pause_s)
        assert least <= breaker.retry_s - 1.0 <= most


def test_a_later_failure_can_only_lengthen_the_pause():
    breaker = Breaker(np.random.default_rng(0), jitter=0.0)
    breaker.failed(1.0, "full", 0.2)
    breaker.failed(1.01, "full", 2.0)
    breaker.failed(1.02, "gone")
    assert (breaker.retry_s, breaker.reason) == (pytest.approx(3.01), "full")
