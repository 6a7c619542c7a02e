"""Settings that every test shares: mistakes that JAX tolerates in silence are errors here."""

import atexit
import os
import pathlib
import shutil
import tempfile

# Tests compile many small programs and run each a few times: what optimises them costs more than it saves.
CHEAP_COMPILATION = (
    "--xla_backend_optimization_level=1 --xla_llvm_disable_expensive_passes=true --xla_cpu_use_fusion_emitters=false"
)
os.environ.setdefault("XLA_FLAGS", CHEAP_COMPILATION)

# A worker to a core: threads of several workers that share cores spend their time waiting for each other.
if "PYTEST_XDIST_WORKER" in os.environ and hasattr(os, "sched_setaffinity"):
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw")) % len(cores)]})

# What one file has compiled, another file and the commands that tests start need not compile again. Each worker has
# a cache of its own, since entries are not written atomically.
COMPILED = tempfile.mkdtemp(prefix="causalvae_tests_")
atexit.register(shutil.rmtree, COMPILED, ignore_errors=True)
os.environ |= {
    "JAX_COMPILATION_CACHE_DIR": COMPILED,
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")

SHARED_DATA = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="module", autouse=True)
def forget_compiled_programs():
    """Frees a file's compiled programs when it is done.

    Each program on the CPU holds several memory mappings, the kernel allows a process 65,530 of them
    (vm.max_map_count), and XLA answers the next one with a segmentation fault: a worker that kept the programs of
    the whole suite would die.
    """
    yield
    jax.clear_caches()


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """The folder of small genuine data beside the repository; tests that need it skip where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"genuine sample data not found at {SHARED_DATA}")
    return SHARED_DATA


SLOW = ("test_smoke", "test_main", "test_study", "test_notebooks", "test_sharding", "test_readme")


def pytest_collection_modifyitems(items):
    """Slow files first, so that no worker is left alone with one at the end."""
    items.sort(key=lambda item: not item.path.name.startswith(SLOW))
