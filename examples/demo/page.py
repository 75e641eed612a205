"""The page of the demo: how much was learned, the grid, the loss of each model; static, light and dark."""

from collections.abc import Mapping
from html import escape

STYLE = """
:root { color-scheme: light dark; --ground: #fff; --ink: #1c2330; --muted: #5a6475; --line: #d9dee6; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #12161d; --ink: #e8ebf1; --muted: #a3adbd; --line: #333b49; }
}
body { margin: 2rem auto; max-width: 76rem; padding: 0 1rem; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
p { max-width: 48rem; } .faint { color: var(--muted); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child { text-align: left; }
img { max-width: 100%; height: auto; } .scroll { overflow-x: auto; }
.losses { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 1rem; }
figure { margin: 0; } a { color: inherit; }
"""


def page(
    rates: Mapping[str, Mapping[str, float]], names: Mapping[str, str], each: int, minutes: float
) -> str:
    """The page as HTML, for the folder of the demo's work.

    Args:
        rates: {run: {name of a character, or "all": share of pictures with the right signature}}, "base" among the runs.
        names: {run: what it is called}, without the base.
        each: pictures a character.
        minutes: that all of it took.
    """
    columns = list(next(iter(rates.values())))
    head = "".join(f'<th scope="col">{escape(one)}</th>' for one in columns)
    rows = "".join(
        f'<tr><th scope="row">{escape(names.get(run, "before"))}</th>'
        + "".join(f"<td>{found[one]:.2f}</td>" for one in columns)
        + "</tr>"
        for run, found in rates.items()
    )
    losses = "".join(
        f'<figure><figcaption><a href="models/{run}/index.html">{escape(shown)}</a></figcaption>'
        f'<img src="models/{run}/loss.svg" alt="loss of {escape(shown)} by step"></figure>'
        for run, shown in names.items()
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>celforge demo</title><style>{STYLE}</style></head><body>
<h1>Two episodes in, three models out</h1>
<p>Five characters were found in two drawn episodes, named by what a tagger saw of them, and taught to a small model that
had never seen them. Everything on this page was made in {minutes:.1f} minutes by <code>celforge run</code> and the judge.</p>
<h2>What was learned</h2>
<p>A prompt says a name, and nothing of how she looks. A judge, trained on drawings alone, looks at {each} pictures of each name:
the share in which hair colour, hair shape and outfit are all right.</p>
<div class="scroll"><table><thead><tr><th scope="col">model</th>{head}</tr></thead><tbody>{rows}</tbody></table></div>
<h2>Before and after, by training step</h2>
<p class="faint">The same noise along each row. <a href="compare/index.html">Each picture by itself</a></p>
<div class="scroll"><a href="compare/grid.png"><img src="compare/grid.png" alt="grid of models by step"></a></div>
<h2>Loss</h2>
<div class="losses">{losses}</div>
<h2>The data set</h2>
<p><a href="report/index.html">Every picture that was kept, by character, with its caption, and what was dropped and why</a></p>
</body></html>
"""
