"""conf/prometheus and conf/grafana: what an operator copies works with a real Prometheus, two relays and a sidecar under load, and
each panel of the dashboard shows something. No Grafana is needed: its queries go to Prometheus' API.
"""

import http.server
import json
import math
import re
import shutil
import signal
import ssl
import textwrap
import threading
import time
from http.client import HTTPConnection
from pathlib import Path

import pytest

from documents import DOCS, configurations
from fleet import ONE, TWO, Work
from hosts import eventually
from livekit import Load, Sidecar, join_token
from prometheus import CONF, DASHBOARD, RULES, Prometheus, metric_names, panels, promtool, queries, substituted
from test_losses import stopped

# Fixtures
from fleet import fleet, monitor, room, sidecar, token  # noqa: F401
from rooms import programs  # noqa: F401

CASES = Path(__file__).parents[1] / "monitoring"

# Series that are zero unless something is broken that these tests cannot break. They are in panels with others.
ZERO = {
    "hairpin_worker_panics_total": "a bug of the relay",
    "hairpin_truncated_batches_total": "a network card that joins more than UDP allows",
    "hairpin_gso_refused_total": "a device whose kernel cannot segment",
    "hairpin_accept_pauses_total": "a machine without file descriptors or memory",
    "hairpin_log_lines_dropped_total": "a reader of the log that is too slow; a file never is",
    "hairpin_livekit_unfollowed_participants_total": "more participants than a test can have",
    "hairpin_worker_unanswered_seconds": "a worker that is stuck",
    "hairpin_livekit_clock_offset_seconds": "two machines: here both have one clock",
}


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
    """For each alert there is a case in which it fires and at least one in which it does not, and for each recording rule a result."""
    fires, silent = [], []
    for file in CASES.glob("*.yml"):
        for case in re.split(r"^  - name: ", file.read_text(), flags=re.M)[1:]:
            [name] = re.findall(r"alertname: (\w+)", case)
            (silent if "exp_alerts: []" in case else fires).append(name)
    assert sorted(fires) == sorted(set(silent)) == sorted(alerts())
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


def test_every_metric_is_documented():
    """Rules and panels name metrics of a relay or a sidecar, so that none of them waits for something that does not exist."""
    pages = [(DOCS / name).read_text() for name in ("metrics.md", "livekit.md")]
    documented = {name for page in pages for name in re.findall(r"^\| `(\w+)` \|", page, flags=re.M)}
    rules = [text for file in RULES for text in expressions(file.read_text())]
    named = set().union(*map(metric_names, rules), *[metric_names(query) for panel in panels() for query in queries(panel)])
    assert not named - documented


def expressions(rules):
    """The expressions of a file of rules."""
    blocks = re.findall(r"^ +expr: (?:\|\n((?: {10}.*\n)+)|(.*)\n)", rules, flags=re.M)
    return [block or line for block, line in blocks]


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
        # A panel that is always empty says nothing, not even that it works.
        assert not all(metric_names(query) & set(ZERO) for query in queries(panel)), panel["title"]
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


# A fleet under load


def test_every_panel_and_rule(fleet, room, sidecar, monitor, clients, peers, authority, token, switch):  # noqa: F811
    """A fleet under load: all targets of the example are scraped, each query of the dashboard gives a value that is not zero,
    each rule can be evaluated, and what happens turns alerts on.
    """
    began = time.time()
    relays = [("hairpin", f"{name}:9641") for name in (ONE, TWO)]
    everything = {*relays, ("hairpin-livekit", f"{ONE}:9643")}
    eventually(lambda: monitor.targets() == dict.fromkeys(everything, "up"))
    monitor.until("hairpin_livekit_relay_up == 1")
    load = Work(fleet, clients, peers, authority, monitor)
    with Load(switch.host("load", default_route=True), room, 3) as people:
        assert people.result["connected"] == 3, people.result
        load.run()
        use(sidecar, monitor)
        # Rooms are counted every 15 seconds.
        monitor.until('hairpin_livekit_relayed_rooms{relayed!="0"} > 0')
        monitor.until('hairpin_livekit_rooms > 0')
        with stopped(fleet[0]):
            people.leave()
            monitor.until("hairpin_livekit_pending_revocations > 0")
    monitor.until('hairpin_livekit_revocations_total{outcome="confirmed"} > 0')
    monitor.until("histogram_quantile(0.5, rate(hairpin_livekit_revocation_seconds_bucket[10s])) > 0")
    assert sidecar.stop() == 0
    sidecar.start()
    monitor.until("changes(process_start_time_seconds[1m]) > 0")

    nothing = []
    for panel in panels():
        for query in queries(panel):
            found = monitor.since(began, substituted(query))
            zero = metric_names(query) & set(ZERO)
            if not (found if zero else shows_something(found)):
                nothing.append(f"{panel['title']}: {query}")
    assert not nothing, "\n".join(nothing)
    for annotation in json.loads(DASHBOARD.read_text())["annotations"]["list"]:
        if "expr" in annotation:
            assert monitor.since(began, substituted(annotation["expr"])), annotation

    named = set().union(*[metric_names(query) for panel in panels() for query in queries(panel)])
    pages = {name for name in monitor.get("label/__name__/values")}
    assert not {name for name in named if name not in pages and f"{name}_count" not in pages}
    for expression in variables():
        assert monitor.get(f"label/{expression['label']}/values", **{"match[]": expression["selector"]})

    for rule in eventually(lambda: all(rule["health"] == "ok" for rule in monitor.rules()) and monitor.rules()):
        assert rule["type"] == "alerting" or monitor.since(began, rule["name"]), rule["name"]
    # What the load has done
    fired = {name for [name] in map(alert_names, monitor.since(began, "ALERTS"))}
    expected = {"HairpinReloadFailed", "HairpinCertificateFailing", "HairpinRelayAddressesChanged", "HairpinDrainTakesLong"}
    expected |= {"HairpinLivekitReloadFailed", "HairpinExternalAddressChanged", "HairpinCertificateRenewalLate", "HairpinPacketsLost"}
    assert expected <= fired, expected - fired
    serious = {name for [name] in map(alert_names, monitor.since(began, 'ALERTS{alertstate="firing",severity="page"}'))}
    assert not serious, "nothing lasted for long enough to wake anybody"
    texts = [rule["annotations"]["description"] for rule in monitor.get("alerts")["alerts"]]
    assert texts and not any("<no value>" in text or "error" in text.split(":")[0] for text in texts), texts

    for relay, name in zip([*fleet, sidecar], (ONE, TWO, ONE)):
        promtool("check", "metrics", text=page_of(relay, name, authority, token[0].read_text().strip()))
    http_discovery(monitor, relays)


