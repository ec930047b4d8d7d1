"""Tables of choices: read, left out with a sentence, merged, and written by several at once."""

from __future__ import annotations

import threading
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cnnkernels.cli import main as cli
from cnnkernels.records import tuned
from cnnkernels.records.choice import Choice, key_of
from helpers.tuned import ROW, anew, cache  # noqa: F401


def choice(batch: int = 1, winner: str = "cuda", date: str = "2026-02-01") -> Choice:
    return Choice(
        "conv2d", key_of((torch.zeros(batch, 2, 4, 4), 1)), winner, None, {"forward": {winner: 1.5}}, {}, date
    )


def table(*choices: Choice, gpu: str = "cpu", date: str = "2026-01-31") -> tuned.Table:
    return tuned.Table(gpu, date, tuned.versions(), (ROW,), choices)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    tuned.save(table(choice(1), choice(2, "cuda/reference/cuda")), path)
    assert tuned.load(path) == table(choice(1), choice(2, "cuda/reference/cuda"))
    assert [path.name] == [file.name for file in tmp_path.iterdir()]


def test_choices_of_another_gpu_or_other_versions_are_ignored_with_a_sentence(
    cache: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = table(choice())
    old = replace(here, versions=here.versions | {"torch": "1.0"})
    path = tuned.cached_path("cpu")
    tuned.save(old, path)
    tuned.save(table(choice(), gpu="NVIDIA H200"), tuned.cached_path("NVIDIA H200"))
    said = f"1 choices measured on cpu with torch 1.0 are ignored with torch {here.versions['torch']}: run"
    with pytest.warns(UserWarning, match=said.replace("+", r"\+")):
        assert tuned.choices("cpu") == {}
    assert sorted(sentence.split(" with ")[0] for sentence in tuned.ignored("cpu")) == [
        "1 choices measured on NVIDIA H200 are ignored on cpu",
        "1 choices measured on cpu",
    ]
    assert list(tuned.choices("NVIDIA H200")) == ["conv2d"]
    anew(monkeypatch)
    tuned.save(here, path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tuned.choices("cpu") == {"conv2d": (choice(),)}


@pytest.mark.parametrize("text", ["{", '{"gpu": "cpu"}', "[]"])
def test_a_file_of_the_cache_that_is_none_is_ignored_with_a_sentence(cache: Path, text: str) -> None:  # noqa: F811
    path = tuned.cached_path("cpu")
    path.parent.mkdir()
    path.write_text(text)
    with pytest.warns(UserWarning, match=f"{path.name} is ignored: .* is no table of tuned plans: "):
        assert tuned.choices("cpu") == {}
    with pytest.warns(UserWarning, match=f"{path.name} is replaced: "):
        tuned.add(table(choice()), path)
    assert tuned.load(path).choices == (choice(),)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"colour": "red"}, "unexpected keyword argument 'colour'"),
        ({"arguments": [{"dtype": "float33"}]}, "'float33'"),
        ({"autocast": {"size": []}}, "'dtype'"),
    ],
)
def test_a_wrong_choice_is_refused_with_the_reason(tmp_path: Path, fields: dict[str, object], reason: str) -> None:
    import json

    data = {"gpu": "x", "date": "x", "versions": {}, "rows": [], "choices": [choice().encoded() | fields]}
    (tmp_path / "wrong.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match=f"wrong.json is no table of tuned plans: choice 0: .*{reason}"):
        tuned.load(tmp_path / "wrong.json")


def test_of_two_measurements_the_newer_holds(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    newer = table(choice(1, "reference", "2026-03-01"), choice(2, "cuda", "2026-01-01"), date="2026-03-01")
    older = table(choice(1, "cuda", "2026-02-01"), choice(2, "reference", "2026-01-15"))
    for tables in ((newer, older), (older, newer)):
        merged = tuned.merge(tables)
        assert {c.key[2][0][0]: c.inference for c in merged.choices} == {1: "reference", 2: "reference"}
        assert merged.date == "2026-03-01" and [row.date for row in merged.rows] == ["2026-03-01"]
    names = [str(tmp_path / name) for name in ("a.json", "b.json", "c.json")]
    tuned.save(newer, Path(names[0]))
    tuned.save(older, Path(names[1]))
    assert cli.main(["tune", "--merge", *names[:2], "--output", names[2]]) == 0
    assert tuned.load(Path(names[2])) == tuned.merge((newer, older))
    assert "1 plans and 2 choices of cpu in" in capsys.readouterr().out
    tuned.save(replace(older, gpu="NVIDIA H200"), Path(names[1]))
    assert cli.main(["tune", "--merge", *names[:2]]) == 2
    assert "only tables of the same gpu can be merged, but got cpu and NVIDIA H200" in capsys.readouterr().err


def test_several_files_are_read_together(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    tuned.save(table(choice(1), choice(2)), tuned.cached_path("cpu"))
    named = tmp_path / "named.json"
    tuned.save(table(choice(2, "reference", "2026-02-02"), choice(3)), named)
    monkeypatch.setenv("CNNKERNELS_TUNED", str(named))
    anew(monkeypatch)
    found = tuned.choices("cpu")["conv2d"]
    assert {c.key[2][0][0]: c.inference for c in found} == {1: "cuda", 2: "reference", 3: "cuda"}


def test_writers_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    threads = [threading.Thread(target=tuned.add, args=(table(choice(batch)), path)) for batch in range(1, 17)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {c.key[2][0][0] for c in tuned.load(path).choices} == set(range(1, 17))


def test_a_writer_that_fails_leaves_the_old_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "table.json"
    tuned.save(table(choice()), path)
    before = path.read_text()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        tuned.save(table(choice(2)), path)
    assert path.read_text() == before and [file.name for file in tmp_path.iterdir()] == ["table.json"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tune"], "name a network as module:factory, or conv2d"),
        (["tune", "conv2d", "--input", "4,64,14", "--weight", "64,64,3,3"], "--input: must be 4 numbers, once"),
        (["tune", "conv2d", "--weight", "64,64,3,3"], "--input and --weight come together"),
    ],
)
def test_what_must_be_named(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(arguments)
    assert said in capsys.readouterr().err
