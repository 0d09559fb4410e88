"""Checkpoint: all tensors of a directory by name, in one safetensors file or in the shards that an index lists.

Guarantees that every tensor has exactly one place. Pickle files are refused: reading one runs whatever code it holds.
Which tensors a model needs is not known here.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from openwork.core.errors import ModelError
from openwork.load.document import read_object
from openwork.load.safetensors import File, Tensor

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")


class Checkpoint:
    """The open files of a directory. ``tensors`` maps a name to its tensor. Raises ModelError."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._files: list[File] = []
        self.tensors: dict[str, Tensor] = {}
        try:
            if (directory / SINGLE).is_file():
                self._files.append(File(directory / SINGLE))
                self.tensors = self._files[0].tensors
            elif (directory / INDEX).is_file():
                self._open_shards(directory / INDEX)
            else:
                raise _nothing_there(directory)
        except ModelError:
            self.close()
            raise

    @property
    def num_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self._files)

    @property
    def paths(self) -> list[Path]:
        """The files, in the order of their names."""
        return [file.path for file in self._files]

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        for file in self._files:
            file.close()

    def _open_shards(self, index: Path) -> None:
        places = read_object(index).get("weight_map")
        if not isinstance(places, dict) or not places:
            raise ModelError("must map tensor names to files", where=str(index), field="weight_map")
        listed: dict[str, list[str]] = {}
        for name, shard in places.items():
            # Only a plain name, so that an index cannot point at files elsewhere.
            if (
                not isinstance(shard, str)
                or not shard.endswith(".safetensors")
                or Path(shard).name != shard
                or "\\" in shard
            ):
                raise ModelError(
                    f"{str(shard)[:100]!r} is not the plain name of a safetensors file",
                    where=str(index),
                    field=name[:200],
                )
            listed.setdefault(shard, []).append(name)
        for shard, names in sorted(listed.items()):
            path = self.directory / shard
            if not path.is_file():
                raise ModelError(
                    f"is missing; {len(names)} tensors should be in it", "Download it again.", where=str(path)
                )
            file = File(path)
            self._files.append(file)
            absent = [name for name in names if name not in file.tensors]
            if absent:
                raise ModelError(
                    f"does not hold this tensor, which {INDEX} puts there", where=str(path), field=absent[0][:200]
                )
            extra = sorted(file.tensors.keys() - set(names))
            if extra:
                raise ModelError(f"is here, but {INDEX} does not say so", where=str(path), field=extra[0][:200])
            self.tensors |= file.tensors


def _nothing_there(directory: Path) -> ModelError:
    pickles = sorted(path.name for pattern in _PICKLES for path in directory.glob(pattern))
    if pickles:
        return ModelError(
            f"holds only pickle files ({pickles[0]}), which are never opened because reading one runs the code in it",
            "Convert them with safetensors.torch.save_file, or use a copy of the model that has safetensors files.",
            where=str(directory),
        )
    return ModelError(f"holds neither {SINGLE} nor {INDEX}", where=str(directory))
