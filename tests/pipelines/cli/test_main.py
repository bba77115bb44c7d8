"""The command line without any training: flags and defaults, refusals, exit codes, and what help costs to import."""

import ast
import errno
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from twostage.config.load import dump_recipe, load_recipe
from twostage.config.schema import Recipe
from twostage.errors import DataError, RunError, UsageError
from twostage.training import precision
from twostage.training.interrupts import Stopped
from twostage_pipelines import commands
from twostage_pipelines.cli import doctor, verbs
from twostage_pipelines.cli import main as cli

ROOT = Path(__file__).resolve().parents[3]
SLOW_MODULES = {"torch", "numpy", "pydantic", "matplotlib", "sklearn", "PIL", "rich", "safetensors"}


def twostage(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "twostage_pipelines", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False, timeout=60)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What is said on stderr when `arguments` are wrong use; nothing goes to stdout."""
    try:
        code = cli.main(arguments)
    except SystemExit as stopped:  # tyro's way
        code = stopped.code if isinstance(stopped.code, int) else -1
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    return re.sub(r"[│\s]+", " ", err)


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run folder as far as the command line looks: its config.toml, here of the digits with another prior."""
    text = dump_recipe(load_recipe("digits")).replace("[prior]\n", "[prior]\n#\n")
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.toml").write_text(re.sub(r"(\[prior\]\n#\nlayers = )\d+", r"\g<1>9", text), encoding="utf-8")
    return run


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[Any], None]], None]:
    """Puts a function in the place of a verb's runner."""

    def replace(verb: str, function: Callable[[Any], None]) -> None:
        fake = verbs.Verb(verbs.VERBS[verb].command, "..fake_runner", "run", "")
        monkeypatch.setitem(verbs.VERBS, verb, fake)
        monkeypatch.setitem(sys.modules, "twostage_pipelines.fake_runner", SimpleNamespace(run=function))

    return replace


# --- Help ---


