"""The simulated shop loses no order, repeats itself, and reacts to what it is for."""

from dataclasses import replace

import pytest
import simpy

from bench.order_model import Cost, Load, Parameters, Shop, Topology, simulate

PARAMETERS = Parameters(
    costs={
        "envoy": Cost(0.00025, 0),
        "order": Cost(0.0003, 0.0002),
        "product": Cost(0.00005, 0.0003),
        "order-db": Cost(0.00008, 0.0001),
        "product-db": Cost(0.00008, 0.0002),
        "client": Cost(0.00002, 0),
    },
    flush={"order-db": 0.001, "product-db": 0.001},
)


def test_every_order_is_placed_refused_or_under_way() -> None:
    env = simpy.Environment()
    shop = Shop(env, PARAMETERS, Topology(max_waiting=20), seed=3)
    for _ in range(100):
        env.process(shop.order())
    env.run(until=10)  # long enough for all, and for the relay
    assert shop.counts.placed + shop.counts.refused == 100
    assert shop.counts.placed == len(shop.counts.delays) >= 20
    assert shop.counts.refused > 0
    assert all(pod.outbox == 0 and pod.reserves.waiting == pod.inserts.waiting == 0 for pod in shop.order_pods)


def test_a_seed_repeats_a_run() -> None:
    first, again, other = (
        simulate(PARAMETERS, Topology(orders=2), Load(rate=500), seconds=0.5, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again != other


def test_below_saturation_all_orders_are_placed() -> None:
    found = simulate(PARAMETERS, Topology(), Load(rate=400), seconds=3)
    assert found.rate == pytest.approx(400, rel=0.1)
    assert found.refused == 0
    assert found.cpu_s["envoy"] == pytest.approx(0.25, rel=0.05)


def test_orders_that_come_together_cost_less() -> None:
    alone, together = (simulate(PARAMETERS, Topology(), Load(connections=n), seconds=1) for n in (1, 64))
    assert alone.batch == 1
    assert together.batch > 4
    assert together.statements < 0.3 * alone.statements
    assert together.cpu_s["order"] < alone.cpu_s["order"]


def test_overload_is_refused_and_not_piled_up() -> None:
    topology = Topology(max_waiting=50)
    found = simulate(PARAMETERS, topology, Load(rate=8_000), seconds=1)
    assert found.refused > 0
    assert found.use["order"] > 0.9


def test_one_product_sells_more_slowly_without_batches() -> None:
    hot = Topology(orders=2, hot_share=1.0, replication=0.005)
    load = Load(connections=100)
    batched, single = (simulate(PARAMETERS, replace(hot, max_batch=n), load, seconds=1).rate for n in (64, 1))
    # One order at a time holds the row for a statement, a flush and the standby.
    held = 0.00028 * 0.7 + 0.001 + 0.005
    assert single == pytest.approx(1 / held, rel=0.15)
    assert batched > 5 * single