def alert_names(labels):
    """The name in the labels of an alert."""
    return [value for name, value in labels if name == "alertname"]


def variables():
    """The queries for the variables of the dashboard."""
    for variable in json.loads(DASHBOARD.read_text())["templating"]["list"][1:]:
        selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", substituted(variable["definition"])).groups()
        yield {"selector": selector, "label": label}


def shows_something(found):
    """Whether a series is not zero all the time."""
    return any(value and not math.isnan(value) for values in found.values() for value in values)


def page_of(program, name, authority, token):  # noqa: F811
    """The metrics of a relay or a sidecar."""
    port = 9643 if isinstance(program, Sidecar) else 9641
    context = ssl.create_default_context(cafile=authority.certificate)
    with program.host.tcp("127.0.0.1", port) as raw, context.wrap_socket(raw, server_hostname=name) as tls:
        connection = HTTPConnection("127.0.0.1", port)
        connection.sock = tls
        connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {token}"})
        response = connection.getresponse()
        assert response.status == 200
        return response.read().decode()


def use(sidecar, monitor):
    """One participant gets ICE servers, another shows a token that nobody has signed, somebody does not like the certificate, and
    an operator makes a mistake.
    """
    for shown, status in ((join_token("somebody"), 200), (join_token("nobody", secret="x" * 32), 401)):
        assert sidecar.get("/v1/ice-servers", {"Authorization": f"Bearer {shown}"})[0] == status
    with sidecar.host.tcp(*sidecar.http) as raw, pytest.raises(ssl.SSLError):
        ssl.create_default_context().wrap_socket(raw, server_hostname=ONE)
    right = sidecar.file.read_text()
    for text, succeeds in ((right + "\nno_such_setting = 1\n", 0), (right, 1)):
        sidecar.file.write_text(text)
        sidecar.process.send_signal(signal.SIGHUP)
        monitor.until(f"hairpin_livekit_config_last_reload_successful == {succeeds}")


def http_discovery(monitor, relays):
    """The relays come from an inventory over HTTP, as documented, instead of files."""
    section = (DOCS / "monitoring.md").read_text().partition("\n## Scrape a fleet\n")[2]
    folder = monitor.folder / "inventory"
    folder.mkdir()
    (folder / "hairpin.json").write_text(re.search(r"^    \[\n(?:    .*\n)+", section, flags=re.M)[0])

    class Handler(http.server.SimpleHTTPRequestHandler):
        """Serves the inventory."""

        def __init__(self, *arguments):
            super().__init__(*arguments, directory=folder)

        def log_message(self, *_):
            """Logs nothing."""

    with monitor.host.inside():
        server = http.server.ThreadingHTTPServer((monitor.host.v4, 80), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        file = monitor.configuration / "prometheus.yml"
        by_http = textwrap.indent(configurations("monitoring.md", "## Scrape a fleet")["prometheus.yml"], "    ")
        file.write_text(re.sub(r"    file_sd_configs:\n      - files: \[targets/hairpin.*\n", by_http, file.read_text()))
        (monitor.configuration / "targets" / "hairpin.yml").unlink()
        monitor.process.send_signal(signal.SIGHUP)
        # The documented inventory gives each relay a label that the files do not.
        monitor.until('count(up{job="hairpin", provider!=""} == 1) == 2')
        assert {target for target in monitor.targets() if target[0] == "hairpin"} == set(relays)
    finally:
        server.shutdown()
        server.server_close()