@pytest.mark.parametrize("verb", ["", *verbs.VERBS])
def test_help_imports_nothing_slow(verb: str) -> None:
    arguments = [verb, "--help"] if verb else ["--help"]
    command = [sys.executable, "-X", "importtime", "-m", "twostage_pipelines", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "twostage_pipelines" in imported
    assert not imported & SLOW_MODULES
    assert done.stdout.startswith(f"usage: twostage {verb}".rstrip())
    if not verb:
        assert "tyro" not in imported
        assert all(name in done.stdout for name in verbs.VERBS)


def test_every_setting_of_a_recipe_is_a_flag_with_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train-codebook", "digits", "--help-all"])
    assert stopped.value.code == 0
    shown = re.sub(r"[│\s]+", " ", capsys.readouterr().out)

    def walk(config: Any, prefix: str) -> int:
        count = 0
        for item in fields(config):
            value = getattr(config, item.name)
            if is_dataclass(value):
                count += walk(value, f"{prefix}{item.name}.")
                continue
            flag = f"--{prefix}{item.name}".replace("_", "-")
            found = re.search(rf"{re.escape(flag)}[ ,][^(]*?[A-Z{{\[].*?\(default: (.*?)\)", shown)
            assert found, flag
            expected = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
            assert found[1] == expected, flag
            count += 1
        return count

    assert walk(load_recipe("digits"), "") > 50


def test_every_flag_of_every_verb_has_help() -> None:
    for verb in verbs.VERBS:
        shown = twostage(verb, "--help-all").stdout
        lines = [line.strip("│ \n") for line in shown.splitlines() if line.startswith("│")]
        for line, following in zip(lines, [*lines[1:], ""], strict=True):
            if line.startswith("--"):
                text = re.split(r"\s{2,}", line, maxsplit=1)[1:] or [following]
                assert re.match(r"\w.*\w", text[0]), f"{verb}: {line}"
                assert not text[0].startswith("(default"), f"{verb}: {line}"


def test_verbs_commands_and_runners_agree() -> None:
    """Read with `ast`, so that no runner's torch is imported: each verb's function exists and takes its command."""
    assert {verb.command for verb in verbs.VERBS.values()} == {cls.__name__ for cls in get_args(commands.Command)}
    for name, verb in verbs.VERBS.items():
        module = verb.module
        parts = module[2:].split(".") if module.startswith("..") else ["cli", module[1:]]
        file = (ROOT / "pipelines").joinpath(*parts).with_suffix(".py")
        tree = ast.parse(file.read_text(encoding="utf-8"))
        functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert verb.function in functions, (name, module)
        arguments = functions[verb.function].args
        assert [ast.unparse(argument.annotation) for argument in arguments.args if argument.annotation] == [
            verb.command
        ]


# --- Commands ---


def test_recipe_gives_defaults_and_flags_change_them() -> None:
    command = cli.parse("train-codebook", ["digits", "--quantiser.codebook-size", "17", "--seed", "5"])
    assert isinstance(command, commands.TrainCodebook)
    digits = load_recipe("digits")
    assert command.recipe.quantiser.codebook_size == 17
    assert command.recipe.seed == 5
    assert command.recipe.stage1 == digits.stage1
    assert command.recipe.codebook_training == digits.codebook_training
    assert command.run == Path("runs/digits")


def test_data_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    command = cli.parse("train", ["mnist", "--data.path", "files", "--out", "here"])
    assert isinstance(command, commands.Train)
    assert command.recipe.data.path == str(tmp_path / "files")
    assert command.run == Path("here")


def test_run_gives_defaults_and_flags_change_them(run_folder: Path) -> None:
    prior = cli.parse("train-prior", [str(run_folder), "--prior.channels", "8", "--seed", "3"])
    assert isinstance(prior, commands.TrainPrior)
    assert (prior.recipe.prior.layers, prior.recipe.prior.channels, prior.recipe.seed) == (9, 8, 3)
    assert prior.recipe.stage1 == load_recipe("digits").stage1
    evaluation = cli.parse("evaluate", [str(run_folder), "--evaluation.iwae-samples", "2"])
    assert isinstance(evaluation, commands.Evaluate)
    assert (evaluation.recipe.evaluation.iwae_samples, evaluation.recipe.prior.layers) == (2, 9)


@pytest.mark.parametrize(
    ("flags", "model", "beta"),
    [
        ("", "vae", 1.0),
        ("--model vae --beta 1", "vae", 1.0),
        ("--beta 4", "beta-vae-4", 4.0),
        ("--model beta-vae --beta 0.5", "beta-vae-0.5", 0.5),
        ("--model beta-vae-4", "beta-vae-4", 4.0),
        ("--model ae", "ae", 1.0),
        ("--model cvae", "cvae", 1.0),
        ("--model vimco", "vimco", 1.0),
    ],
)
def test_baseline_has_one_name_per_beta(run_folder: Path, flags: str, model: str, beta: float) -> None:
    command = cli.parse("train-baseline", [str(run_folder), *flags.split()])
    assert isinstance(command, commands.TrainBaseline)
    assert (command.model, command.beta) == (model, beta)


# --- Wrong use: exit code 2 and a sentence ---


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ("trian digits", ["No verb 'trian'", "Did you mean train"]),
        ("train dgits", ["No recipe 'dgits'", "Did you mean digits?"]),
        ("train", ["RECIPE comes first"]),
        ("train --seed 1 digits", ["RECIPE comes first"]),
        ("train digits --seed -1", ["seed must be at least 0", "-1"]),
        ("train digits --codebook-training.steps 0", ["codebook_training.steps must be at least 1"]),
        ("train digits --models vqvae", ["'vqvae'", "Did you mean vq-vae"]),
        ("train digits --quantiser.codeboks 2", ["--quantiser.codeboks", "--quantiser.codebooks INT"]),
        ("train digits --prior.layers x", ["--prior.layers", "'x'"]),
        ("train digits --device tpu", ["--device", "tpu"]),
        ("train-codebook digits --model vae", ["--model", "vq-vae-loss"]),
        ("train-prior nowhere", ["nowhere is not a run folder (does not exist)", "twostage train-codebook"]),
        ("train-baseline RUN --model vq-vae", ["vq-vae is not a baseline"]),
        ("train-baseline RUN --model beta-vae", ["needs --beta"]),
        ("train-baseline RUN --model beta-vae-4 --beta 3", ["disagree"]),
        ("train-baseline RUN --beta nan", ["--beta must be more than 0"]),
        ("train-baseline RUN --beta 0", ["--beta must be more than 0"]),
        ("train-baseline RUN --model cvae --beta 2", ["--beta is the weight of vae and beta-vae", "cvae"]),
        ("train-baseline RUN --model vimc", ["'vimc'", "Did you mean vimco"]),
        ("train-baseline RUN --gaussian.network mlp", ["gaussian.latent_dim must be at least 1, but is 0"]),
        ("train-baseline RUN --vimco.samples 1", ["vimco.samples must be at least 2"]),
        ("generate RUN --count 0", ["--count must be at least 1, but is 0."]),
        ("generate RUN --temperature nan", ["--temperature must be more than 0"]),
        ("generate RUN --top-p 1.5", ["--top-p must be more than 0 and at most 1, but is 1.5."]),
        ("generate RUN --top-k -1", ["--top-k must be at least 0"]),
        ("generate RUN --seconds 0", ["--seconds must be more than 0"]),
        ("generate RUN --speaker theo", ["--speaker is for runs on recordings, but this one is about images"]),
        ("generate RUN --label 1 --unlabelled", ["--unlabelled and --label 1 contradict"]),
        ("generate RUN --complete a.png", ["--complete FILE and --keep-rows N go together"]),
        ("generate RUN --keep-rows 2", ["--complete FILE and --keep-rows N go together"]),
        ("generate RUN --keep-seconds 2", ["--complete FILE and --keep-seconds S: give both or neither"]),
        ("generate RUN --complete a.png --keep-seconds 0", ["--keep-seconds must be more than 0"]),
        ("generate RUN --complete a.png --keep-seconds 1", ["--keep-seconds is for runs on recordings"]),
        ("generate RUN --complete a.png --keep-rows 0", ["--keep-rows must be at least 1, but is 0"]),
        ("generate RUN --model vqvae", ["'vqvae'", "Did you mean vq-vae"]),
        ("generate RUN --cuont 3", ["--cuont", "--count INT"]),
        ("generate", ["RUN"]),
        ("reconstruct RUN", ["at least one file"]),
        ("reconstruct RUN a.png --seed -1", ["--seed must be between 0"]),
        ("encode RUN --out codes.safetensors", ["at least one file"]),
        ("encode RUN a.png", ["--out"]),
        ("encode RUN a.png --out b.png", ["--out must be a file name that ends in .safetensors, but is b.png"]),
        ("encode RUN a.png --out c.safetensors --model vqvae", ["'vqvae'"]),
        ("decode RUN", ["CODES"]),
        ("decode RUN c.safetensors --seed -1", ["--seed must be between 0"]),
        ("recipes mnits", ["'mnits'", "Did you mean mnist?"]),
        ("doctor --deep", ["--deep"]),
    ],
)
def test_wrong_use(capsys: pytest.CaptureFixture[str], run_folder: Path, arguments: str, parts: list[str]) -> None:
    said = refused(capsys, *arguments.replace("RUN", str(run_folder)).split())
    for part in parts:
        assert part in said
    assert "Traceback" not in said


