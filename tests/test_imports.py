"""The shape of the house: imports go down, from commands to files, and never in a circle."""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# From the top down; a module may import from those below its own, and from its own.
FLOORS = (
    "benchmarks",
    "experiments",
    "adtr_jax.__main__",
    "adtr_jax.commands",
    "adtr_jax.api",
    "conversion",
    "adtr_jax.run",
    "adtr_jax.html_report",
    "adtr_jax.evaluation",
    "adtr_jax.export",
    "adtr_jax.detectors",
    "adtr_jax.training",
    "adtr_jax.models",
    "adtr_jax.data",
    "adtr_jax.config",
    "adtr_jax.backbones",
    "adtr_jax.nn",
    "adtr_jax.devices",
    "adtr_jax.calibration",
    "adtr_jax.files",
    "adtr_jax.command_line",
    "adtr_jax.errors",
    "adtr_jax.interrupt",
    "adtr_jax.version",
    "weights",
)


def name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


FILES = {
    name(file): file
    for top in ("adtr_jax", "benchmarks", "conversion", "experiments", "weights")
    for file in (ROOT / top).rglob("*.py")
}


def imported(module: str, text: str, modules: set[str]) -> set[str]:
    """The modules of ours that a module imports, in its functions and for its types included."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [(f"{node.module}.{alias.name}", node.module) for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [(alias.name, "") for alias in node.names]
        for full, package in names:
            target = full if full in modules else package
            if target in modules and target != module:
                found.add(target)
    return found


def graph(texts: dict[str, str]) -> dict[str, set[str]]:
    return {module: imported(module, text, set(texts)) for module, text in texts.items()}


def floor(module: str) -> int:
    if module == "adtr_jax":  # the public API, on which nothing of ours depends
        return 0
    return next(i for i, f in enumerate(FLOORS) if module == f or module.startswith(f"{f}."))


def upward(imports: dict[str, set[str]]) -> list[str]:
    return sorted(
        f"{module} imports {target}"
        for module, targets in imports.items()
        for target in targets
        if floor(target) < floor(module)
    )


def test_no_import_goes_up_or_round():
    imports = graph({module: file.read_text("utf-8") for module, file in FILES.items()})
    assert upward(imports) == []
    graphlib.TopologicalSorter(imports).prepare()  # raises CycleError, which names the circle
    # The graph is not empty by mistake.
    assert "adtr_jax.nn.layers" in imports["adtr_jax.models.adtr"]


def test_an_import_that_goes_up_or_round_is_found():
    texts = {
        "adtr_jax.errors": "def f():\n    from adtr_jax.files import atomic",
        "adtr_jax.files": "",
        "adtr_jax.files.atomic": "import adtr_jax.errors",
    }
    assert upward(graph(texts)) == ["adtr_jax.errors imports adtr_jax.files.atomic"]
    with pytest.raises(graphlib.CycleError, match=r"adtr_jax\.files\.atomic"):
        graphlib.TopologicalSorter(graph(texts)).prepare()


def test_the_root_has_few_modules():
    root = {path.name for path in (ROOT / "adtr_jax").glob("*.py")}
    assert root == {
        *(
            "__init__.py",
            "__main__.py",
            "command_line.py",
            "config.py",
            "errors.py",
            "interrupt.py",
        ),
        *("run.py", "version.py"),
    }
