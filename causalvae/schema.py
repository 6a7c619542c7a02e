"""Every setting of a run and of a study: type, default, range and what it is for, in one table.

Configurations begin as its defaults; what checks them, reads them from a command line, lists and documents them is made
of it. An architecture's own options are those of its function, by signature and docstring.
"""

from __future__ import annotations

import functools
import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from causalvae._words import nearest

INTEGERS = 2**31 - 1  # what a device counts with
LARGEST = 3.4028235e38  # of its floating-point numbers
NOTHING = ("none", "null", "nan")  # words that are mistaken for an empty text


class Field(NamedTuple):
    """A setting."""

    default: Any  # also says of which type it is
    help: str
    least: float | None = None
    most: float | None = None
    above: float | None = None  # in place of `least`, where that itself is too little
    choices: Callable[[], Iterable[str]] | None = None
    noun: str = ""  # what a choice is called
    pattern: str = ""  # of a text
    optional: bool = False  # whether None stands for something
    kind: str = ""  # in place of the default's type


def _architectures() -> Iterable[str]:
    from causalvae.architectures import ARCHITECTURES

    return ARCHITECTURES


def _networks() -> Iterable[str]:
    from causalvae.networks import NETWORKS

    return NETWORKS


def _schedules() -> Iterable[str]:
    from causalvae.training._optimizers import SCHEDULES

    return SCHEDULES


def _precisions() -> Iterable[str]:
    from causalvae.precision import PRECISIONS

    return PRECISIONS


def _ensembles() -> Iterable[str]:
    from causalvae.training._members import ENSEMBLES

    return ENSEMBLES


def _estimators() -> Iterable[str]:
    from causalvae.metrics.dci import ESTIMATORS

    return ESTIMATORS


_SEED: dict[str, Any] = {"least": 0, "most": 2**32 - 1}
_COUNT: dict[str, Any] = {"least": 1, "most": INTEGERS}

