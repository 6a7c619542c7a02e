"""Report and explorer in a real browser, where there is one."""

import json

import numpy as np
import pytest
import study_tables
from chromium import visit

from experiments.explorer import page as explorer_page
from experiments.report import page as report
from experiments.report.tables import rows_of

HOSTILE = """x"><img src=y onerror=ran()><script>ran()</script>{0}'/../$a_{$</script><script>ran()//"""
COUNT = "window.count = 0; window.ran = () => { window.count += 1 };"
SEEN = "JSON.stringify([window.count, document.querySelectorAll('img[src=y]').length, document.body.innerText])"


@pytest.mark.filterwarnings("ignore:constrained_layout not applied")
def test_nothing_that_a_record_holds_runs_in_a_report(tmp_path):
    table = study_tables.table(seeds=1)
    table = rows_of(table, (table["dataset"] == "dsprites") & (table["architecture"] == "vae"))
    names = {name: np.array([HOSTILE]) for name in ("dataset", "label", "architecture")}
    study_tables.write_study(tmp_path, {**table, "steps": np.full(1, 4), **names})
    result, console = visit(report.write(tmp_path), SEEN, COUNT)
    count, images, text = json.loads(result)
    assert (count, images, console) == (0, 0, []) and HOSTILE in text


def test_nothing_that_a_record_holds_runs_in_an_explorer(tmp_path):
    about = dict.fromkeys(("text", "architecture", "dataset", "source"), HOSTILE) | {"steps": 4, "seed": 0}
    path = explorer_page.write(tmp_path / "explorer.html", {"about": about, "tiles": {}, "latents": [HOSTILE]})
    result, _ = visit(path, SEEN, COUNT)
    assert json.loads(result)[:2] == [0, 0]
