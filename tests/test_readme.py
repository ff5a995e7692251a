"""The README's code runs as it stands."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_python_code(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert blocks
    for block in blocks:
        assert len(block.splitlines()) <= 15
        exec(compile(block, "README.md", "exec"), {})
    assert "return: 500 +- 0" in capsys.readouterr().out
    assert (tmp_path / "iq_cartpole.zip").exists()


def test_links_and_commands():
    text = (ROOT / "README.md").read_text()
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (ROOT / link).exists(), link
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", text, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
