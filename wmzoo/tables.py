"""How is a table written?  As Markdown, LaTeX and CSV."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from .errors import UserError


@dataclass(frozen=True)
class Table:
    """A table of the report in whatever form it is written.

    Attributes:
        name: of its files.
        head: of the columns.
        rows: cells as text.
        note: what the columns mean.
    """

    name: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str

    @property
    def markdown(self) -> str:
        lines = [self.head, tuple("---" for _ in self.head), *self.rows]
        return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + f"\n\n{self.note}\n"

    @property
    def latex(self) -> str:
        def escaped(text: str) -> str:
            return "".join({"_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#"}.get(c, c) for c in text)

        lines = [" & ".join(map(escaped, line)) + r" \\" for line in (self.head, *self.rows)]
        body = "\n".join([lines[0], r"\midrule", *lines[1:]])
        return f"\\begin{{tabular}}{{{'l' * len(self.head)}}}\n\\toprule\n{body}\n\\bottomrule\n\\end{{tabular}}\n"

    @property
    def csv(self) -> str:
        written = io.StringIO()
        csv.writer(written, lineterminator="\n").writerows([self.head, *self.rows])
        return written.getvalue()


def saved(path: Path, note: str) -> Table:
    """The table that was written to a CSV file.

    Raises:
        UserError: it is no such file, or not whole.
    """
    try:
        head, *rows = list(csv.reader(io.StringIO(path.read_text()), strict=True))
    except (ValueError, csv.Error):  # nothing in it, bytes that are no text
        head, rows = [], []
    if not head or any(len(row) != len(head) for row in rows):
        raise UserError(f"{path} is not a table as it was published; restore it, or delete it to begin anew")
    return Table(path.stem, tuple(head), tuple(tuple(row) for row in rows), note)
