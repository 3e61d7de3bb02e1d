"""Prometheus, with a configuration of conf/prometheus, and the dashboard's queries as Grafana would send them."""

import json
import re
import shutil
import subprocess
import time
import urllib.parse
from pathlib import Path

from hosts import eventually
from livekit import Program, request

CONF = Path(__file__).parents[2] / "conf"
RULES = [CONF / "prometheus" / name for name in ("recording.yml", "alerts.yml")]
DASHBOARD = CONF / "grafana" / "hairpin.json"


def promtool(*words, text=None):
    """Runs promtool, which must find nothing wrong; returns what it printed."""
    command = ["promtool", *map(str, words)]
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def panels():
    """The panels of the dashboard that show something."""
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def queries(panel):
    """The queries of a panel."""
    return [target["expr"] for target in panel["targets"]]


def substituted(expression):
    """A query of the dashboard with everything chosen, at a scrape interval of one second."""
    for name, value in {"$__rate_interval": "10s", "$job": ".+", "$instance": ".+"}.items():
        expression = expression.replace(name, value)
    assert "$" not in expression, f"an unknown variable: {expression}"
    return expression


def metric_names(expression):
    """The names of the metrics in a query, as the page of a relay or a sidecar has them."""
    without_strings = re.sub(r'"[^"]*"', "", expression)
    # Those with colons are of recording rules.
    names = re.findall(r"(?<![\w:])(?:hairpin|process)_\w+(?!:)\b", without_strings)
    return {re.sub("_(?:bucket|count)$", "", name) for name in names}


class Prometheus(Program):
    """Prometheus on a host, at a port of its loopback interface. `configure` writes its configuration into `folder`, a copy of
    conf/prometheus; `names` are the hosts that it knows by name, {name: address}.
    """

    ADDRESS = ("127.0.0.1", 9090)

    def __init__(self, host, folder, names):
        self.configuration = Path(folder) / "prometheus"
        hosts = Path(folder) / "hosts"
        where = [f"--config.file={self.configuration / 'prometheus.yml'}", f"--storage.tsdb.path={Path(folder) / 'data'}"]
        where += [f"--web.listen-address={':'.join(map(str, self.ADDRESS))}", "--log.level=warn"]
        # Its own /etc/hosts takes the place of a name server.
        mounted = 'mount --bind "$0" /etc/hosts && exec prometheus "$@"'
        super().__init__(host, folder, "unshare", "--mount", "--propagation", "private", "sh", "-c", mounted, hosts, *where)
        shutil.copytree(CONF / "prometheus", self.configuration)
        hosts.write_text("".join(f"{address} {name}\n" for name, address in {"localhost": "127.0.0.1", **names}.items()))

    def every_second(self):
        """Scrapes, evaluates rules and reads targets each second."""
        file = self.configuration / "prometheus.yml"
        file.write_text(re.sub(r"_interval: 15s", "_interval: 1s", file.read_text()))

    def start(self):
        """Starts it and waits until it serves."""
        super().start()
        return self.answers(self.ADDRESS, "/-/ready")

    def get(self, path, **parameters):
        """What its API answers."""
        query = urllib.parse.urlencode(parameters, doseq=True)
        status, _, body = request(self.host, self.ADDRESS, "GET", f"/api/v1/{path}?{query}")
        answer = json.loads(body)
        assert status == 200 and answer["status"] == "success", f"{parameters}: {body}"
        return answer["data"]

    def now(self, expression):
        """The present values of a query: {labels: value}."""
        found = self.get("query", query=expression)["result"]
        return {frozenset(one["metric"].items()): float(one["value"][1]) for one in found}

    def since(self, began, expression):
        """The values of a query for each second since a time: {labels: values}."""
        found = self.get("query_range", query=expression, start=began, end=time.time() + 1, step=1)["result"]
        return {frozenset(one["metric"].items()): [float(value) for _, value in one["values"]] for one in found}

    def until(self, expression, timeout=30):
        """Waits until a query has a result, and returns its values."""

        def found():
            return self.now(expression)

        found.__doc__ = f"{expression} has a result"
        return eventually(found, timeout)

    def targets(self):
        """What is scraped: {(job, instance): "up", or the error}."""
        found = self.get("targets", state="active")["activeTargets"]
        return {
            (one["labels"]["job"], one["labels"]["instance"]): one["lastError"] or one["health"] for one in found
        }

    def rules(self):
        """All rules with their state."""
        return [rule for group in self.get("rules")["groups"] for rule in group["rules"]]
