"""The command of each verb: one frozen dataclass, which is also its flags and its help text.

tyro turns a class into a parser; `cli` fills the defaults from the recipe or the run folder named first, calls
`resolved()`, and hands the result to the verb's runner. `resolved()` returns the command in normal form and raises
`UsageError` for values out of range, so that runners need no checks of their own. Nothing here runs a verb or imports
torch; settings of a recipe belong in `twostage.config`.
"""

from .compare import Compare
from .export import Export
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
    | Export
    | Evaluate
    | Report
    | Recipes
    | Doctor
    | Demo
)