def test_no_arguments_show_the_verbs_and_count_as_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert "train-codebook" in refused(capsys)


def test_damaged_run_is_a_failed_run(capsys: pytest.CaptureFixture[str], run_folder: Path) -> None:
    (run_folder / "config.toml").write_text("[prior]\nlayers = 0\n", encoding="utf-8")
    assert cli.main(["train-prior", str(run_folder)]) == 1
    assert "prior.layers must be at least 1" in capsys.readouterr().err


# --- Exit codes ---


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UsageError("use it so."), 2, "twostage: use it so.\n"),
        (DataError("no data."), 1, "twostage: no data.\n"),
        (RunError("no run."), 1, "twostage: no run.\n"),
        (KeyboardInterrupt(), 130, "twostage: Interrupted; nothing was left half-written. Run the same command again "),
        (Stopped(signal.SIGTERM), 143, "twostage: Interrupted; nothing was left half-written. Run the same command "),
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), 1, "twostage: a/b: Permission denied; change its "),
        # A write or fsync fails without naming its file: the run folder stands in.
        (
            OSError(errno.ENOSPC, "No space left on device"),
            1,
            "twostage: runs/digits: No space left on device; free some space ",
        ),
        (OSError(errno.EROFS, "Read-only file system", "x"), 1, "twostage: x: Read-only file system; choose another "),
        (ModuleNotFoundError("No module", name="torch._C"), 1, "twostage: The package torch._C is not installed; "),
        (MemoryError(), 1, "twostage: Out of memory"),
    ],
)
def test_what_a_user_can_cause_is_a_sentence_and_an_exit_code(
    runner: Callable[[str, Callable[[Any], None]], None],
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    said: str,
) -> None:
    def fail(command: commands.Train) -> None:
        assert isinstance(command, commands.Train)
        raise error

    runner("train", fail)
    assert cli.main(["train", "digits"]) == code
    err = capsys.readouterr().err
    assert err.startswith(said)
    assert err.count("\n") == 1


