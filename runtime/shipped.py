"""The policy that ships: its bundle in the user's cache, where the CNN's models are written into it too."""

from __future__ import annotations

import shutil
from pathlib import Path

from tidesplit.agents.bundle import MANIFEST, BundleError, read_manifest, sha256
from tidesplit.data.files import GENERALIST, whole
from tidesplit.runtime.cache import cache_folder


def own_copy(shipped: Path = GENERALIST) -> Path:
    """The folder of the user's copy, made where there is none yet. An installed package stays as it is.

    Raises:
        BundleError: this version ships no policy, or the copy cannot be written.
    """
    manifest = read_manifest(shipped)
    folder = cache_folder() / f"generalist-{sha256(shipped / MANIFEST)[:12]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in (*manifest["files"], MANIFEST):  # the manifest last: a folder with one is complete
            if not (folder / name).exists():
                with whole(folder / name) as part:
                    shutil.copyfile(shipped / name, part)
    except OSError as error:
        raise BundleError(f"{folder}: {error.strerror}; --bundle names another folder") from error
    return folder