DATA = {
    "source": Field("auto", "auto, real or procedural; of your own images auto, arrays or 'arrays, observational'."),
    "dir": Field("", "Folder of real files; else $CAUSALVAE_DATA, else data/<name>."),
    "residency": Field(
        "auto", "Where real images live while training: device, stream (on disk) or auto, by their size.",
        choices=lambda: ("auto", "device", "stream"), noun="data.residency",
    ),
    "resize": Field(
        "", "Of images of your own: 32, or 32x48, height and width in px.", pattern=r"|\d+|\d+x\d+"
    ),
    "bins": Field("", "Of images of your own: x:8,y:4, how many classes each continuous factor is divided into."),
}  # fmt: skip
TRAINING = {
    "steps": Field(300_000, "Training steps.", **_COUNT),
    "batch_size": Field(64, "Images of a step and member.", least=1, most=2**24),
    "learning_rate": Field(1e-4, "Of Adam; the highest, of a schedule that moves.", above=0, most=LARGEST),
    "schedule": Field(
        "constant", "Of the rate: constant, cosine, or trapezoid: up over the warm-up, and down to 0 at the last step.",
        choices=_schedules, noun="training.schedule",
    ),
    "warmup": Field(0, "Steps until a schedule is at its highest rate.", least=0, most=INTEGERS),
    "precision": Field(
        "float32", "Of the networks' products while training; parameters and losses are float32 in either.",
        choices=_precisions, noun="training.precision",
    ),
    "ensemble": Field(
        "auto", "How members are computed; the same but for rounding, see docs/accelerators.md.",
        choices=_ensembles, noun="training.ensemble",
    ),
    "log_every": Field(500, "Steps between lines of metrics.jsonl.", **_COUNT),
    "checkpoint_every": Field(10_000, "Steps between checkpoints.", **_COUNT),
    "tensorboard": Field(False, "Event files in <workdir>/tensorboard as well."),
    "callbacks": Field("", "Functions (step, metrics) that are told every line of metrics.jsonl: module:function, …."),
}  # fmt: skip
EVALUATION = {
    "codes": Field(10_000, "Images whose representations the disentanglement metrics are fitted on.", 20, INTEGERS),
    "test_codes": Field(5_000, "Images that they are scored on.", 10, INTEGERS),
    "votes": Field(10_000, "Votes of the FactorVAE score, points of the BetaVAE score.", **_COUNT),
    "images": Field(256, "Base images of latent perturbations.", 2, INTEGERS),
    "pairs": Field(256, "Counterfactual pairs per factor for patching and mediation.", 2, INTEGERS),
    "effects": Field(1024, "Images for the effects of factors on latents.", 2, INTEGERS),
    "active_threshold": Field(0.01, "Nats of KL from which a latent counts as active.", 0, LARGEST),
    "sites": Field("*", "Sites to patch: patterns separated by commas."),
    "metrics": Field("all", "Disentanglement metrics: all, or names separated by commas."),
    "dci_estimator": Field("xla", "What DCI fits.", choices=_estimators, noun="dci_estimator"),
    "seed": Field(0, "Of everything that an evaluation draws.", **_SEED),
}
ARCHITECTURE = {
    "name": Field("vae", "The architecture.", choices=_architectures, noun="architecture"),
    "latents": Field(10, "How many; of a VQ-VAE with spatial codes, the size of an embedding.", least=1, most=2**20),
    "network": Field("standard", "Encoder and decoder.", choices=_networks, noun="network"),
}
NETWORK = ARCHITECTURE["network"]
# What an architecture's options must be beyond what the type of their default says.
OPTIONS: dict[str, dict[str, Any]] = {
    "estimator": {"choices": lambda: ("mws", "mss", "none"), "noun": "estimator"},
    "codes": {"choices": lambda: ("spatial", "latent"), "noun": "codes"},
    "codebook": {"choices": lambda: ("ema", "gradient"), "noun": "codebook"},
    "num_codes": {"kind": "int", "least": 2, "most": 2**20, "optional": True},
    "dataset_size": {"kind": "float", "above": 0, "most": LARGEST, "optional": True},
    "discriminator_features": {"kind": "ints", "least": 1, "most": 2**20},
    "capacity_steps": {"least": 1, "most": INTEGERS},
    "decay": {"least": 0, "most": 1},
    "revival_threshold": {"least": 0, "most": 1},
}

RUN = {
    **{f"architecture.{name}": field for name, field in ARCHITECTURE.items()},
    "data.name": Field("dsprites", "A data set, or the path of an .npz file or a folder of images."),
    **{f"data.{name}": field for name, field in DATA.items()},
    "seeds": Field(1, "Members trained together in one program.", least=1, most=2**16),
    "seed": Field(0, "Of the first member; the others count up.", **_SEED),
    "pretrained": Field("", "A shipped model to evaluate in place of training one."),
    **{f"training.{name}": field for name, field in TRAINING.items()},
    **{f"evaluation.{name}": field for name, field in EVALUATION.items()},
}  # fmt: skip
STUDY = {
    "preset": Field("", "Of the configs that it is made of: none, gpu, overnight, quick or smoke."),
    "architectures": Field("", "Names separated by commas."),
    "datasets": Field("", "Names separated by commas."),
    "seeds": Field(3, "Runs of each architecture and data set.", least=1, most=2**16),
    "seed": Field(0, "Of the first run; the others count up.", **_SEED),
    "grid": Field("", "'architecture.option: value value …; …' in place of the architectures' own values."),
    "network": NETWORK,
    "latents": Field(0, "Of every architecture; 0: each one's own.", least=0, most=2**20),
    "members": Field(0, "Trained together at most; 0: as many as memory allows.", least=0, most=2**16),
    **{name: field for name, field in RUN.items() if name.startswith(("training.", "evaluation."))},
    **{f"data.{name}": field for name, field in DATA.items()},
}
STORED = ("data.sha256", "data.factors")  # what config.json holds besides
MAPPINGS = ("data.factors.", "data.bins.")  # of names that are the data's


