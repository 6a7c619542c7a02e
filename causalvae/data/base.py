"""A data set is a function: `render(factors, key) -> images`, pure, jitted and vmapped.

Stored sets gather, procedural sets render; nothing downstream can tell them apart. That is what makes
`do(f_k := v)` one line and lets sampling, training and interventions compile into one program.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.core import Tracer

PyTree = Any


def static(default: Any = None) -> Any:
    """Returns a dataclass field that is part of the type as jit sees it (hashable, compared by value)."""
    return struct.field(pytree_node=False, default=default)


class Dataset(struct.PyTreeNode):
    """A data set whose images are a function of factors. A pytree: pass it to jitted functions as an argument.

    `arrays` are the only leaves (a stored set's images, a renderer's tables); all else is static, so two
    data sets of one kind share one compilation. Static callables must be module-level functions.
    """

    name: str = static("")
    source: str = static("procedural")  # "real" or "procedural" (of a user's images see arrays.py); stamped on results
    factor_names: tuple[str, ...] = static(())
    factor_sizes: tuple[int, ...] = static(())
    image_shape: tuple[int, int, int] = static((64, 64, 3))  # H, W, C
    render_one: Any = static()  # (arrays, factors [K] int32, key) -> image [H, W, C] float32 in [0, 1]
    arrays: PyTree = None
    deterministic: bool = static(True)  # False: the image also depends on an instance drawn from the key
    factor_kind: str = static("generative")  # or "attributes": labels that did not make the image
    draw: Any = static()  # (arrays, key) -> factors [K]; None: independent and uniform
    propagate: Any = static()  # (arrays, factors [K], factor, key) -> factors: a graph's descendants
    pair: Any = static()  # (arrays, key) -> (factors [K], image): sets without `render_one`
    provenance: tuple[tuple[str, Any], ...] = static(())  # file, checksum, options; hashable, JSON-able

    @property
    def num_factors(self) -> int:
        return len(self.factor_sizes)

    @property
    def reason(self) -> str:
        """Why a user's images have attributes and no causes, in brackets; nothing of other sets."""
        why = dict(self.provenance).get("observational")
        return f" ({why})" if why else ""

    @property
    def size(self) -> int:
        """The number of factor combinations, or of stored images where factors do not index them."""
        return dict(self.provenance).get("num_images", math.prod(self.factor_sizes))

    # Compiled, so that outside jit every caller shares one renderer per number of rows; inside, jit takes it in.
    @jax.jit
    def render(self, factors: jax.Array, key: jax.Array) -> jax.Array:
        """Returns images [N, H, W, C] in [0, 1] of `factors` [N, K].

        Row n draws its instance from the n-th key split from `key`, so that the same key with other factors
        gives the same instances: a counterfactual, not another sample.

        Raises:
            ValueError: the set has attributes, not causes, or `factors` has another number of columns.
        """
        if self.render_one is None:
            raise ValueError(
                f"{self.name} ({self.source}) has no generative factors: no image can be made from its "
                f"{self.factor_kind}{self.reason}. Use `sample`, or source='procedural', whose causes are known."
            )
        if factors.ndim != 2 or factors.shape[1] != self.num_factors:
            raise ValueError(
                f"{self.name}: factors must be [N, {self.num_factors}] "
                f"({', '.join(self.factor_names)}), not {list(factors.shape)}"
            )
        keys = jax.random.split(key, factors.shape[0])
        return jax.vmap(self.render_one, in_axes=(None, 0, 0))(self.arrays, factors, keys)

    @functools.partial(jax.jit, static_argnames="num")
    def sample_factors(self, key: jax.Array, num: int) -> jax.Array:
        """Returns factors [num, K] int32 from the set's own distribution."""
        if self.draw is not None:
            return jax.vmap(self.draw, in_axes=(None, 0))(self.arrays, jax.random.split(key, num))
        sizes = jnp.asarray(self.factor_sizes, jnp.int32)
        return jax.random.randint(key, (num, self.num_factors), 0, sizes[None, :], jnp.int32)

    def sample(self, key: jax.Array, num: int) -> tuple[jax.Array, jax.Array]:
        """Returns (factors [num, K], images [num, H, W, C]) from the set's own distribution."""
        if self.pair is not None:
            return self._sample_pairs(key, num)
        factor_key, image_key = jax.random.split(key)
        factors = self.sample_factors(factor_key, num)
        return factors, self.render(factors, image_key)

    @functools.partial(jax.jit, static_argnames="num")
    def _sample_pairs(self, key: jax.Array, num: int) -> tuple[jax.Array, jax.Array]:
        return jax.vmap(self.pair, in_axes=(None, 0))(self.arrays, jax.random.split(key, num))

    def intervene(self, factors: jax.Array, factor: Any, values: jax.Array, key: jax.Array) -> jax.Array:
        """Returns factors [N, K] after do(f_k := v).

        In a set with a causal graph the descendants of the factor are drawn again, with the noise that `key` gives.

        Args:
            factors: [N, K].
            factor: A name or an index; inside jit it may be a traced index.
            values: [N], which the factor is set to.
            key: Of the exogenous noise.
        """
        traced = isinstance(factor, Tracer)
        index = factor if traced else self.factor_index(factor)
        changed = factors.at[:, index].set(jnp.asarray(values, factors.dtype))
        if self.propagate is None:
            return changed

        def descend(k, rows, keys):
            return jax.vmap(self.propagate, in_axes=(None, 0, None, 0))(self.arrays, rows, k, keys)

        keys = jax.random.split(key, factors.shape[0])
        if not traced:
            return descend(index, changed, keys)
        branches = [functools.partial(descend, k) for k in range(self.num_factors)]
        return jax.lax.switch(index, branches, changed, keys)

    def factor_index(self, factor: Any) -> int:
        """Returns the position of a factor given by name or index; ValueError names the factors that exist."""
        if isinstance(factor, str) and factor in self.factor_names:
            return self.factor_names.index(factor)
        if not isinstance(factor, str) and 0 <= factor < self.num_factors:
            return int(factor)
        raise ValueError(
            f"{self.name} has no factor {factor!r}; it has "
            + ", ".join(f"{i}: {name} ({n})" for i, (name, n) in enumerate(zip(self.factor_names, self.factor_sizes)))
        )

    def describe(self) -> dict[str, Any]:
        """Returns what a result must say of its data: name, source, factors and provenance (JSON-able)."""
        return {
            "name": self.name,
            "source": self.source,
            "factors": dict(zip(self.factor_names, self.factor_sizes)),
            "factor_kind": self.factor_kind,
            "deterministic": self.deterministic,
            "image_shape": list(self.image_shape),
            **dict(self.provenance),
        }
