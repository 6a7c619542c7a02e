"""Every program as it is on CUDA and TPU, lowered here: nothing in float64, nothing from the host, nothing chosen by
the machine that traces it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causalvae import architectures
from experiments.lowering import __main__ as command
from experiments.lowering.lower import CARDS, faults, lower, roofline
from experiments.lowering.programs import GROUPS, Program, programs, training_step

# One of each kind in the suite; `-m long` lowers all.
IN_SUITE = {
    "initialization": ["vq"],
    "training": ["betatc, 1 member", "vq, 6 members", "betatc, 6 members on 8 devices"],
    "data": ["dsprites", "mpi3d"],
    "interventions": ["factors to latents", "perturb latents", "patch decoder/conv1", "mediate latent/z"],
    "codes": ["swap"],
    "metrics": ["mig", "explicitness", "dci, lasso"],
}


@pytest.fixture
def nobody_asks(monkeypatch):
    """What is traced here may run elsewhere: no program may look at the backend of the machine that traces it."""

    def ask():
        raise AssertionError("the backend was asked for while tracing")

    monkeypatch.setattr(jax, "default_backend", ask)


@pytest.mark.parametrize("group", GROUPS)
def test_programs_can_be_lowered_for_an_accelerator(group, nobody_asks):
    found = [program for program in programs([group]) if program.name in IN_SUITE[group]]
    assert [program.name for program in found] == IN_SUITE[group]
    for program in found:
        check(program)


@pytest.mark.long
@pytest.mark.parametrize("group", GROUPS)
def test_all_programs_can_be_lowered_for_an_accelerator(group, nobody_asks):
    for program in programs([group]):
        check(program)


def check(program):
    for platform, found in lower(program).items():
        assert faults(found) == [], f"{program} on {platform}"
        assert found.operations > 50 and found.flops > 1e3 and 0 < found.bytes_least < found.bytes_most


def test_what_must_not_be_in_a_program_is_seen():
    def host(x):
        return jax.pure_callback(np.sin, jax.ShapeDtypeStruct((), jnp.float32), x)

    number = jax.ShapeDtypeStruct((), jnp.float32)
    with pytest.raises(ValueError, match="cpu is different from the lowering platform cuda"):
        lower(Program("", "host", host, (number,)), ["cuda"])
    with jax.enable_x64(True):
        double = jax.ShapeDtypeStruct((), jnp.float64)
        (found,) = lower(Program("", "double", jnp.sin, (double,)), ["tpu"]).values()
    assert "values in float64" in faults(found)[0]
    matrix = jax.ShapeDtypeStruct((4, 4), jnp.float32)
    (found,) = lower(Program("", "eigenvalues", jnp.linalg.eigvalsh, (matrix,)), ["tpu"]).values()
    assert faults(found)[0].startswith("unknown custom calls: ")
    with pytest.raises(ValueError, match="no platform 'gpu'; there are: cpu, cuda, tpu"):
        lower(Program("", "sine", jnp.sin, (number,)), ["gpu"])


def test_arithmetic_and_bounds_of_a_product_of_matrices():
    a, b = jax.ShapeDtypeStruct((512, 256), jnp.float32), jax.ShapeDtypeStruct((256, 128), jnp.float32)
    (found,) = lower(Program("", "product", jnp.matmul, (a, b)), ["cuda"]).values()
    assert found.flops == pytest.approx(2 * 512 * 256 * 128, rel=0.01)
    assert found.bytes_least == found.bytes_most == 4 * (512 * 256 + 256 * 128 + 512 * 128)
    for name, card in CARDS.items():
        least, most = roofline(found, card)
        by_hand = max(2 * 512 * 256 * 128 / card.flops, found.bytes_least / card.bandwidth)
        assert least == most == pytest.approx(by_hand, rel=0.01), name


def test_members_side_by_side_on_an_accelerator_and_in_turn_on_a_cpu():

    found = lower(training_step("vae", architectures.create("vae"), 3), ("cpu", "cuda"))
    one = lower(training_step("vae", architectures.create("vae"), 1), ("cuda",))["cuda"]
    assert found["cuda"].flops == pytest.approx(3 * one.flops, rel=0.02)
    assert found["cpu"].flops < 1.5 * one.flops  # a loop, whose body counts once


def test_the_table_has_a_row_for_each_program():
    program = next(programs(["data"]))
    cells = command.row(program, lower(program))
    assert len(cells) == len(command.HEADS) and cells[0] == "data: dsprites" and cells[-1] == "none"
    assert command.table([cells]).count("\n") == 3


def test_an_unknown_group_is_named(capsys):
    with pytest.raises(SystemExit):
        command._groups("metrcs")
    assert "no group 'metrcs'; there are: initialization" in capsys.readouterr().err
