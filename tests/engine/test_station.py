"""Stations and ports of the queued engine against queueing theory, over replications, at 99 % confidence."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import simpy
from scipy import stats
from simpy.events import ProcessGenerator

from moesim.engine.arrival_network import Message, Network
from moesim.engine.instants import Instants, Turns
from moesim.engine.station import Station

MEAN_PS = 1_000_000  # of a service
REPLICATIONS, CUSTOMERS, WARMUP = 30, 2500, 500


class Customer:
    """A group of one token."""

    tokens = 1

    def __init__(self, number: int) -> None:
        self.number, self.since, self.arrived, self.served_at = number, 0, 0, -1

    def split(self, n: int) -> tuple[Customer, Customer]:
        """Nothing may be split here."""
        raise AssertionError("one token cannot be split")


def exponential(rng: np.random.Generator) -> Callable[[], int]:
    """Draws of an exponential time of service, in ps."""
    return lambda: max(1, round(rng.exponential(MEAN_PS)))


def always(_: np.random.Generator) -> Callable[[], int]:
    """A constant time of service."""
    return lambda: MEAN_PS


def serve_for(
    env: simpy.Environment, draw: Callable[[], int], then: Callable[[Customer], object] | None = None
) -> Callable[..., Any]:
    """A service that notes when it begins and hands the customer on when it has ended."""

    def serve(batch: list[Customer], asked: int, again: bool) -> Iterator[simpy.Event]:
        (customer,) = batch
        customer.served_at = int(env.now)
        yield env.timeout(draw())
        if then is not None:
            then(customer)

    return serve


def alone(env: simpy.Environment, serve: Callable[..., Any], **limits: Any) -> Station[Any]:
    """A station with a server of its own."""
    instants = Instants(env)
    return Station(instants, Turns(instants), serve, **limits)


def poisson(
    env: simpy.Environment, rng: np.random.Generator, rate: float, take: Callable[[Customer], object]
) -> ProcessGenerator:
    """Customers that arrive at a rate, in customers for each mean service."""
    for i in range(CUSTOMERS):
        yield env.timeout(max(1, round(rng.exponential(MEAN_PS / rate))))
        customer = Customer(i)
        customer.arrived = int(env.now)
        take(customer)


def replicate(run: Callable[[np.random.Generator], float]) -> tuple[float, float]:
    """Confidence interval at 99 % of the mean over independent replications."""
    values = np.array([run(np.random.default_rng([11, i])) for i in range(REPLICATIONS)])
    half = stats.t.ppf(0.995, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def mean_wait(*, rate: float, servers: int, service: Callable[..., Any], rng: np.random.Generator) -> float:
    """Mean time in queue of the customers after the warm-up, in mean services."""
    env = simpy.Environment()
    waits: list[int] = []
    instants = Instants(env)
    station: Station[Customer] = Station(
        instants,
        Turns(instants, capacity=servers),
        serve_for(env, service(rng), lambda c: waits.append(c.served_at - c.arrived) if c.number >= WARMUP else None),
        batch=1,
        workers=servers,
    )
    env.process(poisson(env, rng, rate, station.offer))
    env.run()
    assert station.waiting == 0
    assert len(waits) == CUSTOMERS - WARMUP
    return float(np.mean(waits)) / MEAN_PS


def erlang_c(load: float, servers: int) -> float:
    """Probability to wait in M/M/c."""
    top = load**servers / math.factorial(servers) * servers / (servers - load)
    return top / (sum(load**n / math.factorial(n) for n in range(servers)) + top)


@pytest.mark.parametrize("load", [0.3, 0.6])
def test_mm1_waits(load: float) -> None:
    """Mean wait rho / (1 - rho) services."""
    low, high = replicate(lambda rng: mean_wait(rate=load, servers=1, service=exponential, rng=rng))
    assert low <= load / (1 - load) <= high


def test_md1_waits_half_as_long() -> None:
    """Pollaczek and Khinchine: rho / (2 (1 - rho))."""
    low, high = replicate(lambda rng: mean_wait(rate=0.6, servers=1, service=always, rng=rng))
    assert low <= 0.6 / (2 * 0.4) <= high


def test_mmc_waits() -> None:
    """Erlang C with three servers and a load of 2: C / (c - a) services."""
    low, high = replicate(lambda rng: mean_wait(rate=2.0, servers=3, service=exponential, rng=rng))
    assert low <= erlang_c(2.0, 3) / (3 - 2.0) <= high


def test_mm1_queue_length() -> None:
    """Time average of who waits, rho^2 / (1 - rho), measured at the station and not through Little's law."""

    def run(rng: np.random.Generator) -> float:
        env = simpy.Environment()
        area = [0, 0, 0]  # waiting x time, last change, waiting

        def change(by: int) -> None:
            area[0] += area[2] * (int(env.now) - area[1])
            area[1], area[2] = int(env.now), area[2] + by

        def serve(batch: list[Customer], asked: int, again: bool) -> Iterator[simpy.Event]:
            change(-1)
            yield env.timeout(exponential(rng)())

        station: Station[Customer] = alone(env, serve, batch=1)

        def take(customer: Customer) -> None:
            change(1)
            station.offer(customer)

        env.process(poisson(env, rng, 0.5, take))
        env.run()
        return area[0] / area[1]

    low, high = replicate(run)
    assert low <= 0.5**2 / 0.5 <= high


