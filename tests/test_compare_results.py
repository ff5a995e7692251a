"""Rows of comparisons on disk: what kills leave, and processes that share a folder."""

import json
import os
import re
import subprocess
from dataclasses import replace
from threading import Thread

import pytest

from sb3_iq.compare import provenance
from sb3_iq.compare.environment import Environment
from sb3_iq.compare.results import Results, append_line, missing, read_lines
from tests.compare_utils import DOWN, PROTOCOL, UP, make_row, make_run


def test_rows_on_disk(tmp_path):
    results = Results(tmp_path / "out")
    results.open(PROTOCOL)
    rows = [make_row("iq", seed, UP) for seed in range(3)]
    for row in rows[:2]:
        results.append(row)
    with results.path.open("a") as file:
        file.write(json.dumps(rows[2])[:50])  # what a killed process leaves
    again = Results(tmp_path / "out")
    assert again.read() == rows[:2]
    again.open(PROTOCOL)
    again.append(rows[2])
    assert again.read() == rows
    assert again.read_protocol() == PROTOCOL
    again.open(replace(PROTOCOL, baselines="/another/path/of/the/same"))
    runs = [make_run(seed=seed) for seed in range(5)]
    assert missing(runs, rows, None) == runs[3:]
    assert missing(runs, rows, (2, 2)) == [runs[3]]


def test_shards_are_read_together(tmp_path):
    for i in (1, 2):
        results = Results(tmp_path, (i, 2))
        results.open(PROTOCOL)
        results.append(make_row("iq", i, UP))
    Results(tmp_path).append(make_row("iq", 1, DOWN))  # the same run a second time
    assert sorted(row["seed"] for row in Results(tmp_path).read()) == [1, 2]


def test_failed_runs_are_tried_again(tmp_path):
    """Rows are only ever added, so that shards which are at work lose none; of a run the one that ended well is read."""
    results, shard = Results(tmp_path), Results(tmp_path, (1, 2))
    results.open(PROTOCOL)
    results.append(make_row("iq", 0, UP))
    for writer, error in ((shard, "ValueError: no"), (results, "ValueError: still not")):
        writer.append(make_row("iq", 1, UP, error=error))
    runs = [make_run(seed=seed) for seed in range(3)]
    assert missing(runs, results.read(), None) == runs[2:]
    assert missing(runs, results.read(), None, retry_failed=True) == runs[1:]
    assert {row["seed"]: row["error"] for row in results.read()} == {0: None, 1: "ValueError: still not"}
    shard.append(make_row("iq", 1, UP))
    results.append(make_row("iq", 1, UP, error="ValueError: a node was lost"))
    assert {row["seed"]: row["error"] for row in results.read()} == {0: None, 1: None}
    assert missing(runs, results.read(), None, retry_failed=True) == runs[2:]


def test_two_processes_append_one_after_the_other(tmp_path):
    fcntl = pytest.importorskip("fcntl")
    path = tmp_path / "lines.jsonl"
    path.write_text('{"a"')  # another process is at it
    with path.open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        thread = Thread(target=append_line, args=(path, {"b": 2}))
        thread.start()
        thread.join(0.2)
        assert thread.is_alive() and path.read_text() == '{"a"'
        other.write(": 1}\n")
    thread.join()
    assert path.read_text() == '{"a": 1}\n{"b": 2}\n'


def test_shards_may_start_at_once(tmp_path, monkeypatch):
    """And a process that was killed as it began leaves a folder that can be used."""
    (tmp_path / "comparison.json.4711").write_text("{")
    (tmp_path / "results-2-of-2.jsonl").touch()
    link = os.link

    def other_is_first(source, target):
        monkeypatch.setattr(os, "link", link)
        Results(tmp_path, (2, 2)).open(PROTOCOL)
        link(source, target)

    monkeypatch.setattr(os, "link", other_is_first)
    Results(tmp_path, (1, 2)).open(PROTOCOL)
    assert Results(tmp_path).read_protocol() == PROTOCOL
    (tmp_path / "comparison.json").unlink()
    monkeypatch.setattr(os, "link", other_is_first)
    with pytest.raises(ValueError, match="holds another comparison"):
        Results(tmp_path, (1, 2)).open(replace(PROTOCOL, timesteps=7))
    assert Results(tmp_path).read_protocol() == PROTOCOL
    assert sorted(path.name for path in tmp_path.glob("comparison*")) == ["comparison.json", "comparison.json.4711"]


