"""What every program is on an accelerator, without one: lowered for CUDA and TPU, its arithmetic, its roofline.

    python -m experiments.lowering                          # all programs: minutes
    python -m experiments.lowering --only=training,metrics
    python -m experiments.lowering --only=interventions --markdown=docs/roofline.md

Exit status 1 where a program holds float64, calls the host, or calls a library that is not known. Times are bounds: of
the card's arithmetic and memory, see `roofline`; kernels, launches and the compiler take their own.
"""

from __future__ import annotations

import pathlib
import time

import jax
from absl import flags

from causalvae._words import nearest
from causalvae.progress import write_text
from experiments import cli
from experiments.lowering.lower import CARDS, PLATFORM_OF, Lowered, faults, lower, roofline
from experiments.lowering.programs import GROUPS, Program, programs

PAGE = """# What programs need, on paper

Every program of the library, lowered for CUDA and for TPU on a machine that has neither, by
`python -m experiments.lowering --markdown=docs/roofline.md` (jax {jax}). Nothing here was measured on a card.
Floating-point operations and bytes are the compiler's count before it optimizes: *least*, arguments read and results
written once; *most*, every operation's operands and results, as if nothing were fused. The time that they take at the
least lies between the two bounds, on the cards of [accelerators](accelerators.md); a loop counts once, so that a row is
one training step, one batch, or one sweep. Most of these programs are shorter than launching their kernels.

{table}
"""
ONLY = flags.DEFINE_string("only", "", f"Only these groups, separated by commas: {', '.join(GROUPS)}.")
MARKDOWN = flags.DEFINE_string("markdown", None, "Write a page with the table, too.")
HEADS = ("program", "GFLOP", "MB, least", "MB, most", *(f"{name}, ms" for name in CARDS), "calls")


def main(argv: list[str]) -> None:
    cli.check_folder_of(MARKDOWN.value, "markdown")
    rows, wrong, started = [], [], time.monotonic()
    for program in programs(_groups(ONLY.value)):
        found = lower(program)
        wrong += [f"{program}: {fault}" for each in found.values() for fault in faults(each)]
        rows.append(row(program, found))
        print("  ".join(rows[-1]), flush=True)
    text = table(rows)
    print(f"\n{text}\n{len(rows)} programs lowered for CUDA and TPU in {time.monotonic() - started:.0f} s")
    if MARKDOWN.value:
        write_text(pathlib.Path(MARKDOWN.value), PAGE.format(jax=jax.__version__, table=text.strip()))
    if wrong:
        cli.fail("; ".join(wrong))


def _groups(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()] or list(GROUPS)
    for name in names:
        if name not in GROUPS:
            cli.fail(f"no group {name!r}; there are: {', '.join(GROUPS)}.{nearest(name, GROUPS)}")
    return names


def row(program: Program, found: dict[str, Lowered]) -> list[str]:
    """Returns the cells of a program: arithmetic and traffic on CUDA, and bounds of the time on each card."""
    cuda = found["cuda"]
    cells = [str(program), f"{cuda.flops / 1e9:.3g}", f"{cuda.bytes_least / 1e6:.3g}", f"{cuda.bytes_most / 1e6:.3g}"]
    for name, card in CARDS.items():
        least, most = roofline(found[PLATFORM_OF[name]], card)
        cells.append(f"{1e3 * least:.2g} to {1e3 * most:.2g}")
    return [*cells, ", ".join(sorted({call for each in found.values() for call in each.calls})) or "none"]


def table(rows: list[list[str]]) -> str:
    """Returns the table in Markdown."""
    lines = [HEADS, ["---"] + ["---:"] * (len(HEADS) - 2) + ["---"], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


if __name__ == "__main__":
    cli.run(main)
