"""The dashboards, as Grafana's own SDK for them reads them: whatever its model does not know it drops, and nothing may be.

Panel options and queries are read by the models of their plugins, so that a misspelt option of a panel is found too."""

import json
import pathlib
import unittest

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

DASHBOARDS = pathlib.Path(__file__).parents[2] / "dashboards"


def lost(before, after, path=""):
    """What `after` does not have as `before` had it."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            if key in after:
                yield from lost(value, after[key], f"{path}.{key}")
            else:
                yield f"{path}.{key}"
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (one, other) in enumerate(zip(before, after)):
            yield from lost(one, other, f"{path}[{number}]")
    elif before != after:
        yield path


class Dashboards(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        register_default_plugins()

    def read(self, dashboard):
        return json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))

    def test_grafanas_model_knows_all_of_each_dashboard(self):
        files = sorted(DASHBOARDS.glob("*.json"))
        self.assertEqual([file.stem for file in files], ["fleet-overview", "rotation-in-flight"])
        for file in files:
            dashboard = json.loads(file.read_text())
            self.assertEqual(list(lost(dashboard, self.read(dashboard))), [], file.name)

    def test_a_misspelt_option_is_found(self):
        dashboard = json.loads((DASHBOARDS / "fleet-overview.json").read_text())
        stat = next(panel for panel in dashboard["panels"] if panel["type"] == "stat")
        stat["options"]["colourMode"] = "value"
        stat["targets"][0]["exprs"] = "up"
        found = [path.rsplit(".", 1)[1] for path in lost(dashboard, self.read(dashboard))]
        self.assertEqual(sorted(found), ["colourMode", "exprs"])
