"""Adam under a schedule, and what an architecture labels otherwise."""

from __future__ import annotations

import functools
from collections.abc import Hashable
from typing import Any

import optax

from causalvae.architectures import Architecture

SCHEDULES = ("constant", "cosine", "trapezoid")
COOLDOWN = 0.2  # of all steps, at the end of a trapezoid


def make_optimizer(
    model: Architecture, learning_rate: float = 1e-4, schedule: str = "constant", warmup: int = 0, steps: int = 0
) -> optax.GradientTransformation:
    """Returns Adam (0.9, 0.999, 1e-8) for all parameters but those that the architecture labels otherwise.

    The same arguments give the same object, and so the same compiled step. A discriminator's own rate stays constant.

    Args:
        model: Whose `optimizers` label groups of parameters.
        learning_rate: The highest.
        schedule: "constant", the published budgets'; or up to `learning_rate` in a straight line over `warmup` steps
            and down to 0 by step `steps`, along half a cosine ("cosine"), or after a constant stretch in a straight
            line over the last fifth ("trapezoid", Hägele et al. 2024, arXiv:2405.18392).
        warmup: Steps; of no meaning to a constant rate.
        steps: Of the whole run; likewise.
    """
    plan = () if schedule == "constant" else (schedule, int(warmup), int(steps))
    return _optimizer(tuple(sorted(model.optimizers.items())), float(learning_rate), *plan)


def check_schedule(schedule: str, warmup: int, steps: int) -> None:
    """Raises ValueError for a schedule that does not exist, or a warm-up that does not fit into the steps."""
    if schedule not in SCHEDULES:
        raise ValueError(f"no training.schedule {schedule!r}; there are: {', '.join(SCHEDULES)}")
    if schedule == "constant" and warmup:
        raise ValueError(f"training.warmup is {warmup}, and a constant rate has no warm-up: choose another schedule")
    if not 0 <= warmup < steps:
        raise ValueError(f"training.warmup must be at least 0 and less than the {steps} steps, not {warmup}")


def _rate_of_steps(rate: float, schedule: str, warmup: int, steps: int) -> optax.Schedule:
    if schedule == "cosine":
        down, start = optax.cosine_decay_schedule(rate, steps - warmup), warmup
    else:
        start = max(warmup, steps - round(COOLDOWN * steps))
        down = optax.linear_schedule(rate, 0.0, steps - start)
    up, hold = optax.linear_schedule(0.0, rate, warmup), optax.constant_schedule(rate)
    return optax.join_schedules([up, hold, down], [warmup, start])


@functools.lru_cache(maxsize=256)
def _optimizer(labels: tuple[tuple[str, str], ...], rate: float, *plan: Any) -> optax.GradientTransformation:
    adam = optax.adam(_rate_of_steps(rate, *plan) if plan else rate)
    if not labels:
        return adam
    optimizers: dict[Hashable, optax.GradientTransformation] = {
        "adam": adam,
        "discriminator": optax.adam(1e-4, b1=0.5, b2=0.9),  # Kim & Mnih 2018, appendix A
        "frozen": optax.set_to_zero(),
    }
    return optax.multi_transform(optimizers, lambda params: {name: dict(labels).get(name, "adam") for name in params})
