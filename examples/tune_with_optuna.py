"""Search the learning rates and R1's gamma with Optuna, and end bad trials early.

    pip install optuna
    python examples/tune_with_optuna.py --trials 20 --kimg 20 --out runs/tune

Each trial is a run in a folder of its own, measured by the Frechet distance in the features that come with the library.
The study is kept beside the runs: the same command adds trials to it. A run that was killed stays where it is.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import optuna

from equipoise import R1, Adam, Evaluate, NonSaturating, TrainConfig
from equipoise.config import override
from equipoise.recipes.quickstart import quickstart
from equipoise.runs import statistics_of
from equipoise.train import Moment, train

NUMBER = "eval/frechet"


def config(trial: optuna.Trial, kimg: float) -> TrainConfig:
    """The quickstart with the settings of a trial."""
    g_lr, d_lr = (trial.suggest_float(name, 1e-4, 4e-3, log=True) for name in ("g_lr", "d_lr"))
    cfg: TrainConfig = override(
        quickstart(),
        {
            "loss": NonSaturating(),
            "terms": [R1(gamma=trial.suggest_float("gamma", 0.01, 10, log=True))],
            "g_optim": Adam(lr=g_lr),
            "d_optim": Adam(lr=d_lr),
            "total_kimg": kimg,
            "report.evaluation": Evaluate(every_kimg=kimg / 5, num=500, features="digits"),
        },
    )
    return cfg


def pruning(trial: optuna.Trial, folder: Path) -> Callable[[Moment], None]:
    """An event that tells Optuna the evaluations so far when another is due, and ends the run if Optuna gives it up."""
    told = 0

    def event(now: Moment) -> None:
        nonlocal told
        if not now.evaluated:
            return
        for line in statistics_of(folder):
            if NUMBER in line and line["nimg"] > told:
                told = int(line["nimg"])
                trial.report(line[NUMBER], told)
        if trial.should_prune():
            raise optuna.TrialPruned

    return event


def main(arguments: list[str] | None = None) -> optuna.Study:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--kimg", type=float, default=20, help="length of a trial, in thousands of real images")
    parser.add_argument("--out", type=Path, default=Path("runs/tune"), help="folder of the runs")
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)

    def objective(trial: optuna.Trial) -> float:
        folder = given.out / f"trial-{trial.number:03d}"
        train(config(trial, given.kimg), folder, events=[pruning(trial, folder)])
        return min(line[NUMBER] for line in statistics_of(folder) if NUMBER in line)

    file = str(given.out / "study.log")
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(file))
    study = optuna.create_study(study_name="equipoise", storage=storage, load_if_exists=True)
    study.optimize(objective, n_trials=given.trials)
    print(f"best: {study.best_value:.4g}, trial {study.best_trial.number}, with {study.best_params}")
    return study


if __name__ == "__main__":
    main()
