"""The one hook: every activation worth naming passes through `tap(site, value)`.

A model's forward function is `forward(params, x, key, tap) -> outputs`. Capturing, patching, perturbing and
mediating are calls of that same function with another tap, so jit, vmap, grad and sharding apply to all of
them and nothing is ever mutated. Edits are arguments (arrays plus a static operation), never closures over
data: jit keys on their structure, and vmap runs over units, values and ensemble members.

    outputs, activations = run(model, params, x, edits={"latent/z": set_unit(3, 2.0)}, capture=("decoder/*",))
"""

from __future__ import annotations

import contextlib
import contextvars
import fnmatch
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.core import Tracer

from causalvae._inputs import check_inputs, positional, while_running
from causalvae._programs import jit
from causalvae._words import nearest

__all__ = [
    "Activations",
    "Edit",
    "Edits",
    "Tap",
    "add",
    "no_tap",
    "patch",
    "replace",
    "run",
    "set_unit",
    "set_units",
    "shift_unit",
    "site_shapes",
    "tag",
    "transform",
]

PyTree = Any
Tap = Callable[[str, jax.Array], jax.Array]
"""(site, value) -> value: what every activation passes through."""


def no_tap(site: str, value: jax.Array) -> jax.Array:
    """Returns the value: the tap of an ordinary forward pass, which leaves every activation as it is."""
    return value


# --- naming values inside somebody's code ----------------------------------------------------------------

_active_tap: contextvars.ContextVar[Tap] = contextvars.ContextVar("tap", default=no_tap)


def tag(site: str, value: jax.Array) -> jax.Array:
    """Returns the value, which has a name from then on: `z = tag("latent/z", z)` inside any function.

    Outside a run the value stays as it is; in a run of a model that `causalvae.adapters` made of that function, it is
    a site.
    """
    return _active_tap.get()(site, value)


@contextlib.contextmanager
def tagging(tap: Tap) -> Iterator[None]:
    """Sends what is tagged inside through the tap."""
    token = _active_tap.set(tap)
    try:
        yield
    finally:
        _active_tap.reset(token)


@jax.tree_util.register_pytree_with_keys_class
class Activations(dict):
    """site -> activation, in the order of the forward pass. (A plain dict comes out of jit sorted by name.)"""

    def tree_flatten_with_keys(self):
        return tuple((jax.tree_util.DictKey(k), v) for k, v in self.items()), tuple(self)

    @classmethod
    def tree_unflatten(cls, sites, values):
        return cls(zip(sites, values))


# --- edits -----------------------------------------------------------------------------------------------


def replace(activation: jax.Array, value: jax.Array) -> jax.Array:
    """Returns the new value in place of the old one: the default operation of an edit."""
    return jnp.broadcast_to(value, activation.shape).astype(activation.dtype)


def add(activation: jax.Array, value: jax.Array) -> jax.Array:
    """Returns activation + value: the operation of `shift_unit`."""
    return activation + jnp.broadcast_to(value, activation.shape).astype(activation.dtype)


@struct.dataclass
class Edit:
    """What to do to one site's activation: `where(selected, operation(activation, value), activation)`.

    `units` are indices of the last axis (channels of a convolutional site, entries of a dense one); `mask` is
    boolean and broadcastable to the activation [B, ..., units]. With neither, the whole site is edited. A
    negative unit selects nothing, which lets a padded list of units be a plain array.
    """

    value: PyTree = None
    units: jax.Array | int | None = None
    mask: jax.Array | None = None
    operation: Callable[[jax.Array, PyTree], jax.Array] = struct.field(pytree_node=False, default=replace)

    def __call__(self, activation: jax.Array) -> jax.Array:
        changed = self.operation(activation, self.value)
        if self.units is not None:
            units = jnp.atleast_1d(jnp.asarray(self.units))
            chosen = (jnp.arange(activation.shape[-1])[:, None] == units[None, :]).any(axis=1)
            changed = jnp.where(jnp.broadcast_to(chosen, activation.shape), changed, activation)
        if self.mask is not None:
            changed = jnp.where(jnp.broadcast_to(self.mask, activation.shape), changed, activation)
        return changed


Edits = Mapping[str, Edit | Sequence[Edit]]
"""site -> an edit, or several that are applied in order."""


