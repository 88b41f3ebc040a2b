"""GEN_TYPE: the one table of the generators. The demo, the page, Evaluate.py and Benchmark.py read it.

A generator's module is imported when the generator is made, so GEN_TYPE 1, and 5 without weights, need no PyTorch.
"""

import importlib
from dataclasses import dataclass

from common import paths
from common.command_line import UserError, warn


@dataclass(frozen=True)
class GeneratorEntry:
    """One generator.

    number: its GEN_TYPE. name: in the names of files, and in tables. title, sentence: for people. module, class_name:
    where its class is. arguments: what its class is given besides target and checkpoint. trainer: the words of its
    training's command line without "python", () where there is nothing to train. network: the `generator` that its
    checkpoints name. untrained: (module, class name) that draws without a checkpoint. dataset: (module, class name) of
    the pairs that it learns from.
    """

    number: int
    name: str
    title: str
    sentence: str
    module: str
    class_name: str
    arguments: tuple = ()
    trainer: tuple = ()
    network: str | None = None
    untrained: tuple = ()
    dataset: tuple = ("learning.dataset", "PoseDataset")

    @property
    def weights(self):
        """The Path of its checkpoint, where nothing else is said."""
        return paths.DANCE / f"Dance{self.name}.pth"

    @property
    def works_untrained(self):
        """Whether it can dance without a checkpoint."""
        return not self.trainer or bool(self.untrained)

    def make(self, target, checkpoint=None, **options):
        """The Generator for a target (a VideoSkeleton). checkpoint: path of its weights, default `weights`. options: of
        its class. Raises UserError where the weights are needed and missing, damaged, or trained for another target."""
        if not self.trainer:
            if checkpoint is not None:
                raise UserError(f"GEN_TYPE {self.number} learns nothing and takes no --checkpoint; leave it out")
            return self._class(self.module, self.class_name)(target, **options)
        try:
            if checkpoint is None and self.untrained and not self.weights.exists():
                raise UserError(f"GEN_TYPE {self.number} is not trained here (python {' '.join(self.trainer)})")
            return self._class(self.module, self.class_name)(target, *self.arguments, checkpoint=checkpoint, **options)
        except UserError as error:
            if checkpoint is not None or not self.untrained:
                raise
            warn(f"{error}; going on without its network")
            return self.make_untrained(target, **options)

    def make_untrained(self, target, **options):
        """The Generator as it works without a checkpoint. options: of its class."""
        return self._class(*self.untrained)(target, **options)

    def _class(self, module, name):
        try:
            return getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            raise UserError(f"the network of GEN_TYPE {self.number} needs PyTorch, which is not installed here; run: "
                            "pip install -r requirements.txt") from None


GENERATORS = {entry.number: entry for entry in (
    GeneratorEntry(
        1, "GenNearest", "Nearest frame", "Real pictures and nothing to train. Jumps from one to the next.",
        "GenNearest", "GenNearest"),
    GeneratorEntry(
        2, "GenVanillaFromSke", "Network, from 26 numbers", "The smallest one, to see how a network learns.",
        "GenVanillaNN", "GenVanillaNN", ("ske",), ("GenVanillaNN.py", "--input", "ske"), network="GenVanillaNN"),
    GeneratorEntry(
        3, "GenVanillaFromSkeim", "Network, from a drawing", "Smooth motion, but small and blurry.",
        "GenVanillaNN", "GenVanillaNN", ("skeim",), trainer=("GenVanillaNN.py",), network="GenVanillaNN"),
    GeneratorEntry(
        4, "GenGAN", "GAN", "The network above against an adversary, to see what that adds.",
        "GenGAN", "GenGAN", trainer=("GenGAN.py",), network="GenGAN"),
    GeneratorEntry(
        5, "GenWarp", "Warp", "Sharp and smooth. Works at once; training is used only where it helps.",
        "GenWarp", "GenWarp", trainer=("GenWarp.py",), network="GenWarp",
        untrained=("warping.limb_warp", "LimbWarp"), dataset=("GenWarp", "WarpDataset")),
)}
