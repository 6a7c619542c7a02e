"""Settings that every test shares: mistakes that JAX tolerates in silence are errors here."""

import atexit
import gc
import importlib.metadata
import os
import pathlib
import shutil
import tempfile

# Tests compile many small programs and run each a few times: what optimizes them, or splits them among threads, costs
# more than it saves. The suite takes three quarters of the time that it takes at level 1.
CHEAP_COMPILATION = ["--xla_backend_optimization_level=0", "--xla_cpu_parallel_codegen_split_count=1"]
if importlib.metadata.version("jaxlib").startswith("0.10."):  # later ones have these emitters no more, and abort
    CHEAP_COMPILATION.append("--xla_cpu_use_fusion_emitters=false")


def pytest_addoption(parser):
    parser.addoption("--optimized", action="store_true", help="compile as users do: slower, for tests of numbers")


def pytest_configure(config):
    """Sets how XLA compiles; workers inherit it. What the environment says comes after, and wins."""
    if "PYTEST_XDIST_WORKER" not in os.environ and not config.getoption("optimized"):
        os.environ["XLA_FLAGS"] = " ".join([*CHEAP_COMPILATION, os.environ.get("XLA_FLAGS", "")])


# A worker to a core: threads of several workers that share cores spend their time waiting for each other. (A lone
# worker is left free: two such runs side by side would share the first core.)
if int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) > 1 and hasattr(os, "sched_setaffinity"):
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw")) % len(cores)]})

# What one file has compiled, other files, workers and the commands that tests start need not compile again. (With a
# limit to its size, JAX locks the cache while it reads and writes.) A directory that the environment names is kept, and
# JAX_COMPILATION_CACHE_DIR=~/.cache/jax makes the second run of a file faster; in a folder of its own there, because
# JAX wants all who share one to have set the same limit.
if "PYTEST_XDIST_WORKER" not in os.environ:
    named = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    folder = os.path.join(named, "causalvae_tests") if named else tempfile.mkdtemp(prefix="causalvae_tests_")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    if not named:
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"] = str(4 * 2**30)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import jax  # noqa: E402
import pytest  # noqa: E402

from causalvae._programs import free_programs  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
gc.freeze()  # what is imported stays
gc.set_threshold(50_000, 20, 100)  # tracing makes many objects and little garbage

SHARED_DATA = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"


escaped_warnings = []


def pytest_warning_recorded(warning_message, nodeid):
    """Warnings are errors; what is still recorded was raised where the filters did not hold, as in a thread that
    had exchanged them."""
    escaped_warnings.append(f"{nodeid or 'outside of tests'}: {warning_message.message}")


def pytest_sessionfinish(session, exitstatus):
    if escaped_warnings and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter):
    for line in escaped_warnings:
        terminalreporter.write_line(f"a warning that is no error, and fails the run: {line}", red=True)


@pytest.fixture(scope="module", autouse=True)
def forget_compiled_programs():
    """A worker that kept the programs of the whole suite would take 7 GB, and die of its mappings in the end."""
    yield
    free_programs(limit=10_000)


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """The folder of small real data beside the repository; tests that need it skip where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real sample data not found at {SHARED_DATA}")
    return SHARED_DATA


SLOW = ("test_smoke", "test_main", "test_study", "test_notebooks", "test_sharding", "test_readme", "test_explorer")


# Files whose numbers must be the same on every processor: the part that is tested again at another instruction set.
NUMERIC = ("test_planted.py", "test_metrics_information", "test_metrics_suite", "test_metrics_causal")


def pytest_collection_modifyitems(items):
    """Slow files first, so that no worker is left alone with one at the end; and of these first what compiles most."""
    for item in items:
        if item.path.name.startswith(NUMERIC):
            item.add_marker(pytest.mark.numeric)
    names = [*SLOW, ""]
    items.sort(key=lambda item: next(i for i, name in enumerate(names) if item.path.name.startswith(name)))