@pytest.mark.parametrize("defect", [ValueError("a defect"), ModuleNotFoundError("a defect", name="twostage.gone")])
def test_a_defect_keeps_its_traceback(runner: Callable[[str, Callable[[Any], None]], None], defect: Exception) -> None:
    def fail(command: commands.Doctor) -> None:
        raise defect

    runner("doctor", fail)
    with pytest.raises(type(defect), match="a defect"):
        cli.main(["doctor"])


@pytest.mark.parametrize("arguments", [["recipes", "mnist"], ["doctor"]], ids=["print", "rich"])
def test_a_reader_that_leaves_is_met_as_by_any_tool(arguments: list[str]) -> None:
    """`... | head -1`: without a word, and with the exit code of one that SIGPIPE ended."""
    command = [sys.executable, "-m", "twostage_pipelines", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["recipes", "mnist"], ["doctor"]], ids=["print", "rich"])
def test_an_output_on_a_full_disk_is_named_as_such(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "twostage_pipelines", *arguments]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=120)
    assert done.stderr == (
        "twostage: the output of the command: No space left on device; free some space or choose another place.\n"
    )
    assert done.returncode == 1


def test_a_file_on_a_full_disk_is_not_taken_for_the_output(
    runner: Callable[[str, Callable[[Any], None]], None], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fail(command: commands.Doctor) -> None:
        print("a table")
        raise OSError(28, "No space left on device", str(tmp_path / "evaluation.json"))

    runner("doctor", fail)
    assert cli.main(["doctor"]) == 1
    assert capsys.readouterr().err.startswith(f"twostage: {tmp_path / 'evaluation.json'}: No space left on device")


def test_a_name_in_a_message_moves_no_cursor_and_breaks_no_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate", str(tmp_path / "run\x1b[2J\ntwostage: all is well\udc80")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "run\\x1b[2J\\ntwostage: all is well\\udc80 is not a run folder" in said


@pytest.mark.parametrize("key", ["name", "models", "verb"])
def test_a_long_value_does_not_fill_the_screen(key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, text = tmp_path / "long.toml", "x " * 50_000
    recipe.write_text(f"{key} = {[text] if key == 'models' else repr(text)}\n", encoding="utf-8")
    assert cli.main([text] if key == "verb" else ["train", str(recipe)]) == 2
    assert len(capsys.readouterr().err) < 1000


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "digits", "--out", ""],
        ["train", "digits", "--out="],
        ["train", ""],
        ["train-codebook", "digits", "--out", ""],
        ["train-baseline", ""],
        ["train-prior", ""],
        ["compare", "digits", "--out", ""],
        ["demo", "--out", ""],
        ["evaluate", ""],
        ["report", ""],
        ["disentangle", ""],
        ["generate", "RUN", "--out", ""],
        ["generate", "RUN", "--complete", "", "--keep-rows", "1"],
        ["reconstruct", "RUN", "a.png", ""],
        ["reconstruct", "RUN", "a.png", "--out", ""],
        ["encode", "RUN", "a.png", "--out", ""],
        ["decode", "RUN", ""],
        ["decode", "RUN", "x.safetensors", "--out="],
        ["check-data", ""],
    ],
)
def test_an_empty_path_is_not_the_current_folder(
    arguments: list[str],
    run_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    given = [str(run_folder) if argument == "RUN" else argument for argument in arguments]
    assert "an empty text came, which a variable that is not set gives" in refused(capsys, *given)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_text_that_is_no_path_is_left_alone(
    run_folder: Path, runner: Callable[[str, Callable[[Any], None]], None]
) -> None:
    seen: list[Any] = []
    runner("generate", seen.append)
    assert cli.main(["generate", str(run_folder), "--model", ""]) == 0
    assert seen[0].model == ""


# --- recipes and doctor ---


def test_recipes_lists_headers_and_prints_a_file_to_start_from(tmp_path: Path) -> None:
    listed = twostage("recipes", cwd=tmp_path)
    assert listed.returncode == 0
    assert "digits\n    twostage train digits\n" in listed.stdout
    assert "mnist\n" in listed.stdout
    shown = twostage("recipes", "digits", cwd=tmp_path)
    (tmp_path / "digits2.toml").write_text(shown.stdout, encoding="utf-8")
    assert load_recipe(tmp_path / "digits2.toml") == load_recipe("digits")


def test_version_is_the_installed_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert re.fullmatch(r"twostage \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)


def test_doctor_finds_this_installation_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    shown = capsys.readouterr().out
    for what in ("python", "torch", "torchaudio", "numpy", "device", "CPU", "free disk"):
        assert what in shown


@pytest.mark.parametrize(
    "error", [ImportError("no module"), OSError("libcudart.so.13"), RuntimeError("CUDA 13.2\nmore")]
)
def test_doctor_says_which_torchaudio_fits(error: Exception) -> None:
    def load(name: str) -> Any:
        raise error

    finding = doctor.torchaudio_finding(load)
    assert finding.state == "warning"
    assert str(error).splitlines()[0] in finding.found
    assert "torch 2.11 to 2.14" in finding.found
    assert "\n" not in finding.found


def test_doctor_fails_when_something_required_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "requires", lambda name: ["torch>=2", "no-such-package>=3", "pytest; extra == 'dev'"])
    assert cli.main(["doctor"]) == 1
    shown = capsys.readouterr()
    assert "broken" in shown.out
    assert "no-such-package cannot be used" in shown.err
    assert "pip install --force-reinstall 'no-such-package>=3'" in shown.err


@pytest.mark.parametrize(("cost", "said"), [(0.65, "0.65 times.* auto is bf16"), (12.3, "12 times.* auto is fp32")])
def test_doctor_says_what_precision_auto_chooses(cost: float, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "cpu_cost", lambda: cost)
    assert [finding for finding in doctor.examine() if finding.what == "bf16 on CPU" and re.search(said, finding.found)]


def test_recipe_sections_used_as_flags_are_the_schemas_own() -> None:
    """`parse` fills a command's fields from the recipe's of the same name; a renamed section would go unfilled."""
    sections = {item.name for item in fields(Recipe)}
    for cls in (commands.TrainPrior, commands.TrainBaseline, commands.Evaluate):
        free = {item.name for item in fields(cls)} - sections
        own = {"run", "stored", "model", "beta", "split", "device", "resume", "extend", "dry_run", "log"}
        own |= {"timeout_seconds", "per_item"}
        assert free <= own


def test_help_is_running_text(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Docstrings of several lines break where the terminal ends, and nowhere else."""
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        cli.main(["train-prior", "--help-all"])
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "many validations in a row without a new best; 0: never" in shown
    with pytest.raises(SystemExit):
        cli.main(["train", "digits", "--help-all"])
    lines = [line.strip("│ ") for line in capsys.readouterr().out.splitlines()]
    assert not any(line.endswith("mnist, fashion-mnist") for line in lines)  # where the source breaks
