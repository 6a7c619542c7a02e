"""Every Python block of the README runs as printed; every file, flag and entry point that it names exists."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_python_block_runs_as_printed(number, capsys):
    exec(compile(BLOCKS[number], f"README.md block {number}", "exec"), {})
    assert capsys.readouterr().out.strip()


def test_what_the_readme_names_exists():
    assert len(BLOCKS) >= 2
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link
    for module in set(re.findall(r"python -m (experiments\.\w+)", README)):
        assert (ROOT / (module.replace(".", "/") + ".py")).exists(), module
    for config in set(re.findall(r"configs/\w+\.py", README)):
        assert (ROOT / config).exists(), config
    for notebook in set(re.findall(r"colab/\w+\.ipynb", README)):
        assert (ROOT / notebook).exists(), notebook
