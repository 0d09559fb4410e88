"""Source: from what a person calls a model to a directory on this machine.

    nothing, openwork/stories    the embedded model, inside the package
    a path that exists           that directory
    org/name                     a repository of the Hugging Face hub, downloaded once, then used from its cache

Only what a model needs is downloaded, never pickle files. Without a network, a copy in the cache is used. Whether the
directory holds a usable checkpoint is not known here.
"""

from __future__ import annotations

import re
from pathlib import Path

from openwork.core.errors import ModelError

EMBEDDED = "openwork/stories"
_WANTED = ["*.json", "*.safetensors", "*.jinja"]
_UNWANTED = ["*/*", "consolidated*"]  # other copies of the same weights, in other layouts
_EMBEDDED = Path(__file__).parents[1] / "stories"  # beside the code, in an editable install too
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96}")


def resolve(model: str | Path | None = None) -> Path:
    """The directory of a model. Downloads when it must, with a progress bar. Raises ModelError."""
    if model is None or model == EMBEDDED:
        return _embedded()
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise ModelError("is a file; a model is a directory with config.json in it", _file_hint(path), where=str(model))
    if isinstance(model, str) and _NAME.fullmatch(model):
        return _download(model)
    raise ModelError(
        "there is no such directory, and it is not a name of the form org/name",
        f"Give a path, a hub name, or nothing for the embedded model {EMBEDDED}.",
        where=str(model),
    )


def _embedded() -> Path:
    if not (_EMBEDDED / "config.json").is_file():
        raise ModelError(
            "the embedded model is not part of this installation", "Name a model, or install again.", where=EMBEDDED
        )
    return _EMBEDDED


def _file_hint(path: Path) -> str:
    if path.suffix == ".gguf":
        return "GGUF files are not supported; use the model's original directory."
    return f"Give the directory: {path.parent}"


def _download(name: str) -> Path:
    # The hub's client takes longer to import than a small model to load; most uses never need it.
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        directory = _snapshot(name)
    except GatedRepoError as error:
        hint = "Ask for access on its page, then log in with `hf auth login` or set HF_TOKEN."
        raise ModelError("its owners give access on request", hint, where=name) from error
    except RepositoryNotFoundError as error:
        hint = "Check the spelling; a private model needs `hf auth login`. A local directory must exist."
        raise ModelError("is neither a directory here nor a model on the hub", hint, where=name) from error
    except LocalEntryNotFoundError as error:
        hint = "Connect once to download it, or give the path of a directory that you have."
        message = "is not, or not wholly, in the cache of this machine, and the hub cannot be reached"
        raise ModelError(message, hint, where=name) from error
    except Exception as error:  # the client's transports (proxies, timeouts, storage) share no root of their own
        try:
            directory = _snapshot(name, local_files_only=True)
        except LocalEntryNotFoundError:
            hint = "Try again later, or give the path of a directory that you have."
            raise ModelError(f"could not be downloaded: {str(error)[:200]}", hint, where=name) from error
    if any(directory.glob("*.safetensors")):
        return directory
    raise ModelError(
        "has no safetensors files on the hub; pickle files are never opened because reading one runs the code in it",
        "Look for a converted copy of the model, or convert it with safetensors.torch.save_file.",
        where=name,
    )


def _snapshot(name: str, local_files_only: bool = False) -> Path:
    """What is wanted of a repository, from the hub or, offline, from the cache."""
    from huggingface_hub import snapshot_download

    return Path(
        snapshot_download(name, allow_patterns=_WANTED, ignore_patterns=_UNWANTED, local_files_only=local_files_only)
    )
