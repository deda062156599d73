"""`aio`: the script of somebody who knows better: aiohttp and orjson, eight calls at once."""

import asyncio
import sys

import aiohttp
import orjson

URL = sys.argv[1]
PAGE_SIZE = 100
ROWS_PER_POST = 500
CONCURRENCY = 8


async def main():
    connector = aiohttp.TCPConnector(limit=CONCURRENCY)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def post(path, body, token=""):
            headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
            async with session.post(URL + path, data=orjson.dumps(body), headers=headers) as answer:
                answer.raise_for_status()
                return orjson.loads(await answer.read())

        async def get(path):
            async with session.get(URL + path, headers={"Authorization": f"Bearer {token}"}) as answer:
                return orjson.loads(await answer.read())["data"]

        login = {"grant_type": "client_credentials", "client_id": "bench", "client_secret": "bench-secret", "scope": "product"}
        token = (await post("/v1/oauth2/access_token", login))["access_token"]
        names = {group["id"]: group["name"] for group in await get("/v1/product/groups")}

        # Rows are made as a page arrives, so that no page is held longer than that.
        async def rows_of(page):
            data = await get(f"/v1/product/list?start_index={page}&count={PAGE_SIZE}")
            rows = [
                {
                    "id": str(product["product_id"]),
                    "name": product["name"],
                    "cost": product["cost"],
                    "groupId": str(product["group_id"]),
                    "groupName": names[product["group_id"]],
                }
                for product in data["list"]
            ]
            return data["count"], rows

        total, rows = await rows_of(1)
        pages = iter(range(2, -(-total // PAGE_SIZE) + 1))

        async def reader():
            for page in pages:
                rows.extend((await rows_of(page))[1])

        await asyncio.gather(*(reader() for _ in range(CONCURRENCY)))

        login = {"app_key": "benchbenchbe", "app_secret": "benchbenchbenchbench"}
        token = (await post("/v2/oauth", login))["content"]["access_token"]
        starts = iter(range(0, len(rows), ROWS_PER_POST))

        async def writer():
            for start in starts:
                await post("/v2/open-api/business/bench/store", {"content": rows[start : start + ROWS_PER_POST]}, token)

        await asyncio.gather(*(writer() for _ in range(CONCURRENCY)))


asyncio.run(main())
