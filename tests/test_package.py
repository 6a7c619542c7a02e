"""The package as a whole: what `import causalvae` makes reachable, and what it does not wait for."""

import pkgutil
import subprocess
import sys

import causalvae as cv

# What takes long to import, and who may: they load where they are used.
HEAVY = "sklearn matplotlib scipy.optimize scipy.stats statsmodels pandas orbax flax.nnx tensorflow_datasets".split()
LIGHT = (
    "architectures checkpoints circuits data discovery frames interventions layers metrics model networks objectives "
    "planted pretrained sites"
).split()


def test_every_module_and_function_is_reachable():
    modules = {module.name for module in pkgutil.iter_modules(cv.__path__) if not module.name.startswith("_")}
    assert modules == {name for name in dir(cv) if name in modules}
    for name in modules:  # those that are public, and those that are reachable all the same
        assert getattr(cv, name).__name__ == f"causalvae.{name}"
    assert set(cv.__all__) <= set(dir(cv)) and len(set(cv.__all__)) == len(cv.__all__)
    for name in cv.__all__:
        assert getattr(cv, name).__name__ in (name, f"causalvae.{name}")


def test_importing_does_not_load_what_is_not_used():
    code = f"""
import sys
import causalvae as cv
assert "jax" not in sys.modules
cv.run, cv.frame, cv.load_pretrained
for name in {LIGHT}:
    getattr(cv, name)
print([name for name in {HEAVY} if name in sys.modules])
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0 and ran.stdout.strip() == "[]", ran.stdout + ran.stderr
