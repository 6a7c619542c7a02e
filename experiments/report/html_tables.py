"""Tables and numbers of the report as HTML."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from experiments import glossary
from experiments.markup import html, joined
from experiments.report import statistics
from experiments.report.figures import display
from experiments.report.tables import Table, column, mean_of_defined, rows_of, score_cells

WORDS = glossary.CAUSAL | glossary.SCORES
TITLES = {
    "kl": "KL",
    "mig": "MIG",
    "irs": "IRS",
    "dci_disentanglement": "DCI-D",
    "dci_completeness": "DCI-C",
    "dci_informativeness": "DCI-I",
    "dci_lasso_disentanglement": "DCI-D, lasso",
    "dci_lasso_completeness": "DCI-C, lasso",
    "dci_lasso_informativeness": "DCI-I, lasso",
    "sap_discrete": "SAP (discrete)",
    "sap_continuous": "SAP (continuous)",
    "betavae": "BetaVAE",
    "factorvae": "FactorVAE",
    "ces_l2": "CES l2",
    "ces_rms": "CES rms",
    "ces_resample_l2": "CES l2, resample",
    "ces_resample_rms": "CES rms, resample",
    "ces_code_swap_l2": "CES l2, code swap",
    "mean_squared_error": "MSE",
    "circuit_modularity_decoder": "modularity, decoder",
    "circuit_modularity_encoder": "modularity, encoder",
    "infom": "InfoM",
    "infoc": "InfoC",
    "infoe": "InfoE",
    "mcc_pearson": "MCC (Pearson)",
    "mcc_spearman": "MCC (Spearman)",
    "mcc_pearson_linear": "MCC (Pearson, linear map)",
    "mcc_spearman_linear": "MCC (Spearman, linear map)",
    "r2": "R²",
}

# Columns of `specification.shares`, what each choice does to a correlation: title -> text of a row.
CHOICES: dict[str, Callable[[Any], str]] = {
    "choice of": lambda r: r["choice of"],
    "is": lambda r: r["is"],
    "combinations": lambda r: str(r["combinations"]),
    "median correlation": lambda r: number(r["median"]),
    "negative": lambda r: f"{r['negative']:.0%}",
}


def score_table(table: Table, names: Sequence[str]) -> Markup:
    """Architectures × scores: mean ± deviation, every seed, nulls; ceilings in the last row."""
    cells = {name: {cell.cluster: cell for cell in score_cells(table, name)} for name in names}
    labels = list(dict.fromkeys(table["label"].tolist()))
    body = []
    for label in labels:
        here = rows_of(table, table["label"] == label)
        row = [html('<td class="text">{}</td>', display(label))]
        row += [score_cell(cells[name][label], nulls_of(here, name)) for name in names]
        body.append(html("<tr>{}</tr>", joined(row)))
    ceilings = [mean_of_defined(column(table, f"{name}.ceiling")) for name in names]
    foot = Markup("")
    if any(math.isfinite(c) for c in ceilings):
        foot = html("<tr><td>ceiling</td>{}</tr>", joined(html("<td>{}</td>", number(c)) for c in ceilings))
    heads = html('<th class="text" tabindex="0">architecture</th>') + joined(
        html('<th tabindex="0">{}</th>', glossary.explained(title_of(name), WORDS)) for name in names
    )
    return frame(heads, joined(body), foot)


def score_cell(cell: statistics.Cell, nulls: Mapping[str, float]) -> Markup:
    places = decimals(cell.mean)
    deviation = f" ± {number(cell.deviation, places)}" if math.isfinite(cell.deviation) else ""
    several = len(cell.values) > 1 and math.isfinite(cell.mean)
    whole = 0 if all(float(v).is_integer() for v in cell.values if math.isfinite(v)) else places
    seeds = " ".join(number(value, whole) for value in cell.values) if several else ""
    null = " · ".join(f"{name} {number(value, places)}" for name, value in nulls.items())
    small = joined(html("<small>{}</small>", line) for line in (seeds, null) if line)
    value = repr(cell.mean) if math.isfinite(cell.mean) else ""
    return html('<td data-value="{}">{}{}{}</td>', value, number(cell.mean, places), deviation, small)


def nulls_of(table: Table, name: str) -> dict[str, float]:
    """'permuted' -> mean of a score's nulls over runs, where there are any."""
    kinds = {"untrained": f"{name}.null_untrained", "permuted": f"{name}.null_permuted", "null": f"{name}.null"}
    found = {kind: mean_of_defined(column(table, name)) for kind, name in kinds.items()}
    found = {kind: value for kind, value in found.items() if math.isfinite(value)}
    if "permuted" in found:
        found.pop("null", None)  # the same number
    return found


def plain_table(
    rows: Iterable[Mapping[str, Any]], columns: Mapping[str, Callable[[Any], str]], prose: Sequence[str] = ()
) -> Markup:
    """A sortable table: column title -> text of a row. Columns whose every cell is a number sort as numbers."""
    rows = list(rows)
    texts = [[function(row) for function in columns.values()] for row in rows]
    numeric = [all(_as_number(line[i]) is not None or line[i] == "–" for line in texts) for i in range(len(columns))]
    body = []
    for line in texts:
        cells = []
        for i, (name, text) in enumerate(zip(columns, line, strict=True)):
            kind = "prose" if name in prose else "" if numeric[i] else "text"
            value = _as_number(text) if numeric[i] else text
            cells.append(html('<td class="{}" data-value="{}">{}</td>', kind, "" if value is None else value, text))
        body.append(html("<tr>{}</tr>", joined(cells)))
    heads = joined(
        html('<th tabindex="0" class="{}">{}</th>', "" if n else "text", name) for name, n in zip(columns, numeric)
    )
    return frame(heads, joined(body))


def frame(heads: Markup, body: Markup, foot: Markup | str = "") -> Markup:
    foot = html("<tfoot>{}</tfoot>", foot) if foot else ""
    whole = '<div class="wide"><table><thead><tr>{}</tr></thead><tbody>{}</tbody>{}</table></div>'
    return html(whole, heads, body, foot)


def _as_number(text: str) -> float | None:
    try:
        return float(text.replace("−", "-").replace(",", "").rstrip("%"))
    except ValueError:
        return None


def decimals(value: float) -> int:
    """How many decimals show three significant digits of a number of this size."""
    return 3 if not math.isfinite(value) or abs(value) < 1 else max(0, 2 - int(math.log10(abs(value))))


def number(value: float, places: int | None = None) -> str:
    """A number with `places` decimals (None: three significant digits); '–' where undefined."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,.{decimals(value) if places is None else places}f}".replace("-", "−")


def title_of(name: str) -> str:
    return TITLES.get(name, name.replace("_", " "))
