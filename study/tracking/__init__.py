"""What a study tells MLflow: one experiment per study, one run per trial, the report on top.

Optuna's storage is the truth and MLflow is for people to browse. So nothing here may cost a
trial: when MLflow cannot be reached there is one warning, the trial goes on, what was to be
logged waits in memory for MLflow to come back, and `sync` delivers whatever is still missing,
from Optuna's trials and the run folder.

    experiment = prepare(uri, runs / "mlartifacts", "laptop", description=..., tags=..., params=...)
    tracker = Tracker(experiment)                          # one per worker
    run = tracker.start(7, params=config, tags={"phase": "explore"})
    run.log_evaluation({"evaluation": 1, "wer": 0.8, "dev_loss": 2.1})
    run.finish("finished", metrics={"parameters": 61_000}, artifacts=[folder / "config.json"])
    log_report(experiment, Path("report/index.html"), metrics={"best_wer": 0.12})

    address      where MLflow's store is, and texts without passwords
    values       parameters, metrics and tags as MLflow takes them
    store        the database, the experiment and the parent run
    view         what the interface shows before anyone clicks
    trials       what is logged of a trial
    runs         the runs of trials, while they train
    hypotheses   what a model heard, as a page
    parent       the run of the study: its report, and how it ended
    sync         delivers what MLflow lacks
    ui           MLflow's own interface

Everything goes through `MlflowClient` with explicit ids: MLflow's fluent interface keeps a global
stack of runs, and puts a nested run into the active experiment rather than its parent's.
"""
