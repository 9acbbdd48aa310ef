"""Drives kong-gateway-client, in a workspace and with a token. Usage: gateway_client.py ADMIN_URL TOKEN."""

import sys

from kong_gateway_client.api import KongAPIClient

url, token = sys.argv[1:3]
kong = KongAPIClient(admin_url=url, admin_token=token)
team = kong.workspace.create("team")
assert kong.workspace.get("team").id == team.id
assert kong.workspace.patch("team", comment="c").comment == "c"
kong = KongAPIClient(admin_url=url, admin_token=token, target_workspace="team")

service = kong.service.create("s", "http://h.test")
assert kong.service.get("s").id == service.id
assert kong.service.patch("s", host="i.test").host == "i.test"
assert [one["id"] for one in map(vars, kong.service.get_all())] == [service.id]
route = kong.route.create_for_service("r", "s", paths=["/r"])
assert kong.route.get("r").id == route.id
consumer = kong.consumer.create("ada", "1")
kong.consumer.add_key_auth("ada", key="secret-of-ada")
acl = kong.consumer.update_acl_group("ada", "staff")
assert kong.consumer.get_acl("ada", acl.id).group == "staff"
group = kong.consumer_group.create("gold")
kong.consumer_group.add_consumer("gold", "ada")
rates = kong.consumer_group.configure_rate_limit("gold", [5], [60])
assert rates.config["limit"] == [5] and rates.group == "gold"
assert len(kong.consumer_group.get_consumers("gold")) == 1
kong.consumer_group.delete_consumer("gold", "ada")
kong.consumer_group.delete_consumers("gold")
plugin = kong.plugin_resource.create_for_service("s", name="cors")
assert kong.plugin_resource.get_for_service("s", plugin.id).id == plugin.id
assert len(kong.plugin_resource.list_for_service("s")) == 1
allowed = kong.acl_plugin.create(route_id=route.id, allow=["staff"])
assert kong.acl_plugin.retrieve(allowed.id).id == allowed.id
counts = kong.workspace.get_metadata("team").counts
assert counts["consumers"] == 1 and counts["plugins"] == 3, counts

kong.consumer_group.delete("gold")
kong.consumer.delete("ada")
kong.route.delete("r")
kong.service.delete("s")
kong.workspace.delete("team")
print("done")
