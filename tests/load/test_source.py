"""From a name to a directory, without a network."""

import os
import subprocess
import sys
import textwrap

import pytest

from openwork.core.errors import ModelError
from openwork.load import source
from openwork.testing.checkpoint import write_checkpoint


def test_a_directory_is_itself(tmp_path):
    assert source.resolve(tmp_path) == tmp_path
    assert source.resolve(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("name", ["no such thing", "a/b/c", "/nowhere/at/all", "../x", "", "a/b\n"])
def test_what_is_neither_a_path_nor_a_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    if name:
        with pytest.raises(ModelError, match="no such directory"):
            source.resolve(name)
    else:  # the empty path is the directory one is in
        assert source.resolve(name).is_dir()


@pytest.mark.parametrize(("name", "hint"), [("m.gguf", "GGUF"), ("model.safetensors", "Give the directory")])
def test_a_file_is_not_a_model(name, hint, tmp_path):
    (tmp_path / name).touch()
    with pytest.raises(ModelError, match=hint):
        source.resolve(tmp_path / name)


def test_the_embedded_model_may_be_absent(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "_EMBEDDED", tmp_path / "stories")
    for name in (None, source.EMBEDDED):
        with pytest.raises(ModelError, match="not part of this installation"):
            source.resolve(name)
    write_checkpoint(tmp_path / "stories")
    assert source.resolve(None) == source.resolve(source.EMBEDDED) == tmp_path / "stories"


def hub(home, code):
    """Run code in a process whose hub cache is ``home`` and which may not use a network."""
    env = os.environ | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_a_cached_model_needs_no_network(tmp_path):
    cached = tmp_path / "hub" / "models--org--tiny"
    write_checkpoint(cached / "snapshots" / "0123abcd")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0123abcd")
    code = "from openwork.load.source import resolve; print(resolve('org/tiny'))"
    assert hub(tmp_path, code).endswith("0123abcd")


def test_a_model_that_is_not_cached(tmp_path):
    code = """
        from openwork.core.errors import ModelError
        from openwork.load.source import resolve
        try:
            resolve("org/absent")
        except ModelError as error:
            print(error)
    """
    assert "in the cache of this machine, and the hub cannot be reached" in hub(tmp_path, code)


def test_a_hub_model_of_pickles_is_refused(tmp_path):
    cached = tmp_path / "hub" / "models--org--pickles"
    write_checkpoint(cached / "snapshots" / "0123abcd")
    (cached / "snapshots" / "0123abcd" / "model.safetensors").unlink()
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0123abcd")
    code = """
        from openwork.core.errors import ModelError
        from openwork.load.source import resolve
        try:
            resolve("org/pickles")
        except ModelError as error:
            print(error)
    """
    assert "pickle files are never opened" in hub(tmp_path, code)


@pytest.mark.parametrize("is_cached", [True, False])
def test_a_transport_that_fails(is_cached, tmp_path, monkeypatch):
    """A proxy that refuses, say: the cached copy is used, and without one the error says what happened."""
    client = pytest.importorskip("huggingface_hub")
    write_checkpoint(tmp_path)

    def snapshot_download(name, local_files_only, **patterns):
        if not local_files_only:
            raise RuntimeError("the proxy said no")
        if not is_cached:
            raise client.errors.LocalEntryNotFoundError("nothing here")
        return str(tmp_path)

    monkeypatch.setattr(client, "snapshot_download", snapshot_download)
    if is_cached:
        assert source.resolve("org/name") == tmp_path
    else:
        with pytest.raises(ModelError, match="could not be downloaded: the proxy said no"):
            source.resolve("org/name")


def test_the_hub_client_is_imported_only_when_needed(tmp_path):
    code = f"""
        import sys
        from openwork.load.source import resolve
        resolve({str(tmp_path)!r})
        print("huggingface_hub" in sys.modules)
    """
    assert hub(tmp_path, code) == "False"
