"""conf/prometheus and conf/grafana: what an operator copies works with a real Prometheus."""

import json
import re
import shutil
from pathlib import Path

import pytest

from documents import DOCS, configurations
from hosts import eventually
from prometheus import CONF, DASHBOARD, RULES, Prometheus, panels, promtool, queries

# Fixtures
from rooms import programs  # noqa: F401

CASES = Path(__file__).parents[1] / "monitoring"

# Files


def test_rules_and_configuration(tmp_path):
    """The files are valid for promtool, and the configuration with what the documentation says to put beside it."""
    for file in RULES:
        promtool("check", "rules", file)
    folder = tmp_path / "prometheus"
    shutil.copytree(CONF / "prometheus", folder)
    for name in ("authority.pem", "hairpin.token"):
        (folder / name).touch()
    promtool("check", "config", folder / "prometheus.yml")


@pytest.mark.parametrize("file", ["relay.yml", "fleet.yml", "livekit.yml", "long.yml", "recording.yml"])
def test_rules_by_their_cases(file):
    """Each case gives what it says."""
    assert "SUCCESS" in promtool("test", "rules", CASES / file)


def alerts():
    """The alerts: {name: its text}."""
    texts = re.split(r"^ +- alert: ", RULES[1].read_text(), flags=re.M)[1:]
    return {text.split("\n", 1)[0]: text for text in texts}


def test_each_rule_has_its_cases():
    """For each alert there is a case in which it fires and one in which it does not, and for each recording rule a result."""
    fires, silent = [], []
    for file in CASES.glob("*.yml"):
        for case in re.split(r"^  - name: ", file.read_text(), flags=re.M)[1:]:
            [name] = re.findall(r"alertname: (\w+)", case)
            (silent if "exp_alerts: []" in case else fires).append(name)
    assert sorted(fires) == sorted(silent) == sorted(alerts())
    tested = re.findall(r"expr: round\((\S+),", (CASES / "recording.yml").read_text())
    assert tested == re.findall(r"record: (\S+)", RULES[0].read_text())


def test_each_alert_says_what_to_do():
    """An alert has a severity, says whom it is about, and leads to a row of docs/monitoring.md that says the same severity."""
    page = (DOCS / "monitoring.md").read_text()
    rows = dict(re.findall(r'^\| <a id="(\w+)"></a>`\w+` \| (\w+) \|', page, flags=re.M))
    assert sorted(rows) == sorted(map(str.lower, alerts()))
    for name, text in alerts().items():
        [severity] = re.findall(r"severity: (\w+)", text)
        assert severity in ("page", "ticket") and rows[name.lower()] == severity
        assert f"runbook_url: docs/monitoring.md#{name.lower()}\n" in text
        assert "summary: " in text and len(text.partition("description: >-")[2]) > 150, name


def test_the_dashboard_can_be_imported():
    """Whatever the data source is called: nothing in the file belongs to one installation. Panels do not overlap, and each has a
    unit, a description, and the filters of the dashboard in each query.
    """
    dashboard = json.loads(DASHBOARD.read_text())
    assert dashboard["schemaVersion"] >= 36 and dashboard["id"] is None and "uid" not in dashboard
    assert [variable["name"] for variable in dashboard["templating"]["list"]] == ["datasource", "job", "instance"]
    sources = re.findall(r'"uid": "([^"]*)"', DASHBOARD.read_text())
    assert set(sources) == {"${datasource}", "-- Grafana --"}
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    titles = [panel["title"] for panel in dashboard["panels"]]
    assert len(titles) == len(set(titles))
    cells = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        covered = {
            (x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])
        }
        assert not covered & cells and place["x"] + place["w"] <= 24, panel["title"]
        cells |= covered
    for panel in panels():
        assert panel["fieldConfig"]["defaults"]["unit"] and len(panel["description"]) > 60, panel["title"]
        assert panel["targets"] and all(target["legendFormat"] for target in panel["targets"]), panel["title"]
        for query in queries(panel):
            selectors = re.findall(r'\b(?:up|hairpin_\w+|process_\w+)\{([^}]*)\}', query)
            assert selectors and all('job=~"$job", instance=~"$instance"' in one for one in selectors), query
            # Every metric is behind a filter.
            assert len(selectors) == len(re.findall(r"\b(?:up|hairpin_\w+|process_\w+)\b(?!\")", re.sub(r'"[^"]*"', "", query))), query


def test_one_relay(start, host, programs, tmp_path):  # noqa: F811
    """The documented configuration for a relay with the defaults, and Prometheus on the same machine."""
    start(host)
    monitor = Prometheus(host, tmp_path / "monitor", {})
    (monitor.configuration / "prometheus.yml").write_text(configurations("monitoring.md", "## Scrape one relay")["prometheus.yml"])
    monitor.every_second()
    programs.append(monitor)
    monitor.start()
    eventually(lambda: monitor.targets().get(("hairpin", "127.0.0.1:9641")) == "up")
    assert monitor.until('hairpin_build_info{job="hairpin"}')
    # There is no sidecar.
    assert "refused" in monitor.targets()["hairpin-livekit", "127.0.0.1:9643"]
    monitor.until('ALERTS{alertname="HairpinLivekitDown"}')
