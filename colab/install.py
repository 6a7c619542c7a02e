# Installs causalvae where it is absent, with the jax that is here, and says on which device it runs. Running it twice
# is running it once. Where the repository cannot be reached: upload a wheel or a zip of it (Files, on the left), or
# give SOURCE below.
import glob
import importlib
import importlib.metadata
import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

REPOSITORY = "https://github.com/causalvae/causalvae"
SOURCE = os.environ.get("CAUSALVAE_SOURCE", "")  # "/content/drive/MyDrive/causalvae", a .whl, a .zip, a URL


def accelerator():
    """What the hardware is, whatever jax has been installed."""
    if "TPU_ACCELERATOR_TYPE" in os.environ or glob.glob("/dev/accel[0-9]*"):
        return "tpu"
    listed = shutil.which("nvidia-smi") and subprocess.run(["nvidia-smi", "-L"], capture_output=True)
    return "gpu" if listed and listed.returncode == 0 else "cpu"


def shipped(pattern="jax.*|libtpu.*"):
    found = ((d.metadata["Name"] or "", d.version) for d in importlib.metadata.distributions())
    return {name: version for name, version in found if re.fullmatch(pattern, name)}


def pip_install(source, extras, kept):
    where = source if "://" in source else pathlib.Path(source).expanduser().resolve().as_uri()
    if "://" in source and not re.search(r"^git\+|\.(whl|zip)$", source):
        where = f"git+{source}"
    with tempfile.TemporaryDirectory() as folder:
        constraints = pathlib.Path(folder, "kept.txt")
        constraints.write_text("".join(f"{name}=={version}\n" for name, version in kept.items()))
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "-c", constraints]
        return subprocess.run([*pip, f"causalvae[{extras}] @ {where}"], capture_output=True, text=True)


def install():
    uploaded = sorted(glob.glob("causalvae*.whl") + glob.glob("causalvae*.zip"))
    source = SOURCE or (uploaded[-1] if uploaded else REPOSITORY)
    kept, loaded = shipped(), {name: sys.modules[name].__version__ for name in ("numpy", "jax") if name in sys.modules}
    done = pip_install(source, "colab", kept)
    if done.returncode and "ResolutionImpossible" in done.stdout + done.stderr:
        print(f"causalvae needs another jax than {kept.get('jax')}: one for this device takes its place")
        done = pip_install(source, "colab" + {"gpu": ",cuda", "tpu": ",tpu", "cpu": ""}[accelerator()], {})
    if done.returncode:
        raise RuntimeError(
            f"{source} cannot be installed: {done.stderr.strip()}\nUpload a wheel or a zip of the repository (Files, "
            'on the left), or set SOURCE = "/content/drive/MyDrive/causalvae" above, and run this cell again.'
        )
    importlib.invalidate_caches()
    for name, version in loaded.items():
        if importlib.metadata.version(name) != version:
            raise RuntimeError(f"{name} is another version now: Runtime > Restart session, then run this cell again.")


spec = importlib.util.find_spec("causalvae")
if spec is None or spec.origin is None:  # no origin: a folder that happens to have this name
    install()

import jax  # noqa: E402

from causalvae import commands  # noqa: E402

commands.find()
device, backend = accelerator(), jax.default_backend()
print(f"jax {jax.__version__} on {backend}: {jax.devices()[0].device_kind}")
wanted = os.environ.get("JAX_PLATFORMS", "").split(",")[0] or device
assert backend == {"cuda": "gpu"}.get(wanted, wanted), (
    f"this machine has a {device}, but jax runs on {backend}: Runtime > Disconnect and delete runtime, then run again"
)
