"""Write the table of traps into docs/check.md, from pipeline/lint/traps.toml. Run by `make docs`."""

from pathlib import Path

from pipeline.lint.traps import trap_table

PATH = Path(__file__).parent / "check.md"
BEGIN, END = "<!-- traps: made by `make docs` -->\n", "<!-- end of traps -->"


def page_with_table(page: str) -> str:
    """The page with its table as the code has it."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{trap_table()}{END}{after}"


if __name__ == "__main__":
    page = PATH.read_text(encoding="utf-8")
    PATH.write_text(page_with_table(page), encoding="utf-8", newline="\n")