def defaults(fields: Mapping[str, Field] = RUN) -> dict[str, Any]:
    """Returns a nested configuration of the fields' defaults."""
    tree: dict[str, Any] = {}
    for name, field in fields.items():
        section, _, key = name.rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[key] = field.default
    return tree


@functools.lru_cache(maxsize=64)
def options_of(architecture: str) -> dict[str, Field]:
    """Returns the fields of an architecture's own options: what its function takes besides latents and network."""
    from causalvae.architectures import ARCHITECTURES

    function = ARCHITECTURES[architecture]
    described = dict(re.findall(r"^\s{2,}(\w+): (.+(?:\n\s{8,}.+)*)", function.__doc__ or "", re.MULTILINE))
    parameters = list(inspect.signature(function).parameters.values())[1:]
    return {
        p.name: _option(p.name, p.default, " ".join(described.get(p.name, "").split()))
        for p in parameters
        if p.name not in ARCHITECTURE
    }


def _option(name: str, default: Any, text: str) -> Field:
    field = Field(default, text[:1].upper() + text[1:], **OPTIONS.get(name, {}))
    if field.least is None and field.above is None and _kind(field) == "float":
        return field._replace(least=0, most=LARGEST)
    return field


# --- checks ----------------------------------------------------------------------------------------------


def check(config: Mapping[str, Any], fields: Mapping[str, Field] = RUN) -> None:
    """Checks every value of a nested configuration.

    Raises:
      ValueError: names the first setting that does not exist, or whose value cannot be, and says what can.
    """
    flat = {key: value for key, value in _flatten(config).items() if key not in STORED and not key.startswith(MAPPINGS)}
    known, name = dict(fields), ""
    if "architecture.name" in fields:
        name = flat.get("architecture.name", fields["architecture.name"].default)
        check_value("architecture.name", name, fields["architecture.name"])
        known |= {f"architecture.{key}": field for key, field in options_of(name).items()}
    for key, value in flat.items():
        if key in known:
            check_value(key, value, known[key])
        elif key.startswith("architecture."):
            option = key.partition(".")[2]
            own = [other.partition(".")[2] for other in known if other.startswith("architecture.")][1:]
            raise ValueError(
                f"architecture {name!r} has no option {option!r}; it has: {', '.join(own)}.{nearest(option, own)}"
            )
        elif "." in key and any(other.startswith(key.split(".")[0] + ".") for other in known):
            raise ValueError(f"the configuration has no setting {key!r}.{nearest(key, known)}")
    if flat.get("seed", 0) + flat.get("seeds", 1) > 2**32:
        raise ValueError(f"seed is {flat['seed']}, and counts up beyond {2**32 - 1} with {flat['seeds']} seeds")


def check_value(name: str, value: Any, field: Field) -> None:
    """Raises ValueError, in words, where a value is not what a field takes."""
    if value is None and field.optional:
        return
    kind = _kind(field)
    if not _FITS[kind](value):
        raise ValueError(f"{name} must be {_WORDS[kind]}, not {value!r}")
    given: Any = value
    numbers = list(given) if kind == "ints" else [given] if kind in ("int", "float") else []
    for number in numbers:
        if not math.isfinite(number):
            raise ValueError(f"{name} must be finite, not {number}")
        if field.above is not None and not number > field.above:
            raise ValueError(
                f"{name} must be {'positive' if not field.above else f'above {field.above}'}, not {number}"
            )
        if field.least is not None and number < field.least:
            raise ValueError(f"{name} must be at least {field.least}, not {number}")
        if field.most is not None and number > field.most:
            raise ValueError(f"{name} must be at most {field.most}, not {number}")
    if kind == "str":
        _check_text(name, given, field)


