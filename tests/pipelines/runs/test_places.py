"""Run folders and data that lie elsewhere: links, pipes, moved folders, homes written as `~`, plain terminals."""

import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from twostage.config.load import load_run_recipe
from twostage.errors import UsageError
from twostage_pipelines import load_run
from twostage_pipelines.cli.encodings import any_encoding
from twostage_pipelines.cli.main import main, parse
from twostage_pipelines.runs.places import check_run

PLACES = (
    "config.toml",
    "evaluation.json",
    "models/vq-vae/stage1/metrics.jsonl",
    "models/vq-vae/stage1/.lock",
    "models/vq-vae/prior/metrics.jsonl",
    "codes/vq-vae/train.safetensors",
    "report.html",
)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["pipe", "device", "link out"])
def test_every_verb_on_a_run_refuses_what_is_no_file_of_the_run(
    write_run: Callable[..., Path], tmp_path: Path, place: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run, outside = write_run(), tmp_path / "outside"
    outside.write_bytes(b"precious")
    path = run / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    if kind == "link out":
        path.symlink_to(outside)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.write_bytes(b"")
        os.truncate(path, 6 << 30)
    for verb in ("train-prior", "evaluate", "report", "generate"):
        assert main([verb, str(run)]) == 1
        said = capsys.readouterr().err
        assert place in said
        assert "Traceback" not in said
    assert outside.read_bytes() == b"precious"


@pytest.mark.parametrize(
    "folder", ["models", "models/vq-vae", "models/vq-vae/prior", "codes", "codes/vq-vae", "samples"]
)
def test_a_folder_of_the_run_that_leads_out_is_refused(
    write_run: Callable[..., Path], tmp_path: Path, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run, outside = write_run(), tmp_path / "outside"
    path = run / folder
    path.mkdir(parents=True, exist_ok=True)
    shutil.move(path, outside)
    path.symlink_to(outside)
    before = sorted(outside.rglob("*"))
    for verb in ("train-baseline", "evaluate", "generate"):
        assert main([verb, str(run)]) == 1
        assert "is a symbolic link that leads out of the run folder" in capsys.readouterr().err
    assert sorted(outside.rglob("*")) == before


def test_a_run_folder_may_be_a_link_and_have_links_within(write_run: Callable[..., Path], tmp_path: Path) -> None:
    run = write_run()
    (run / "models/other").symlink_to("vq-vae")
    (run / "notes").symlink_to("/etc")  # nobody's but the user's
    (tmp_path / "link").symlink_to(run)
    check_run(run)
    check_run(tmp_path / "link")


@pytest.mark.parametrize("place", PLACES[:1] + PLACES[2:3])
def test_every_verb_on_a_run_refuses_a_file_far_larger_than_it_can_be(
    write_run: Callable[..., Path], place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run()
    (run / place).write_bytes(b"")
    os.truncate(run / place, 6 << 30)
    for verb in ("train-prior", "evaluate", "report", "generate"):
        assert main([verb, str(run)]) == 1
        assert place in capsys.readouterr().err


IMAGES = """
name = "tiny"
threads = 1
models = ["vq-vae", "vae"]
[data]
name = "images"
image_size = 8
colour = "grey"
[stage1]
downsampling = 2
channels = 8
residual_blocks = 1
residual_channels = 4
head_channels = 4
[quantiser]
codebook_size = 4
embedding_dim = 4
[codebook_training]
steps = 2
batch_size = 4
[prior]
layers = 2
channels = 4
[prior_training]
steps = 2
batch_size = 4
[baseline_training]
steps = 2
batch_size = 4
[evaluation]
iwae_samples = 2
"""
SOUNDS = """
name = "tiny"
threads = 1
models = ["vq-vae", "vae"]
[data]
name = "recordings"
[recordings]
sample_rate_hz = 8000
[audio]
channels = 8
residual_blocks = 1
residual_channels = 4
head_channels = 4
segment_samples = 512
mixtures = 2
[quantiser]
codebook_size = 4
embedding_dim = 4
[codebook_training]
steps = 2
batch_size = 2
[wavenet_decoder]
blocks = 1
layers_per_block = 2
channels = 4
head_channels = 4
segment_samples = 512
[decoder_training]
steps = 2
batch_size = 1
[wavenet_prior]
blocks = 1
layers_per_block = 2
channels = 4
[prior_training]
steps = 2
batch_size = 2
[baseline_training]
steps = 2
batch_size = 2
[evaluation]
iwae_samples = 2
sampled_items = 0
"""


def write_data(folder: Path, kind: str, seed: int) -> None:
    noise = np.random.default_rng(seed)
    for label in ("cat", "dog"):
        (folder / label).mkdir(parents=True)
        for item in range(10):
            if kind == "images":
                picture = Image.fromarray(noise.integers(0, 256, (8, 8), dtype=np.uint8))
                picture.save(folder / label / f"{item}.png")
            else:
                samples = noise.integers(-9000, 9000, 1500).astype(np.int16)
                soundfile.write(folder / label / f"{item}.wav", samples, 8000)


@pytest.mark.parametrize("kind", ["images", "recordings"])
def test_verbs_find_the_data_and_the_run_wherever_they_were_moved(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every verb that reads data names a command that works; the place is kept, and other data are refused."""
    recipe, data, run = tmp_path / "tiny.toml", tmp_path / "data 0", tmp_path / "run 0"
    recipe.write_text(IMAGES if kind == "images" else SOUNDS)
    write_data(data, kind, seed=0)
    write_data(tmp_path / "other", kind, seed=1)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["train-codebook", str(recipe), "--data.path", str(data), "--out", str(run)]) == 0
    verbs = ["train-prior", "evaluate", "report", "train-baseline"]  # the last is not drawn, which takes long
    for number, verb in enumerate([*verbs, *(["train-decoder"] if kind == "recordings" else [])], 1):
        data, run = data.rename(tmp_path / f"data {number}"), run.rename(tmp_path / f"run {number}")
        capsys.readouterr()
        assert main([verb, str(run)]) == 1
        assert f"twostage {verb} '{run}' --data.path FOLDER" in capsys.readouterr().err
        assert main([verb, str(run), "--data.path", str(tmp_path / "other")]) in (1, 2)
        assert "--data.path" in capsys.readouterr().err
        assert load_run_recipe(run).data.path != str(tmp_path / "other")
        assert main([verb, str(run), f"--data.path=~/data {number}"]) == 0
        assert load_run_recipe(run).data.path == str(data)
    assert main([verbs[0], str(run)]) == 0  # without a word of the data
    assert (run / "report.html").is_file()


class TestHomes:
    def test_every_path_of_a_command_is_expanded(
        self, write_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_run()
        monkeypatch.setenv("HOME", str(tmp_path))
        for verb, flags in {
            "train": ["digits", "--out=~/r"],
            "train-codebook": ["digits", "--out=~/r"],
            "compare": ["digits", "--out=~/r"],
            "demo": ["--out=~/r"],
            "check-data": ["~/r"],
            "generate": ["~/run", "--out=~/r", "--complete=~/r", "--keep-rows=1"],
            "reconstruct": ["~/run", "~/r", "--out=~/r"],
            "encode": ["~/run", "~/r", "--out=~/r.safetensors"],
            "decode": ["~/run", "~/r", "--out=~/r"],
            "convert": ["~/run", "~/r", "--out=~/r", "--speaker=x"],
            "evaluate": ["~/run", "--data.path=~/r"],
            "report": ["~/run", "--data.path=~/r"],
            "train-prior": ["~/run", "--data.path=~/r"],
            "train-baseline": ["~/run"],
        }.items():
            command = parse(verb, flags)
            shown = " ".join(str(getattr(command, item.name)) for item in fields(command) if item.name != "data")
            assert "~" not in shown
            assert str(tmp_path) in shown
            if hasattr(command, "data") and "--data.path=~/r" in flags:
                assert command.recipe.data.path == str(tmp_path / "r")

    def test_python_arguments_are_too(
        self, write_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_run()
        monkeypatch.setenv("HOME", str(tmp_path))
        assert load_run("~/run").run.path == tmp_path / "run"

    def test_a_file_whose_name_begins_so_is_no_home(
        self, write_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = write_run()
        monkeypatch.chdir(tmp_path)
        Path("~$letter.png").write_bytes(b"")
        assert parse("reconstruct", [str(run), "~$letter.png"]).files == (Path("~$letter.png"),)  # type: ignore[union-attr]
        with pytest.raises(UsageError, match="names the home of a user that does not exist"):
            parse("reconstruct", [str(run), "~nobody.png"])


class TestPlainTerminals:
    @pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
    def test_help_and_tables_are_printed(self, encoding: str, write_run: Callable[..., Path]) -> None:
        """All in one process that starts once: what each verb prints to a file of that encoding."""
        code = (
            "import sys\n"
            "from twostage_pipelines.cli.main import VERBS, main\n"
            "for verb in VERBS:\n"
            "    try: assert main([verb, '--help']) == 0\n"
            "    except SystemExit as end: assert not end.code, verb\n"
            "assert main(['--help']) == main(['recipes']) == 0\n"
            "from twostage_pipelines.evaluate.columns import print_table\n"
            "from twostage_pipelines.cli.encodings import any_encoding\n"
            "with any_encoding(sys.stdout):\n"
            "    print_table(['für', '± s.e.'], [[chr(0x65e5) + chr(0xdcff), 'Fréchet']])\n"
        )
        environment = {**os.environ, "PYTHONIOENCODING": encoding}
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=False)
        assert (ended.returncode, ended.stderr) == (0, b"")
        assert len(ended.stdout) > 10_000
        plain = b"Frechet" in ended.stdout and b"+- s.e." in ended.stdout and b"f\\xfcr" in ended.stdout
        assert plain == (encoding == "ascii")
        assert b"\\u65e5\\udcff" in ended.stdout

    def test_the_stream_is_as_before_afterwards(self, capfd: pytest.CaptureFixture[str]) -> None:
        before = sys.stdout.errors
        with any_encoding(sys.stdout, None):
            print("\udcff")
        assert sys.stdout.errors == before
        assert capfd.readouterr().out == "\\udcff\n"


def start_long_training(tmp_path: Path) -> int:
    """Process id of a training on a terminal that is closed while it trains; it ends by itself after 100 000 steps."""
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(IMAGES.replace("steps = 2", "steps = 100000"))
    write_data(tmp_path / "data", "images", seed=0)
    arguments = ["-m", "twostage_pipelines", "train-codebook", str(recipe), "--data.path", str(tmp_path / "data")]
    pid, terminal = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        os.execv(sys.executable, [sys.executable, *arguments, "--out", str(tmp_path / "run")])
    record, deadline = tmp_path / "run/models/vq-vae/stage1/metrics.jsonl", time.monotonic() + 90
    while not record.exists() and time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.1)[0]:
            os.read(terminal, 4096)
    os.close(terminal)
    return pid


def ended(pid: int, *, within_seconds: float) -> int | None:
    """Exit code of a process, None where it goes on."""
    deadline = time.monotonic() + within_seconds
    while time.monotonic() < deadline:
        if (found := os.waitpid(pid, os.WNOHANG))[0]:
            return os.waitstatus_to_exitcode(found[1])
        time.sleep(0.05)
    return None


def test_a_training_whose_terminal_is_closed_is_saved(tmp_path: Path) -> None:
    pid = start_long_training(tmp_path)
    code = ended(pid, within_seconds=60)
    if code is None:
        os.kill(pid, signal.SIGKILL)
    assert code == 128 + signal.SIGHUP
    assert list((tmp_path / "run/models/vq-vae/stage1").glob("step-*"))
