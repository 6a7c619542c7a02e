"""The page of all settings, from the schema.

python -m experiments.settings --out=docs/settings.md
"""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags

from causalvae import schema
from causalvae.progress import write_text
from experiments import cli

INTRODUCTION = """\
# Settings

`python -m experiments.settings --out=docs/settings.md` writes this page from `causalvae/schema.py`, from which
configurations begin, and by which they are checked before anything is computed.

A configuration is a file or a name (`--config=vae_dsprites`, `--config=configs/vae_dsprites.py`), a preset after a
colon, and settings on the command line: `--config.training.steps=5000`. Presets change the defaults below. In Python it
is a dictionary, `cv.train({"training": {"steps": 5000}}, "runs/mine")`, and what it does not say has its default.
"""


def main(argv: list[str]) -> None:
    del argv
    if flags.FLAGS.out is None:
        print(page())
        return
    cli.check_folder_of(flags.FLAGS.out, "out")
    write_text(flags.FLAGS.out, page())


def page() -> str:
    """Returns the page, in Markdown."""
    parts = [
        INTRODUCTION,
        "## Of a run\n",
        _table(schema.rows(schema.RUN)),
        "\n## Of an architecture\n",
        '`--config.architecture.OPTION=VALUE`; in a study, `--config.grid="beta.beta: 1 4 16; factor.gamma: 10 30"`.\n',
        _table(schema.architecture_rows()),
        "\n## Of a study\n",
        "Besides these, all of `training.*` and `evaluation.*` above.\n",
        _table([row for row in schema.rows(schema.STUDY) if not row[0].startswith(("training.", "evaluation."))]),
    ]
    return "\n".join(parts) + "\n"


def _table(rows: Sequence[tuple[str, str, str, str]]) -> str:
    lines = ["| setting | default | values | what it is |", "| --- | --- | --- | --- |"]
    for name, default, allowed, text in rows:
        lines.append(
            f"| `{name}` | {f'`{default}`' if default else 'empty'} | {allowed} | {text.replace('|', chr(92) + '|')} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    flags.DEFINE_string("out", None, "Where the page goes; without it, it is printed.")
    cli.run(main)
