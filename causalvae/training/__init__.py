"""Training: one step function for every architecture, with a leading member axis on everything.

An ensemble's members differ in their seed and in hyper-parameters that are arrays; one member is the special
case. Randomness is `fold_in(member_key, step)`, so a run that was stopped and resumed is bit-identical to one
that never stopped.
"""

from causalvae.training._callbacks import resolve_callbacks as resolve_callbacks
from causalvae.training._loop import Plan as Plan
from causalvae.training._loop import Stopped, TrainingError, train
from causalvae.training._loop import StopRequest as StopRequest
from causalvae.training._optimizers import check_schedule as check_schedule
from causalvae.training._optimizers import make_optimizer
from causalvae.training._steps import (
    Report as Report,
)
from causalvae.training._steps import (
    StepConfig as StepConfig,
)
from causalvae.training._steps import (
    TrainState,
    init_state,
    initial_params,
    member,
    member_hyper,
    step_config,
    train_steps,
)
from causalvae.training._steps import (
    complete_hyper as complete_hyper,
)

__all__ = [
    "Stopped",
    "TrainState",
    "TrainingError",
    "init_state",
    "initial_params",
    "make_optimizer",
    "member",
    "member_hyper",
    "step_config",
    "train",
    "train_steps",
]
