"""Watts and joules by boundary: accelerators, nodes, facility."""

from dataclasses import dataclass

import numpy as np

from predictor.machine import Machine
from predictor.power import board_w, power_draws
from predictor.values import Array


@dataclass(frozen=True, slots=True)
class Watts:
    """Average power while steps run, and while the job waits with nothing running [draws, W].

    accelerator  one board
    node         one full node of the machine, or the slice of it that is used, at the plug
    """

    accelerator: Array
    node: Array
    idle_accelerator: Array
    idle_node: Array


def watts(machine: Machine, flop_utilisation: Array, byte_utilisation: Array, busy: Array) -> Watts:
    """Power of one accelerator and of one node.

    A node draws (accelerators + host + fans) / psu_efficiency; where only the accelerator's share of its
    whole system is published, that figure takes the place of the sum.
    """
    accelerator = machine.accelerator
    draws = power_draws(accelerator)
    active = board_w(draws, flop_utilisation, byte_utilisation, busy)
    idle = np.minimum(draws.idle_w, active)
    in_node = machine.count / machine.nodes
    if machine.system_w is not None:
        system = machine.system_w.draw(f"{accelerator.id}.system_w")
        floor = np.minimum(active, system)
        return Watts(floor, in_node * system, idle, in_node * system * 0.5)
    host = machine.node_host_w.draw("machine.host_w")
    fan = machine.node_fan_w.draw("machine.fan_w")
    psu = machine.psu_efficiency.draw("machine.psu_efficiency")
    return Watts(
        accelerator=active,
        node=(in_node * active + host + fan) / psu,
        idle_accelerator=idle,
        idle_node=(in_node * idle + host + 0.4 * fan) / psu,
    )


@dataclass(frozen=True, slots=True)
class Joules:
    """Energy of a run, each boundary containing the one before [draws, J]."""

    accelerators: Array
    nodes: Array
    facility: Array


def run_energy(machine: Machine, power: Watts, steady_s: Array, wall_s: Array, pue: Array) -> Joules:
    """Energy of the steps at full power and of the rest of the wall time at idle power.

    facility = nodes * PUE (ISO/IEC 30134-2).
    """
    waiting_s = np.maximum(wall_s - steady_s, 0.0)
    accelerators = machine.count * (power.accelerator * steady_s + power.idle_accelerator * waiting_s)
    nodes = machine.nodes * (power.node * steady_s + power.idle_node * waiting_s)
    nodes = np.maximum(nodes, accelerators)
    return Joules(accelerators, nodes, nodes * pue)
