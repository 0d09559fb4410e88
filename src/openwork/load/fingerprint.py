"""Fingerprint: whether files are still those that something was made from, told quickly when nobody touched them.

What counts is the SHA-256 of a file's content. Hashing gigabytes at every start would take longer than starting, so a
hash is remembered together with how the file looked: size, times of its last change, inode, and sixteen samples of its
content. A file that looks the same is the same; one that looks otherwise (touched, copied, replaced) is hashed again
and may turn out to be the same after all. A file that changed within the last two seconds is not remembered, because
it could change again without its times showing it. A file of the hub's cache has its hash for a name, and that is
taken the first time. What the files are for is not known here.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from openwork.core.errors import ModelError
from openwork.load.document import read_object

SETTLED_S = 2.0
_SAMPLES, _SAMPLE_BYTES = 16, 4096
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Look:
    """How a file looks, without reading it whole."""

    size: int
    modified_ns: int
    changed_ns: int  # of the inode, where there is one: cannot be set back
    inode: int
    samples: str

    @staticmethod
    def at(path: Path) -> Look:
        """Raises OSError."""
        digest = hashlib.sha256()
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            for number in range(_SAMPLES):  # the first at the start of the file, the last at its end
                file.seek(max(0, status.st_size - _SAMPLE_BYTES) * number // (_SAMPLES - 1))
                digest.update(file.read(_SAMPLE_BYTES))
        return Look(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, digest.hexdigest())

    @property
    def is_settled(self) -> bool:
        return time.time() - max(self.modified_ns, self.changed_ns) / 1e9 >= SETTLED_S


class Fingerprints:
    """The hashes of some files, remembered in a file of their own, ``memo``."""

    def __init__(self, memo: Path, paths: Sequence[Path]) -> None:
        """Looks at every file. Raises OSError."""
        self._memo = memo
        self._paths = list(paths)
        self.looks = [Look.at(path) for path in self._paths]
        self._known = _read_memo(memo)

    def sources(self) -> list[dict[str, object]]:
        """Name, size and hash of each file; hashed where they must be, and remembered. Raises OSError."""
        hashes = [self._hash(path, look) for path, look in zip(self._paths, self.looks, strict=True)]
        if [Look.at(path) for path in self._paths] != self.looks:
            raise OSError("the checkpoint changed while it was read")
        self._remember(hashes)
        return [
            {"name": path.name, "bytes": look.size, "sha256": content}
            for path, look, content in zip(self._paths, self.looks, hashes, strict=True)
        ]

    def _hash(self, path: Path, look: Look) -> str:
        known = self._known.get(path.name)
        if known is not None and known.get("look") == asdict(look):
            return str(known.get("sha256"))
        real = path.resolve()
        if known is None and real.parent.name == "blobs" and _SHA256.fullmatch(real.name):
            return real.name
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _remember(self, hashes: Sequence[str]) -> None:
        """A memo that cannot be written costs time at the next start, nothing else."""
        memo = {
            path.name: {"look": asdict(look), "sha256": content}
            for path, look, content in zip(self._paths, self.looks, hashes, strict=True)
            if look.is_settled
        }
        if memo == self._known:
            return
        import tempfile  # a start that remembers all hashes does not wait for this import

        try:
            descriptor, name = tempfile.mkstemp(prefix=f".{self._memo.name}.", suffix=".part", dir=self._memo.parent)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(memo, file)
            Path(name).replace(self._memo)
        except OSError:
            return


def _read_memo(memo: Path) -> Mapping[str, Mapping[str, object]]:
    try:
        found = read_object(memo) if memo.is_file() else {}
    except ModelError:
        return {}
    return {
        name: entry
        for name, entry in found.items()
        if isinstance(entry, dict) and isinstance(entry.get("sha256"), str) and _SHA256.fullmatch(entry["sha256"])
    }
