"""Gradient-boosted trees compiled by XLA: scikit-learn's multiclass classifier, with the same exact splits.

The algorithm is `sklearn.ensemble.GradientBoostingClassifier` with its defaults (Friedman 2001, algorithm 6;
100 rounds, depth 3, rate 0.1, Friedman's mean squared error): in every round each class k of each factor
grows one regression tree on the residuals y_k - p_k, its leaves take one Newton step, and a latent's
importance is the decrease of squared error that its splits bring. Differences: float32; gains closer than
1e-5 of each other count as ties, and values closer than 1e-6 of a latent's range as one value, so that no last
bit decides (scikit-learn never splits values closer than 1e-7, whatever the range). Only between the cuts inside
one block of 32 rows are gains compared in steps of 64 last bits instead, which costs nothing: a tie there that lies
on a step can still go either way, between cuts of one latent.

What makes it fast is the form, not the method. All trees of a round, over all factors, are columns of one
matrix. Rows are sorted once for each latent and laid out in blocks of 32. A histogram over blocks gives the
sums before each block, and a second pass evaluates every cut inside it: gathers of whole rows, added term by
term in one written-out expression, which XLA compiles to vector loops (0.1 ns an element on a CPU core; a
scatter takes 5, XLA's own cumulative sum 1, and a product with one-hot bins needs 256 times the arithmetic).
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from causalvae.metrics.inputs import dead_latents
from causalvae.metrics.ties import TIE, first_largest

TIED_GAIN = 1e-5  # relative: gains this close are equal
BLOCK = 32  # rows in a block
OFFSET = 63  # the bits of a score that hold the offset of a cut in its block, see `_best_in_blocks`
TIED_BITS = 2 * (OFFSET + 1)  # scores closer than this tie: gains within 8e-6 to 2e-5 of each other
TERMS = 8  # gathered rows that are added in one step of a loop
GROUP = 16  # blocks in a group of the two-level cumulative sum
DEPTH = 3
NUM_SPLITS, NUM_LEAVES = 2**DEPTH - 1, 2**DEPTH
EXACT = jax.lax.Precision.HIGHEST


class Layout(NamedTuple):
    """Rows in the order of each latent. Rows are training rows, then test rows, then padding: R in all."""

    order: Array  # [d, BLOCK, M] int32: entry [i, o, b] is the row at place b * BLOCK + o of latent i
    is_cut: Array  # [d, BLOCK, M] bool: the next place holds a greater value
    rank: Array  # [R, d] float32: a row is left of the cut at place p where rank <= p
    is_train: Array  # [R] bool


@jax.jit
def lay_out(train: Array, test: Array) -> Layout:
    """Returns the layout of rows to fit on [N, d] and to score [T, d] (float32, as scikit-learn's trees take them)."""
    num_rows = len(train)
    num_blocks = -(-num_rows // (BLOCK * GROUP)) * GROUP
    every = jnp.concatenate([train, test]).astype(jnp.float32)
    every = jnp.pad(every, ((0, GROUP - len(every) % GROUP), (0, 0)))  # at least one row of padding
    gap = jnp.where(dead_latents(every[:num_rows]), jnp.inf, TIE * jnp.ptp(every[:num_rows], axis=0))

    def of_latent(column: Array, gap: Array) -> tuple[Array, Array, Array]:
        order = jnp.argsort(column[:num_rows], stable=True)
        ordered = column[order]
        is_cut = jnp.append(jnp.diff(ordered) > gap, True)  # the last place stands for no cut at all
        thresholds = jnp.append(ordered[:-1] / 2 + ordered[1:] / 2, jnp.inf)
        next_cut = jax.lax.cummin(jnp.where(is_cut, jnp.arange(num_rows), num_rows), reverse=True)
        rank = next_cut[jnp.searchsorted(thresholds[next_cut], column, side="left")]
        places = (0, num_blocks * BLOCK - num_rows)
        is_cut = jnp.pad(is_cut.at[-1].set(False), places)
        return jnp.pad(order, places, constant_values=len(every) - 1), is_cut, rank

    order, is_cut, rank = jax.vmap(of_latent, in_axes=(1, 0), out_axes=(0, 0, 1))(every, gap)
    return Layout(
        order=order.reshape(-1, num_blocks, BLOCK).transpose(0, 2, 1),
        is_cut=is_cut.reshape(-1, num_blocks, BLOCK).transpose(0, 2, 1),
        rank=rank.astype(jnp.float32),
        is_train=jnp.arange(len(every)) < num_rows,
    )


class Boosted(NamedTuple):
    """What `boost` found: importance of each latent for each factor, and every row's logits."""

    importance: Array  # [d, K], unnormalized: the decrease of squared error by the splits on each latent
    logits: Array  # [R, C] of the training rows, then the test rows; the factors' classes side by side


@functools.partial(jax.jit, static_argnames=("sizes", "rounds", "rate"))
def boost(
    key: Array, layout: Layout, labels: Array, sizes: tuple[int, ...], rounds: int = 100, rate: float = 0.1
) -> Boosted:
    """Fit one classifier for each factor: labels [N, K] int of the training rows, ids 0 to sizes[k] - 1.

    A factor with two classes has one column of logits (of class 1), any other has one for each class; a class
    that no row has is never predicted. Among splits of equal gain the latent is drawn with `key`, as
    scikit-learn does. Under `jax.vmap` members follow one another: one alone fills a processor's cores, and
    its tables fill the caches.
    """
    fit = functools.partial(_boost, sizes=sizes, rounds=rounds, rate=rate)
    return jax.custom_batching.sequential_vmap(fit)(key, layout, labels)


def _boost(key: Array, layout: Layout, labels: Array, sizes: tuple[int, ...], rounds: int, rate: float) -> Boosted:
    target = jnp.concatenate([_one_hot(labels[:, k], size) for k, size in enumerate(sizes)], axis=1)
    prior = jnp.mean(target, axis=0)
    target = jnp.pad(target, ((0, layout.rank.shape[0] - labels.shape[0]), (0, 0)))
    size_of_column = np.array([size for size in sizes for _ in range(_width(size))])
    step = rate * jnp.concatenate([_shrinkage(*part) for part in zip(_by_factor(prior[None], sizes), sizes)])
    logits = jnp.log(jnp.where(size_of_column > 2, prior, prior / (1 - prior)))
    logits = jnp.broadcast_to(logits[None], target.shape)
    is_train = jnp.asarray(layout.is_train)[:, None]

    def one_round(i: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        logits, importance = state
        p = _probabilities(logits, sizes)
        residual = jnp.where(is_train, target - p, 0.0)
        tree = _grow(jax.random.fold_in(key, i), layout, residual)
        values = step[None] * _newton_steps(tree.leaf, residual, jnp.where(is_train, p * (1 - p), 0.0))
        return logits + _select(tree.leaf, values), importance + tree.importance

    importance = jnp.zeros((layout.rank.shape[1], target.shape[1]))
    logits, importance = jax.lax.fori_loop(0, rounds, one_round, (logits, importance))
    per_factor = [jnp.sum(part, axis=1) for part in _by_factor(importance, sizes)]
    return Boosted(jnp.stack(per_factor, axis=1), logits)


# Trees are grown by thousands of small steps: host code compiles them well even in a process that was told to compile
# cheaply, as the tests are. Both values are XLA's defaults. Only an outermost jit may have options, so none here does.
WELL = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}


def predict(logits: Array, sizes: tuple[int, ...]) -> Array:
    """Predicted classes [R, K] from the logits [R, C] of `boost`."""
    classes = [
        (part[:, 0] > TIE).astype(jnp.int32) if size == 2 else first_largest(part, axis=1).astype(jnp.int32)
        for part, size in zip(_by_factor(logits, sizes), sizes, strict=True)
    ]
    return jnp.stack(classes, axis=1)


# --- One round: a tree for each column ----------------------------------------------------------------------


class Tree(NamedTuple):
    """One boosting round: a depth-3 tree for each column of residuals."""

    leaf: Array  # [R, C] int32, the leaf of each row in each column's tree
    importance: Array  # [d, C]


def _grow(key: Array, layout: Layout, residual: Array) -> Tree:
    """One tree for each column of residual [R, C], which is 0 in rows that are not for training.

    Nodes are numbered as in a heap and split in that order: the children of j are 2j + 1 and 2j + 2.
    """
    num_latents = layout.rank.shape[1]

    def split(j: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        node, importance = state
        inside = (node == j) & layout.is_train[:, None]
        best = _best_split(jax.random.fold_in(key, j), layout, jnp.where(inside, residual, 0.0), inside)
        chosen = jax.nn.one_hot(best.latent, num_latents, axis=0)  # [d, C]
        right = jnp.matmul(layout.rank, chosen, precision=EXACT) > best.place[None]  # exact: whole numbers
        node = jnp.where(node == j, 2 * j + 1 + right, node)
        return node, importance + chosen * best.gain[None]

    state = jnp.zeros(residual.shape, jnp.int32), jnp.zeros((num_latents, residual.shape[1]))
    node, importance = jax.lax.fori_loop(0, NUM_SPLITS, split, state)
    return Tree(node - NUM_SPLITS, importance)


class Split(NamedTuple):
    """The best split of one node in each column."""

    latent: Array  # [C] int
    place: Array  # [C] float, rows ranked up to it go left
    gain: Array  # [C], decrease of squared error


def _best_split(key: Array, layout: Layout, residual: Array, inside: Array) -> Split:
    """The best split of one node in each column: residual [R, C] is 0 outside it."""
    num_latents = layout.rank.shape[1]
    weight = inside.astype(jnp.float32)
    sums, total = _sums_before(layout.order, residual)
    counts, count = _sums_before(layout.order, weight)

    def best_of_latent(latent: tuple[Array, Array, Array, Array]) -> tuple[Array, Array]:
        score = _best_in_blocks(*latent, residual, weight, total / jnp.maximum(count, 1.0), count)
        best = jnp.max(score, axis=0)
        blocks = jnp.arange(score.shape[0])[:, None]
        block = jnp.min(jnp.where(score >= jnp.maximum(best - TIED_BITS, 0)[None], blocks, score.shape[0]), axis=0)
        score = jnp.max(jnp.where(blocks == block[None], score, -1), axis=0)
        gain = count[0] * jax.lax.bitcast_convert_type(best & ~OFFSET, jnp.float32)
        return jnp.where(best >= 0, gain, -1.0), (block * BLOCK + OFFSET - (score & OFFSET)).astype(jnp.float32)

    gain, place = jax.lax.map(best_of_latent, (layout.order, layout.is_cut, sums, counts))  # [d, C] each
    best = jnp.max(gain, axis=0)
    tied = gain >= best[None] * (1 - TIED_GAIN)
    latent = jnp.argmax(jnp.where(tied, jax.random.uniform(key, gain.shape), -1.0), axis=0)
    place = jnp.sum(jax.nn.one_hot(latent, num_latents, axis=0) * place, axis=0)
    return Split(latent, jnp.where(best >= 0, place, jnp.inf), jnp.maximum(best, 0.0))


def _sums_before(order: Array, x: Array) -> tuple[Array, Array]:
    """Sums [d, M, C] of x [R, C] over the places of each latent before each block, and over all of them, [1,
    C]."""
    num_latents, _, num_blocks = order.shape
    rows = jnp.transpose(order, (1, 0, 2)).reshape(BLOCK // TERMS, TERMS, -1)

    def add(total: Array, rows: Array) -> tuple[Array, None]:
        return total + sum(x.at[r].get(mode="promise_in_bounds") for r in rows), None

    # A loop, so that XLA does not write out the gathered rows to share them with `_best_in_blocks`.
    blocks, _ = jax.lax.scan(add, jnp.zeros((num_latents * num_blocks, x.shape[1])), rows)
    grouped = blocks.reshape(-1, GROUP, x.shape[1])
    totals = jnp.sum(grouped, axis=1).reshape(num_latents, -1, x.shape[1])
    before = _sums_of_earlier(grouped) + _sums_of_earlier(totals).reshape(-1, 1, x.shape[1])
    return before.reshape(num_latents, num_blocks, x.shape[1]), jnp.sum(totals[0], axis=0, keepdims=True)


def _sums_of_earlier(x: Array) -> Array:
    """Cumulative sums along axis 1 of x [a, n, b], each without its own entry: a batched product with a
    triangle."""
    triangle = jnp.tril(jnp.ones((x.shape[1], x.shape[1])), k=-1)
    return jnp.matmul(jnp.broadcast_to(triangle[None], (x.shape[0], *triangle.shape)), x, precision=EXACT)


def _best_in_blocks(
    order: Array,
    is_cut: Array,
    sums: Array,
    counts: Array,
    residual: Array,
    weight: Array,
    mean: Array,
    count: Array,
) -> Array:
    """The best cut in each block of one latent: [M, C] int32, the bits of gain / count with 63 - offset in
    the lowest six. Non-negative floats order as their bits do, so one integer maximum carries both; -1 where
    there is no cut.
    """
    best = jnp.full(sums.shape, -1)
    for offset in range(BLOCK):
        sums = sums + residual.at[order[offset]].get(mode="promise_in_bounds")
        counts = counts + weight.at[order[offset]].get(mode="promise_in_bounds")
        gain = jnp.square(sums - counts * mean) / jnp.maximum(counts * (count - counts), 0.5)
        score = (jax.lax.bitcast_convert_type(gain, jnp.int32) & ~OFFSET) | (OFFSET - offset)
        best = jnp.maximum(best, jnp.where(is_cut[offset][:, None], score, -1))
    return best


def _newton_steps(leaf: Array, residual: Array, hessian: Array) -> Array:
    """Sum of residuals / sum of hessians of each leaf: [8, C]."""
    g, h = _leaf_sums(leaf, residual), _leaf_sums(leaf, hessian)
    return jnp.where(h > 1e-30, g / jnp.where(h > 1e-30, h, 1.0), 0.0)


def _leaf_sums(leaf: Array, x: Array) -> Array:
    """Sums [8, C] of x [R, C] over the rows of each leaf."""
    rows = x.shape[0] // GROUP
    index = jnp.arange(NUM_LEAVES)[:, None, None]
    parts = [slice(i * rows, (i + 1) * rows) for i in range(GROUP)]
    partial = sum(jnp.where(leaf[None, part] == index, x[None, part], 0.0) for part in parts)
    return jnp.matmul(jnp.ones((NUM_LEAVES, 1, rows)), partial, precision=EXACT)[:, 0]


def _select(leaf: Array, values: Array) -> Array:
    """values[leaf[n, c], c]: [R, C]."""
    return sum((jnp.where(leaf == j, values[j][None], 0.0) for j in range(NUM_LEAVES)), jnp.zeros(()))


# --- Columns: the classes of the factors, side by side ------------------------------------------------------


def _width(size: int) -> int:
    """Columns of a factor with `size` classes: two classes need only one."""
    return 1 if size == 2 else size


def _shrinkage(prior: Array, size: int) -> Array:
    """Friedman's factor (C - 1) / C of a Newton step with C classes present, 1 for two that share a column."""
    present = jnp.sum(prior > 0)
    return jnp.full(prior.shape[1], 1.0 if size == 2 else (present - 1) / jnp.maximum(present, 1))


def _one_hot(labels: Array, size: int) -> Array:
    return labels[:, None].astype(jnp.float32) if size == 2 else jax.nn.one_hot(labels, size)


def _by_factor(x: Array, sizes: tuple[int, ...]) -> list[Array]:
    return jnp.split(x, np.cumsum([_width(size) for size in sizes])[:-1], axis=1)


def _probabilities(logits: Array, sizes: tuple[int, ...]) -> Array:
    parts = [
        jax.nn.sigmoid(part) if size == 2 else jax.nn.softmax(part, axis=1)
        for part, size in zip(_by_factor(logits, sizes), sizes, strict=True)
    ]
    return jnp.concatenate(parts, axis=1)