def set_unit(unit: int | jax.Array, value: float | jax.Array) -> Edit:
    """Returns do(unit := value) on the last axis; `value` is broadcastable to the activation [B, ..., units]."""
    return Edit(value=value, units=unit)


def set_units(units: Sequence[int] | jax.Array, values: jax.Array) -> Edit:
    """Returns do(units := values): `values` is a whole activation, broadcastable, of which only `units` are taken."""
    return Edit(value=values, units=jnp.asarray(units))


def patch(values: jax.Array, mask: jax.Array | None = None) -> Edit:
    """Returns the edit that replaces an activation by `values`, where `mask` is true or everywhere.

    Values of another run are activation patching.
    """
    return Edit(value=values, mask=mask)


def shift_unit(unit: int | jax.Array, amount: float | jax.Array) -> Edit:
    """Returns the edit that adds `amount` to one unit of the last axis."""
    return Edit(value=amount, units=unit, operation=add)


def transform(function: Callable[[jax.Array, PyTree], jax.Array], value: PyTree = None, **where: Any) -> Edit:
    """Returns the edit that puts an activation through a function.

    Args:
      function: (activation, value) -> activation, pure. Give a named, module-level function: it is a static argument,
        and a fresh lambda compiles afresh.
      value: its second argument, any pytree.
      **where: `units` or `mask`, as in `Edit`.
    """
    parameters = positional(function)
    if parameters is not None and parameters < 2:
        raise ValueError("the function of a transform takes (activation, value), also where no value is given")
    return Edit(value=value, operation=function, **where)


# --- running ---------------------------------------------------------------------------------------------


def run(
    model: Any,
    params: PyTree,
    x: jax.Array,
    *,
    key: jax.Array | None = None,
    edits: Edits | None = None,
    capture: str | Iterable[str] = (),
) -> tuple[Any, Activations]:
    """Returns the forward pass under `edits`, with the activations that `capture` names.

    Compiles once per model, shapes and structure of `edits`; other values of an edit do not recompile.

    Args:
      model: anything with `forward(params, x, key, tap) -> outputs`, or such a function itself.
      x: [N, ...] images.
      key: the posterior's noise; None takes the posterior mean. The same key gives the same noise, edited or not.
      edits: site -> Edit or list of Edits.
      capture: site names or patterns such as "decoder/*".

    Returns:
      What the model returned, and the activations in forward order, as they are after the edits.

    Raises:
      ValueError: naming what exists, for an unknown site, a unit out of range, or a value of a wrong shape.
    """
    forward = getattr(model, "forward", model)
    check_inputs(model, params, x)
    edits = {site: _as_tuple(site, edit) for site, edit in _as_mapping(edits).items()}
    capture = (capture,) if isinstance(capture, str) else tuple(capture)
    check_edits(edits, capture, site_shapes(forward, params, x, key))
    operations, edits = _parted(edits)
    return _run(forward, capture, operations, params, x, key, edits)


@jit(static=3)
def _run(forward, capture, operations, params, x, key, edits):
    return tapped(forward, capture, params, x, key, _joined(operations, edits))


def _parted(edits: Mapping[str, tuple[Edit, ...]]) -> tuple[tuple, dict[str, tuple[Edit, ...]]]:
    """The operations of edits, site by site, and the edits without: what is compiled for a function goes with it."""
    operations = tuple((site, tuple(edit.operation for edit in several)) for site, several in sorted(edits.items()))
    return operations, {site: tuple(Edit(e.value, e.units, e.mask) for e in several) for site, several in edits.items()}


def _joined(operations: tuple, edits: Mapping[str, tuple[Edit, ...]]) -> dict[str, tuple[Edit, ...]]:
    """The inverse of `_parted`."""
    return {
        site: tuple(Edit(e.value, e.units, e.mask, f) for e, f in zip(edits[site], own)) for site, own in operations
    }


