"""The devices of this machine, and what confines a process to one of them."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass

from adtr_jax.errors import InputError

# In a process of its own: one that has used a device keeps it, and with it most of its memory.
_FIND = """
import json, jax
found = jax.local_devices()
# A chip of some TPUs is two devices.
chips = {getattr(device, "coords", None) or device.id for device in found}
print(json.dumps([found[0].platform, found[0].device_kind, len(chips)]))
"""
_PORT = 8476  # the first of those by which libtpu's processes would find each other


@dataclass(frozen=True)
class Devices:
    """Those that jobs run on, one job on each.

    Attributes:
        platform: cpu, gpu or tpu, as JAX names it.
        kind: the device's own name.
        count: a CPU is one, whatever its cores.
    """

    platform: str
    kind: str
    count: int

    def __str__(self) -> str:
        return "the CPU" if self.platform == "cpu" else f"{self.count} x {self.kind}"

    def environment(self, index: int) -> dict[str, str]:
        """Returns the variables with which a process sees the device of this index alone."""
        if self.platform == "gpu":
            given = os.environ.get("CUDA_VISIBLE_DEVICES")  # may already be some of them
            names = given.split(",") if given else [str(i) for i in range(self.count)]
            return {"CUDA_VISIBLE_DEVICES": names[index]}
        if self.platform == "tpu" and self.count > 1:
            port = str(_PORT + index)
            return {
                "TPU_VISIBLE_CHIPS": str(index),
                "TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1",
                "TPU_PROCESS_BOUNDS": "1,1,1",
                "TPU_PROCESS_ADDRESSES": f"localhost:{port}",
                "TPU_PROCESS_PORT": port,
                "CLOUD_TPU_TASK_ID": "0",
                "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
            }
        return {}


def find() -> Devices:
    """Returns the devices that JAX finds.

    Raises:
        InputError: it cannot use those that it was told to.
    """
    command = [sys.executable, "-c", _FIND]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        said = (found.stderr.strip().splitlines() or ["it does not say why"])[-1]
        raise InputError(
            f"JAX finds no device ({said[:200]}): install JAX for the one that is here"
        )
    platform, kind, count = json.loads(found.stdout.splitlines()[-1])
    return Devices(platform, kind, 1 if platform == "cpu" else count)
