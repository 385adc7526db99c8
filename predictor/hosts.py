"""What stands around the accelerators of a node, and the share of it that a job is charged for."""

from dataclasses import dataclass

from predictor.accelerator import LIMIT_W
from predictor.node import Node
from predictor.profile import Accelerator
from predictor.quantity import scaled
from predictor.values import Sourced


def _estimate(value: float, low: float, high: float, source: str) -> Sourced:
    return Sourced(value, low, high, f"estimate: {source}", "2026-11-20", "estimate")


# Host share of one accelerator where no node was metered: base plus a share of the board limit, between
# half and twice that. Eight H100 get 1600 W (metered 1700), eight A100 1120 W (1500), one RTX 3090 130 W.
HOST_BASE_W, HOST_LIMIT_SHARE, HOST_SPAN = 60.0, 0.20, 2.0
FAN_LIMIT_SHARE = _estimate(
    0.06, 0.02, 0.125, "fans, share of the board limit; 700 of 5600 W in an air-cooled 8x H100"
)
PSU_EFFICIENCY = _estimate(0.95, 0.90, 0.975, "vendors claim 0.94 to 0.96, MLPerf nodes measure 0.97")
SERVER_KGCO2E = _estimate(300, 120, 700, "server without accelerators, per accelerator: an eighth of 2400 kg")


@dataclass(frozen=True, slots=True)
class HostShare:
    """Host of one node in the job's share.

    power_w          CPU, memory, switches, network cards [W DC]
    fan_w            fans [W DC]
    psu_efficiency   DC over AC
    embodied_kgco2e  making it [kg CO2e]
    system_w         one accelerator with its host, where only that was metered [W AC]
    """

    power_w: Sourced
    fan_w: Sourced
    psu_efficiency: Sourced
    embodied_kgco2e: Sourced
    system_w: Sourced | None


def host_share(accelerator: Accelerator, whole: Node | None, used: int) -> HostShare:
    """The host in the share of its accelerators that the job uses, what is unknown by class."""
    share = used / whole.per_node if whole else 1.0
    made = whole.server_embodied_kgco2e if whole else None
    embodied = scaled(made, share) if made else scaled(SERVER_KGCO2E, used)
    if whole and whole.host_w and whole.fan_w and whole.psu_efficiency:
        return HostShare(
            power_w=scaled(whole.host_w, share),
            fan_w=scaled(whole.fan_w, share),
            psu_efficiency=whole.psu_efficiency,
            embodied_kgco2e=embodied,
            system_w=whole.system_w,
        )
    limit_w = (accelerator.limit_w or LIMIT_W).value
    each_w = HOST_BASE_W + HOST_LIMIT_SHARE * limit_w
    rule = f"{HOST_BASE_W:g} W + {HOST_LIMIT_SHARE:g} of the board limit, per accelerator"
    return HostShare(
        power_w=scaled(_estimate(each_w, each_w / HOST_SPAN, each_w * HOST_SPAN, rule), used),
        fan_w=scaled(FAN_LIMIT_SHARE, used * limit_w),
        psu_efficiency=PSU_EFFICIENCY,
        embodied_kgco2e=embodied,
        system_w=None,
    )
