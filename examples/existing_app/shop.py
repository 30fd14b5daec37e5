"""A Celery application as it was before Jobledger; the two marked lines are all that is new."""

from __future__ import annotations

import os
from typing import Any

import jobledger  # new
from celery import Celery

app = Celery("shop", broker=os.environ.get("SHOP_BROKER", "redis://localhost:6379/0"))
app.conf.task_ignore_result = True
jobledger.install(app)  # new

PRICES = {"tea": 4.5, "coffee": 6.0, "cake": 3.2}


@app.task
def price(items: dict[str, int]) -> float:
    """Add up an order."""
    return round(sum(PRICES[name] * count for name, count in items.items()), 2)


@app.task(bind=True, max_retries=3)
def charge(self: Any, card_number: str, amount: float) -> str:
    """Charge a card; the bank is busy at the first attempt."""
    if self.request.retries == 0:
        raise self.retry(exc=ConnectionError("the bank is busy"), countdown=0)
    return f"{amount:.2f} charged"


@app.task
def ship(order: int, address: str) -> str:
    """Hand an order to the carrier, who refuses an empty address."""
    if not address.strip():
        raise ValueError(f"order {order} has no address")
    return f"order {order} is on its way to {address}"


@app.task
def fulfil(order: int, items: dict[str, int], address: str) -> None:
    """Send the other tasks, as the application always did."""
    charge.delay("4111 1111 1111 1111", price(items))
    ship.apply_async(args=(order, address), priority=2)
