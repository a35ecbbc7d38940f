"""Results as a Markdown table, as JSON and as pictures."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from figures import Figure

START, END = "<!-- bench -->", "<!-- /bench -->"
VERDICTS = {True: "met", False: "**not met**", None: ""}
HEAD = "| row | figure | engine | median | quartiles | target | |\n| --- | --- | --- | ---: | ---: | ---: | --- |"


def number(value: float) -> str:
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def shown(value: float, unit: str) -> str:
    return f"{number(value)}{'x' if unit == 'x' else ' ' + unit}"


def table(results: dict[str, list[Figure]], machine: dict[str, str]) -> str:
    """Return the Markdown of all engines, figure beside figure."""
    lines = [HEAD]
    engines = list(results)
    order: dict[tuple[str, str], list[tuple[str, Figure]]] = {}
    for engine in engines:
        for figure in results[engine]:
            order.setdefault((figure.row, figure.what), []).append((engine, figure))
    for (row, what), found in order.items():
        for engine, figure in found:
            low, high = figure.quartiles
            sign = "≥" if figure.at_least else "≤"
            target = "" if figure.limit is None else f"{sign} {number(figure.limit)}"
            spread = f"{number(low)} to {number(high)}" if len(figure.samples) > 1 else ""
            raw = ", ".join(f"{name} {number(value)}" for name, value in figure.raw.items())
            note = "; ".join(part for part in (VERDICTS[figure.met], raw, figure.note) if part)
            lines.append(
                f"| {row} | {what} | {engine} | {shown(figure.value, figure.unit)} | {spread} | {target} | {note} |"
            )
    return "\n".join(["; ".join(f"{name} {value}" for name, value in machine.items()), "", *lines])


def paste(readme: Path, text: str) -> None:
    """Put the text between the markers of a file."""
    before, start, rest = readme.read_text("utf-8").partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        message = f"{readme.name} has no {START} and {END}"
        raise SystemExit(message)
    readme.write_text(f"{before}{START}\n{text}\n{END}{after}", "utf-8")


def as_json(results: dict[str, list[Figure]], machine: dict[str, str]) -> str:
    figures = {engine: [figure.as_json() for figure in found] for engine, found in results.items()}
    return json.dumps({"machine": machine, "figures": figures}, indent=1) + "\n"


def plots(results: dict[str, list[Figure]], machine: dict[str, str], folder: Path) -> None:
    """Draw the ratios of every theme, with their quartiles, each beside its target."""
    import matplotlib as mpl  # noqa: PLC0415  an extra: the table needs none

    mpl.use("agg")
    mpl.rcParams |= {"svg.hashsalt": "pollchat", "svg.fonttype": "none"}  # text stays text: small files
    folder.mkdir(parents=True, exist_ok=True)
    every = [figure for found in results.values() for figure in found]
    themes = {
        "against-2011": ("Against the design of 2011: times its rate", lambda f: "2011" in f.what and f.at_least),
        "against-bare": (
            "Against bare commands: times the time of a round trip",
            lambda f: f.what == "time, of bare ECHO",
        ),
        "memory": ("Bytes of the server", lambda f: f.unit == "bytes"),
        "times": ("Milliseconds", lambda f: f.unit == "ms"),
    }
    for name, (title, belongs) in themes.items():
        if any(map(belongs, every)):
            _bars(results, title, belongs, folder / f"{name}.svg", "; ".join(map(" ".join, machine.items())))


def _bars(results: dict[str, list[Figure]], title: str, belongs: Any, path: Path, foot: str) -> None:
    from matplotlib import pyplot as plt  # noqa: PLC0415

    labels = list(dict.fromkeys(f"{f.row}: {f.what}" for found in results.values() for f in found if belongs(f)))
    figure, axes = plt.subplots(figsize=(10, 1.2 + 0.45 * len(labels)), layout="constrained")
    for index, (engine, found) in enumerate(results.items()):
        for one in filter(belongs, found):
            low, high = one.quartiles
            at = labels.index(f"{one.row}: {one.what}") + (index - (len(results) - 1) / 2) * 0.35
            error = [[max(one.value - low, 0)], [max(high - one.value, 0)]]
            axes.barh(at, one.value, 0.32, xerr=error, color=f"C{index}", label=engine, ecolor="0.3")
            if one.limit is not None:
                axes.plot([one.limit] * 2, [at - 0.18, at + 0.18], color="black", linewidth=2, label="target")
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    axes.legend(handles.values(), handles.keys())
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xscale("log")
    axes.invert_yaxis()
    axes.set_title(title)
    figure.supxlabel(foot, fontsize=7)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
