"""Drives python-kongclient. Usage: kongclient_py.py ADMIN_URL CERTIFICATE_FILE KEY_FILE."""

import pathlib
import sys

from kongclient import KongClient
from kongclient.exceptions import APIException

kong = KongClient(kong_url=sys.argv[1])
certificate, key = (pathlib.Path(file).read_text() for file in sys.argv[2:4])


def ids(entities):
    return [one["id"] for one in entities]


info = kong.info.get_node_info()
assert info["configuration"]["database"] == "postgres"
assert kong.info.get_node_status()["database"]["reachable"]

service = kong.services.create(name="s", url="http://h.test/v1", tags=["t"])
assert kong.services.get("s")["path"] == "/v1"
assert ids(kong.services.list(tags="t")) == [service["id"]]
assert kong.services.update("s", retries=3)["retries"] == 3
route = kong.services.add_route("s", name="r", hosts=["a.test"])
assert ids(kong.services.list_routes("s")) == [route["id"]]
assert kong.services.get_route("s", "r")["id"] == route["id"]
assert kong.routes.get_service("r")["id"] == service["id"]
assert kong.routes.update_by_service("s", "r", hosts=["b.test"])["hosts"] == ["b.test"]
assert kong.services.update_by_route("r", retries=4)["retries"] == 4

assert "cors" in kong.plugins.get_enabled_plugins()["enabled_plugins"]
assert kong.plugins.get_schema("cors")["fields"]
# Its own `create` sends `run_on`, which Kong has not had since 2.0.
plugin = kong.plugins._create(url="/services/s/plugins", body={"name": "cors"})
assert kong.plugins.get_service(plugin["id"])["id"] == service["id"]
assert ids(kong.services.list_plugins("s")) == [plugin["id"]]
kong.plugins.update_by_service("s", plugin["id"], enabled=False)
assert kong.plugins.get(plugin["id"])["enabled"] is False

consumer = kong.consumers.create(username="ada", custom_id="1")
assert kong.consumers.update("ada", custom_id="2")["custom_id"] == "2"
assert kong.consumers.list_plugins("ada") == []

pair = kong.certificates.create(cert=certificate, key=key, snis=["a.test"])
assert [sni["name"] for sni in kong.certificates.list_snis(pair["id"])] == ["a.test"]
assert kong.snis.get("a.test")["certificate"]["id"] == pair["id"]
sni = kong.certificates.add_sni(pair["id"], name="b.test")
assert kong.snis.update_by_certificate(pair["id"], sni["id"], name="c.test")["name"] == "c.test"
kong.snis.delete_by_certificate(pair["id"], sni["id"])
assert kong.certificates.list_services(pair["id"]) == []

upstream = kong.upstreams.create(name="u.test")
target = kong.upstreams.add_target("u.test", target="10.0.0.1:80")
assert ids(kong.upstreams.list_targets("u.test")) == [target["id"]]
assert ids(kong.upstreams.list_all_targets("u.test")) == [target["id"]]
assert kong.targets.get_upstream(target["id"])["id"] == upstream["id"]
kong.targets.set_unhealthy_target_by_upstream("u.test", "10.0.0.1:80")
kong.targets.set_healthy_target_by_upstream("u.test", target["id"])
kong.targets.set_healthy_address_by_upstream("u.test", target["id"], "10.0.0.1:80")
assert kong.upstreams.get_upstream_health("u.test")["data"][0]["health"] == "HEALTHCHECKS_OFF"
kong.targets.delete_target_by_upstream("u.test", target["id"])

assert {one["entity_name"] for one in kong.tags.get("t")} == {"services"}
assert kong.tags.list()

try:
    kong.services.delete("s")
except APIException as error:
    assert error.http_status == 400, error
else:
    raise AssertionError("it has a route")
kong.routes.delete_by_service("s", "r")
kong.services.delete("s")
kong.consumers.delete(consumer["id"])
kong.certificates.delete(pair["id"])
kong.upstreams.delete("u.test")
assert kong.plugins.list() == []
print("done")
