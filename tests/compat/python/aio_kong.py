"""Drives aio-kong, an asynchronous client of Kong's Admin API. Usage: aio_kong.py ADMIN_URL CERTIFICATE_FILE KEY_FILE."""

import asyncio
import pathlib
import sys

from kong.client import Kong, KongResponseError

CONFIG = {
    "services": [
        {
            "name": "orders",
            "host": "orders.test",
            "plugins": [{"name": "cors"}],
            "routes": [{"name": "orders", "paths": ["/orders"], "plugins": [{"name": "key-auth"}]}],
        }
    ],
    "consumers": [
        {
            "username": "ada",
            "groups": ["staff", "admins"],
            "auths": [
                {"type": "key-auth", "config": {"key": "secret-of-ada"}},
                {"type": "basic-auth", "config": {"username": "ada", "password": "lovelace"}},
            ],
        }
    ],
    "plugins": [{"name": "request-size-limiting", "config": {"allowed_payload_size": 5}}],
}


async def crud(component, params, change, name):
    entity = await component.create(**params)
    for key in [entity.id, entity.get(name)] if name else [entity.id]:
        assert (await component.get(key)).id == entity.id, component
    assert entity.id in [one.id for one in await component.get_full_list()], component
    changed = await component.update(entity.id, **change)
    assert all(changed[key] == value for key, value in change.items()), changed
    assert await component.has(entity.id)
    return entity


async def main(url, certificate, key):
    async with Kong(url=url) as kong:
        service = await crud(kong.services, {"name": "s", "host": "h.test"}, {"retries": 3}, "name")
        route = await crud(service.routes, {"name": "r", "paths": ["/r"]}, {"paths": ["/x"]}, "name")
        consumer = await crud(kong.consumers, {"username": "eve"}, {"custom_id": "7"}, "username")
        await crud(kong.plugins, {"name": "prometheus"}, {"enabled": False}, None)
        await crud(service.plugins, {"name": "cors"}, {"enabled": False}, None)
        await crud(route.plugins, {"name": "cors"}, {"enabled": False}, None)
        await crud(consumer.acls, {"group": "staff"}, {"group": "admins"}, None)
        token = await consumer.jwts.create()
        assert token["key"] and token["secret"]
        pair = await crud(
            kong.certificates,
            {"cert": certificate, "key": key, "snis": ["a.test"]},
            {"tags": ["t"]},
            None,
        )
        assert (await kong.snis.get("a.test"))["certificate"]["id"] == pair.id
        # Small pages follow one another.
        for n in range(25):
            await kong.consumers.create(username=f"u{n}")
        assert len(await kong.consumers.get_full_list(size=10)) == 26
        for taken in ({"username": "eve"}, {}):
            try:
                await kong.consumers.create(**taken)
            except KongResponseError as error:
                assert error.status in (400, 409), error
            else:
                raise AssertionError("it was created")
        await kong.delete_all()
        # The same configuration twice changes nothing.
        first = await kong.apply_json(CONFIG)
        again = await kong.apply_json(CONFIG)
        for kind in CONFIG:
            assert [one["id"] for one in first[kind]] == [one["id"] for one in again[kind]], kind
        ada = await kong.consumers.get("ada")
        assert sorted(acl["group"] for acl in await ada.acls.get_list()) == ["admins", "staff"]
        assert [one["key"] for one in await ada.keyauths.get_list()] == ["secret-of-ada"]
        await kong.delete_all()
        for component in (kong.services, kong.routes, kong.consumers, kong.plugins, kong.certificates):
            assert await component.get_full_list() == [], component


asyncio.run(main(sys.argv[1], *(pathlib.Path(file).read_text() for file in sys.argv[2:4])))
print("done")
