"""Every Python block of the README runs as printed, its diffs do what it says of them, and its first command prints
what docs/first_result.md reads."""

import importlib
import os
import pathlib
import re
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import causalvae as cv

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
DIFFS = re.findall(r"```diff\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_python_block_runs_as_printed(number, capsys):
    exec(compile(BLOCKS[number], f"README.md block {number}", "exec"), {})
    assert capsys.readouterr().out.strip()


# --- the first command -----------------------------------------------------------------------------------

NUMBER = re.compile(r"([\d,]*\d(?:\.\d+)?(?:e-\d+)?)( %)?")


def is_near(quoted, printed):
    """Whether two lines have the same words, and numbers that another processor may give: within 2 %, one percent of a
    share, and a fifth of what is next to nothing, as nulls are."""
    if NUMBER.sub(r"#\2", quoted) != NUMBER.sub(r"#\2", printed):
        return False
    values = [[float(number.replace(",", "")) for number, _ in NUMBER.findall(line)] for line in (quoted, printed)]
    slack = [1 if percent else 0 for _, percent in NUMBER.findall(quoted)]
    numbers = zip(*values, slack, strict=True)
    return all(a == pytest.approx(b, rel=0.02 if a >= 0.01 else 0.2, abs=more) for a, b, more in numbers)


def test_a_quoted_line_is_held_to_its_words_and_numbers():
    line = "MIG is 0.373 (null 0.000513, 0.991 at best), 8 % of 10,000"
    assert is_near(line, line.replace("0.373", "0.374").replace("8 %", "9 %"))
    for other in (line.replace("373", "393"), line.replace("best", "most"), line.replace("000513", "00513")):
        assert not is_near(line, other)


@pytest.mark.long
def test_the_first_command_prints_what_the_first_result_reads(tmp_path):
    page = (ROOT / "docs" / "first_result.md").read_text()
    command, table = re.findall(r"```text\n(.*?)```", page, flags=re.DOTALL)
    assert command.strip() in README
    line = [sys.executable, *command.split()[1:], f"--workdir={tmp_path}"]
    as_users = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}  # the suite's are cheap
    done = subprocess.run(line, cwd=ROOT, env=as_users, capture_output=True, text=True, check=True)
    printed = [" ".join(line.split()) for line in done.stdout.splitlines()]
    quoted = [
        " ".join(line.split()) for line in [*re.findall(r"^> (.*)$", page, flags=re.MULTILINE), *table.splitlines()]
    ]
    assert len(quoted) > 20
    for line in filter(None, quoted):
        if not set(line) <= {"-"}:
            assert any(is_near(line, other) for other in printed), (line, done.stdout)


# --- the diffs of "Adding to it" -------------------------------------------------------------------------


def added(path):
    """What the README adds to a module: (code, entries of its table)."""
    (block,) = [found for diff in DIFFS for found in diff.split("+++ ") if found.startswith(path)]
    lines = [line[1:] for line in block.splitlines()[1:] if line.startswith("+")]
    entries = [line.strip() for line in lines if line.startswith('    "')]
    return "\n".join(line for line in lines if line.strip() not in entries), "{" + "".join(entries) + "}"


def extended(path):
    """A module's namespace with the README's code in it, and the table's new entries."""
    name = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    namespace = dict(vars(importlib.import_module(name)))
    code, entries = added(path)
    exec(code, namespace)
    return namespace, eval(entries, namespace)


def test_an_architecture_takes_what_the_readme_says(monkeypatch):
    namespace, _ = extended("causalvae/architectures/gaussian_family.py")
    _, table = added("causalvae/architectures/table.py")
    entries = eval(table, {"gaussian_family": types.SimpleNamespace(**namespace)})
    (name,) = entries
    monkeypatch.setitem(cv.architectures.ARCHITECTURES, name, entries[name])
    plain, sparse = (
        cv.architectures.create(kind, image_shape=(64, 64, 1), latents=3, network="small") for kind in ("vae", name)
    )
    params, images = plain.init(jax.random.key(0)), jnp.zeros((4, 64, 64, 1))

    def loss(model):
        hyper = {key: jnp.float32(value) for key, value in model.hyper.items()}
        return float(jax.jit(model.loss)(params, images, jax.random.key(1), hyper, jnp.int32(0))[0])

    assert loss(sparse) > loss(plain)  # by the norm of z, which has noise


def test_a_data_set_takes_what_the_readme_says(monkeypatch):
    module = types.ModuleType("causalvae.data.procedural.discs")
    exec(added("causalvae/data/procedural/discs.py")[0], vars(module))
    monkeypatch.setitem(sys.modules, "causalvae.data.procedural.discs", module)
    _, entries = extended("causalvae/data/__init__.py")
    monkeypatch.setitem(cv.data.DATASETS, "discs", entries["discs"])
    pairs = cv.interventions.counterfactuals(cv.data.load("discs"), jax.random.key(0), "x", 4)
    images = np.asarray(pairs.x)[..., 0]
    columns = (images * np.arange(64)).sum((1, 2)) / images.sum((1, 2))
    np.testing.assert_allclose(columns, 9 + 3 * np.asarray(pairs.factors)[:, 0], atol=0.01)
    assert (np.asarray(pairs.factors)[:, 1] == np.asarray(pairs.factors_source)[:, 1]).all()


def test_an_intervention_takes_what_the_readme_says():
    namespace, _ = extended("causalvae/interventions/latents.py")
    z, model = jnp.array([[1.0, -2.0]]), cv.adapters.from_functions(decode=lambda z: z)
    changes = cv.interventions.perturb_latents(model, None, z, namespace["Negate"](), jax.random.key(0))
    np.testing.assert_allclose(np.asarray(changes)[:, 0, 0], [2.0, 4.0], rtol=1e-5)


def test_a_metric_takes_what_the_readme_says(monkeypatch):
    _, entries = extended("causalvae/metrics/suite.py")
    monkeypatch.setitem(cv.metrics.METRICS, "linear", entries["linear"])
    factors = np.random.default_rng(0).integers(0, [3, 5], size=(300, 2))
    (score,) = cv.metrics.evaluate_representations(2.0 * factors, factors, metrics="linear")
    assert score.value == pytest.approx(1) and score.ceiling == 1 and score.null < 0.3