def tapped(forward, capture, params, x, key, edits):
    """`run` without checks and without a jit of its own: the form that vmapped sweeps build on.
    `edits` maps a site to a tuple of Edits."""
    captured = Activations()

    def tap(site, value):
        for edit in edits.get(site, ()):
            value = edit(value)
        if any(fnmatch.fnmatchcase(site, pattern) for pattern in capture):
            if site in captured:
                warnings.warn(
                    f"two values of one run are named {site!r}: an edit changes both, and the second alone is "
                    "captured. Give each a name of its own",
                    stacklevel=3,
                )
            captured[site] = value
        return value

    outputs = forward(params, x, key, tap)
    return outputs, captured


def site_shapes(model: Any, params: PyTree, x: jax.Array, key: jax.Array | None = None) -> Activations:
    """Returns site -> jax.ShapeDtypeStruct of its activation [B, ..., units], in forward order. Computes nothing."""
    return run_shapes(model, params, x, key)[1]


def run_shapes(model: Any, params: PyTree, x: jax.Array, key: jax.Array | None = None) -> tuple[Any, Activations]:
    """What `run` with everything captured would return, as jax.ShapeDtypeStructs. Computes nothing."""
    with while_running("the model", "x", x, params):
        return _run.eval_shape(getattr(model, "forward", model), ("*",), (), params, x, key, {})


# --- checks ----------------------------------------------------------------------------------------------


def check_site(site: str, shapes: Mapping[str, Any]) -> None:
    """ValueError, naming the nearest and all sites, unless `site` is one of `shapes`."""
    if site not in shapes:
        raise ValueError(
            f"no site {site!r} in this model.{nearest(site, shapes)} Its sites, in order: {', '.join(shapes)}"
        )


def check_patterns(patterns: Sequence[str], shapes: Mapping[str, Any]) -> None:
    """ValueError, naming the nearest and all sites, for a pattern that no site matches."""
    for pattern in patterns:
        if not fnmatch.filter(shapes, pattern):
            check_site(pattern, shapes)


def check_units(site: str, units: Any, shapes: Mapping[str, Any]) -> None:
    """ValueError if a concrete unit index does not exist at `site` (traced indices cannot be seen)."""
    if units is None or isinstance(units, Tracer):
        return
    size, number, units = shapes[site].shape[-1], units, np.atleast_1d(np.asarray(units))
    if not np.issubdtype(units.dtype, np.integer):
        raise ValueError(f"units of site {site!r} must be integers, not {units.dtype}")
    if np.ndim(number) == 0 and number < 0:
        raise ValueError(f"no unit {number} at {site!r}: it has units 0 to {size - 1}, counted from the front")
    if units.size and (units.max() >= size or units.min() < -1):
        raise ValueError(
            f"no unit {units[(units >= size) | (units < -1)][0]} at {site!r}: it has units 0 to {size - 1}"
        )


def check_edits(edits: Mapping[str, Sequence[Edit]], capture: Sequence[str], shapes: Mapping[str, Any]) -> None:
    """ValueError if an edit or a capture pattern does not fit the sites that exist."""
    check_patterns(capture, shapes)
    for site, several in edits.items():
        check_site(site, shapes)
        for edit in several:
            check_units(site, edit.units, shapes)
            parts = [("mask", edit.mask)] + [("value", edit.value)] * (edit.operation in (replace, add))
            for part, array in parts:
                if array is not None and not _fits(jnp.shape(array), shapes[site].shape):
                    raise ValueError(
                        f"the {part} for site {site!r} has shape {list(jnp.shape(array))}, which does not "
                        f"broadcast to the activation {list(shapes[site].shape)}"
                    )


def _fits(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, target) == tuple(target)
    except ValueError:
        return False


def _as_mapping(edits: Any) -> Mapping[str, Any]:
    if edits is not None and not isinstance(edits, Mapping):
        raise ValueError(
            f"edits say at which site: edits={{'latent/z': set_unit(3, 2.0)}}, not a {type(edits).__name__} alone"
        )
    return edits or {}


def _as_tuple(site: str, edit: Any) -> tuple[Edit, ...]:
    several = (edit,) if isinstance(edit, Edit) else tuple(edit) if isinstance(edit, (list, tuple)) else (edit,)
    for each in several:
        if not isinstance(each, Edit):
            raise ValueError(
                f"the edit of site {site!r} is a {type(each).__name__}: give an Edit, such as set_unit(3, 2.0) for one "
                "unit, patch(values) for the whole site, or transform(function, value) for a function of both"
            )
    return several
