"""The list of verbs: plain text, so that `twostage --help` imports nothing."""

from dataclasses import dataclass

from twostage.errors import UsageError
from twostage.printable import shown


@dataclass(frozen=True)
class Verb:
    """Where a verb lives: class in `commands`, module and function that run it, and its line in the help."""

    command: str
    module: str
    """Runs it, whatever the run is about."""
    function: str
    summary: str


VERBS: dict[str, Verb] = {
    "train": Verb("Train", "..train.train", "run_train", "everything below in order, for every model of a recipe"),
    "train-codebook": Verb(
        "TrainCodebook", "..train.train", "run_train_codebook", "stage one: encoder, codebook, decoder"
    ),
    "train-decoder": Verb(
        "TrainDecoder",
        "..train.train",
        "run_train_decoder",
        "a second decoder on finished codes: pictures, or a WaveNet",
    ),
    "train-prior": Verb(
        "TrainPrior", "..train.train", "run_train_prior", "stage two: extract codes, fit the prior over them"
    ),
    "train-baseline": Verb(
        "TrainBaseline",
        "..train.train",
        "run_train_baseline",
        "a baseline beside it: ae, vae, beta-vae, cvae, vimco",
    ),
    "compare": Verb("Compare", "..train.compare", "run_compare", "all models of a recipe, equal budgets, one table"),
    "evaluate": Verb("Evaluate", "..evaluate.evaluate", "run_evaluate", "bits/dim of all models of a run"),
    "report": Verb("Report", "..report.report", "run_report", "one self-contained report.html of a run"),
    "generate": Verb("Generate", "..generate.generate", "run_generate", "new images or sounds, or completions of one"),
    "reconstruct": Verb(
        "Reconstruct", "..coding.coding", "run_reconstruct", "image or sound files through encoder and decoder"
    ),
    "convert": Verb("Convert", "..coding.coding", "run_convert", "sound: recordings in another speaker's voice"),
    "encode": Verb("Encode", "..coding.coding", "run_encode", "image or sound files to a file of codes"),
    "decode": Verb("Decode", "..coding.coding", "run_decode", "a file of codes to images or sounds"),
    "export": Verb("Export", "..export.export", "run_export", "a trained model as a folder for others, with a card"),
    "disentangle": Verb(
        "Disentangle",
        "..evaluate.disentangle",
        "run_disentangle",
        "images: whether single latents stand for known factors",
    ),
    "check-data": Verb(
        "CheckData", ".check_data", "run_check_data", "what of a folder of images or recordings is usable"
    ),
    "recipes": Verb("Recipes", ".recipes", "run_recipes", "list the shipped recipes, or print one"),
    "doctor": Verb("Doctor", ".doctor", "run_doctor", "versions, devices, and what does not fit"),
    "demo": Verb("Demo", "..train.demo", "run_demo", "the whole pipeline on small data, offline"),
}


def _verb(name: str) -> Verb:
    if name in VERBS:
        return VERBS[name]
    from twostage.config.model_names import near_matches

    raise UsageError(f"No verb {shown(name)}: expected one of {', '.join(VERBS)}.{near_matches(name, VERBS)}")


def _top_help() -> str:
    width = max(map(len, VERBS))
    return "\n".join(
        [
            "usage: twostage VERB [options]",
            "",
            "Two-stage VQ-VAE: a learned codebook, a learned prior over its codes, and honest bits/dim beside a VAE.",
            "",
            *(f"  {name:<{width}}  {verb.summary}" for name, verb in VERBS.items()),
            "",
            "twostage VERB --help shows its flags, VERB RECIPE --help those for that recipe, --help-all every setting.",
        ]
    )
