"""`twostage demo --audio`: the whole path on synthetic vowels, offline, in under two minutes on two cores."""

from dataclasses import replace

from twostage.config.load import load_recipe

from ..commands import Demo, Generate
from ..run import Run
from .data import load_sound
from .evaluate import evaluate_sound_run
from .generate import run_generate
from .report import write_sound_report
from .train import all_sound_jobs, sit_down_to_sound, train_all_sound


def run_sound_demo(command: Demo) -> None:
    """Train, evaluate, generate, report."""
    recipe = replace(load_recipe("vowels"), seed=command.seed)
    dataset = load_sound(recipe)
    run = Run(path=command.run, recipe=recipe)
    jobs = all_sound_jobs(run, dataset)
    sitting = sit_down_to_sound(
        run, dataset, jobs, device=command.device, resume=command.resume, dry_run=command.dry_run
    )
    if sitting is None:
        return
    train_all_sound(sitting, jobs)
    evaluate_sound_run(run, dataset, device=sitting.device, split="test")
    run_generate(Generate(run=run.path, count=15, seed=command.seed, device=command.device))
    write_sound_report(run, dataset, device=sitting.device, seed=command.seed)
