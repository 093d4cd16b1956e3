"""MyST text for readers without MyST: roles and directives become ordinary Markdown.

Jupyter shows ``{cite:t}`key``` as it stands. In the workshop notebooks a citation is a link with authors and year, a
quoted value is the value of the run, a reference to a figure is its number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pybtex.database import Entry, parse_file
from pybtex.richtext import Text

_ROLE = re.compile(r"\{(?P<role>[a-z][a-z:_-]*)\}`(?P<text>[^`]+)`")
_TARGET = re.compile(r"^(?P<words>.+?)\s*<(?P<target>[^<>]+)>$", re.DOTALL)
_FENCE = re.compile(r"^(?P<fence>:{3,}|`{3,})(?P<open>\{(?P<name>[a-z:-]+)\}[ \t]*(?P<title>[^\n]*))?[ \t]*$")
_OPTION = re.compile(r"^:[a-z-]+:.*$")


@dataclass(frozen=True)
class Known:
    """What the roles of a text refer to.

    Attributes:
        citations: (authors, year, address) by key; an empty address gives no link.
        values: text of each glued value by name.
        figures: number of each figure by name.
        titles: title of each page by its file name without ending.
    """

    citations: Mapping[str, tuple[str, str, str]] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)
    figures: Mapping[str, str] = field(default_factory=dict)
    titles: Mapping[str, str] = field(default_factory=dict)

    def value(self, name: str, form: str) -> str:
        """A glued value as the page shows it.

        Raises:
            KeyError: no cell of the chapter glues it.
        """
        if name not in self.values:
            raise KeyError(f"the text quotes {name!r}, but no cell glues it")
        value = self.values[name]
        return format(float(value), form) if form else value.strip("'")


def plain(source: str, known: Known) -> str:
    """The text without roles and without fences of directives; code blocks stay.

    Raises:
        KeyError: the text cites a work or quotes a value that is not known.
    """
    lines, code, opened = [], False, []
    for line in source.split("\n"):
        mark = _FENCE.match(line)
        if mark and mark["name"]:
            opened.append(mark["fence"])
            title = mark["title"].strip()
            lines.append(f"**{title or mark['name'].capitalize()}.**" if mark["name"] != "math" else "$$")
        elif mark and opened and mark["fence"] == opened[-1]:
            opened.pop()
            lines.append("")
        elif opened and _OPTION.match(line):
            continue
        else:
            if line.lstrip().startswith("```"):
                code = not code
            lines.append(line if code else _ROLE.sub(lambda match: _role(match["role"], match["text"], known), line))
    return "\n".join(lines)


def _role(role: str, text: str, known: Known) -> str:
    if role in ("cite:t", "cite:p", "cite"):
        return _cited(role, [key.strip() for key in text.split(",")], known)
    if role == "glue:text":
        name, _, form = text.partition(":")
        return known.value(name, form)
    if role == "math":
        return f"${text}$"
    target = _TARGET.match(text)
    words, name = (target["words"], target["target"]) if target else (None, text)
    if role in ("numref", "ref") and name in known.figures:
        number = known.figures[name]
        return (words or "Figure %s").replace("%s", number).replace("{number}", number)
    if role == "doc" and words is None:
        return known.titles.get(Path(name).name, Path(name).name)
    if role == "eq":
        return "the equation above"
    return words or name


def _cited(role: str, keys: list[str], known: Known) -> str:
    parts = []
    for key in keys:
        if key not in known.citations:
            raise KeyError(f"{key!r} is cited but not in the bibliography")
        authors, year, address = known.citations[key]
        words = f"{authors} ({year})" if role == "cite:t" else f"{authors}, {year}"
        parts.append(f"[{words}]({address})" if address else words)
    return ", ".join(parts) if role == "cite:t" else f"({'; '.join(parts)})"


def citations(bibliography: Path) -> dict[str, tuple[str, str, str]]:
    """(authors, year, address) of every work of a BibTeX file, by key."""
    return {key: _entry(entry) for key, entry in parse_file(str(bibliography)).entries.items()}


def _entry(entry: Entry) -> tuple[str, str, str]:
    persons = entry.persons.get("author") or entry.persons.get("editor") or []
    names = [str(Text.from_latex(" ".join([*person.prelast_names, *person.last_names]))) for person in persons]
    authors = names[0] if names else entry.key
    if len(names) == 2:
        authors += f" and {names[1]}"
    elif len(names) > 2:
        authors += " et al."
    address = entry.fields.get("url", "")
    if "doi" in entry.fields:
        address = f"https://doi.org/{entry.fields['doi']}"
    elif not address and "eprint" in entry.fields:
        address = f"https://arxiv.org/abs/{entry.fields['eprint']}"
    return authors, entry.fields.get("year", "n.d."), address
