"""What a notebook shows of results and parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import causalvae as cv
from causalvae import circuits, evaluation
from causalvae import interventions as iv


def numbers(*shape):
    return jnp.arange(np.prod(shape), dtype=jnp.float32).reshape(shape)


MEDIATION = iv.Mediation(numbers(4), numbers(2, 4), 2 * numbers(2, 4), 3 * numbers(2, 4), numbers(4))
RESULTS = [
    iv.PatchEffects(numbers(40), numbers(40, 2), numbers(40) / 4, jnp.zeros(40, int)),
    MEDIATION,
    iv.summarize(MEDIATION, jax.random.key(0), num=20),
    iv.EdgeEffects(numbers(2, 3, 4).at[..., 3].set(jnp.nan), None),
    evaluation.Patching(("latent/z",), numbers(1, 3), numbers(1, 3), np.zeros(3)),
    circuits.Circuit("latent/z", np.array([1]), 0.9, 0.9, np.array([0.2]), numbers(3), numbers(3), True),
]


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: type(result).__name__)
def test_a_result_is_shown_as_its_table(result):
    html, table = result._repr_html_(), cv.frame(result)
    assert f"<code>{type(result).__name__}</code>, {len(table)} rows" in html
    assert all(f"<th>{name}</th>" in html for name in table.columns)
    assert html.count("<tr") <= 22 and "nan" not in html.lower()


def test_edges_are_means_over_the_pairs_that_count():
    table = cv.frame(RESULTS[3])
    row = table.query("sender == 1 and receiver == 2")
    assert row.effect.item() == 21 and set(table.pairs) == {3}, "20, 21, 22, and one that is undefined"


def test_what_has_no_table_is_shown_as_text():
    def traced(recovery):
        found = RESULTS[0]._replace(recovery=recovery)
        assert found._repr_html_() is None
        return recovery

    jax.eval_shape(traced, RESULTS[0].recovery)


def test_treescope_shows_parameters_and_results():
    treescope = pytest.importorskip("treescope")
    model, params = cv.load_pretrained(cv.pretrained.names()[0])
    text = treescope.render_to_text(params)
    assert "'kernel': <np.ndarray float32(" in text and len(text) < 5000
    for shown in (*RESULTS, iv.Sweep(-3, 3, 7), iv.Pairs(numbers(2, 4, 4, 1), numbers(2, 4, 4, 1)), model):
        text = treescope.render_to_text(shown)
        assert type(shown).__name__ in text
    assert "x_source=<jax.Array float32(2, 4, 4, 1)" in treescope.render_to_text(
        iv.Pairs(numbers(2, 4, 4, 1), numbers(2, 4, 4, 1))
    )
