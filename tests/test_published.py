"""Models of other people: read by name, measured, and held against their own training logs."""

import json

import jax
import numpy as np
import pytest

from causalvae import adapters, architectures, data, evaluation
from experiments import published

TINY = evaluation.Settings(
    codes=128, test_codes=128, votes=100, images=4, pairs=4, effects=4, metrics="mig,dci", dci_estimator="lasso",
    sites="latent/z",
)  # fmt: skip


def random_state():
    """A state dict of disentangling-vae's layout with random weights, and the parameters it stands for."""
    model = architectures.create("vae", image_shape=(64, 64, 1), latents=10, network="burgess")
    params = jax.jit(model.init)(jax.random.key(0))
    params["encoder"]["mean"]["bias"] = np.arange(10.0, dtype=np.float32)
    params["encoder"]["log_variance"]["bias"] = -np.arange(10.0, dtype=np.float32)
    ours = adapters.to_torch(model, params)
    layers = adapters.LAYOUTS["disentangling-vae"].names
    state = {
        f"{theirs}.{kind}": ours[f"{name}.{kind}"] for name, theirs in layers.items() for kind in ("weight", "bias")
    }
    for kind in ("weight", "bias"):
        heads = [ours[f"encoder.{head}.{kind}"] for head in ("mean", "log_variance")]
        state[f"encoder.mu_logvar_gen.{kind}"] = np.stack(heads, axis=1).reshape(20, *heads[0].shape[1:])
    return state, params


def test_a_state_dict_of_their_layout_is_read():
    state, params = random_state()
    assert state["encoder.mu_logvar_gen.bias"].tolist()[:4] == [0, 0, 1, -1], "a mean, then its log-variance"
    assert state["encoder.lin1.weight"].shape == (256, 512) and state["decoder.convT3.weight"].shape == (32, 1, 4, 4)
    _, read = published.load(state)
    assert jax.tree.all(jax.tree.map(np.array_equal, params, read))
    state.pop("decoder.lin3.bias")
    with pytest.raises(ValueError, match="there is no 'decoder.lin3.bias'"):
        published.load(state)


def test_a_folder_of_models_becomes_records_and_tables(tmp_path):
    state, _ = random_state()
    np.savez(tmp_path / "VAE_dsprites.npz", **state)
    np.savez(tmp_path / "VAE_celeba.npz", **state)
    means = {**{f"kl_loss_{i}": 1.0 for i in range(10)}, "recon_loss": 20.0}
    (tmp_path / published.LOGS).write_text(json.dumps({"VAE_dsprites": {"last_epoch_training_means": means}}))
    out = tmp_path / "out"
    out.mkdir()
    published.evaluate_folder(tmp_path, out, TINY)
    records = [json.loads((out / f"{name}.json").read_text()) for name in ("VAE_celeba", "VAE_dsprites")]
    assert "scores" not in records[0] and records[1]["data"]["name"] == "dsprites"
    model, params = published.load(state)
    codes = evaluation.encode_sample(
        model, params, data.load("dsprites", source="procedural"), jax.random.fold_in(jax.random.key(0), 0), 128
    )
    mean, log_variance = np.asarray(codes.mean), np.asarray(codes.log_variance)
    kl = np.mean(0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance), axis=0)
    np.testing.assert_allclose(records[1]["latents"]["activity"], kl, rtol=1e-4, atol=1e-5)
    row = published.table(records).splitlines()[2].split(" | ")
    assert [row[0], row[2]] == ["| VAE_dsprites", "10.00"] and float(row[1]) == pytest.approx(kl.sum(), abs=0.01)
    assert float(row[3]) == pytest.approx(np.abs(kl - 1).max(), abs=0.01) and row[5].startswith("20.0")
    with pytest.raises(FileNotFoundError, match="no published model"):
        published.evaluate_folder(out, out, TINY)


@pytest.mark.parametrize(
    "name, kl, reconstruction", [("VAE_dsprites", 25.40, 17.99), ("btcvae_dsprites", 13.60, 42.21)]
)
def test_published_models_agree_with_their_logs(shared_data, name, kl, reconstruction):
    """KL of every latent to 0.15 nats, and the sampled reconstruction to a nat, on the procedural set."""
    folder = shared_data / "published_models"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    log = json.loads((folder / published.LOGS).read_text())[name]["last_epoch_training_means"]
    assert (log["kl_loss"], log["recon_loss"]) == pytest.approx((kl, reconstruction), abs=0.01)
    model, params = published.load(dict(np.load(folder / f"{name}.npz")))
    dataset = data.load("dsprites", source="procedural")
    codes = evaluation.encode_sample(model, params, dataset, jax.random.key(0), 1500)
    found = np.mean(codes.activity, axis=0)
    np.testing.assert_allclose(found, [log[f"kl_loss_{i}"] for i in range(10)], atol=0.15)
    assert found.sum() == pytest.approx(kl, abs=0.4)
    sampled = published.sampled_reconstruction(model, params, dataset, jax.random.key(1))
    assert sampled == pytest.approx(reconstruction, abs=1.5)


def test_the_page_shows_lines_that_run(tmp_path, monkeypatch):
    """The lines of docs/published_models.md, on a random model and with small samples."""
    page = (published.pathlib.Path(published.__file__).parents[1] / "docs" / "published_models.md").read_text()
    code = page.split("```python\n")[1].split("```")[0]
    assert sum(bool(line.strip()) and not line.startswith("#") for line in code.splitlines()) <= 12
    (tmp_path / "published_models").mkdir()
    np.savez(tmp_path / "published_models" / "VAE_dsprites.npz", **random_state()[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluation, "Settings", lambda **chosen: TINY)
    exec(compile(code, "published_models.md", "exec"), {})