def test_what_a_kill_leaves_is_no_part_of_the_next_line(tmp_path):
    path = tmp_path / "lines.jsonl"
    assert read_lines(path) == []
    path.write_text('{"a": 1}\n{"b"')
    append_line(path, {"c": 3})
    assert path.read_text() == '{"a": 1}\n{"c": 3}\n'
    path.write_text('{"b"')
    append_line(path, {"c": 3})
    assert read_lines(path) == [{"c": 3}]


def test_a_row_that_lacks_only_the_end_of_its_line_is_kept(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"seed": 0}\n{"seed": 1}')
    append_line(path, {"seed": 2})
    assert read_lines(path) == [{"seed": seed} for seed in range(3)]


def test_another_comparison_is_refused(tmp_path):
    results = Results(tmp_path)
    results.open(PROTOCOL)
    for changes in (dict(timesteps=2_000), dict(demos_hash="1"), dict(env=Environment("Acrobot-v1"))):
        with pytest.raises(ValueError, match=rf"holds another comparison \({next(iter(changes))}.* are not mixed"):
            results.open(replace(PROTOCOL, **changes))
    # What differs is in sight, however much there is besides
    env = Environment(PROTOCOL.env.env_id, {f"argument_{i}": i for i in range(20)})
    with pytest.raises(ValueError, match=r"\(env\.kwargs\.argument_0 None, not 0; "):
        results.open(replace(PROTOCOL, env=env))
    results.open(replace(PROTOCOL, demos="/another/path/of/the/same"))
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").touch()
    with pytest.raises(ValueError, match="is not empty, and holds no comparison"):
        Results(other).open(PROTOCOL)
    (other / "comparison.json").write_text("{}")
    with pytest.raises(ValueError, match="is damaged"):
        Results(other).open(PROTOCOL)
    with pytest.raises(ValueError, match="is a file"):
        Results(other / "thesis.txt")


def test_rows_of_an_unknown_comparison_are_refused(tmp_path):
    """Where what they share is lost, or another program wrote them."""
    results = Results(tmp_path)
    results.open(PROTOCOL)
    results.append(make_row("iq", 0, UP))
    (tmp_path / "comparison.json").unlink()
    with pytest.raises(ValueError, match=r"holds rows, but comparison\.json, which .* is missing: give another folder"):
        Results(tmp_path).open(PROTOCOL)
    assert not (tmp_path / "comparison.json").exists()


def test_folder_that_cannot_be_written_to(tmp_path, monkeypatch):
    """It is told before the first run, not after it."""
    Results(tmp_path).open(PROTOCOL)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(PermissionError, match="no permission to write to"):
        Results(tmp_path).open(PROTOCOL)


def test_the_commit_says_whether_code_differs_from_it(monkeypatch, tmp_path):
    """A suite of benchmarks appends to its results as it runs: these are no code."""

    def git(*arguments):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True, capture_output=True)

    monkeypatch.setattr(provenance, "CHECKOUT", tmp_path)
    assert provenance.git_commit() is None
    results, code = tmp_path / "benchmarks" / "results" / "suite.jsonl", tmp_path / "code.py"
    results.parent.mkdir(parents=True)
    for path in (results, code):
        path.write_text("1\n")
    git("init")
    git("add", ".")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-m", "first")
    commit = provenance.git_commit()
    assert re.fullmatch("[0-9a-f]{12}", commit)
    results.write_text("1\n2\n")
    assert provenance.git_commit() == commit
    code.write_text("2\n")
    assert provenance.git_commit() == f"{commit}-dirty"
