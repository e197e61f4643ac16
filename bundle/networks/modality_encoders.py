"""An encoder for each modality, and the mean over those that see something.

Letters besides the legend of `bundle.modalities`: N cases that have a modality, C features.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import torch
from monai.networks.nets.segresnet_ds import SegResEncoder
from torch import Tensor, nn

from bundle.networks.stand_in import StandIn


class ModalityBranch(nn.Module):
    """All that belongs to one modality: what stands for its hidden patches, and its encoder.

    Args:
        filters, blocks_down: as in `bundle.networks.unet.UNet`.
        stand_in_size: see `bundle.networks.stand_in.StandIn`.
    """

    def __init__(self, filters: int, blocks_down: Sequence[int], stand_in_size: int) -> None:
        super().__init__()
        self.stand_in = StandIn(1, stand_in_size)
        self.encoder = SegResEncoder(
            init_filters=filters, in_channels=1, norm="instance", blocks_down=tuple(blocks_down)
        )

    def forward(self, volumes: Tensor, visible: Tensor) -> list[Tensor]:
        """Encode volumes (N, 1, D, H, W), of which `visible` (broadcasts) is seen: finest first."""
        return self.encoder(self.stand_in(volumes, visible))


class ModalityEncoders(nn.Module):
    """An encoder for each modality; one that a case lacks is not computed, forward or backward.

    For federations: what belongs to modality m is `branches.<m>` and nothing else, so a site that
    never scans m has nothing of it to send, and cannot spoil it. With more than one modality in a
    case it costs more than one encoder for all modalities.

    Args:
        modalities: M.
        filters, blocks_down: as in `bundle.networks.unet.UNet`, of every encoder.
        stand_in_size: see `bundle.networks.stand_in.StandIn`.

    Source: ours; fusion by the mean as in design.md section 1.3, for design.md section 6.
    """

    def __init__(
        self,
        modalities: int,
        filters: int = 16,
        blocks_down: Sequence[int] = (1, 2, 2, 4),
        stand_in_size: int = 4,
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            ModalityBranch(filters, blocks_down, stand_in_size) for _ in range(modalities)
        )

    def forward(self, image: Tensor, visible: Tensor) -> list[Tensor]:
        """Encode what is visible.

        Args:
            image: (B, M, D, H, W) z-scores, 0 outside the brain; hidden voxels may hold anything.
            visible: (B, M, ...) or (1, M, ...) bool that broadcasts to `image`, True = may be seen.
                A case of which nothing is visible counts as one whose first modality is hidden
                patch by patch.

        Returns:
            The mean over the modalities that are seen, finest first: (B, C, D, H, W),
            (B, 2C, D/2, H/2, W/2), ...
        """
        batch = image.shape[0]
        visible = visible.expand([batch] + list(visible.shape[1:]))  # noqa: RUF005 (TorchScript)
        seen = visible.flatten(2).any(2)
        nothing = ~seen.any(1, keepdim=True)
        seen = torch.cat([seen[:, :1] | nothing, seen[:, 1:]], 1)
        if not torch.jit.is_scripting():  # noqa: SIM102 TorchScript skips this form alone
            if torch.compiler.is_exporting():
                return self._encode_all(image, visible, seen)
        total: list[Tensor] = []
        for modality, branch in enumerate(self.branches):
            cases = seen[:, modality].nonzero().flatten()
            if len(cases) > 0:
                volumes = image[cases, modality].unsqueeze(1)
                found = branch(volumes, visible[cases, modality].unsqueeze(1))
                for level, features in enumerate(found):
                    if len(total) <= level:
                        shape = [batch] + list(features.shape[1:])  # noqa: RUF005 (TorchScript)
                        empty = torch.zeros(shape, dtype=features.dtype, device=features.device)
                        total.append(empty)
                    total[level] = total[level].index_add(0, cases, features)
        count = seen.sum(1)[:, None, None, None, None]
        return [features / count.to(features) for features in total]

    @torch.jit.unused
    def _encode_all(self, image: Tensor, visible: Tensor, seen: Tensor) -> list[Tensor]:
        """Do the same with every encoder computed: an exported graph takes no decisions."""
        share = seen / seen.sum(1, keepdim=True)
        total: list[Tensor] = []
        for modality, branch in enumerate(self.branches):
            found = branch(image[:, modality : modality + 1], visible[:, modality : modality + 1])
            for level, features in enumerate(found):
                part = features * share[:, modality, None, None, None, None].to(features)
                if modality == 0:
                    total.append(part)
                else:
                    total[level] = total[level] + part
        return total

    @torch.jit.unused
    def personalise(self, present: Tensor) -> PersonalisedEncoders:
        """Return copies of the encoders of the modalities that are `present`, (M,) bool."""
        members = present.nonzero().flatten().tolist()
        return PersonalisedEncoders(
            [deepcopy(self.branches[modality].encoder) for modality in members], members
        )


class PersonalisedEncoders(nn.Module):
    """The encoders of one subset of modalities; nothing to choose, so it can be traced.

    Args:
        encoders: one for each modality of the subset.
        members: which of the M modalities the subset has, by index, in the same order.
    """

    def __init__(self, encoders: Sequence[nn.Module], members: Sequence[int]) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)
        self.members = list(members)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Encode (B, M, D, H, W): the mean over the subset, finest first."""
        total: list[Tensor] = []
        for index, encoder in enumerate(self.encoders):
            modality = self.members[index]
            for level, features in enumerate(encoder(image[:, modality : modality + 1])):
                if index == 0:
                    total.append(features)
                else:
                    total[level] = total[level] + features
        return [features / len(self.members) for features in total]
