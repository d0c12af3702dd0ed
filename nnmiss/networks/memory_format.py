"""The memory layout in which convolutions are fastest on a device."""
from __future__ import annotations

import torch
from torch import nn

from nnmiss.networks.cpu_inference import quicken


def fastest_layout(network: nn.Module, device: torch.device) -> nn.Module:
    """Puts a network's weights into channels-last order on the CPU, where it saves a quarter of the time.

    Values do not change, only how they lie in memory; nnU-Net's blocks take the fast paths of
    nnmiss.networks.cpu_inference from now on. On CUDA the default order stays until measured better.
    Returns the network.
    """
    if device.type != "cpu":
        return network
    orders = {4: torch.channels_last, 5: torch.channels_last_3d}
    for weights in network.parameters():  # one by one: a classifier may read images and volumes
        if weights.ndim in orders:
            weights.data = weights.data.to(memory_format=orders[weights.ndim])
    return quicken(network)
