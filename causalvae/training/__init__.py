"""Training: one step function for every architecture, with a leading member axis on everything.

An ensemble's members differ in their seed and in hyper-parameters that are arrays; one member is the special
case. Randomness is `fold_in(member_key, step)`, so a run that was stopped and resumed is bit-identical to one
that never stopped.
"""

from causalvae.training._loop import Plan, Stopped, StopRequest, TrainingError, check_positive, train
from causalvae.training._optimizers import check_schedule, make_optimizer
from causalvae.training._steps import (
    Report,
    StepConfig,
    TrainState,
    complete_hyper,
    init_state,
    initial_params,
    member,
    member_hyper,
    step_config,
    train_steps,
)

__all__ = [
    "Plan",
    "Report",
    "StepConfig",
    "StopRequest",
    "Stopped",
    "TrainState",
    "TrainingError",
    "check_positive",
    "check_schedule",
    "complete_hyper",
    "init_state",
    "initial_params",
    "make_optimizer",
    "member",
    "member_hyper",
    "step_config",
    "train",
    "train_steps",
]