@pytest.mark.parametrize("places, load", [(2, 0.8), (4, 1.2)])
def test_mm1k_loses(places: int, load: float) -> None:
    """K places, one of them in service: (1 - rho) rho^K / (1 - rho^(K + 1)) of the customers find no room."""

    def run(rng: np.random.Generator) -> float:
        env = simpy.Environment()
        lost = 0
        station: Station[Customer] = alone(env, serve_for(env, exponential(rng)), room=places - 1, batch=1)

        def take(customer: Customer) -> None:
            nonlocal lost
            lost += station.offer(customer) is not None and customer.number >= WARMUP

        env.process(poisson(env, rng, load, take))
        env.run()
        return lost / (CUSTOMERS - WARMUP)

    low, high = replicate(run)
    assert low <= (1 - load) * load**places / (1 - load ** (places + 1)) <= high


def test_two_stations_in_a_row() -> None:
    """Burke: the second of two M/M/1 sees Poisson arrivals; their waits add up."""
    load = 0.5

    def run(rng: np.random.Generator) -> float:
        env = simpy.Environment()
        waits: list[int] = []

        def leave(customer: Customer) -> None:
            if customer.number >= WARMUP:
                waits.append(customer.served_at - customer.arrived)

        def pass_on(customer: Customer) -> None:
            if customer.number >= WARMUP:
                waits.append(customer.served_at - customer.arrived)
            customer.arrived = int(env.now)
            second.offer(customer)

        second: Station[Customer] = alone(env, serve_for(env, exponential(rng), leave), batch=1)
        first: Station[Customer] = alone(env, serve_for(env, exponential(rng), pass_on), batch=1)
        env.process(poisson(env, rng, load, first.offer))
        env.run()
        return sum(waits) / (CUSTOMERS - WARMUP) / MEAN_PS

    low, high = replicate(run)
    assert low <= 2 * load / (1 - load) <= high


def test_a_port_is_an_md1_queue() -> None:
    """Equal messages of many senders at random times at one ingress port: wait rho / (2 (1 - rho)) of a message."""
    load = 0.6

    def run(rng: np.random.Generator) -> float:
        env = simpy.Environment()
        waits: list[int] = []

        def deliver(message: Message) -> None:
            if message.load.number >= WARMUP:
                waits.append(int(env.now) - message.load.arrived - MEAN_PS - 10)

        network = Network(Instants(env), 64, 64, np.empty((0, 5)), deliver)

        def send(customer: Customer) -> None:
            source = 1 + customer.number % 63  # so many that none is still sending its last
            network.send(Message(source, 0, 0, 1, 1, MEAN_PS, 10, customer))

        env.process(poisson(env, rng, load, send))
        env.run()
        return float(np.mean(waits)) / MEAN_PS

    low, high = replicate(run)
    assert low <= load / (2 * (1 - load)) <= high


def test_a_full_station_admits_in_the_order_of_arrival() -> None:
    """Back-pressure: room for 2; three groups of 3 tokens are admitted in parts, none before the one ahead of it."""
    env = simpy.Environment()
    log: list[tuple[int, str, int]] = []

    class Named:
        def __init__(self, name: str, tokens: int) -> None:
            self.name, self.tokens, self.since = name, tokens, 0

        def split(self, n: int) -> tuple[Named, Named]:
            """Nothing may be split here."""
            return Named(self.name, n), Named(self.name, self.tokens - n)

    def serve(batch: list[Named], asked: int, again: bool) -> Iterator[simpy.Event]:
        log.extend((int(env.now), group.name, group.tokens) for group in batch)
        yield env.timeout(10)

    station: Station[Named] = alone(env, serve, room=2)
    for name in "abc":
        env.process(station.admit(Named(name, 3)))
    env.run()
    assert log == [(0, "a", 2), (10, "a", 1), (10, "b", 1), (20, "b", 2), (30, "c", 2), (40, "c", 1)]
    assert station.longest == 2
