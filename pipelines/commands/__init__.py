"""The flags of the verbs as dataclasses, one each: what can be asked.

Nothing here runs a verb or imports torch; settings of a recipe belong in `twostage.config`.
"""

from .compare import Compare
from .results import Disentangle, Evaluate, Report
from .samples import Convert, Decode, Encode, Generate, Reconstruct
from .tools import CheckData, Demo, Doctor, Recipes
from .training import Train, TrainBaseline, TrainCodebook, TrainDecoder, TrainPrior

Command = (
    TrainCodebook
    | TrainPrior
    | TrainDecoder
    | TrainBaseline
    | Train
    | Compare
    | CheckData
    | Disentangle
    | Generate
    | Reconstruct
    | Encode
    | Decode
    | Convert
    | Evaluate
    | Report
    | Recipes
    | Doctor
    | Demo
)