def _check_text(name: str, value: str, field: Field) -> None:
    if field.choices:
        there = list(field.choices())
        if value not in there:
            raise ValueError(f"no {field.noun} {value!r}; there are: {', '.join(there)}.{nearest(value, there)}")
    elif value.lower() in NOTHING:
        raise ValueError(f"{name} is the text {value!r}: leave it out, or give an empty text, for none")
    elif not value.isprintable():
        raise ValueError(f"{name} has characters that cannot be printed: {value!r}")
    elif field.pattern and not re.fullmatch(field.pattern, value):
        raise ValueError(f"{name} is not {value!r}. {field.help}")


def parse(name: str, text: str, field: Field) -> Any:
    """Returns a setting's value from its text on a command line; ValueError says what would be one."""
    value = _parsed(name, text, field)
    check_value(name, value, field)
    return value


def _parsed(name: str, text: str, field: Field) -> Any:
    kind = _kind(field)
    if field.optional and text.lower() in NOTHING:
        return None
    if kind == "str":
        return text
    if kind == "bool":
        if text.lower() in ("true", "t", "1", "yes", "y"):
            return True
        if text.lower() in ("false", "f", "0", "no", "n"):
            return False
    try:
        if kind == "ints":
            return tuple(int(word) for word in re.split(r"[\s,]+", text.strip("[]() ")) if word)
        if kind in ("int", "float"):
            return int(text.replace("_", "")) if kind == "int" else float(text)
    except ValueError:
        pass
    raise ValueError(f"{name} must be {_WORDS[kind]}, not {text!r}{_whole(kind, text)}")


def _whole(kind: str, text: str) -> str:
    """': write 100000' of '1e5'."""
    try:
        number = float(text)
        return f": write {int(number)}" if kind == "int" and number.is_integer() else ""
    except (ValueError, OverflowError):
        return ""


def _is_number(value: Any) -> bool:
    return not isinstance(value, (bool, str, bytes)) and hasattr(value, "__float__") and not getattr(value, "shape", ())


def _is_whole(value: Any) -> bool:
    return _is_number(value) and hasattr(value, "__index__")


_FITS: dict[str, Callable[[Any], bool]] = {
    "bool": lambda value: isinstance(value, bool),
    "int": _is_whole,
    "float": _is_number,
    "str": lambda value: isinstance(value, str),
    "ints": lambda value: isinstance(value, (list, tuple)) and bool(value) and all(map(_is_whole, value)),
}
_WORDS = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "ints": "whole numbers separated by commas",
}


def _kind(field: Field) -> str:
    return field.kind or type(field.default).__name__


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in tree.items():
        flat |= (
            _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {f"{prefix}{key}": value}
        )
    return flat


# --- in words --------------------------------------------------------------------------------------------


def rows(fields: Mapping[str, Field]) -> list[tuple[str, str, str, str]]:
    """Returns (name, default, what it may be, what it is for) of every field."""
    return [(name, _shown(field.default), _allowed(field), field.help) for name, field in fields.items()]


def architecture_rows() -> list[tuple[str, str, str, str]]:
    """Returns `rows` of every architecture's own options, named `architecture.option`."""
    return [row for name in _architectures() for row in rows({f"{name}.{k}": f for k, f in options_of(name).items()})]


def _shown(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return ",".join(map(str, value))
    return str(value).lower() if value is None or isinstance(value, bool) else f"{value}"


def _allowed(field: Field) -> str:
    kind = _kind(field)
    if field.choices:
        return ", ".join(field.choices())
    words = {"ints": "whole numbers"}.get(kind, _WORDS[kind].removeprefix("a "))
    low = (
        f"above {field.above}"
        if field.above is not None
        else f"{field.least} or more"
        if field.least is not None
        else ""
    )
    high = f"at most {field.most}" if field.most is not None and field.most not in (INTEGERS, LARGEST) else ""
    return ", ".join(filter(None, (words, low, high, "or none" if field.optional else "")))
