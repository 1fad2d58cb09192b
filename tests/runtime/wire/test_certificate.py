"""Whoever holds a certificate that is over is told when, before a server hangs up without a word."""

from __future__ import annotations

import base64
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidesplit.runtime.device.client import credentials
from tidesplit.runtime.edge import parser
from tidesplit.runtime.server.next_tier import next_tier
from tidesplit.runtime.wire.certificate import check_dates, validity

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates: `valid` for 30 days, `long` until after 2050 (another kind of date), `over` since yesterday."""

    made: Path = tmp_path_factory.mktemp("certificates")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=made, check=True, capture_output=True, timeout=60)

    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=x")
    for name, days in (("valid", "30"), ("long", "12000")):
        openssl(*new, "-x509", "-days", days, "-keyout", f"{name}.key", "-out", f"{name}.pem")
    openssl(*new, "-keyout", "over.key", "-out", "over.csr")
    signed = ("x509", "-req", "-in", "over.csr", "-CA", "valid.pem", "-CAkey", "valid.key", "-CAcreateserial")
    openssl(*signed, "-out", "over.pem", "-days", "-1")
    return made


@pytest.mark.parametrize(("name", "days"), [("valid", 30), ("long", 12_000), ("over", -1)])
def test_dates_are_read(folder: Path, name: str, days: int) -> None:
    begins, ends = validity((folder / f"{name}.pem").read_bytes(), name)
    now = datetime.now(UTC)
    assert abs(begins - now) < DAY
    assert abs(ends - now - days * DAY) < DAY


def test_before_and_after(folder: Path) -> None:
    pem = (folder / "valid.pem").read_bytes()
    begins, ends = validity(pem, "x")
    check_dates(pem, "x", begins)
    check_dates(pem, "x", ends)
    with pytest.raises(ValueError, match=rf"--tls-cert a.pem: the certificate expired on {ends:%Y-%m-%d %H:%M} UTC"):
        check_dates(pem, "--tls-cert a.pem", ends + DAY)
    with pytest.raises(ValueError, match="is the clock right"):
        check_dates(pem, "x", begins - DAY)


def test_a_device_and_a_middle_tier_say_so_when_they_start(folder: Path) -> None:
    files = {"--tls-ca": "valid.pem", "--tls-cert": "over.pem", "--tls-key": "over.key"}
    words = [word for option, name in files.items() for word in (option, str(folder / name))]
    with pytest.raises(ValueError, match="expired on"):
        credentials(parser().parse_args(["--bundle", "b", "--server", "h:1", *words]))
    with pytest.raises(ValueError, match="expired on"):
        next_tier("h:1", 4, folder / "valid.pem", folder / "over.pem", folder / "over.key", "", insecure=False)


@given(st.binary(max_size=64))
def test_what_is_no_certificate_is_said(data: bytes) -> None:
    text = b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(data) + b"\n-----END CERTIFICATE-----\n"
    with pytest.raises(ValueError, match=r"no certificate in PEM|not a readable certificate"):
        validity(text, "x")
    with pytest.raises(ValueError, match="no certificate in PEM"):
        validity(data, "x")
