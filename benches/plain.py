"""`plain`: the script that people write: requests, one page after the other, then one POST after the other."""

import sys

import requests

URL = sys.argv[1]
PAGE_SIZE = 100
ROWS_PER_POST = 500


def main():
    session = requests.Session()
    login = {"grant_type": "client_credentials", "client_id": "bench", "client_secret": "bench-secret", "scope": "product"}
    token = session.post(f"{URL}/v1/oauth2/access_token", json=login).json()["access_token"]
    session.headers["Authorization"] = f"Bearer {token}"

    groups = session.get(f"{URL}/v1/product/groups").json()["data"]
    names = {group["id"]: group["name"] for group in groups}

    products = []
    page = 1
    while True:
        query = {"start_index": page, "count": PAGE_SIZE}
        data = session.get(f"{URL}/v1/product/list", params=query).json()["data"]
        products.extend(data["list"])
        if page * PAGE_SIZE >= data["count"]:
            break
        page += 1

    rows = [
        {
            "id": str(product["product_id"]),
            "name": product["name"],
            "cost": product["cost"],
            "groupId": str(product["group_id"]),
            "groupName": names[product["group_id"]],
        }
        for product in products
    ]

    login = {"app_key": "benchbenchbe", "app_secret": "benchbenchbenchbench"}
    token = session.post(f"{URL}/v2/oauth", json=login).json()["content"]["access_token"]
    session.headers["Authorization"] = f"Bearer {token}"
    for start in range(0, len(rows), ROWS_PER_POST):
        batch = {"content": rows[start : start + ROWS_PER_POST]}
        session.post(f"{URL}/v2/open-api/business/bench/store", json=batch).raise_for_status()


main()
