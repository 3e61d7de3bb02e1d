"""The configurations in the documentation, so that tests can use them as they are."""

import re
import textwrap
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def configurations(page, heading):
    """The configuration files in a section of a page, with its subsections: {name: text}.

    Such a file is an indented block that begins with a comment with the file's name.
    """
    level = heading.split()[0]
    _, _, section = (DOCS / page).read_text().partition(f"\n{heading}\n")
    assert section, f"{page} has no section {heading!r}"
    section = re.split(rf"^#{{1,{len(level)}}} ", section, maxsplit=1, flags=re.M)[0]
    found = {}
    for block in re.findall(r"(?:^    .*\n(?:\n(?=    ))?)+", section, flags=re.M):
        text = re.sub(r"^    ", "", block, flags=re.M)
        if name := re.match(r"# (?:/\S*/)?([\w.-]+)", text):
            found[name[1]] = text
    return found


def marked(page, mark):
    """The indented blocks of a page that follow a comment such as `<!-- vps -->` or `<!-- vps: ufw -->`, in order: pairs of
    what is after the colon, "" if nothing is, and the text.
    """
    comment = rf"^<!-- {mark}(?:: ([\w-]+))? -->\n\n((?:^(?:    .*)?\n)+)"
    blocks = re.findall(comment, (DOCS / page).read_text(), flags=re.M)
    return [(kind, textwrap.dedent(text).strip() + "\n") for kind, text in blocks]
