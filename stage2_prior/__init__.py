"""Stage two: autoregressive priors over integer codes, and sampling from them; nothing here knows what made the codes.

Names are imported when first used, so that `import stage2_prior` does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stage2_prior.hierarchical import HierarchicalPrior
    from stage2_prior.pixelcnn import PixelCNN
    from stage2_prior.prior import Prior
    from stage2_prior.sampling import Sampled, sample
    from stage2_prior.wavenet import WaveNet

__all__ = ["HierarchicalPrior", "PixelCNN", "Prior", "Sampled", "WaveNet", "sample"]

_MODULES = {
    "HierarchicalPrior": "hierarchical",
    "PixelCNN": "pixelcnn",
    "Prior": "prior",
    "Sampled": "sampling",
    "WaveNet": "wavenet",
    "sample": "sampling",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
