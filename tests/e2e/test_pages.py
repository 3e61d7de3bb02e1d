"""What the documentation says exists: links and their anchors, metrics, settings, and the messages that docs/operating.md quotes."""

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "fuzz/README.md", *(ROOT / "docs").glob("*.md")])


@cache
def sources():
    """The sources of both programs."""
    return "\n".join(file.read_text() for file in sorted((ROOT / "src").rglob("*.rs")))


pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose(text):
    """The text without code: fenced and indented blocks, and spans."""
    text = re.sub(r"^ *```.*?^ *```", "", text, flags=re.M | re.S)
    text = re.sub(r"(?:^|(?<=\n\n))(?: {4,}.*\n|\n(?= {4}))+", "\n", text)
    return re.sub(r"`[^`\n]*`", "", text)


@cache
def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    found = set()
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.M | re.S)
    for heading in re.findall(r"^#{1,6} (.*)$", text, flags=re.M):
        heading = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-")
        n = sum(other == anchor or other.startswith(f"{anchor}-") and other[len(anchor) + 1 :].isdigit() for other in found)
        found.add(f"{anchor}-{n}" if n else anchor)
    return found


@pages
def test_links_lead_somewhere(page):
    """Every link to a file of the project names one, and every anchor a heading of its page."""
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or anchor and anchor not in anchors(file):
            dead.append(target)
    assert not dead


@pages
def test_metrics_exist(page):
    """Every metric that a page names is one of the relay's or of the sidecar's."""
    recorded = (ROOT / "conf/prometheus/recording.yml").read_text()
    known = set(re.findall(r"\bhairpin_[a-z0-9_]+\b", sources() + recorded))
    named = set(re.findall(r"\bhairpin_[a-z0-9_]+\b", page.read_text())) if page.name != "CHANGELOG.md" else set()
    series = r"_(?:bucket|sum|count)$"
    unknown = {name for name in named if not {name, re.sub(series, "", name)} & known}
    assert not unknown


def test_settings_exist():
    """Every setting that docs/operating.md names in a span is one of the relay's or of the sidecar's."""
    known = set()
    for page in ("configuration.md", "livekit-configuration.md"):
        known |= set(re.findall(r"^### `([a-z_.0-9]+)`", (ROOT / "docs" / page).read_text(), flags=re.M))
    sections = {key.split(".")[0] for key in known if "." in key}
    spans = re.findall(r"`([^`\n]+)`", (ROOT / "docs/operating.md").read_text())
    named = {found[0] for span in spans if (found := re.match(r"[a-z_]+\.[a-z_0-9.]+(?= = |$)", span))}
    named = {key for key in named if key.split(".")[0] in sections and not key.endswith((".toml", ".json", ".md"))}
    assert len(named) > 10
    assert not named - known


@cache
def said():
    """What the programs can say: their strings, one a line, with a gap for each value that is filled in."""
    joined = re.sub(r"\\\n\s*", "", sources())
    strings = re.findall(r'"((?:[^"\\]|\\.)*)"', joined)
    return "\n".join(re.sub(r"\{[^{}]*\}", "\0", text.replace('\\"', '"')) for text in strings)


def fragments(text):
    """The parts of a text that have no value that differs from case to case, if they are three words or more."""
    parts = re.split(r'…|"[^"]*"|\S*\d\S*|\S*/\S*|\S*\.example\.org\S*|[(),:;]|SIGHUP', text)
    return [part.strip() for part in parts if len(part.split()) >= 3]


def test_quoted_messages_are_real():
    """Each message that a troubleshooting table or a sentence quotes in a span of three words or more is in the sources. What the
    page quotes as lines of the log is provoked in test_symptoms.py.
    """
    _, _, section = (ROOT / "docs/operating.md").read_text().partition("## Troubleshooting by symptom")
    kernel = {"nf_conntrack: table full, dropping packet"}
    spans = {span for span in re.findall(r"`([^`\n]+)`", section) if len(span.split()) >= 3} - kernel
    sentences = {span for span in spans if re.fullmatch(r"[a-z/'(][a-zA-Z',;:()? -]+", span) and not re.search(r" --?\w", span)}
    commands = ("hairpin ", "systemctl ", "journalctl ", "adduser ")
    sentences = {span for span in sentences if not span.startswith(commands)}
    assert len(sentences) > 8
    assert not {part for span in sentences for part in fragments(span) if part not in said()}
