"""Certificates as files: whole or not there, of one GPU and build, kept where a folder takes them."""

from __future__ import annotations

import errno
import json
import os
import warnings
from pathlib import Path

import pytest

from cnnkernels import certified
from cnnkernels.certified import certificates
from cnnkernels.records.cache import folders
from helpers.proving import CPU, certificate

IDENTITY = certificates.identity(CPU)


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("CNNKERNELS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_there_and_back(cache: Path) -> None:
    made = certificate(cuda_pool_max__forward_fma_fp32="it took more than 30 s")
    assert certificates.save(made) == cache / certificates.file_name(IDENTITY)
    assert certificates.load(IDENTITY) == made
    assert list(made.failed) == ["cuda pool max_forward fma fp32"]


@pytest.mark.parametrize("field", certificates.Identity._fields)
def test_it_holds_for_one_gpu_and_version(cache: Path, field: str) -> None:
    certificates.save(certificate())
    other = IDENTITY._replace(**{field: 7 if field == "processors" else "another"})
    assert certificates.load(other) is None
    (path,) = cache.iterdir()
    path.rename(cache / certificates.file_name(other))  # a file that somebody copied
    with pytest.warns(UserWarning, match="is no certificate, and ignored: it is of another GPU, driver or version"):
        assert certificates.load(other) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "Expecting value"),
        ('{"format": 1, "ident', "Unterminated string"),
        ("[]", "it is not of format 1"),
        ('{"format": 2}', "it is not of format 1"),
        (json.dumps({"format": 1, "identity": IDENTITY._asdict()}), "it has no date, seconds or families"),
        (
            json.dumps(
                {"format": 1, "identity": IDENTITY._asdict(), "date": "", "seconds": 1, "families": {"a": None}}
            ),
            "it has no date, seconds or families",
        ),
        ("\xff", "codec can't decode"),
    ],
)
def test_what_is_none_is_ignored_with_a_sentence(cache: Path, text: str, why: str) -> None:
    cache.mkdir()
    (cache / certificates.file_name(IDENTITY)).write_bytes(text.encode("latin-1"))
    with pytest.warns(UserWarning, match="is no certificate, and ignored") as caught:
        assert certificates.load(IDENTITY) is None
    assert why in str(caught[0].message)


def test_a_full_disk_leaves_nothing_behind(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = certificate()
    certificates.save(old)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(UserWarning, match="holds for this process alone.*No space left on device"):
        assert certificates.save(certificate(cuda_conv_forward_fma_fp32="wrong")) is None
    assert [path.name for path in cache.iterdir()] == [certificates.file_name(IDENTITY)]
    assert certificates.load(IDENTITY) == old


def test_a_home_that_can_not_be_written_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file stands where the folder would be, which no right to write helps."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("CNNKERNELS_CACHE", str(tmp_path / "file"))
    made = certificate(cuda_conv_forward_fma_fp32="wrong")
    with pytest.warns(UserWarning, match="cannot be kept: .*file: (Not a directory|File exists)"):
        assert certificates.save(made) is None
    certified.hold(made)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert certified.certificate(CPU) == made
    finally:
        certified._held.clear()
        certified.forget()


def test_a_shared_cache_is_read_and_not_written_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shared, mine = tmp_path / "shared", tmp_path / "mine"
    (tmp_path / "file").touch()
    made = certificate()
    monkeypatch.setenv("CNNKERNELS_CACHE", str(shared))
    certificates.save(made)
    monkeypatch.setenv("CNNKERNELS_CACHE", f"{mine}{os.pathsep}{shared}")
    assert certificates.load(IDENTITY) == made
    monkeypatch.setenv("CNNKERNELS_CACHE", f"{tmp_path / 'file'}{os.pathsep}{mine}")
    assert certificates.save(made) == mine / certificates.file_name(IDENTITY)


def test_where_it_lies_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CNNKERNELS_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert folders() == [tmp_path / "cnnkernels"]
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert folders() == [tmp_path / ".cache" / "cnnkernels"]
