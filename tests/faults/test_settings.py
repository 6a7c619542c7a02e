"""Values drawn for every setting from the schema: good ones are taken, bad ones are one sentence, before any step."""

import contextlib
import math
import random

import pytest

from causalvae import schema
from configs import common
from configs import study as study_config
from experiments import overrides, pipeline
from experiments.study import planning

SEED = 21
TEXTS = [
    "",
    "None",
    "nan",
    "inf",
    "-inf",
    "1e5",
    "1e400",
    "0x10",
    "[1, 2]",
    "{}",
    "é×→",
    "a\x00b",
    "a\nb",
    "x" * 300,
    "--",
    "../..",
]
OBJECTS = [
    None,
    True,
    False,
    [],
    {},
    [1],
    (),
    b"x",
    object(),
    1j,
    math.nan,
    math.inf,
    -math.inf,
    1e300,
    10**30,
    -(10**30),
]


def values(field, draw):
    """A value of any kind, near the edges of a field's range for the most part."""
    edges = [edge for edge in (field.least, field.above, field.most) if edge is not None]
    near = [edge + step for edge in edges for step in (-1, -1e-9, 0, 1e-9, 1)] if edges else []
    whole = [int(edge) + step for edge in edges if math.isfinite(edge) for step in (-1, 0, 1)]
    named = list(field.choices()) if field.choices else []
    number = draw.choice(
        [draw.randint(-5, 5), draw.uniform(-2, 2), 10 ** draw.uniform(-12, 12), draw.randint(-(2**70), 2**70)]
    )
    return draw.choice([*near, *whole, *named, number, *TEXTS, *OBJECTS])


def one_sentence(error):
    text = str(error)
    return 10 < len(text) < 1500 and "\n" not in text and "Traceback" not in text


def refused(call):
    """Whether a call refused its values in a sentence, or what else came of it."""
    try:
        call()
    except (ValueError, OSError) as error:
        return None if one_sentence(error) else f"{error!r} is not one sentence"
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:300]
    return None


def tried(seed, num):
    """Draws `num` settings of runs, of a study and of command lines; returns what was neither taken nor refused."""
    draw, wrong = random.Random(seed), []
    for _ in range(num):
        architecture = draw.choice(list(common.ARCHITECTURES))
        options = {f"architecture.{name}": field for name, field in schema.options_of(architecture).items()}
        name, field = draw.choice([*schema.RUN.items(), *options.items()])
        value = values(field, draw)
        config = common.config_for(architecture, "dsprites", "smoke").to_dict()
        section, _, key = name.rpartition(".")
        (config[section] if section else config)[key] = value
        found = refused(lambda config=config: schema.check(config))
        wrong += [f"{name} = {value!r}: {found}"] if found else []
        wrong += _from_text(name, field, str(value))
        if not found and isinstance(value, (int, float, str, bool)):
            wrong += _prepared(architecture, name, value)
    return wrong


def _from_text(name, field, text):
    """What a command line gives: the value is refused, or passes the check."""
    found = refused(lambda: schema.check_value(name, schema.parse(name, text, field), field))
    found = found or refused(lambda: overrides.prepare(["main", f"--config.{name}={text}"], schema.RUN))
    return [f"--config.{name}={text!r}: {found}"] if found else []


def _prepared(architecture, name, value):
    """What passes the check must be fit for a run, as far as that is known before the first step."""
    config = common.config_for(architecture, "dsprites", "smoke")
    with config.unlocked(), contextlib.suppress(TypeError):  # ConfigDict has types of its own
        config.update_from_flattened_dict({name: value})
    too_large = any(isinstance(value, (int, float)) and value > 1e5 for value in [value])
    if too_large or name == "data.name":  # its shapes would take a while, and files that are read are another test's
        return []
    found = refused(lambda: pipeline.prepare(config))
    return [f"prepare with {name} = {value!r}: {found}"] if found else []


def study_tried(seed, num):
    """Draws settings of a study, and grids; likewise."""
    draw, wrong = random.Random(seed), []
    for _ in range(num):
        name, field = draw.choice(list(schema.STUDY.items()))
        config = study_config.get_config("smoke")
        with config.unlocked():
            config.update({"datasets": "dsprites", "seeds": 1})
            value = grid(draw) if name == "grid" else values(field, draw)
            with contextlib.suppress(TypeError, ValueError, AttributeError, KeyError):
                config.update_from_flattened_dict({name: value})
        if name == "seeds" and isinstance(value, int) and value > 1000:
            continue
        found = refused(lambda config=config: planning.list_runs(config))
        wrong += [f"study {name} = {value!r}: {found}"] if found else []
    return wrong


def grid(draw):
    words = ["1", "4", "4.0", "NaN", "-1", "1e39", "true", '"x"', "[1,2]", "{}", "null", "../x", "x" * 250]
    architecture = draw.choice([*common.ARCHITECTURES, "dip1", "", "no"])
    option = draw.choice(["beta", "gamma", "estimator", "discriminator_features", "num_codes", "name", "latents", ""])
    part = f"{architecture}.{option}: {' '.join(draw.choices(words, k=draw.randint(0, 3)))}"
    return draw.choice([part, f"{part}; {part}", part.replace(":", ""), f"{part};;"])


def test_a_value_is_taken_or_refused_in_a_sentence():
    assert not tried(SEED, 60) + study_tried(SEED, 20)


@pytest.mark.long
def test_many_values():
    wrong = tried(SEED + 1, 6000) + study_tried(SEED + 1, 1500)
    print(f"seed {SEED + 1}: 7,500 settings, {len(wrong)} wrong")
    assert not wrong, "\n".join(wrong)
