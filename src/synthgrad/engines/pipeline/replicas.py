"""Data parallelism, the second dimension of the mesh: the replicas of a stage average gradients.

They are gathered and added in the order of ranks, so that the sum is the one that a single process
would compute for the same parts of the batch. A ring would send less with many replicas.
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh

from synthgrad.engines.pipeline.place import Place
from synthgrad.errors import EngineError


class Replicas:
    """The ranks that have the same stages.

    Args:
        place: of this rank.
        device_type: of the stages.
    """

    def __init__(self, place: Place, device_type: str) -> None:
        self.count = place.num_replicas
        self.ranks = [place.index + k * place.length for k in range(self.count)]
        self.group: dist.ProcessGroup | None = None
        if self.count > 1:
            if not dist.is_initialized():
                raise EngineError("replicas > 1 needs ranks started by torchrun or by launch().")
            shape = (self.count, place.length)
            mesh = init_device_mesh(device_type, shape, mesh_dim_names=("replica", "stage"))
            self.group = mesh.get_group("replica")

    def make_equal(self, modules: Sequence[nn.Module]) -> None:
        """Give every replica the parameters and buffers of the first one."""
        if self.group is not None:
            for module in modules:
                for tensor in (*module.parameters(), *module.buffers()):
                    dist.broadcast(tensor.detach(), self.ranks[0], group=self.group)

    def average(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the replicas."""
        if self.group is None:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        for dtype in {g.dtype: None for g in gradients}:
            self._average([g for g in gradients if g.dtype == dtype])

    def _average(self, gradients: Sequence[Tensor]) -> None:
        flat = torch.cat([g.flatten() for g in gradients])
        gathered = [torch.empty_like(flat) for _ in range(self.count)]
        dist.all_gather(gathered, flat, group=self.group)
        mean = gathered[0].div_(self.count)
        for other in gathered[1:]:
            mean += other.div_(self.count)
        sizes = [g.numel() for g in gradients]
        for gradient, new in zip(gradients, mean.split(sizes), strict=True):
            gradient.copy_(new.view_as(gradient))
