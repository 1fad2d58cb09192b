import socket

from tidesplit.runtime.log.notify import Notifier


def test_states_reach_the_service_manager(tmp_path):
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        notify = Notifier(str(path))
        notify("READY=1")
        notify("WATCHDOG=1")
        assert [manager.recv(64) for _ in range(2)] == [b"READY=1", b"WATCHDOG=1"]


def test_without_a_service_manager_nothing_happens(tmp_path, monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    Notifier()("READY=1")
    gone = Notifier(str(tmp_path / "nobody"))
    gone("READY=1")
    gone("WATCHDOG=1")
