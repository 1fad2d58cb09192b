"""Certificates for tests, made by the openssl command."""

from __future__ import annotations

import subprocess
from pathlib import Path


def openssl(*arguments: str, folder: Path) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=60)


def signed(folder: Path, name: str, days: int = 30, extensions: str = "") -> None:
    """A key and a certificate of the authority `ca`, for this machine unless `extensions` names others."""
    openssl(
        "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{name}.key",
        "-out", f"{name}.csr", "-subj", f"/CN={name}", folder=folder,
    )  # fmt: skip
    names = "" if "subjectAltName" in extensions else "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1\n"
    (folder / "extensions").write_text(names + extensions)
    openssl(
        "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
        "-out", f"{name}.pem", "-extfile", "extensions", "-days", str(days), folder=folder,
    )  # fmt: skip


def authority(folder: Path, name: str, days: int = 30) -> None:
    openssl(
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-days", str(days), "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}", folder=folder,
    )  # fmt: skip


def all_kinds(folder: Path) -> None:
    """Sound certificates of a server and a client, and one for each fault."""
    authority(folder, "ca")
    authority(folder, "stranger")
    for name in ("server", "client"):
        signed(folder, name)
    signed(folder, "long", days=12_000)  # until after 2050: X.509 writes such dates in another form
    signed(folder, "expired", days=-1)
    signed(folder, "elsewhere", extensions="subjectAltName=DNS:else.example\n")
    signed(folder, "for-clients", extensions="extendedKeyUsage=clientAuth\n")
    signed(folder, "for-servers", extensions="extendedKeyUsage=serverAuth\n")
    signed(folder, "for-any", extensions="extendedKeyUsage=anyExtendedKeyUsage\n")
    signed(folder, "for-signing", extensions="keyUsage=keyCertSign\n")
